"""Packages on the local disk: `<digest>/` is the unpacked tree, `<digest>.zip` the archive it came from.

A package is built under a temporary name and renamed when it is whole, the tree last: a tree that is there is complete
and has its archive beside it, unless it was adopted as a tree.
"""

import ctypes
import errno
import hashlib
import os
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torpor.model.errors import NotFound, StoreUnavailable, TooLarge
from torpor.model.function import CodeRef
from torpor.store.ports import Tree
from torpor.store.unpacking import BLOCK, unpack

_UNFINISHED = ".unfinished-"
_DIGEST = re.compile(r"[0-9a-f]{64}(\.zip)?")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskCodeStore:
    """A `CodeStore` in a folder of its own, which it makes. Safe to share between threads, not between processes.

    Every method raises StoreUnavailable when the disk cannot do its part.
    """

    def __init__(self, folder: str) -> None:
        self._root = os.path.abspath(folder)
        self._under_way: set[str] = set()
        self._lock = threading.Lock()
        with self._translated():
            os.makedirs(self._root, exist_ok=True)

    def add(self, archive: bytes, *, unpacked_limit: int) -> CodeRef:
        digest = hashlib.sha256(archive).hexdigest()
        with self._translated():
            if os.path.isdir(self._path(digest)):
                unpacked = _tree_bytes(self._path(digest))
            else:
                unpacked = self._build(digest, archive, unpacked_limit)
        if unpacked > unpacked_limit:
            message = f"The package unpacks to more than {unpacked_limit} bytes."
            raise TooLarge(message, what="unpacked", limit=unpacked_limit)
        return CodeRef(digest=digest, packed_bytes=len(archive), unpacked_bytes=unpacked)

    def adopt(self, tree: Tree, *, unpacked_limit: int) -> CodeRef:
        with self._translated():
            unpacked = _tree_bytes(tree.folder)
            if unpacked > unpacked_limit:
                message = f"What was built has {unpacked} bytes, more than {unpacked_limit}."
                raise TooLarge(message, what="unpacked", limit=unpacked_limit)
            digest = _tree_digest(tree.folder)
            with self._workplace() as place:
                # Moved in first: it may lie on another file system, and only what is whole may get its name.
                shutil.move(tree.folder, f"{place}/tree")
                _flush(place)
                self._publish(digest, f"{place}/tree", None)
        return CodeRef(digest=digest, packed_bytes=unpacked, unpacked_bytes=unpacked)

    def folder(self, code: CodeRef) -> str:
        return self._path(code.digest)

    def archive(self, code: CodeRef) -> bytes:
        with self._translated():
            try:
                with open(self._path(f"{code.digest}.zip"), "rb") as source:
                    return source.read()
            except FileNotFoundError as error:
                raise NotFound(f"There is no package {code.digest}.") from error

    def keep_only(self, used: Iterable[CodeRef]) -> None:
        """Packages whose `add` has returned are removed too unless they are in `used`; those being added are not."""
        kept = {code.digest for code in used}
        with self._translated(), self._lock:
            # Unfinished ones sort first and make way for the names that removing packages takes.
            for name in sorted(os.listdir(self._root)):
                ours = _DIGEST.fullmatch(name) or name.startswith(_UNFINISHED)
                if ours and name.removesuffix(".zip") not in kept and name not in self._under_way:
                    self._remove(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _build(self, digest: str, archive: bytes, limit: int) -> int:
        with self._workplace() as place:
            tree, packed = f"{place}/tree", f"{place}/archive"
            os.mkdir(tree)
            os.chmod(tree, 0o755)
            unpacked = unpack(archive, tree, limit=limit)
            _write(packed, archive)
            _flush(place)
            self._publish(digest, tree, packed)
        return unpacked

    @contextmanager
    def _workplace(self) -> Iterator[str]:
        with self._lock:
            place = tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._root)
            self._under_way.add(os.path.basename(place))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            with self._lock:
                self._under_way.discard(os.path.basename(place))

    def _publish(self, digest: str, tree: str, packed: str | None) -> None:
        with self._lock:
            if os.path.isdir(self._path(digest)):
                # The same package was added twice at once, and the other was faster.
                return
            if packed is not None:
                os.rename(packed, self._path(f"{digest}.zip"))
            try:
                os.rename(tree, self._path(digest))
            except OSError:
                if packed is not None:
                    os.unlink(self._path(f"{digest}.zip"))
                raise
            _flush_directory(self._root)

    def _remove(self, name: str) -> None:
        path = self._path(name)
        if not os.path.isdir(path):
            os.unlink(path)
            return
        if not name.startswith(_UNFINISHED):
            # Renamed first: a tree half removed must never be taken for a whole one.
            place = self._path(f"{_UNFINISHED}{name}")
            os.rename(path, place)
            path = place
        shutil.rmtree(path)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "is full; free some space and try again" if error.errno in _FULL else f"failed: {error.strerror}"
            raise StoreUnavailable(f"The disk of the code folder {self._root} {reason}.") from error


def _write(path: str, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0) as target:
        rest = memoryview(content)
        while rest:
            rest = rest[target.write(rest[:BLOCK]) :]


def _tree_bytes(root: str) -> int:
    """The same sum as unpacking counts: content of files and targets of links."""
    total = 0
    for folder, directories, files in os.walk(root):
        for name in (*files, *directories):
            status = os.lstat(f"{folder}/{name}")
            total += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return total


def _tree_digest(root: str) -> str:
    """Of every name, owner and mode in the tree, of files' content and of links' targets."""
    digest = hashlib.sha256(b"tree")
    for folder, directories, files in os.walk(root):
        directories.sort()
        for name in sorted((*files, *directories)):
            path = f"{folder}/{name}"
            status = os.lstat(path)
            described = (path[len(root) :], status.st_mode, status.st_uid, status.st_gid, status.st_size)
            digest.update(repr(described).encode("utf-8", "surrogateescape"))
            if stat.S_ISLNK(status.st_mode):
                digest.update(os.fsencode(os.readlink(path)))
            elif stat.S_ISREG(status.st_mode):
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as source:
                    digest.update(hashlib.file_digest(source, "sha256").digest())
    return digest.hexdigest()


def _flush(path: str) -> None:
    """Put everything written to this file system on the disk: one call, where a flush per file takes ten times as long.

    C libraries without the call flush every file system instead.
    """
    flush = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if flush is None:
        os.sync()
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if flush(directory) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(directory)


def _flush_directory(path: str) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

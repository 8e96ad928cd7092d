"""Writes the tree of an archive, believing no size the archive states."""

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from torpor.model.errors import InvalidPackage, TooLarge
from torpor.store import links
from torpor.store.package import Item, Tree, plan, refuse_crowded

BLOCK = 1024 * 1024

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


def unpack(archive: bytes, root: str, *, limit: int) -> int:
    """Unpack a zip archive into the empty directory `root`; the bytes its files and links hold.

    Raises InvalidPackage for a broken or unsafe archive, TooLarge for more than `limit` bytes, and OSError when the
    disk fails. What has been written by then is the caller's to remove.
    """
    refuse_crowded(archive)
    with _reading(), zipfile.ZipFile(io.BytesIO(archive)) as package:
        tree = plan(archive, package.infolist())
        return _Writer(package, root, limit).write(tree)


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise InvalidPackage(f"The package is not a readable zip archive: {error}.") from error


class _Writer:
    """One unpacking: the archive, where it goes, and how many bytes may still be written."""

    def __init__(self, package: zipfile.ZipFile, root: str, limit: int) -> None:
        self._package = package
        self._root = root
        self._limit = limit
        self._written = 0

    def write(self, tree: Tree) -> int:
        declared = sum(item.info.file_size for item in (*tree.files.values(), *tree.links.values()))
        if declared > self._limit:
            raise self._too_large()
        targets = {path: self._target(item) for path, item in tree.links.items()}
        links.check(targets)
        for path in tree.directories:
            self._make_directory(path)
        for item in tree.files.values():
            self._write_file(item)
        # Links come last, so that no path written above can lead through one.
        for path, target in targets.items():
            os.symlink(target, f"{self._root}/{path}")
        return self._written

    def _make_directory(self, path: str) -> None:
        os.mkdir(f"{self._root}/{path}")
        # The process's umask must not show in what functions see.
        os.chmod(f"{self._root}/{path}", 0o755)

    def _write_file(self, item: Item) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(f"{self._root}/{item.path}", flags, 0o600), "wb", buffering=0) as target:
            for block in self._blocks(item):
                _write_all(target, block)
            os.fchmod(target.fileno(), item.mode)

    def _target(self, item: Item) -> str:
        if item.info.file_size > links.TARGET_BYTES_MAX:
            raise InvalidPackage(f"The target of the link {item.path!a} is too long.")
        return links.target_of(item.path, b"".join(self._blocks(item)))

    def _blocks(self, item: Item) -> Iterator[bytes]:
        size = 0
        with self._package.open(item.info) as source:
            while block := source.read(BLOCK):
                size += len(block)
                self._written += len(block)
                if self._written > self._limit:
                    raise self._too_large()
                yield block
        if size != item.info.file_size:
            raise InvalidPackage(f"The entry {item.path!a} is not as long as the archive says.")

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The package unpacks to more than {self._limit} bytes.", what="unpacked", limit=self._limit)


def _write_all(target: io.RawIOBase | io.FileIO, block: bytes) -> None:
    rest = memoryview(block)
    while rest:
        rest = rest[target.write(rest) or 0 :]

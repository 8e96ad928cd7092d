"""What the stores do to a disk, and what its errors mean."""

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from torpor.model.errors import StoreUnavailable
from torpor.store.unpacking import BLOCK

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Errors of the disk leave the block as StoreUnavailable, naming `place`."""
    try:
        yield
    except OSError as error:
        reason = "is full; free some space and try again" if error.errno in _FULL else f"failed: {error.strerror}"
        raise StoreUnavailable(f"The disk of the code folder {place} {reason}.") from error


def write(path: str, content: bytes) -> None:
    """Make a new file, private to the server."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0) as target:
        rest = memoryview(content)
        while rest:
            rest = rest[target.write(rest[:BLOCK]) :]


def remove(root: str) -> None:
    """Remove a tree as far as possible, also where its folders forbid that to their owner: builds may leave such."""
    shutil.rmtree(root, ignore_errors=True)
    if not os.path.isdir(root):
        return
    _open_up(root)
    for folder, names, _ in os.walk(root):
        for name in names:  # before the walk enters them
            _open_up(f"{folder}/{name}")
    shutil.rmtree(root, ignore_errors=True)


def _open_up(folder: str) -> None:
    if not os.path.islink(folder):
        with suppress(OSError):
            os.chmod(folder, 0o700)


def tree_bytes(root: str) -> int:
    """The same sum as unpacking counts: content of files and targets of links."""
    total = 0
    for folder, directories, files in os.walk(root):
        for name in (*files, *directories):
            status = os.lstat(f"{folder}/{name}")
            total += 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return total


def tree_digest(root: str) -> str:
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


def flush(path: str) -> None:
    """Put everything written to this file system on the disk: one call, where a flush per file takes ten times as long.

    C libraries without the call flush every file system instead.
    """
    flush_all = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if flush_all is None:
        os.sync()
        return
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if flush_all(directory) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(directory)


def flush_path(path: str) -> None:
    """Put a file, or the names in a folder, on the disk."""
    opened = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

"""Copying what a sandbox changed to a folder of the server's. Nothing in it is trusted.

Every step is taken from an open folder and never through a link. Owners, set-user bits, devices and sockets are left
behind; the marks by which overlays tell what was removed are kept where a layer is copied.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import Any

from . import syscalls

_DEEPEST = 200
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")
_AT_ONCE = 1 << 24


def save(code: int, uppers: dict[str, int], target: int) -> None:
    """Copy the folder of the code to `code` below the target, each changed layer to `system/<name>`. Raises OSError."""
    _make(target, "code")
    _Copy(target, "code", layer=False).run(code)
    changed = {name: upper for name, upper in uppers.items() if name != "code" and os.listdir(upper)}
    if changed:
        _make(target, "system")
    for name, upper in changed.items():
        _make(target, f"system/{name}")
        _Copy(target, f"system/{name}", layer=True).run(upper)


def _make(target: int, path: str) -> None:
    os.mkdir(path, dir_fd=target)
    os.chmod(path, 0o755, dir_fd=target)


class _Copy:
    """One tree."""

    def __init__(self, root: int, path: str, *, layer: bool) -> None:
        self._root = root
        self._path = path
        self._layer = layer
        self._linked: dict[tuple[int, int], str] = {}
        """Where files with several names were copied to."""

    def run(self, source: int) -> None:
        target = os.open(self._path, _FOLDER, dir_fd=self._root)
        try:
            self._folder(source, target, self._path)
            os.fchmod(target, stat.S_IMODE(os.fstat(source).st_mode) & 0o755 | 0o555)
        finally:
            os.close(target)

    def _folder(self, source: int, target: int, path: str) -> None:
        if path.count("/") > _DEEPEST:
            raise OSError(f"folders are nested more than {_DEEPEST} deep: {path[:80]}...")
        for name in os.listdir(source):
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFDIR:
                self._enter(source, target, name, path, status)
            elif kind == stat.S_IFREG:
                self._file(source, target, name, path, status)
            elif kind == stat.S_IFLNK:
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            elif kind == stat.S_IFCHR and status.st_rdev == 0 and self._layer:
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=target)

    def _enter(self, source: int, target: int, name: str, path: str, status: os.stat_result) -> None:
        inner = os.open(name, _FOLDER, dir_fd=source)
        made = -1
        try:
            os.mkdir(name, 0o700, dir_fd=target)
            made = os.open(name, _FOLDER, dir_fd=target)
            self._folder(inner, made, f"{path}/{name}")
            if self._layer:
                _copy_opaque(inner, made)
            os.fchmod(made, stat.S_IMODE(status.st_mode) & 0o1777)
            os.utime(made, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(inner)
            if made >= 0:
                os.close(made)

    def _file(self, source: int, target: int, name: str, path: str, status: os.stat_result) -> None:
        key = (status.st_dev, status.st_ino)
        earlier = self._linked.get(key)
        if earlier is not None:
            os.link(earlier, name, src_dir_fd=self._root, dst_dir_fd=target)
            return
        if status.st_nlink > 1:
            self._linked[key] = f"{path}/{name}"
        reading = os.open(name, _FILE, dir_fd=source)
        writing = -1
        try:
            writing = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=target)
            _copy_content(reading, writing, os.fstat(reading).st_size)
            os.fchmod(writing, stat.S_IMODE(status.st_mode) & 0o777)
            os.utime(writing, ns=(status.st_atime_ns, status.st_mtime_ns))
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)


def _copy_opaque(source: int, target: int) -> None:
    for name in _OPAQUE:
        with contextlib.suppress(OSError):
            os.setxattr(target, name, os.getxattr(source, name))


def _copy_content(source: int, target: int, size: int) -> None:
    """Copy what there is and leave holes out: a file may claim to be larger than any disk."""
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError:
            return
        position = min(os.lseek(source, start, os.SEEK_HOLE), size)
        os.lseek(target, start, os.SEEK_SET)
        while start < position:
            done = os.sendfile(target, source, start, min(position - start, _AT_ONCE))
            if not done:
                return
            start += done


class Saver:
    """The keeper's child that saves, so that the keeper goes on serving."""

    def __init__(self) -> None:
        self._pid = -1
        self._report = -1

    def begin(self, code: str, uppers: dict[str, int], target: int) -> None:
        """Start copying. Raises OSError."""
        reading, writing = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            self._run(code, uppers, target, writing)
        os.close(writing)
        self._pid, self._report = pid, reading

    def _run(self, code: str, uppers: dict[str, int], target: int, writing: int) -> Any:
        failure = ""
        try:
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
            save(os.open(code, _FOLDER), uppers, target)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, (failure or "done").encode("utf-8", "replace")[:1000])
            os._exit(0)

    def ended(self, pid: int) -> str | None:
        """How it went if this was the child: empty, or the reason; None if it was not."""
        if pid != self._pid:
            return None
        told = os.read(self._report, 4096).decode("utf-8", "replace")
        os.close(self._report)
        self._pid = self._report = -1
        return "" if told == "done" else told or "it was ended"

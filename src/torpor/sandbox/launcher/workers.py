"""Sockets inside on which the server takes the output of a process's workers."""

from __future__ import annotations

import contextlib
import os
import socket

from . import places, syscalls

_BACKLOG = 1024
_MOUNT_OPTIONS = "mode=0755,size=64k,nr_inodes=64"


class Sockets:
    """The listening sockets of one sandbox, each at a path of its own. Their folder is made with the first."""

    def __init__(self) -> None:
        self._paths: dict[str, str] = {}
        self._count = 0

    def open(self, name: str) -> tuple[str, socket.socket]:
        """A new socket for this process, in place of its earlier one, and its path. Raises OSError."""
        if not self._count:
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
            syscalls.mount("workers", places.WORKERS, "tmpfs", flags, _MOUNT_OPTIONS)
        self._forget(name)
        self._count += 1
        path = f"{places.WORKERS}/{self._count}"
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listening.bind(path)
            os.chmod(path, 0o666)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
        self._paths[name] = path
        return path, listening

    def _forget(self, name: str) -> None:
        with contextlib.suppress(KeyError, OSError):
            os.unlink(self._paths.pop(name))

"""The reading end of a sandbox's output pipe."""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable

CHUNK = 64 * 1024


class OutputReader:
    """Owns the descriptor; delivers what arrives in pieces of at most CHUNK bytes until `close` or the pipe's end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, descriptor: int, deliver: Callable[[bytes], None]) -> None:
        os.set_blocking(descriptor, False)
        self._loop = loop
        self._descriptor = descriptor
        self._deliver = deliver
        self._open = True
        loop.add_reader(descriptor, self._read_once)

    def drain(self) -> None:
        """Deliver what the pipe holds now, and no more: a process that writes on cannot keep this call busy."""
        waiting = self._waiting() if self._open else 0
        while waiting > 0 and self._open:
            read = self._read_once(waiting)
            waiting = waiting - read if read else 0

    def close(self) -> None:
        """Idempotent; what was not delivered is lost."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _read_once(self, most: int = CHUNK) -> int:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, min(most, CHUNK))
            if not data:
                self.close()
                return 0
            self._deliver(data)
            return len(data)
        return 0

    def _waiting(self) -> int:
        answer = fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

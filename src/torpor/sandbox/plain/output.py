"""One output pipe, read by the event loop."""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable

CHUNK = 64 * 1024
"""Bytes delivered at most in one call."""


class OutputPipe:
    """A pipe whose writing end processes inherit and whose reading end is delivered piece by piece.

    The writing end stays open here for the sandbox's life, so the pipe never ends between two sets of processes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, deliver: Callable[[bytes], None]) -> None:
        self._loop = loop
        self._deliver = deliver
        self._reader, self.writer = os.pipe()
        os.set_blocking(self._reader, False)
        loop.add_reader(self._reader, self._read_once)
        self._open = True

    def _read_once(self, most: int = CHUNK) -> int:
        with contextlib.suppress(BlockingIOError):
            if data := os.read(self._reader, min(most, CHUNK)):
                self._deliver(data)
                return len(data)
        return 0

    def drain(self) -> None:
        """Deliver what the pipe holds now, and no more: a process that writes on cannot keep this call busy."""
        waiting = self._waiting() if self._open else 0
        # A delivery may close the pipe.
        while waiting > 0 and self._open:
            read = self._read_once(waiting)
            waiting = waiting - read if read else 0

    def _waiting(self) -> int:
        answer = fcntl.ioctl(self._reader, termios.FIONREAD, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])

    def close(self) -> None:
        """Close both ends; what was not delivered is lost. Idempotent."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            os.close(self.writer)

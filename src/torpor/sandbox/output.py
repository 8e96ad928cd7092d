"""The reading end of a pipe or stream that processes inside write to."""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections.abc import Callable

CHUNK = 64 * 1024


def _nothing() -> None:
    """Nobody wants to be told of the end."""


class OutputReader:
    """Owns the descriptor; delivers what arrives in pieces of at most CHUNK bytes until `close` or the stream's end,
    which `ended` is told."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        descriptor: int,
        deliver: Callable[[bytes], None],
        ended: Callable[[], None] = _nothing,
    ) -> None:
        os.set_blocking(descriptor, False)
        self._loop = loop
        self._descriptor = descriptor
        self._deliver = deliver
        self._ended = ended
        self._open = True
        loop.add_reader(descriptor, self.read_once)

    def drain(self) -> int:
        """Deliver what the pipe holds now, and no more: a process that writes on cannot keep this call busy.

        How many bytes it held."""
        held = waiting = self._waiting() if self._open else 0
        # A delivery may close the pipe.
        while waiting > 0 and self._open:
            read = self.read_once(waiting)
            waiting = waiting - read if read else 0
        return held

    def close(self) -> None:
        """Idempotent; what was not delivered is lost, and nobody is told."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def read_once(self, most: int = CHUNK) -> int:
        """Deliver one piece, or notice the end; how many bytes it was. Never waits."""
        if not self._open:
            return 0
        try:
            data = os.read(self._descriptor, min(most, CHUNK))
        except BlockingIOError:
            return 0
        except OSError:  # a connection that was reset
            data = b""
        if not data:
            self.close()
            self._ended()
            return 0
        self._deliver(data)
        return len(data)

    def _waiting(self) -> int:
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(self._descriptor, termios.FIONREAD, b"\0\0\0\0")
            return int(struct.unpack("i", answer)[0])
        return 0

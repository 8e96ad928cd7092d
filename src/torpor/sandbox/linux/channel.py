"""A packet socket to a launcher or keeper, read by the event loop and written without ever blocking it."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from torpor.sandbox.launcher import wire

OnMessage = Callable[[wire.Message, list[int]], None]
_BURST = 16


class Channel:
    """Owns the socket. `on_closed` is called once when the other side is gone, never after `close`.

    Received descriptors belong to `on_message`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_message: OnMessage,
        on_closed: Callable[[], None],
    ) -> None:
        connection.setblocking(False)
        self._loop = loop
        self._connection = connection
        self._on_message = on_message
        self._on_closed = on_closed
        self._waiting: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._open = True
        loop.add_reader(connection.fileno(), self._read)

    def send(self, message: wire.Message, descriptors: tuple[int, ...] = ()) -> None:
        """Send now, or as soon as there is room. The descriptors are closed here. Raises wire.TooLong."""
        try:
            data = wire.encode(message)
        except wire.TooLong:
            wire.close_all(list(descriptors))
            raise
        if not self._open:
            wire.close_all(list(descriptors))
            return
        self._waiting.append((data, descriptors))
        if len(self._waiting) == 1:
            self._write()

    def close(self) -> None:
        """Idempotent; packets not yet sent are dropped."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._connection.fileno())
        self._loop.remove_writer(self._connection.fileno())
        self._connection.close()
        for _, descriptors in self._waiting:
            wire.close_all(list(descriptors))
        self._waiting.clear()

    def _write(self) -> None:
        while self._waiting:
            data, descriptors = self._waiting[0]
            try:
                wire.send_packet(self._connection, data, descriptors)
            except BlockingIOError:
                self._loop.add_writer(self._connection.fileno(), self._write)
                return
            except OSError:
                pass  # The reader is told of the other side's end.
            self._waiting.popleft()
            wire.close_all(list(descriptors))
        self._loop.remove_writer(self._connection.fileno())

    def _read(self) -> None:
        for _ in range(_BURST):
            if not self._open:
                return
            try:
                received = wire.receive(self._connection)
            except BlockingIOError:
                return
            if received is None:
                self.close()
                self._on_closed()
                return
            self._on_message(*received)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, both close-on-exec."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

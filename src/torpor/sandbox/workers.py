"""Sockets to which the workers of a process connect for their output: one connection for each stream of each worker."""

import asyncio
import itertools
import socket
from collections.abc import Iterator
from typing import Protocol

from torpor.sandbox.output import OutputReader

BACKLOG = 1024
_DRAINED_AT_ONCE = 8 * 1024 * 1024
_RETRY_SECONDS = 0.1
"""When the server has no descriptor left for a connection that waits."""


class WorkerListener(Protocol):
    """The part of `SandboxListener` that is told here."""

    def worker_output(self, connection: int, data: bytes) -> None: ...

    def worker_closed(self, connection: int) -> None: ...


class WorkerOutputs:
    """The sockets of one sandbox, by the process they were made for. Connections are numbered from 1."""

    def __init__(self, loop: asyncio.AbstractEventLoop, listener: WorkerListener) -> None:
        self._loop = loop
        self._listener = listener
        self._numbers = itertools.count(1)
        self._sockets: dict[str, WorkerSocket] = {}

    def open(self, name: str, listening: socket.socket, most: int) -> None:
        """Accept up to `most` connections at once on a socket that listens; it is owned here. The process's earlier
        socket, if any, is closed."""
        self._end(name)
        self._sockets[name] = WorkerSocket(self._loop, listening, most, self._listener, self._numbers)

    def drain(self) -> None:
        """Deliver what was written so far, and tell of connections that have ended."""
        for item in list(self._sockets.values()):
            item.drain()

    def close(self) -> None:
        """Close everything; nothing more is told. Idempotent."""
        for item in self._sockets.values():
            item.close()
        self._sockets.clear()

    def _end(self, name: str) -> None:
        earlier = self._sockets.pop(name, None)
        if earlier is not None:
            earlier.drain()
            earlier.finish()


class WorkerSocket:
    """One listening socket and its connections."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listening: socket.socket,
        most: int,
        listener: WorkerListener,
        numbers: Iterator[int],
    ) -> None:
        listening.setblocking(False)
        self._loop = loop
        self._listening = listening
        self._most = most
        self._listener = listener
        self._numbers = numbers
        self._readers: dict[int, OutputReader] = {}
        self._accepting = False
        self._open = True
        self._watch()

    def drain(self) -> None:
        """Deliver what all connections hold, so much at most that the loop is not kept for long."""
        self._accept()
        left = _DRAINED_AT_ONCE
        for reader in list(self._readers.values()):
            left -= reader.drain()
            reader.read_once()
            if left <= 0:
                return

    def finish(self) -> None:
        """Close it, and tell of every connection that it has ended."""
        numbers = list(self._readers)
        self.close()
        for number in numbers:
            self._listener.worker_closed(number)

    def close(self) -> None:
        self._open = False
        self._rest()
        self._listening.close()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _watch(self) -> None:
        """Accept what comes, if there is room for it."""
        if self._open and not self._accepting and len(self._readers) < self._most:
            self._accepting = True
            self._loop.add_reader(self._listening.fileno(), self._accept)

    def _rest(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listening.fileno())

    def _accept(self) -> None:
        while self._open and len(self._readers) < self._most:
            try:
                connection, _ = self._listening.accept()
            except BlockingIOError:
                return
            except OSError:
                self._rest()
                self._loop.call_later(_RETRY_SECONDS, self._watch)
                return
            self._adopt(connection)
        self._rest()

    def _adopt(self, connection: socket.socket) -> None:
        number = next(self._numbers)

        def ended() -> None:
            del self._readers[number]
            self._listener.worker_closed(number)
            self._watch()

        def deliver(data: bytes) -> None:
            self._listener.worker_output(number, data)

        self._readers[number] = OutputReader(self._loop, connection.detach(), deliver, ended)

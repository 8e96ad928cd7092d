"""Passing name queries of sandboxes to the host's resolvers, answers back, nothing kept."""

import asyncio
import contextlib
import functools
import os
import socket
from collections.abc import Callable, Sequence

_RESOLV_CONF = "/etc/resolv.conf"
_PORT = 53
_SECONDS_EACH = 2.5
_ATTEMPTS = 2
_PENDING_LIMIT = 256
_HEADER = 12

Client = tuple[str, int]


class Resolvers:
    """The resolvers to ask: the given ones, or those of the host, which may change while we run."""

    def __init__(self, fixed: Sequence[str] = (), path: str = _RESOLV_CONF) -> None:
        self._found = list(fixed)
        self._path = None if fixed else path
        self._read_at: int | None = None

    def __call__(self) -> list[str]:
        if self._path is not None:
            try:
                changed = os.stat(self._path).st_mtime_ns
                if changed != self._read_at:
                    self._read_at = changed
                    with open(self._path, encoding="utf-8", errors="replace") as file:
                        self._found = name_servers(file.read())
            except OSError:
                self._found = []
        return self._found or ["127.0.0.1"]


def name_servers(text: str) -> list[str]:
    """The addresses of a `resolv.conf`, in order."""
    words = [line.split() for line in text.splitlines()]
    return [line[1] for line in words if len(line) >= 2 and line[0] == "nameserver"]


def failure_answer(query: bytes) -> bytes:
    """The answer that says the servers failed, so that a program need not wait for its own timeout."""
    return query[:2] + bytes([query[2] | 0x80, 0x82]) + query[4:]


class NameRelay:
    """Serves one sandbox's query socket until closed. `counted` is called for each query taken."""

    def __init__(self, names: socket.socket, resolvers: Resolvers, counted: Callable[[], None]) -> None:
        self._names = names
        self._resolvers = resolvers
        self._counted = counted
        self._pending: set[_Query] = set()
        self._loop = asyncio.get_running_loop()
        names.setblocking(False)
        self._loop.add_reader(names.fileno(), self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._names.fileno())
        for query in list(self._pending):
            query.close()
        self._names.close()

    def _readable(self) -> None:
        for _ in range(32):
            try:
                data, client = self._names.recvfrom(65535)
            except OSError:
                return
            if len(data) >= _HEADER and len(self._pending) < _PENDING_LIMIT:
                self._counted()
                query = _Query(data, self._resolvers(), functools.partial(self._answer, client))
                self._pending.add(query)
                query.ended = self._pending.discard
                query.ask()

    def _answer(self, client: Client, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a full buffer loses a datagram, as any network may
            self._names.sendto(data, client)


class _Query:
    """One query on its way: asks one resolver after the other, each on a socket of its own."""

    def __init__(self, data: bytes, resolvers: list[str], answer: Callable[[bytes], None]) -> None:
        self._data = data
        self._left = (resolvers * _ATTEMPTS)[: max(_ATTEMPTS, len(resolvers))]
        self._answer = answer
        self._socket: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.ended: Callable[[_Query], None] = lambda _: None

    def ask(self) -> None:
        self._release()
        if not self._left:
            self._answer(failure_answer(self._data))
            self.ended(self)
            return
        resolver = self._left.pop(0)
        self._timer = self._loop.call_later(_SECONDS_EACH, self.ask)
        try:
            family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
            self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            self._socket.connect((resolver, _PORT))
            self._socket.send(self._data)
        except OSError:
            self._soon()
            return
        self._loop.add_reader(self._socket.fileno(), self._readable)

    def close(self) -> None:
        self._release()
        self.ended(self)

    def _soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(0, self.ask)

    def _readable(self) -> None:
        assert self._socket is not None
        try:
            answer = self._socket.recv(65535)
        except BlockingIOError:
            return
        except OSError:
            self._loop.remove_reader(self._socket.fileno())
            self._soon()
            return
        if answer[:2] == self._data[:2]:
            self._answer(answer)
            self.close()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

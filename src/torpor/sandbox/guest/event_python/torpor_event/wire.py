"""A small HTTP/1.1 server on one thread: connections stay open, and requests are answered one at a time.

Its one client is the platform, so it knows no more of HTTP than that sends: bodies have a length.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Mapping
from typing import NamedTuple

_HEAD_MAX = 65536
_READ = 65536
_READ_MAX = 1 << 20
_ONE_WRITE = 65536
_REASONS = {200: "OK", 404: "Not Found"}
_REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Request(NamedTuple):
    """A complete request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(NamedTuple):
    """What is sent back."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}


def listen(port: int) -> socket.socket:
    """Open the port on all addresses. Raises OSError."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("0.0.0.0", port))
    listener.listen(128)
    listener.setblocking(False)
    return listener


def serve(listener: socket.socket, answer: Callable[[Request], Answer]) -> None:
    """Answer for ever. Ends only by an exception of `answer`."""
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    connections: dict[int, _Connection] = {}
    while True:
        for number, _ in poll.poll():
            connection = connections.get(number)
            if connection is None:
                _accept(listener, poll, connections)
            elif not connection.advance(answer):
                poll.unregister(number)
                connections.pop(number).close()


def _accept(listener: socket.socket, poll: select.poll, connections: dict[int, _Connection]) -> None:
    try:
        accepted, _ = listener.accept()
    except OSError:
        return  # It has gone again.
    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connections[accepted.fileno()] = _Connection(accepted)
    poll.register(accepted, select.POLLIN)


class _Connection:
    """One kept-open connection and what has come of its next request."""

    def __init__(self, accepted: socket.socket) -> None:
        accepted.setblocking(True)
        self._socket = accepted
        self._buffer = bytearray()
        self._head: Request | None = None
        self._needed = 0

    def advance(self, answer: Callable[[Request], Answer]) -> bool:
        """Read what is there and answer what is complete. False when the connection has ended."""
        try:
            data = self._socket.recv(max(_READ, min(self._needed - len(self._buffer), _READ_MAX)))
            self._buffer += data
            alive = bool(data)
            while alive and (request := self._take()) is not None:
                alive = self._send(answer(request)) and request.headers.get("connection", "").lower() != "close"
            return alive
        except ValueError:
            self._socket.sendall(_REFUSAL)
            return False
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()

    def _take(self) -> Request | None:
        """The next request, when all of it is here. Raises ValueError if it is none that is understood."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > _HEAD_MAX:
                    raise ValueError("the head of a request is too large")
                return None
            self._head = _parse(self._buffer[:end].decode("latin-1"))
            del self._buffer[: end + 4]
            self._needed = int(self._head.headers.get("content-length", 0))
        if len(self._buffer) < self._needed:
            return None
        head, self._head = self._head, None
        body = bytes(self._buffer) if len(self._buffer) == self._needed else bytes(self._buffer[: self._needed])
        del self._buffer[: self._needed]
        self._needed = 0
        return head._replace(body=body)

    def _send(self, answer: Answer) -> bool:
        lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}", f"Content-Length: {len(answer.body)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        head = ("\r\n".join(lines) + "\r\nConnection: keep-alive\r\n\r\n").encode("latin-1")
        if len(answer.body) <= _ONE_WRITE:
            self._socket.sendall(head + answer.body)
        else:
            self._socket.sendall(head)
            self._socket.sendall(answer.body)
        return True


def _parse(head: str) -> Request:
    first, *lines = head.split("\r\n")
    method, path, _ = first.split(" ")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise ValueError("bodies need a length")
    return Request(method, path, headers, b"")

"""A listening socket and its connections. Light: thousands of servers may share one event loop."""

import asyncio
import contextlib
import errno
import os
import socket
from dataclasses import dataclass

from torpor.model.errors import PlatformError
from torpor.transport.attention import Attention
from torpor.transport.connection import Connection
from torpor.transport.exchange import Application, Streams
from torpor.transport.limits import HttpLimits, Ticks
from torpor.transport.response import ErrorFace, json_error
from torpor.transport.streaming import StreamingConnection
from torpor.transport.wheel import wheel_of_loop

_BACKLOG = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """Counts of one server; all but the first two since it began to listen."""

    connections: int
    in_flight: int
    requests: int
    refusals: int
    """Requests the server answered itself, with an error."""
    timeouts: int


class HttpServer:
    """Made by `listen`."""

    __slots__ = (
        "_connections",
        "_emptied",
        "_listener",
        "_path",
        "_streams",
        "app",
        "attention",
        "draining",
        "limits",
        "on_error",
        "refusals",
        "requests",
        "ticks",
        "timeouts",
        "wheel",
    )

    def __init__(
        self,
        app: Application,
        limits: HttpLimits,
        on_error: ErrorFace,
        attention: Attention,
        streams: Streams | None = None,
    ) -> None:
        self.app = app
        self.attention = attention
        self.limits = limits
        self.on_error = on_error
        self.ticks = Ticks(limits)
        self.wheel = wheel_of_loop()
        self._streams = streams
        self.draining = False
        self.requests = self.refusals = self.timeouts = 0
        self._connections: set[Connection] = set()
        self._emptied: asyncio.Event | None = None
        self._listener: asyncio.Server | None = None
        self._path: str | None = None

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """The listening sockets; none once closed or draining."""
        return tuple(self._listener.sockets) if self._listener is not None else ()

    @property
    def port(self) -> int:
        """The TCP port listened on; 0 on a Unix socket or once closed."""
        for listening in self.sockets:
            name = listening.getsockname()
            if isinstance(name, tuple):
                return int(name[1])
        return 0

    @property
    def connections(self) -> int:
        """Open connections."""
        return len(self._connections)

    def statistics(self) -> ServerStatistics:
        """What the server does and has done."""
        return ServerStatistics(
            connections=len(self._connections),
            in_flight=sum(connection.serving for connection in self._connections),
            requests=self.requests,
            refusals=self.refusals,
            timeouts=self.timeouts,
        )

    async def drain(self, timeout: float) -> bool:
        """Accept no more, close idle connections and let requests under way finish; True if all did in time.

        `timeout` is in seconds. Answers given from now on close their connection. Call `close` afterwards.
        """
        self._stop_listening()
        self.draining = True
        for connection in tuple(self._connections):
            connection.retire()
        try:
            await asyncio.wait_for(self.wait_closed(), timeout)
        except TimeoutError:
            return False
        return True

    async def wait_closed(self) -> None:
        """Wait until no connection is left; returns at once if there is none. Used after `close`."""
        if self._connections:
            self._emptied = self._emptied or asyncio.Event()
            await self._emptied.wait()

    def close(self) -> None:
        """Stop listening and drop every connection; exchanges in flight hear of a disconnect. Idempotent."""
        self._stop_listening()
        self.draining = True
        for connection in tuple(self._connections):
            connection.abort()

    def joined(self, connection: Connection) -> bool:
        """For connections."""
        self._connections.add(connection)
        return len(self._connections) <= self.limits.connections

    def left(self, connection: Connection) -> None:
        """For connections."""
        self._connections.discard(connection)
        if self._emptied is not None and not self._connections:
            self._emptied.set()

    def accept(self) -> Connection:
        """The protocol of a connection just accepted; for the event loop."""
        return Connection(self) if self._streams is None else StreamingConnection(self, self._streams)

    def listening(self, listener: asyncio.Server, path: str | None) -> None:
        """For `listen`."""
        self._listener, self._path = listener, path

    def _stop_listening(self) -> None:
        if self._listener is None:
            return
        self._listener.close()
        self._listener = None
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)


async def listen(
    app: Application,
    *,
    host: str | None = None,
    port: int | None = None,
    path: str | None = None,
    sock: socket.socket | None = None,
    limits: HttpLimits | None = None,
    on_error: ErrorFace = json_error,
    attention: Attention | None = None,
    streams: Streams | None = None,
) -> HttpServer:
    """Serve `app` on a TCP address, on a Unix socket at `path`, or on `sock`, which then belongs to the server.

    `on_error` shapes the errors the server answers itself; `attention` is told of all that arrives.
    Requests for which `streams` is true are served before their body is complete, and may offer to change the protocol.
    Raises PlatformError if the place cannot be listened on.
    """
    server = HttpServer(app, limits or HttpLimits(), on_error, attention or Attention(), streams)
    loop = asyncio.get_running_loop()
    try:
        if sock is not None:
            listener = await loop.create_server(server.accept, sock=sock, backlog=_BACKLOG)
        elif path is not None:
            listener = await loop.create_unix_server(server.accept, path, backlog=_BACKLOG)
        else:
            listener = await loop.create_server(server.accept, host or "127.0.0.1", port or 0, backlog=_BACKLOG)
    except OSError as error:
        raise PlatformError(f"Cannot listen on {path or sock or f'{host}:{port}'}: {_why(error)}.") from error
    server.listening(listener, path)
    return server


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens there; stop it or take another port"
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error)

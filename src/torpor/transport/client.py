"""A connection to a server inside: one request at a time, the answer told piece by piece."""

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol, cast

from torpor.transport.response_parser import AnswerFields, ClientLimits, Loss, LossKind, ResponseParser
from torpor.transport.tunnel import Tunnel
from torpor.transport.waiting import within
from torpor.transport.wheel import Timed, TimerWheel, ticks, wheel_of_loop
from torpor.transport.writer import JOINED, Output

_LAST_CHUNK = b"0\r\n\r\n"


class ResponseSink(Protocol):
    """Told what comes of a request: `head`, any number of `data`, `end`; or `lost` instead of what is left; or
    `upgraded`. Interim answers are passed over."""

    def head(self, status: int, headers: AnswerFields) -> None: ...

    def data(self, chunk: bytes) -> None: ...

    def end(self, reusable: bool) -> None:
        """The answer is whole; `reusable` if the connection takes another request, from now on."""
        ...

    def lost(self, loss: Loss) -> None: ...

    def upgraded(self, status: int, headers: AnswerFields, rest: bytes) -> None:
        """The server has changed the protocol; `rest` is what it sent after its head, for `ClientConnection.tunnel`."""
        ...

    def writable(self) -> None:
        """The server has caught up after `write` returned False."""
        ...


def refused(error: OSError) -> Loss:
    """The loss that a failed `connect` is."""
    if isinstance(error, TimeoutError):
        return Loss(LossKind.TIMEOUT, "The server did not accept the connection in time.", False)
    return Loss(LossKind.REFUSED, f"The server cannot be reached: {error.strerror or error}.", False)


class ClientConnection(asyncio.Protocol, Timed):
    """Made by `connect`. Not for use from other threads than the event loop's."""

    __slots__ = (
        "_chunked",
        "_output",
        "_parser",
        "_patience",
        "_paused",
        "_sending",
        "_sink",
        "_wheel",
        "closed",
        "on_closed",
    )

    _output: Output

    def __init__(self, limits: ClientLimits) -> None:
        Timed.__init__(self)
        self._parser = ResponseParser(limits)
        self._patience = ticks(limits.silence_timeout) if limits.silence_timeout else 0
        self._wheel: TimerWheel = wheel_of_loop()
        self._sink: ResponseSink | None = None
        self._sending = self._chunked = self._paused = False
        self.closed = False
        """Whether no request can be sent any more."""
        self.on_closed: Callable[[], None] | None = None
        """Called if the server closes the connection between two requests."""

    @property
    def idle(self) -> bool:
        """Whether the next request can be sent."""
        return self._sink is None and not self.closed

    def send(
        self,
        head: bytes,
        body: bytes,
        sink: ResponseSink,
        *,
        head_only: bool = False,
        more: bool = False,
        chunked: bool = False,
        upgrade: bool = False,
    ) -> None:
        """Send a request; what comes of it goes to the sink, which may hear of a loss at once. Only while `idle`, else
        RuntimeError is raised.

        `head_only` for a HEAD request. `more` if `write` and `finish_body` follow; `chunked` as the head says.
        `upgrade` if the head offers another protocol.
        """
        if self._sink is not None or self.closed:
            raise RuntimeError("A request was sent on a connection that is not idle.")
        self._sink = sink
        self._sending, self._chunked = more, chunked
        self._parser.begin(head_only=head_only, upgrade=upgrade)
        if self._output.transport.is_closing():
            self._lose(self._broken())
            return
        if chunked:
            body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + (b"" if more else _LAST_CHUNK)
        if len(body) <= JOINED:
            self._output.write(head + body)
        else:
            self._output.write(head)
            self._output.write(body)
        if self._patience:
            self._wait()

    def write(self, data: bytes) -> bool:
        """A piece of the request's body, framed here. False if the server takes it too slowly (then the sink's
        `writable` follows), or if no body is wanted any more."""
        if not self._sending or self._output.transport.is_closing():
            return False
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
        if data:
            self._output.write(data)
            self._wait()
        return not self._output.blocked

    def finish_body(self) -> None:
        """The request's body is complete."""
        if self._sending:
            self._sending = False
            if self._chunked and not self._output.transport.is_closing():
                self._output.write(_LAST_CHUNK)
            self._wait()

    def pause(self) -> None:
        """Read no more of the answer until `resume`; time-outs wait too."""
        if not self._paused and not self._output.transport.is_closing():
            self._paused = True
            self.deadline = 0
            self._output.transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._paused:
            self._paused = False
            if not self._output.transport.is_closing():
                self._output.transport.resume_reading()
            self._wait()

    def close(self) -> None:
        """Close once what was written is out. The sink of a request in flight hears nothing more."""
        self._retire()
        self._output.transport.close()

    def abort(self) -> None:
        """Break the connection at once: the server sees that a request in flight was given up. Its sink hears nothing
        more."""
        self._retire()
        if not self._output.transport.is_closing():
            self._output.reset()

    def tunnel(self, rest: bytes = b"") -> Tunnel:
        """The connection as a tunnel, after `upgraded`, whose `rest` comes first out of it."""
        self._retire()
        return Tunnel(self._output, rest, self.connection_lost)

    # Told by the event loop and the timer wheel.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._output = Output(cast(asyncio.Transport, transport), self._parser.limits.output_bytes)

    def data_received(self, data: bytes) -> None:
        sink = self._sink
        if sink is None:
            self._forget()
            return
        parser = self._parser
        loss = parser.feed(data)
        if loss is not None:
            self._lose(loss)
            return
        if self._patience:
            self._wait()
        if parser.headed and self._tell_head(sink) is not sink:
            return
        piece = parser.take()
        if piece:
            sink.data(piece)
            if self._sink is not sink:
                return
        if parser.done:
            self._complete(sink)
        elif not self._output.transport.is_closing():
            self._output.acknowledge()

    def eof_received(self) -> bool:
        sink = self._sink
        if sink is None:
            self._forget()
            return False
        loss = self._parser.finish()
        if loss is not None:
            self._lose(loss)
        else:
            self._complete(sink)
        return False

    def pause_writing(self) -> None:
        self._output.blocked = True
        self._output.progressed()

    def resume_writing(self) -> None:
        self._output.blocked = False
        if self._sink is not None:
            self._sink.writable()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._sink is not None:
            self._lose(self._broken())
        elif not self.closed:
            self._forget()
        self._wheel.forget(self)
        self._parser.close()

    def expire(self) -> None:
        """The server has been silent for too long."""
        if self._output.progressed():
            self._wait()
        elif self._sink is not None:
            self._lose(Loss(LossKind.TIMEOUT, "The server fell silent.", self._parser.started))

    # What follows.

    def _tell_head(self, sink: ResponseSink) -> ResponseSink | None:
        parser = self._parser
        parser.headed = False
        headers = parser.headers
        assert headers is not None, "a head has come"
        if parser.switched:
            self._sink = None
            self.closed, self.deadline = True, 0
            self._output.transport.pause_reading()
            sink.upgraded(parser.status, headers, parser.rest)
        else:
            sink.head(parser.status, headers)
        return self._sink

    def _complete(self, sink: ResponseSink) -> None:
        self._sink = None
        self.deadline = 0
        reusable = self._parser.keep_alive and not self._sending and not self._output.transport.is_closing()
        if not reusable:
            self._end()
        elif self._paused:
            self.resume()
        sink.end(reusable)

    def _end(self) -> None:
        """No more requests: a body that was not sent to its end must not look as if it were."""
        unsent, self.closed, self._sending = self._sending, True, False
        if self._output.transport.is_closing():
            return
        if unsent:
            self._output.reset()
        else:
            self._output.transport.close()

    def _lose(self, loss: Loss) -> None:
        sink = self._sink
        self.abort()
        if sink is not None:
            sink.lost(loss)

    def _broken(self) -> Loss:
        if self._parser.started:
            return Loss(LossKind.BROKEN, "The connection broke within the server's answer.", True)
        return Loss(LossKind.CLOSED, "The connection broke before the server answered.", False)

    def _forget(self) -> None:
        """Between two requests the server closes, or says what nobody asked for."""
        told, self.on_closed = self.on_closed, None
        self.abort()
        if told is not None:
            told()

    def _retire(self) -> None:
        self._sink = None
        self._sending = False
        self.closed, self.deadline = True, 0

    def _wait(self) -> None:
        if self._patience and self._sink is not None and not self._paused:
            self._wheel.arm(self, self._patience)


async def connect(sock: socket.socket, address: tuple[str, int], limits: ClientLimits) -> ClientConnection:
    """Connect a non-blocking TCP socket, which belongs to the connection from now on, also if this fails.

    Raises OSError; TimeoutError if the server does not accept in time.
    """
    loop = asyncio.get_running_loop()
    try:
        await within(limits.connect_timeout, loop.sock_connect(sock, address))
        _, connection = await loop.create_connection(lambda: ClientConnection(limits), sock=sock)
    except BaseException:
        sock.close()
        raise
    return connection

"""A connection whose requests may be served before their body is complete, and may change the protocol.

While a body is wanted, what arrives goes through the parser at once; otherwise it waits unparsed like everything else
that arrives too early, so a body that nobody takes is not read.
"""

import logging

from torpor.transport.body import StreamedBody
from torpor.transport.connection import SLICE, Connection
from torpor.transport.exchange import Exchange, Headers, Streams
from torpor.transport.host import ENDING, Host, Phase
from torpor.transport.parser import Refusal, RequestParser
from torpor.transport.response import CONTINUE, AnyHeaders
from torpor.transport.tunnel import Tunnel

_log = logging.getLogger("torpor.transport")


class StreamingConnection(Connection):
    """A peer, from accept to close."""

    __slots__ = ("_intake", "_streams", "_tunnel")

    def __init__(self, host: Host, streams: Streams) -> None:
        super().__init__(host)
        self._streams = streams
        self._intake: StreamedBody | None = None
        """The body that the parser is in, if its request has been handed on."""
        self._tunnel: Tunnel | None = None

    def _new_parser(self) -> RequestParser:
        return RequestParser(self._host.limits, self, self)

    def eof_received(self) -> bool:
        """Whoever ends within a body may still read why that is no request."""
        intake = self._intake
        if intake is None or intake.discarding or self._current is None or self._phase in ENDING:
            return super().eof_received()
        self._break(Refusal(400, "The request ends within its body."))
        return False

    # Told by the parser.

    def streams(self, method: str, path: str, headers: Headers) -> bool:
        try:
            return self._streams(method, path, headers)
        except Exception:
            _log.exception("%s %s: the application failed to say whether it is streamed", method, path)
            raise

    def streamed(self, exchange: Exchange, length: int | None, expects: bool) -> None:
        begun = len(exchange.body)
        left = None if length is None else length - begun
        exchange.source = self._intake = StreamedBody(self, left, expects and not begun)
        self.received(exchange)

    def arrived(self, piece: bytes, last: bool) -> None:
        intake = self._intake
        if intake is None:
            return
        intake.arrived(piece, last)
        if last:
            self._intake = None
            self.deadline = 0
        elif intake.discarding and intake.spent:
            self._finish()

    def offered(self, exchange: Exchange, rest: bytes) -> None:
        self._stash += rest
        exchange.attach_switch(self._accept)
        self.received(exchange)

    # Told by the exchange and its body.

    def body_wanted(self, body: StreamedBody) -> None:
        if body is not self._intake or self._current is None:
            return
        if body.leave_due:
            body.leave_due = False
            if not self._stash and not self._current.begun:
                self._writer.transport.write(CONTINUE)
        if self._busy:
            self._watch()
        else:
            self._go_on()

    def answer(self, exchange: Exchange, status: int, headers: AnyHeaders, body: bytes) -> bool:
        if self._intake is not None:
            self._leave_body(exchange)
        return Connection.answer(self, exchange, status, headers, body)

    def finished(self, exchange: Exchange) -> None:
        if self._intake is not None:
            self._leave_body(exchange)
        super().finished(exchange)

    def break_off(self, exchange: Exchange) -> None:
        if self._intake is not None:
            self._intake.release()
            self._intake = None
        super().break_off(exchange)

    def _leave_body(self, exchange: Exchange) -> None:
        """The answer is there before the body is: drop a small rest, or end the connection with the answer."""
        intake = self._intake
        if intake is not None and exchange.source is intake and not intake.discard():
            exchange.keep_alive = False

    def _accept(self, head: bytes) -> Tunnel | None:
        """Leave HTTP. The exchange counts as in flight until the tunnel is closed."""
        transport = self._writer.transport
        if transport.is_closing():
            return None
        self._writer.write(head)
        self._host.wheel.forget(self)
        self._ready.clear()
        early = bytes(self._stash)
        self._stash.clear()
        self._tunnel = Tunnel(self._writer, early, self.connection_lost)
        return self._tunnel

    # Reading on.

    def _put_aside(self, data: bytes | memoryview) -> None:
        if self._tunnel is not None:
            self._tunnel.data_received(data)
            return
        super()._put_aside(data)
        if self._intake is not None and not self._busy:
            self._go_on()

    def _go_on(self) -> None:
        Connection._go_on(self)  # a bare call: this is on every request's way
        if self._intake is None:
            return
        while self._pours():
            self._busy = True
            self._pour()
            self._busy = False
            super()._go_on()
        self._watch()

    def _watch(self) -> None:
        """Silence within a body that is wanted is bounded until its request is being answered."""
        intake, exchange = self._intake, self._current
        if intake is not None and intake.wanted and exchange is not None and not exchange.begun:
            self._host.wheel.arm(self, self._host.ticks.stream)

    def _pours(self) -> bool:
        intake = self._intake
        return intake is not None and intake.wanted and bool(self._stash) and self._phase not in ENDING

    def _pour(self) -> None:
        """Hand on what has arrived of the body, for as long as it is wanted."""
        while self._pours() and (intake := self._intake) is not None:
            piece = bytes(self._stash[:SLICE])
            del self._stash[:SLICE]
            refusal = self._parser.feed(piece)
            if refusal is not None and not intake.whole:
                self._break(refusal)
                return
            if refusal is not None:
                self._ready.append(refusal)
            try:
                intake.deliver()
            except Exception:
                if self._current is not None:
                    self._failed(self._current)

    # Ending.

    def _break(self, refusal: Refusal) -> None:
        """What comes is no body, or does not come: the exchange is lost."""
        begun = self._current is not None and self._current.begun
        self._lose_current()
        if begun:
            self.abort()
        else:
            self._refuse(refusal)

    def _refuse(self, refusal: Refusal) -> None:
        if self._intake is not None and self._intake.discarding:
            self._finish()  # its request has been answered
        else:
            super()._refuse(refusal)

    def _finish(self) -> None:
        intake, self._intake = self._intake, None
        if intake is None or self._writer.transport.is_closing():
            super()._finish()
            return
        self._ready.clear()
        self._stash.clear()
        self._linger()

    def _lose_current(self) -> None:
        intake, self._intake = self._intake, None
        super()._lose_current()
        if intake is not None:
            try:
                intake.lose()
            except Exception:
                _log.exception("the application failed when a body was lost")

    def expire(self) -> None:
        intake, exchange = self._intake, self._current
        if intake is not None and intake.discarding:
            self._finish()
        elif self._phase is not Phase.SERVING or self._writer.blocked:
            super().expire()
        elif intake is not None and intake.wanted and exchange is not None and not exchange.begun:
            self._host.timeouts += 1
            self._break(Refusal(408, "The request's body did not arrive in time."))

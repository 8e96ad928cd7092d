"""A relay over the connection of the caller: what a server inside answers goes out while it comes in."""

from collections.abc import Callable, Sequence

from torpor.model.invocation import Fields
from torpor.transport import Exchange, Tunnel, splice

_HELD = 64 * 1024
"""Bodies up to this many bytes wait for their end, so that one write carries the whole answer."""


class ExchangeRelay:
    """See `torpor.model.invocation.Relay`."""

    __slots__ = ("_exchange", "_fields", "_held", "_length", "_status", "begun", "on_writable")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.begun = False
        self.on_writable: Callable[[], None] | None = None
        self._held: bytes | None = None
        self._status = 0
        self._fields: Fields = ()
        self._length = 0

    def head(self, status: int, fields: Fields, length: int | None) -> None:
        self.begun = True
        if length is not None and 0 < length <= _HELD and self._exchange.method != "HEAD":
            self._status, self._fields, self._length, self._held = status, fields, length, b""
        else:
            self._exchange.begin(status, fields, length)

    def data(self, chunk: bytes) -> bool:
        if self._held is not None:
            if not self._held and len(chunk) == self._length:
                self._held = chunk
                return True
            self._let_go()
        return self._write(chunk)

    def end(self) -> None:
        held = self._held
        if held is not None and len(held) == self._length:
            self._held = None
            self._exchange.reply(self._status, self._fields, held)
            return
        self._let_go()
        self._exchange.finish()

    def fail(self) -> None:
        self._let_go()
        self._exchange.abort()

    def join(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], upstream: Tunnel, ended: Callable[[], None]
    ) -> None:
        self.begun = True
        lines = [b"HTTP/1.1 %d Switching Protocols\r\n" % status, *(b"%b: %b\r\n" % field for field in fields), b"\r\n"]
        splice(self._exchange.tunnel(b"".join(lines)), upstream, lambda whole: ended())

    def _let_go(self) -> None:
        """The body does not come in one piece: send what was held back."""
        held, self._held = self._held, None
        if held is not None:
            self._exchange.begin(self._status, self._fields, self._length)
            if held:
                self._write(held)

    def _write(self, chunk: bytes) -> bool:
        if self._exchange.write(chunk):
            return True
        self._exchange.on_writable = self.on_writable_now
        return False

    def on_writable_now(self) -> None:
        """The caller has caught up."""
        if self.on_writable is not None:
            self.on_writable()

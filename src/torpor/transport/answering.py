"""An answer sent piece by piece."""

import asyncio
from typing import Protocol

from torpor.transport.exchange import Exchange
from torpor.transport.response import BODILESS, AnyHeaders, encode_open_head
from torpor.transport.writer import JOINED, Output

_CHUNKED, _UNTIL_CLOSE, _DROPPED = -1, -2, -3
"""In place of the bytes still to come: how a body of unknown length is framed, and that none is sent."""
_LAST_CHUNK = b"0\r\n\r\n"


class Carrier(Protocol):
    """The connection as a streamed answer sees it."""

    def finished(self, exchange: Exchange) -> None: ...

    def break_off(self, exchange: Exchange) -> None: ...


class StreamedAnswer:
    """What is sent in the turn of the loop in which the answer begins goes out as one: a short answer costs one write.

    The piece that completes an announced length waits for `finish`, so an answer that is broken off has never come
    whole.
    """

    __slots__ = ("_carrier", "_exchange", "_held", "_last", "_left", "_output")

    def __init__(
        self,
        carrier: Carrier,
        output: Output,
        exchange: Exchange,
        status: int,
        fields: AnyHeaders,
        length: int | None,
    ) -> None:
        self._carrier = carrier
        self._output = output
        self._exchange = exchange
        if exchange.method == "HEAD" or status in BODILESS:
            self._left = _DROPPED
        elif length is not None:
            self._left = length
        elif exchange.http10:
            self._left, exchange.keep_alive = _UNTIL_CLOSE, False
        else:
            self._left = _CHUNKED
        self._last = b""
        self._held = encode_open_head(status, fields, length, keep_alive=exchange.keep_alive, http10=exchange.http10)
        asyncio.get_running_loop().call_soon(self._flush)

    @property
    def open_ended(self) -> bool:
        """Whether only the connection's end tells the peer that the body is whole."""
        return self._left == _UNTIL_CLOSE

    def write(self, data: bytes) -> bool:
        """False once more waits for the peer than the limits allow, or if nothing can be sent any more."""
        output, left = self._output, self._left
        if output.transport.is_closing():
            return False
        if left >= 0:
            left = self._left = left - len(data)
            if left <= 0:
                return self._keep_last(data, left)
        elif left == _DROPPED or not data:
            return not output.blocked
        elif left == _CHUNKED:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._held:
            data = self._held + data
            if len(data) <= JOINED:
                self._held = data
                return True
            self._held = b""
        output.write(data)
        return not output.blocked

    def _keep_last(self, data: bytes, left: int) -> bool:
        if left < 0:
            self._held = b""  # with what was announced it could be whole
            self._exchange.abort()
            return False
        self._last += data
        return not self._output.blocked

    def finish(self) -> None:
        """End the body; an announced length that was not reached breaks the answer off."""
        if self._left > 0:
            self.abort()
            return
        rest = self._held + self._last
        if self._left == _CHUNKED:
            rest += _LAST_CHUNK
        self._held = b""
        if rest and not self._output.transport.is_closing():
            self._output.write(rest)
        self._carrier.finished(self._exchange)

    def abort(self) -> None:
        """Close the connection so that what was sent cannot be taken for the whole. What was held back goes out before
        if its framing shows that more was to come: else the peer would be left without any answer."""
        if self._left > 0 or self._left == _CHUNKED or self._last:
            self._flush()
        self._held = b""
        self._carrier.break_off(self._exchange)

    def lose(self) -> None:
        """The peer is gone."""
        self._held = b""

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held and not self._output.transport.is_closing():
            self._output.write(held)

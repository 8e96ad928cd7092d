"""Bytes both ways over a connection that has left HTTP behind."""

import asyncio
from collections.abc import Callable

from torpor.transport.writer import Output

Released = Callable[[Exception | None], None]


class Tunnel(asyncio.Protocol):
    """One side of a changed protocol, the same whether a server or a client made it.

    It begins paused: set the callbacks, then `resume`. What had come before waits until then.
    """

    __slots__ = (
        "_early",
        "_output",
        "_paused",
        "_peer_ended",
        "_released",
        "_self_ended",
        "closed",
        "on_closed",
        "on_data",
        "on_end",
        "on_writable",
    )

    def __init__(self, output: Output, early: bytes, released: Released) -> None:
        self._output = output
        self._early = bytearray(early)
        self._released = released
        self._paused = True
        self._peer_ended = self._self_ended = False
        self.closed = output.transport.is_closing()
        """Whether the connection is gone, or going at our word."""
        self.on_data: Callable[[bytes], None] | None = None
        self.on_end: Callable[[], None] | None = None
        """Called once if the peer ends its side; the other goes on."""
        self.on_writable: Callable[[], None] | None = None
        """Called when the peer has caught up after `write` returned False."""
        self.on_closed: Callable[[bool], None] | None = None
        """Called once when the connection is gone, whoever closed it; True if both sides had ended before."""
        if not self.closed:
            output.transport.set_protocol(self)
            output.transport.pause_reading()

    def write(self, data: bytes) -> bool:
        """False if the peer reads too slowly (then wait for `on_writable`), or if nothing can be sent any more."""
        output = self._output
        if self._self_ended or output.transport.is_closing():
            return False
        output.write(data)
        return not output.blocked

    def end(self) -> None:
        """Send no more; what the peer still sends is read on."""
        transport = self._output.transport
        if self._self_ended or transport.is_closing():
            return
        self._self_ended = True
        if self._peer_ended:
            transport.close()
        else:
            transport.write_eof()

    def abort(self) -> None:
        """Break the connection at once."""
        self.closed = True
        self._early.clear()
        if not self._output.transport.is_closing():
            self._output.reset()

    def pause(self) -> None:
        """Read no more until `resume`."""
        if not self._paused:
            self._paused = True
            if not self._peer_ended and not self._output.transport.is_closing():
                self._output.transport.pause_reading()

    def resume(self) -> None:
        """Hand on what waits and what comes."""
        if not self._paused:
            return
        self._paused = False
        if self._early:
            early = bytes(self._early)
            self._early.clear()
            self._hand_on(early)
        if not (self._paused or self._peer_ended or self._output.transport.is_closing()):
            self._output.transport.resume_reading()

    # Told by the event loop.

    def data_received(self, data: bytes | memoryview) -> None:
        if self._paused:
            self._early += data
        else:
            self._hand_on(bytes(data))

    def eof_received(self) -> bool:
        self._peer_ended = True
        told, self.on_end = self.on_end, None
        if told is not None:
            told()
        return not self._self_ended

    def pause_writing(self) -> None:
        self._output.blocked = True

    def resume_writing(self) -> None:
        self._output.blocked = False
        if self.on_writable is not None:
            self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        whole = self._peer_ended and self._self_ended and exc is None
        told, self.on_closed = self.on_closed, None
        self.on_data = self.on_end = self.on_writable = None
        try:
            if told is not None:
                told(whole)
        finally:
            self._released(exc)

    def _hand_on(self, data: bytes) -> None:
        if self.on_data is not None and not self.closed:
            self.on_data(data)


def splice(one: Tunnel, other: Tunnel, closed: Callable[[bool], None] | None = None) -> None:
    """Couple two tunnels: bytes, ends and slowness pass from each to the other, and a break breaks both.

    `closed` is called once both are gone; True if both ended in order.
    """
    open_sides = [one, other]
    orderly = [True]

    def gone(side: Tunnel, whole: bool) -> None:
        open_sides.remove(side)
        orderly[0] &= whole
        for left in open_sides:
            if not whole:
                left.abort()
        if not open_sides and closed is not None:
            closed(orderly[0])

    for source, target in ((one, other), (other, one)):
        _couple(source, target)
        source.on_closed = lambda whole, side=source: gone(side, whole)
    for side in (one, other):
        if side.closed:
            gone(side, False)
    for side in tuple(open_sides):
        side.resume()


def _couple(source: Tunnel, target: Tunnel) -> None:
    def pass_on(data: bytes) -> None:
        if not target.write(data):
            source.pause()

    source.on_data = pass_on
    source.on_end = target.end
    target.on_writable = source.resume

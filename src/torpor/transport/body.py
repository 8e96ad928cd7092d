"""A request's body while it arrives."""

from collections.abc import Callable
from typing import Protocol

_DRAINED = 64 * 1024
"""Bytes that are read and dropped at most, so that a connection can be used again."""


class Supplier(Protocol):
    """The connection as a body sees it."""

    def body_wanted(self, body: "StreamedBody") -> None: ...


class StreamedBody:
    """What follows the part of the body that came with the head. Read only as fast as it is wanted.

    Once the exchange is answered nothing more is handed on, and `ended` is not called.
    """

    __slots__ = (
        "_ended",
        "_left",
        "_lost",
        "_piece",
        "_supplier",
        "_write",
        "discarding",
        "leave_due",
        "wanted",
        "whole",
    )

    def __init__(self, supplier: Supplier, left: int | None, leave_due: bool) -> None:
        self._supplier = supplier
        self._left = left
        self._write: Callable[[bytes], None] | None = None
        self._ended: Callable[[bool], None] | None = None
        self._piece = b""
        self._lost = False
        self.leave_due = leave_due
        """Whether the peer may wait for leave to send it."""
        self.wanted = self.whole = self.discarding = False

    # The application's side.

    def pump(self, write: Callable[[bytes], None], ended: Callable[[bool], None]) -> None:
        """From now on hand every piece to `write`, the first perhaps before this returns; then call `ended`, with False
        if the peer went away or what it sent is no body."""
        if self._lost:
            ended(False)
            return
        self._write, self._ended = write, ended
        self.wanted = True
        self._supplier.body_wanted(self)

    def pause(self) -> None:
        """Hand nothing on until `resume`; soon the peer is not read either."""
        self.wanted = False

    def resume(self) -> None:
        """Hand on again."""
        if self._write is not None and not self.wanted:
            self.wanted = True
            self._supplier.body_wanted(self)

    # The connection's side.

    def arrived(self, piece: bytes, last: bool) -> None:
        """Keep what one input brought until it is delivered or dropped."""
        self._piece = b"" if self.discarding else piece
        self.whole = last
        if self._left is not None:
            self._left -= len(piece)

    def deliver(self) -> None:
        """Hand on what arrived."""
        piece, self._piece = self._piece, b""
        if piece and self._write is not None:
            self._write(piece)
        ended = self._ended
        if self.whole and ended is not None:
            self.release()
            ended(True)

    def lose(self) -> None:
        """The rest will not come."""
        ended = self._ended
        self._lost = True
        self.release()
        if ended is not None:
            ended(False)

    def release(self) -> None:
        """Nobody is told anything more."""
        self._write = self._ended = None
        self.wanted = False

    def discard(self) -> bool:
        """Hand nothing on any more; True if so little is left that it can be read and dropped."""
        self.release()
        if self.leave_due or (self._left is not None and self._left > _DRAINED):
            return False
        self.discarding = True
        if self._left is None:
            self._left = _DRAINED
        return True

    @property
    def spent(self) -> bool:
        """Whether more came than is worth dropping."""
        return self._left is not None and self._left < 0

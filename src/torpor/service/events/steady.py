"""The queue's own time: it goes on evenly while the machine's clock is set forward or back."""

from torpor.model.clock import Clock

OFFSET, MARK = "offset", "mark"
"""Names under which the store keeps what the next life needs to know."""
_NOTICED = 1.0
"""Seconds by which the clock has to be off before that is kept anew."""


class SteadyTime:
    """Waits and ages are reckoned in it, so a clock that is put right neither holds an event up nor makes it old.

    While the server is down only the machine's clock tells how long that was; even then the time never goes back.
    """

    def __init__(self, clock: Clock, offset: float | None = None, mark: float | None = None) -> None:
        """`offset` is by how much the clock was ahead of this time, `mark` the latest this time was seen at."""
        self._clock = clock
        start = clock.wall() - (offset or 0.0)
        if mark is not None and mark > start:
            start = mark
        self._base = start - clock.monotonic()
        self._kept = offset or 0.0

    def now(self) -> float:
        """Seconds; close to those since the epoch unless the clock was ever set."""
        return self._base + self._clock.monotonic()

    @property
    def offset(self) -> float:
        """Seconds by which the machine's clock is ahead of this time."""
        return self._clock.wall() - self.now()

    def moved(self) -> float | None:
        """The offset, if it is another than it was when this was asked last; None if it is not."""
        offset = self.offset
        if abs(offset - self._kept) < _NOTICED:
            return None
        self._kept = offset
        return offset

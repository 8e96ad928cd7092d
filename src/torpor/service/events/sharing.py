"""Room that all functions share: whoever was refused it gets the next that is free, and for a moment nobody takes more
than its share."""

import asyncio
from collections.abc import Callable, Iterable

from torpor.scheduling import windows
from torpor.service.events.lanes import Lane

_HUNGRY = 5.0
"""Seconds for which others go without more than their share, for one that was refused what they use."""


class Sharing:
    """Which lanes were refused what others use. In the event loop's thread."""

    def __init__(self, now: Callable[[], float], loop: asyncio.AbstractEventLoop, pump: Callable[[Lane], None]) -> None:
        """`now` is in monotonic seconds; `pump` begins what may begin of a lane."""
        self._now = now
        self._loop = loop
        self._pump = pump
        self._hungry: dict[Lane, tuple[float, int]] = {}
        """Until when that matters, and how many events ran then, of all functions."""
        self._is_feeding = False

    def __contains__(self, lane: Lane) -> bool:
        return lane in self._hungry

    def refused(self, lane: Lane, running: int) -> None:
        """It would have begun one more than the `running` events."""
        self._hungry.setdefault(lane, (self._now() + _HUNGRY, running))

    def forget(self, lane: Lane) -> None:
        """It has nothing more to begin."""
        self._hungry.pop(lane, None)

    def is_fair(self, lane: Lane, lanes: Iterable[Lane]) -> bool:
        """May it begin one more? `lanes` are all there are."""
        if not self._hungry or lane in self._hungry:
            return True
        now = self._now()
        total = max((number for until, number in self._hungry.values() if now < until), default=None)
        if total is None:
            return True
        competitors = sum(bool(other.ready or other.running) for other in lanes)
        return len(lane.running) < windows.share(total, competitors)

    def freed(self, lane: Lane) -> None:
        """One of its events has ended: there is room for one more, first of all for who was refused it."""
        self.forget(lane)
        if self._hungry and not self._is_feeding:
            self._is_feeding = True
            self._loop.call_soon(self._feed)

    def _feed(self) -> None:
        """Offer what was freed to the one that was refused first; if it cannot have it, sharing does not help it."""
        self._is_feeding = False
        lane = next(iter(self._hungry), None)
        if lane is None:
            return
        running, lane.retry_at = len(lane.running), 0.0
        waits = self._hungry.pop(lane)
        self._pump(lane)
        if len(lane.running) > running and lane.has_backlog:
            self._hungry[lane] = waits

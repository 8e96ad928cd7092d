"""The timers of one environment, all on one alarm of the event loop."""

import asyncio
from collections.abc import Callable

from torpor.model.clock import Clock


class Deadlines:
    """Tells which timers have run out.

    Taking a timer off leaves the alarm where it is, and a later timer moves it no earlier: an environment that answers
    in time sets an alarm about once per time-out, not once per invocation.
    """

    __slots__ = ("_alarm", "_alarm_at", "_at", "_clock", "_loop", "_reached")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, reached: Callable[[str], None]) -> None:
        self._loop = loop
        self._clock = clock
        self._reached = reached
        self._at: dict[str, float] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = 0.0

    def arm(self, timer: str, at: float) -> None:
        """Report `timer` at the monotonic time `at`, in place of any earlier time for it."""
        self._at[timer] = at
        self._wake_by(at)

    def cancel(self, timer: str) -> None:
        """Forget `timer`; nothing happens if it is not armed."""
        self._at.pop(timer, None)

    def clear(self) -> None:
        """Forget all of them."""
        self._at.clear()
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _wake_by(self, at: float) -> None:
        if self._alarm is not None:
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = self._loop.call_later(max(at - self._clock.monotonic(), 0.0), self._ring)

    def _ring(self) -> None:
        """The loop's clock is coarser than ours: what it rings for too early is left for the next alarm."""
        self._alarm = None
        now = self._clock.monotonic()
        try:
            for timer in sorted((timer for timer, at in self._at.items() if at <= now), key=self._at.__getitem__):
                if self._at.get(timer, now + 1.0) <= now:  # an earlier one may have changed it
                    del self._at[timer]
                    self._reached(timer)
        finally:
            if self._at:
                self._wake_by(min(self._at.values()))

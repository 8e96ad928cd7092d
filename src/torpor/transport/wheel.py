"""Coarse time-outs for very many connections: one timer in the event loop, whatever their number.

Time is counted in ticks, which pass only while something is watched. A connection stands in one slot; putting its
deadline off costs one attribute, and the slot, once reached, files it again. So a busy connection is moved about once
per time-out, not once per request. Lateness of the loop delays deadlines, so peers are not blamed for it.
"""

import asyncio
import weakref

TICK = 0.1
"""Seconds."""


class Timed:
    """Something with a deadline."""

    __slots__ = ("deadline", "filed")

    def __init__(self) -> None:
        self.deadline = 0
        """Tick of the next `expire`; 0 for none."""
        self.filed = 0
        """Slot it stands in; 0 for none. The wheel's own."""

    def expire(self) -> None:
        """The deadline has passed."""
        raise NotImplementedError


class TimerWheel:
    """The deadlines of one event loop."""

    __slots__ = ("_count", "_slots", "_ticking", "now")

    def __init__(self) -> None:
        self.now = 1
        self._slots: dict[int, set[Timed]] = {}
        self._count = 0
        self._ticking = False

    def arm(self, timed: Timed, ticks: int) -> None:
        """Let `timed` expire once, `ticks` from now, in place of any earlier deadline."""
        deadline = timed.deadline = self.now + ticks
        filed = timed.filed
        if not filed:
            self._file(timed, deadline)
        elif deadline < filed:
            self._remove(timed)
            self._file(timed, deadline)

    def forget(self, timed: Timed) -> None:
        """Drop `timed` with its deadline."""
        timed.deadline = 0
        if timed.filed:
            self._remove(timed)

    def _file(self, timed: Timed, tick: int) -> None:
        timed.filed = tick
        self._slots.setdefault(tick, set()).add(timed)
        self._count += 1
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK, self._tick)

    def _remove(self, timed: Timed) -> None:
        self._slots[timed.filed].discard(timed)
        timed.filed = 0
        self._count -= 1

    def _tick(self) -> None:
        self.now += 1
        due = self._slots.pop(self.now, None)
        if due:
            self._settle(due)
        if self._count:
            asyncio.get_running_loop().call_later(TICK, self._tick)
        else:
            self._ticking = False
            self._slots.clear()

    def _settle(self, due: set[Timed]) -> None:
        self._count -= len(due)
        for timed in due:
            timed.filed = 0
        for timed in due:
            if timed.deadline > self.now:
                self._file(timed, timed.deadline)
            elif timed.deadline:
                timed.deadline = 0
                timed.expire()


def ticks(seconds: float) -> int:
    """Ticks that cover `seconds` whatever the phase of the current tick."""
    return int(seconds / TICK) + 2


_wheels: "weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, TimerWheel]" = weakref.WeakKeyDictionary()


def wheel_of_loop() -> TimerWheel:
    """The running event loop's one wheel, shared by all its servers."""
    loop = asyncio.get_running_loop()
    wheel = _wheels.get(loop)
    if wheel is None:
        wheel = _wheels[loop] = TimerWheel()
    return wheel

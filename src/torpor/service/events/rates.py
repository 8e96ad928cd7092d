"""How many events came in and were through of late, by function."""

from collections import deque
from collections.abc import Callable

_WINDOW = 60
"""Seconds that are looked back on."""


class Rates:
    """Counts by second, kept for as long as they are looked back on. `now` is in monotonic seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._counts: dict[tuple[str, str], deque[list[float]]] = {}
        self._swept = 0.0

    def add(self, lane: str, what: str) -> None:
        """One more."""
        second = float(int(self._now()))
        counts = self._counts.get((lane, what))
        if counts is None:
            counts = self._counts[lane, what] = deque(maxlen=_WINDOW + 1)
            self._sweep(second)
        if counts and counts[-1][0] == second:
            counts[-1][1] += 1
        else:
            counts.append([second, 1.0])

    def of(self, lane: str, what: str) -> float:
        """A second, over the last minute."""
        since = self._now() - _WINDOW
        return sum(number for second, number in self._counts.get((lane, what), ()) if second >= since) / _WINDOW

    def _sweep(self, second: float) -> None:
        """Functions that are not used any more leave nothing behind."""
        if second - self._swept < _WINDOW:
            return
        self._swept = second
        recent = second - _WINDOW
        self._counts = {key: kept for key, kept in self._counts.items() if not kept or kept[-1][0] > recent}

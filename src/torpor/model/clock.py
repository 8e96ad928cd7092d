"""Time as an argument: the two clocks the outside hands in."""

from typing import Protocol


class Clock(Protocol):
    """Where engine and service read the time; pure code is told it instead."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back: deadlines and durations."""
        ...

    def wall(self) -> float:
        """Seconds since the Unix epoch: time stamps shown to people and programs."""
        ...

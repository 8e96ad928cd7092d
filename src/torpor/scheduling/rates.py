"""How many requests a second: a bucket that fills evenly and from which each request takes one."""


class TokenBucket:
    """Holds one second's worth at most, and is full at first. Told the time: seconds of one clock, never going back."""

    __slots__ = ("_at", "_level", "rate")

    def __init__(self, rate: float, now: float) -> None:
        """`rate` is in requests a second."""
        self.rate = rate
        self._level = rate
        self._at = now

    def take(self, now: float) -> bool:
        """Is there room for one more request? If so, it is counted."""
        if now > self._at:
            self._level = min(self.rate, self._level + (now - self._at) * self.rate)
            self._at = now
        if self._level < 1.0:
            return False
        self._level -= 1.0
        return True

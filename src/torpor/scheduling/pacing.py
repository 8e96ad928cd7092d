"""Pacing: how fast a stream may go on."""


class TokenBucket:
    """Lets `burst` pass at once and `rate` per second after that; what is not used is saved up again, to `burst`.

    Times are monotonic seconds."""

    __slots__ = ("_burst", "_left", "_rate", "_seen")

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._seen = now

    def admits(self, amount: float, now: float) -> bool:
        """Let this much pass if it need not wait; else nothing passes."""
        saved = self._left + (now - self._seen) * self._rate
        if amount > (saved if saved < self._burst else self._burst):
            return False
        self.take(amount, now)
        return True

    def take(self, amount: float, now: float) -> float:
        """Let this much pass; the seconds to wait before anything more does."""
        saved = self._left + (now - self._seen) * self._rate
        self._left = (saved if saved < self._burst else self._burst) - amount
        self._seen = now
        return 0.0 if self._left >= 0 else -self._left / self._rate

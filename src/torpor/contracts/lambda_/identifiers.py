"""Ids that the platform hands out: of requests, traces and segments."""

import os


class _Noise:
    """Random digits from the system's generator, fetched in bulk: a system call for each costs more than its use."""

    __slots__ = ("_digits", "_used")

    def __init__(self) -> None:
        self._digits = ""
        self._used = 0

    def take(self, count: int) -> str:
        """Hexadecimal digits that were never handed out before."""
        start, end = self._used, self._used + count
        if end > len(self._digits):
            self._digits = os.urandom(_NOISE_BYTES).hex()
            start, end = 0, count
        self._used = end
        return self._digits[start:end]


_NOISE_BYTES = 4096
_noise = _Noise()
_VARIANTS = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def new_request_id() -> str:
    """A random UUID of version 4 in lower case."""
    digits = _noise.take(31)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-{_VARIANTS[digits[15]]}{digits[16:19]}-{digits[19:]}"


def new_trace_root(now: float) -> str:
    """The id of a new trace; `now` is in seconds since the epoch."""
    return f"1-{int(now):08x}-{random_digits(24)}"


def random_digits(count: int) -> str:
    """Hexadecimal digits that were never handed out before."""
    return _noise.take(count)

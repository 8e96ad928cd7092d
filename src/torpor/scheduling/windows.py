"""How many of a function's events run at once: as many as the platform lets, found out step by step."""

import msgspec

FIRST = 16
"""Events of one function that are run at once before anything is known of it."""
LOOK = 0.1
"""Seconds between two looks at whether more may run."""
CALM = 1.0
"""Seconds after a refusal during which no more than then are tried."""


class Window(msgspec.Struct, frozen=True):
    """`size` events at once; `refused_at` is when the platform last refused one, in monotonic seconds."""

    size: int = FIRST
    refused_at: float = float("-inf")


def refused(running: int, now: float) -> Window:
    """The platform had no room for one more than `running`."""
    return Window(max(running, 1), now)


def looked(window: Window, *, running: int, finished: int, most: int, now: float) -> Window:
    """After `LOOK` seconds in which `finished` events ended and others waited all the time. A function whose events end
    more often than that keeps up by itself; for others twice as many are tried, once a refusal is some time ago."""
    keeps_up = finished > window.size and window.size >= FIRST
    if running < window.size or keeps_up:
        return window
    return window if now - window.refused_at < CALM else Window(min(window.size * 2, most))


def share(running: int, lanes: int) -> int:
    """Of what runs of all functions together, how much one of them may have while another one cannot begin."""
    return max(running // max(lanes, 1), 1)

"""Which planned times of a timer are made good once some of them have passed."""

from collections.abc import Callable, Sequence
from enum import StrEnum

Following = Callable[[float], float | None]
"""Tells, of a moment in seconds since the epoch, the next planned time after it; None if there is none."""
LATE = 60.0
"""Seconds after which a planned time counts as missed."""
_LOOKED_AT = 10_000
_MADE_GOOD = 1000
_LOOKS_BACK = (LATE, 3600.0, 24 * 3600.0, 7 * 24 * 3600.0, 31 * 24 * 3600.0, 366 * 24 * 3600.0)


class Missed(StrEnum):
    """What becomes of planned times that were missed, because the server was down or its host slept."""

    ONCE = "once"
    """The last of them is made good, if none is on time."""
    ALL = "all"
    NONE = "none"


def passed(following: Following, planned: float | None, now: float) -> tuple[list[float], float | None]:
    """The planned times that have come, from `planned` on, and the first that has not. After more than can be looked at
    one by one only the latest of them are told."""
    found: list[float] = []
    while planned is not None and planned <= now:
        found.append(planned)
        if len(found) >= _LOOKED_AT:
            return _latest(following, now)
        planned = following(planned)
    return found, planned


def to_fire(times: Sequence[float], now: float, missed: Missed, late_after: float = LATE) -> list[float]:
    """Of times that have come those at which the timer goes off, in order; those `late_after` seconds ago or earlier
    count as missed."""
    late = [planned for planned in times if planned <= now - late_after]
    on_time = list(times[len(late) :])
    if missed is Missed.NONE:
        return on_time
    if missed is Missed.ALL:
        return [*late[-_MADE_GOOD:], *on_time]
    return on_time or late[-1:]


def _latest(following: Following, now: float) -> tuple[list[float], float | None]:
    """The last of many, found by looking back step by step further."""
    latest: list[float] = []
    for back in _LOOKS_BACK:
        found: list[float] = []
        planned = following(now - back)
        while planned is not None and planned <= now and len(found) < _LOOKED_AT:
            found.append(planned)
            planned = following(planned)
        if planned is not None and planned <= now:  # too many to be looked at
            break
        latest = found
        if len(latest) >= _MADE_GOOD:
            break
    return latest, following(now)

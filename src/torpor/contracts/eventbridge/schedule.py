"""When scheduled rules go off: `rate(…)` and six-field `cron(…)` expressions, in UTC. Pure."""

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from cronsim import CronSim, CronSimError

from torpor.contracts.eventbridge import limits
from torpor.contracts.eventbridge.cron import Cron, nearest_weekday, read
from torpor.contracts.eventbridge.failures import invalid_schedule

NextFire: TypeAlias = Callable[[float], float | None]
"""Tells, of a moment, the next one after it at which to go off; None if there is none any more. Both in seconds since
the epoch."""

_RATE = re.compile(rf"rate\((?P<value>[0-9]{{1,{limits.RATE_DIGITS}}})\s+(?P<unit>minute|hour|day)(?P<plural>s?)\)")
_CRON = re.compile(r"cron\((?P<fields>.+)\)")
_BEFORE_ALL = -1.0
"""No expression knows an earlier moment than the one after it."""
_END = datetime(limits.YEAR_LAST + 1, 1, 1, tzinfo=UTC).timestamp()
_SECOND = timedelta(seconds=1)


def next_fire(expression: str, since: float | None = None) -> NextFire:
    """The schedule that an expression stands for. Raises ApiFailure for one that is none or never comes true.

    A rate counts from `since`, in seconds since the epoch, in whole periods; without it, from the moment that is asked
    about.
    """
    if (rate := _RATE.fullmatch(expression)) is not None:
        return _rate(int(rate["value"]), rate["unit"], plural=bool(rate["plural"]), since=since)
    if (found := _CRON.fullmatch(expression)) is not None:
        return _cron(read(found["fields"]))
    raise invalid_schedule()


def check_expression(expression: str, now: float) -> None:
    """Raises ApiFailure for an expression that is none, or does not come true any more; `now` is in seconds since the
    epoch."""
    if next_fire(expression)(now) is None:
        raise invalid_schedule()


def _rate(value: int, unit: str, *, plural: bool, since: float | None) -> NextFire:
    if value < 1 or plural != (value > 1):
        raise invalid_schedule()
    period = value * limits.RATE_UNITS[unit]

    def following(after: float) -> float:
        if since is None:
            return after + period
        planned = since + (math.floor((after - since) / period) + 1) * period
        # Fractions of a second may be lost in the sum.
        return planned if planned > after else planned + period

    return following


def _cron(cron: Cron) -> NextFire:
    def following(after: float) -> float | None:
        return _next(cron, after)

    try:
        possible = following(_BEFORE_ALL)
    except CronSimError as error:
        raise invalid_schedule() from error
    if possible is None:
        raise invalid_schedule()
    return following


def _next(cron: Cron, after: float) -> float | None:
    """The library knows neither years nor nearest weekdays: what it finds is passed over until both fit."""
    if after >= _END:
        return None
    moment = datetime.fromtimestamp(max(math.floor(after), _BEFORE_ALL), UTC)
    while (year := next((year for year in cron.years if year >= moment.year), None)) is not None:
        start = max(moment, datetime(year, 1, 1, tzinfo=UTC) - _SECOND)
        found = next(CronSim(cron.plain, start), None)
        if found is None:
            return None
        if found.year not in cron.years:
            moment = found
        elif cron.near is None or found.day == nearest_weekday(found.year, found.month, cron.near):
            return found.timestamp()
        else:
            moment = found.replace(hour=23, minute=59, second=59)
    return None

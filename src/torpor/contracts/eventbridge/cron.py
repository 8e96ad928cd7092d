"""The fields of `cron(…)` expressions, and what the library of schedules is told for them. Pure."""

import re
from calendar import SATURDAY, SUNDAY, monthrange, weekday
from collections.abc import Mapping
from dataclasses import dataclass, field

from torpor.contracts.eventbridge import limits
from torpor.contracts.eventbridge.failures import invalid_schedule

ANY = "?"
_PART = re.compile(r"(?P<first>\*|[A-Z0-9]+)(?:-(?P<last>[A-Z0-9]+))?(?:/(?P<step>[0-9]{1,4}))?")
_NUMBER = re.compile(r"[0-9]{1,4}")
_NTH = re.compile(r"(?P<day>[A-Z0-9]+)#(?P<nth>[0-9])")
_LAST = re.compile(r"(?P<day>[A-Z0-9]*)L")
_NEAR = re.compile(r"(?P<day>[0-9]{1,2})W")
_NEAR_REACH = 2
"""Days from a day to the nearest weekday, at most: from a Saturday that is the first to the third."""
_LEAP_YEAR = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field: its bounds, and the names that stand for numbers."""

    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)

    def values(self, text: str) -> list[int]:
        """Everything that lists, ranges and steps stand for, ascending. Raises ApiFailure."""
        return sorted({value for part in text.split(",") for value in self._part(part)})

    def value(self, text: str) -> int:
        """What one number or name stands for. Raises ApiFailure."""
        if text in self.names:
            return self.names[text]
        if _NUMBER.fullmatch(text) is None or not self.low <= int(text) <= self.high:
            raise invalid_schedule()
        return int(text)

    def _part(self, text: str) -> range:
        found = _PART.fullmatch(text)
        if found is None or (found["first"] == "*" and found["last"]):
            raise invalid_schedule()
        whole = found["first"] == "*"
        first = self.low if whole else self.value(found["first"])
        last = self.high if whole or (found["step"] and not found["last"]) else self.value(found["last"] or str(first))
        step = int(found["step"] or 1)
        if last < first or step < 1:
            raise invalid_schedule()
        return range(first, last + 1, step)


def _numbered(names: str) -> dict[str, int]:
    return {name: number for number, name in enumerate(names.split(), 1)}


MINUTE = Field(low=0, high=59)
HOUR = Field(low=0, high=23)
DAY = Field(low=1, high=31)
MONTH = Field(low=1, high=12, names=_numbered("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC"))
WEEKDAY = Field(low=1, high=7, names=_numbered("SUN MON TUE WED THU FRI SAT"))
YEAR = Field(low=limits.YEAR_FIRST, high=limits.YEAR_LAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """An expression, read."""

    plain: str
    """For the library: five fields without years."""
    years: tuple[int, ...]
    near: int | None = None
    """The day of the month whose nearest weekday is meant; `plain` then has the days around it."""


def read(fields: str) -> Cron:
    """What stands between the brackets of an expression. Raises ApiFailure."""
    parts = fields.upper().split()
    if len(parts) != 6 or (parts[2] == ANY) == (parts[4] == ANY):
        raise invalid_schedule()
    minutes, hours, month_days, months, week_days, years = parts
    in_months = MONTH.values(months)
    days, near = _month_days(month_days, in_months)
    plain = (_list(MINUTE.values(minutes)), _list(HOUR.values(hours)), days, _list(in_months), _week_days(week_days))
    return Cron(plain=" ".join(plain), years=tuple(YEAR.values(years)), near=near)


def nearest_weekday(year: int, month: int, day: int) -> int | None:
    """The day of the same month, Monday to Friday, that is nearest to a day; None in months that end before it."""
    last = monthrange(year, month)[1]
    if day > last:
        return None
    falls_on = weekday(year, month, day)
    if falls_on == SATURDAY:
        return day - 1 if day > 1 else day + _NEAR_REACH
    if falls_on == SUNDAY:
        return day + 1 if day < last else day - _NEAR_REACH
    return day


def _month_days(text: str, months: list[int]) -> tuple[str, int | None]:
    """The field for the library, and the day whose nearest weekday is meant. Raises ApiFailure."""
    if text in (ANY, "*"):
        return "*", None
    if text in ("L", "LW"):
        return text, None
    found = _NEAR.fullmatch(text)
    if found is None:
        return _list(DAY.values(text)), None
    near = DAY.value(found["day"])
    if near > max(monthrange(_LEAP_YEAR, month)[1] for month in months):
        raise invalid_schedule()
    around = range(max(DAY.low, near - _NEAR_REACH), min(DAY.high, near + _NEAR_REACH) + 1)
    return _list(list(around)), near


def _week_days(text: str) -> str:
    """The field for the library, which counts from 0 for Sunday. Raises ApiFailure."""
    if text in (ANY, "*"):
        return "*"
    if (last := _LAST.fullmatch(text)) is not None:
        return f"{WEEKDAY.value(last['day']) - 1}L" if last["day"] else str(WEEKDAY.high - 1)
    if (nth := _NTH.fullmatch(text)) is not None:
        if not 1 <= int(nth["nth"]) <= limits.NTH_MAX:
            raise invalid_schedule()
        return f"{WEEKDAY.value(nth['day']) - 1}#{nth['nth']}"
    return _list([value - 1 for value in WEEKDAY.values(text)])


def _list(values: list[int]) -> str:
    return ",".join(map(str, values))

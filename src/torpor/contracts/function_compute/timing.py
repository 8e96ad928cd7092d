"""When timers go off: `@every` and six-field schedules (6). Pure."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Meta

from torpor.contracts.function_compute import limits
from torpor.contracts.function_compute.api_failures import invalid

NextFire = Callable[[float], float]
"""Tells, of a moment, the next one after it at which to go off. Both in seconds since the epoch."""

_EVERY = re.compile(r"@every\s+([0-9]{1,9})([smh])")
_UNITS = {"s": 1, "m": 60, "h": 3600}
_ZONE = re.compile(r"CRON_TZ=(\S+)\s+")
_MONTHS = "JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_DAYS = "MON|TUE|WED|THU|FRI|SAT|SUN"


def _field(item: str) -> re.Pattern[str]:
    """Lists of values, ranges and `*`, each with or without a step."""
    part = rf"(?:\*|{item}(?:-{item})?)(?:/[0-9]{{1,2}})?"
    return re.compile(rf"{part}(?:,{part})*|\?", re.IGNORECASE)


_FIELDS = (
    ("seconds", re.compile(r"[0-5]?[0-9]")),
    ("minutes", _field(r"[0-5]?[0-9]")),
    ("hours", _field(r"(?:[01]?[0-9]|2[0-3])")),
    ("day of month", _field(r"(?:0?[1-9]|[12][0-9]|3[01])")),
    ("month", _field(rf"(?:0?[1-9]|1[0-2]|{_MONTHS})")),
    ("day of week", _field(rf"(?:[1-7]|{_DAYS})")),
)


class TimerConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A timer trigger's configuration."""

    cron_expression: str
    enable: bool = True
    payload: Annotated[str, Meta(max_length=limits.TIMER_PAYLOAD_MAX)] = ""


def timer_config(document: object) -> TimerConfig:
    """Raises ApiFailure for fields that are wrong, the expression included."""
    try:
        config = msgspec.convert(document, TimerConfig)
    except msgspec.ValidationError as error:
        raise invalid(f"triggerConfig is not valid: {error}") from error
    next_fire(config.cron_expression)
    return config


def next_fire(expression: str) -> NextFire:
    """The schedule that an expression stands for. Raises ApiFailure."""
    every = _EVERY.fullmatch(expression.strip())
    if every is not None:
        return _every(int(every[1]) * _UNITS[every[2]], expression)
    return _cron(expression)


def timer_event(planned: float, trigger: str, payload: str) -> bytes:
    """What a timer hands to its function; `planned` is when it was to go off, in seconds since the epoch."""
    moment = datetime.fromtimestamp(planned, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {"triggerTime": moment, "triggerName": trigger, "payload": payload}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def _every(seconds: int, expression: str) -> NextFire:
    if seconds < 1:
        raise invalid(f"cronExpression '{expression}' has no length")
    return lambda after: after + seconds


def _cron(expression: str) -> NextFire:
    zone, fields = _parts(expression)
    for (what, pattern), text in zip(_FIELDS, fields, strict=True):
        if pattern.fullmatch(text) is None:
            raise invalid(f"cronExpression '{expression}' is not valid in its field {what}: {text}")
    # Where a value is left open by `?`, the library writes `*`.
    plain = " ".join("*" if text == "?" else text.upper() for text in fields)

    def following(after: float) -> float:
        start = datetime.fromtimestamp(after, zone)
        return next(CronSim(plain, start)).timestamp()

    try:
        following(0.0)
    except (CronSimError, StopIteration, ValueError) as error:
        raise invalid(f"cronExpression '{expression}' is not valid or never comes true") from error
    return following


def _parts(expression: str) -> tuple[tzinfo, list[str]]:
    found = _ZONE.match(expression.strip())
    fields = expression.strip()[found.end() if found else 0 :].split()
    if len(fields) != len(_FIELDS):
        raise invalid(f"cronExpression '{expression}' needs six fields, or the form '@every <number>' with s, m or h")
    return _zone(found[1]) if found else UTC, fields


def _zone(name: str) -> tzinfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise invalid(f"the time zone '{name}' is not known") from error

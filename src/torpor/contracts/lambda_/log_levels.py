"""Levels of log events: the platform's own by a table, the functions' by what they say themselves (contract 5.3)."""

import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import msgspec

from torpor.contracts.lambda_.environment import ON_DEMAND


class Level(IntEnum):
    TRACE = 0
    DEBUG = 1
    INFO = 2
    WARN = 3
    ERROR = 4
    FATAL = 5


DEFAULT = "INFO"


class _Row(msgspec.Struct, frozen=True):
    """`otherwise` is the level of an event for which `holds` does not hold."""

    level: Level
    otherwise: Level
    holds: Callable[[Mapping[str, Any]], bool]


def _is_success(body: Mapping[str, Any]) -> bool:
    return bool(body["status"] == "success")


def _is_ready(body: Mapping[str, Any]) -> bool:
    return "errorType" not in body


def _has_version(body: Mapping[str, Any]) -> bool:
    return "runtimeVersion" in body


def _always(body: Mapping[str, Any]) -> bool:
    return True


_TABLE: Mapping[str, _Row] = {
    "platform.initStart": _Row(Level.INFO, Level.DEBUG, _has_version),
    "platform.initRuntimeDone": _Row(Level.DEBUG, Level.WARN, _is_success),
    "platform.initReport": _Row(Level.DEBUG, Level.WARN, _is_success),
    "platform.restoreStart": _Row(Level.INFO, Level.DEBUG, _has_version),
    "platform.restoreRuntimeDone": _Row(Level.DEBUG, Level.WARN, _is_success),
    "platform.restoreReport": _Row(Level.INFO, Level.WARN, _is_success),
    "platform.start": _Row(Level.INFO, Level.INFO, _always),
    "platform.runtimeDone": _Row(Level.DEBUG, Level.WARN, _is_success),
    "platform.report": _Row(Level.INFO, Level.WARN, _is_success),
    "platform.extension": _Row(Level.INFO, Level.WARN, _is_ready),
    "platform.telemetrySubscription": _Row(Level.DEBUG, Level.DEBUG, _always),
    "platform.logsSubscription": _Row(Level.DEBUG, Level.DEBUG, _always),
    "platform.logsDropped": _Row(Level.WARN, Level.WARN, _always),
}
"""Events that are not in it have no line in a log."""


def is_logged(kind: str, body: Mapping[str, Any] | str, system_level: str) -> bool:
    """Has a platform event a line in a JSON log of this system log level?"""
    row = _TABLE.get(kind)
    if row is None or isinstance(body, str):
        return False
    level = row.level if row.holds(body) else row.otherwise
    if kind == "platform.initReport" and level is Level.DEBUG and body["initializationType"] != ON_DEMAND:
        level = Level.INFO
    return level >= Level[system_level or DEFAULT]


class _Line(msgspec.Struct, frozen=True):
    level: Any = None
    timestamp: Any = None


_line = msgspec.json.Decoder(_Line)
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


def is_wanted(text: str, level: str) -> bool:
    """Does a line that a function wrote reach the log at this application log level? What is no JSON object with a
    level and a time counts as INFO."""
    return _level_of(text) >= Level[level or DEFAULT]


def _level_of(text: str) -> Level:
    if not text.startswith("{"):
        return Level.INFO
    try:
        line = _line.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return Level.INFO
    if not isinstance(line.level, str) or not isinstance(line.timestamp, str):
        return Level.INFO
    if not _RFC_3339.fullmatch(line.timestamp):
        return Level.INFO
    return _NAMES.get(line.level.upper(), Level.INFO)


_NAMES = {**Level.__members__, "WARNING": Level.WARN, "CRITICAL": Level.FATAL}

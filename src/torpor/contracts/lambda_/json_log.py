"""The platform's own log lines in JSON format: one event a line, as far as its level says (contract 4.3, 5.3)."""

from collections.abc import Iterable

import msgspec

from torpor.contracts.lambda_.log_levels import is_logged
from torpor.contracts.lambda_.platform_events import PlatformEvent
from torpor.contracts.lambda_.platform_log import stamp


def json_lines(events: Iterable[PlatformEvent], wall: float, system_level: str) -> list[str]:
    """The log events of one record's events, at the wall-clock time `wall`."""
    return [
        msgspec.json.encode({"time": stamp(wall), "type": kind, "record": body}).decode() + "\n"
        for kind, body in events
        if is_logged(kind, body, system_level)
    ]

"""Tokens of pages: where the next one begins. They look like those of the service and hold for any page size."""

import base64
import binascii
import json
import re
from dataclasses import dataclass

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter

_EVENTS = re.compile(r"(?P<way>[fb])/(?P<time>\d{20})(?P<number>\d{20})", re.ASCII)


@dataclass(frozen=True, slots=True)
class EventToken:
    """A place among events, in milliseconds and the number within the group, and the direction to read from there."""

    forward: bool
    time: float
    number: int

    @property
    def text(self) -> str:
        return f"{'f' if self.forward else 'b'}/{round(self.time * 1000):020d}{self.number:020d}"


def event_token(text: str) -> EventToken:
    """Raises ApiFailure for a text that never was one."""
    found = _EVENTS.fullmatch(text)
    if found is None:
        raise _invalid()
    return EventToken(found["way"] == "f", int(found["time"]) / 1000, int(found["number"]))


def item_token(key: tuple[float, str]) -> str:
    """Of a list of groups or streams: the place of the last item shown in the list's order."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode()


def item_key(text: str) -> tuple[float, str]:
    """Raises ApiFailure for a text that never was one."""
    try:
        number, name = json.loads(base64.b64decode(text, altchars=b"-_", validate=True))
        if isinstance(name, str) and isinstance(number, int | float):
            return float(number), name
    except (binascii.Error, ValueError, TypeError, RecursionError):
        pass
    raise _invalid()


def _invalid() -> ApiFailure:
    return invalid_parameter("The specified nextToken is invalid.")

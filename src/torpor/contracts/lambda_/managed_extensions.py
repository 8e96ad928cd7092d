"""The Extensions API in managed instances: extensions are told of the end only (contract 1.6)."""

from torpor.contracts.lambda_ import extensions_api
from torpor.contracts.lambda_.extensions_api import (
    ACCEPTED,
    EMPTY_NAME,
    ERROR_TYPE_HEADER,
    EXIT_ERROR,
    EXTENSIONS_MAX,
    FEATURE_HEADER,
    FOLDER,
    IDENTIFIER_HEADER,
    INIT_ERROR,
    INVALID_IDENTIFIER,
    MISSING_ERROR_TYPE,
    MISSING_IDENTIFIER,
    NAME_HEADER,
    NAME_TAKEN,
    PREFIX,
    REGISTRATION_CLOSED,
    TOO_MANY,
    error_body,
    invoke_event,
    is_identifier,
    parse_call,
    refusal,
    registered,
    unknown,
    unrouted,
)
from torpor.model.errors import InvalidRequest

__all__ = [
    "ACCEPTED",
    "EMPTY_NAME",
    "ERROR_TYPE_HEADER",
    "EXIT_ERROR",
    "EXTENSIONS_MAX",
    "FEATURE_HEADER",
    "FOLDER",
    "IDENTIFIER_HEADER",
    "INIT_ERROR",
    "INVALID_IDENTIFIER",
    "MISSING_ERROR_TYPE",
    "MISSING_IDENTIFIER",
    "NAME_HEADER",
    "NAME_TAKEN",
    "PREFIX",
    "REGISTRATION_CLOSED",
    "TOO_MANY",
    "error_body",
    "invoke_event",
    "is_identifier",
    "parse_call",
    "refusal",
    "registered",
    "shutdown_event",
    "unknown",
    "unrouted",
    "wanted_events",
]

_TIMEOUT, _FAILURE = "timeout", "failure"


def wanted_events(body: bytes, *, internal: bool) -> tuple[bool, bool]:
    """As in the standard API; only the event of the shutdown may be asked for, by external extensions."""
    events = extensions_api.asked_events(body)
    if internal and events:
        message = "No events allowed for internal extensions"
        raise InvalidRequest(message, what=extensions_api.INVALID_EVENT)
    for event in events:
        if event != extensions_api.SHUTDOWN:
            raise InvalidRequest(f"{event}: ErrorInvalidEventType", what=extensions_api.INVALID_EVENT)
    return False, bool(events)


def shutdown_event(reason: str, deadline_ms: int) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of the last event: an environment ends in time or by a failure, never by a time-out."""
    return extensions_api.shutdown_event(_FAILURE if reason == _TIMEOUT else reason, deadline_ms)

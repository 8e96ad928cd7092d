"""One unit of work and what came of it."""

from enum import StrEnum

import msgspec


class OutcomeStatus(StrEnum):
    """How an invocation ended, in the words of the platform's records."""

    SUCCESS = "success"
    ERROR = "error"
    """The function answered with an error, or its runtime failed."""
    TIMEOUT = "timeout"
    FAILURE = "failure"
    """The platform failed."""


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """A request to run a function once."""

    id: str
    """The request id: a lower-case UUID."""
    payload: bytes
    resource: str
    """The function as the caller addressed it, qualifier included."""
    content_type: str = "application/json"
    trace: str = ""
    """The trace header handed on to the runtime; empty if there is none."""
    upstream_trace: str = ""
    """The one before it, if the platform records segments of its own for this invocation."""
    client_context: str = ""
    """Decoded client context (JSON text); empty if there is none."""
    identity: str = ""
    tenant: str = ""
    wants_log: bool = False
    """The caller waits for the invocation's own log lines too."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller of an invocation is told."""

    status: OutcomeStatus
    payload: bytes
    content_type: str = "application/json"
    error_type: str = ""
    """Set whenever the caller must see the result as a function error."""
    version: str = ""
    log_tail: bytes = b""

"""Why an invocation or an initialisation failed, as facts; each contract words them for its callers."""

from enum import StrEnum

import msgspec


class FailureKind(StrEnum):
    TIMEOUT = "timeout"
    EXIT = "exit"
    """A process of the environment ended when it should not have."""
    INIT_ERROR = "init_error"
    """An agent reported that it cannot initialise, or go on."""
    START = "start"
    """The runtime's program could not be started."""
    OVERSIZE = "oversize"
    """The runtime's answer was over the contract's limit."""
    MALFORMED = "malformed"
    """The runtime's answer broke the in-sandbox protocol."""
    NO_ANSWER = "no_answer"
    """The server closed the connection, or refused it, instead of answering."""
    HEALTH = "health"
    """The server's health check failed."""
    CANCELLED = "cancelled"
    """The caller went away before the answer."""
    SANDBOX = "sandbox"
    """The platform lost or could not make the sandbox."""
    STOPPED = "stopped"
    """The platform was told to end the environment while the invocation ran."""


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One failure. `payload` is what the runtime itself posted, if it did; `limit` is in seconds."""

    kind: FailureKind
    agent: str = "runtime"
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    payload: bytes = b""
    error_type: str = ""
    detail: str = ""
    limit: float = 0.0
    size: int = 0
    starting: bool = False
    """It happened before the runtime was ready for the first time."""
    restoring: bool = False
    """It happened while the runtime went on from its snapshot."""
    elapsed: float = 0.0
    """Seconds since the runtime was started, where that is told."""
    address: str = ""
    """`host:port` at which a server was expected."""
    memory_mb: int = 0
    """Most memory the environment has used, where that is told."""
    output: tuple[tuple[float, str], ...] = ()
    """The last lines the processes wrote, each with its wall time, where they help to understand the failure."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime answered. A non-empty `error_type` marks a function error."""

    payload: bytes
    content_type: str = "application/json"
    error_type: str = ""
    streamed: int | None = None
    """Bytes that its caller has had already, if the answer was streamed; the payload is then empty, or an error's."""
    cause: str = ""
    """The runtime's own account of its error for traces, as it came; empty if it gave none."""


class _Told(msgspec.Struct, rename="camel"):
    """What the bodies that callers get for failures have in common."""

    error_message: str
    error_type: str = ""


def as_text(body: bytes) -> str:
    """The body that a caller gets for a failure, as a line of text."""
    try:
        told = msgspec.json.decode(body, type=_Told)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode(errors="replace")
    return ": ".join(part for part in (told.error_type, told.error_message) if part)

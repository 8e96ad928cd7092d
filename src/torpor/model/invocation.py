"""One unit of work and what came of it."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Protocol

import msgspec

from torpor.model.failure import Failure


class OutcomeStatus(StrEnum):
    """How an invocation ended, in the words of the platform's records."""

    SUCCESS = "success"
    ERROR = "error"
    """The function answered with an error, or its runtime failed."""
    TIMEOUT = "timeout"
    FAILURE = "failure"
    """The platform failed."""


Fields = Sequence[tuple[str, str]]
"""Header fields in order: name and value."""
HeaderLines = bytes
"""Header fields as they go out, framing left out: `Name: value` and a line end, each."""


class BodySource(Protocol):
    """The rest of a request's body, while it arrives."""

    def pump(self, write: Callable[[bytes], None], ended: Callable[[bool], None]) -> None:
        """From now on hand every piece to `write`; then call `ended`, with False if the caller went away before."""
        ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Relay(Protocol):
    """The caller's side of a request that is passed on: takes the answer while it arrives.

    `head` comes once, then any number of `data`, then `end`; or `fail` at any point instead of what is left.
    """

    @property
    def begun(self) -> bool:
        """Has `head` been called?"""
        ...

    def head(self, status: int, fields: Fields | HeaderLines, length: int | None) -> None:
        """`length` is the body's in bytes; None if it is not known."""
        ...

    def data(self, chunk: bytes) -> bool:
        """False if the caller reads too slowly: then `on_writable`, set before, is called once it has caught up."""
        ...

    def end(self) -> None: ...

    def join(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], upstream: Any, ended: Callable[[], None]
    ) -> None:
        """The server has changed the protocol: pass its head on, then bytes both ways between the caller and
        `upstream` (a tunnel of the transport's), and call `ended` once both are through."""
        ...

    def fail(self) -> None:
        """Break the answer off so that its reader cannot take it for complete. Only once `head` was called."""
        ...

    on_writable: Callable[[], None] | None


class AnswerSink(Protocol):
    """The caller's side of an invocation whose answer is wanted while it is written.

    `begin` comes once, as soon as the function begins to stream its answer, then any number of `data`. The end is told
    by the invocation's `done`, not here: its Outcome is a success with an empty payload, or an error (the function's
    own or what became of it), whose payload is the error's JSON. A function that answers whole, or fails before it
    streams, calls nothing here: then `done` has the whole payload. Nothing is called after `done`.
    """

    def begin(self, content_type: str) -> None:
        """A streamed answer of this type follows."""
        ...

    def data(self, chunk: bytes) -> bool:
        """False if the caller reads too slowly: then `on_writable`, set once this has returned, is to be called when
        it has caught up. A sink whose caller has gone drops the bytes and returns True."""
        ...

    on_writable: Callable[[], None] | None


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that reaches the server inside as its caller sent it."""

    method: str
    target: str
    """Path and query, percent-encoding kept."""
    relay: Relay
    fields: Fields = ()
    lines: HeaderLines = b""
    """In place of `fields`, from whoever has them in this form."""
    body: BodySource | None = None
    """What follows the invocation's payload; None if the payload is the whole body."""
    length: int | None = None
    """Bytes of the body as the caller declared them; None if it comes in chunks."""
    upgrade: str = ""
    """The protocol that the caller wants to change to; empty if none."""
    peer: str = ""
    """The caller's address."""
    scheme: str = "http"


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
    qualifier: str = ""
    """The version or alias as the caller named it; empty if it named none."""
    patient: bool = False
    """It waits for its turn however long that takes, instead of being refused."""
    is_kept: bool = False
    """Somebody keeps it for later if there is no memory for it now, so it holds nobody up by waiting for that."""
    wants_memory: bool = False
    """The caller is told the environment's peak memory."""
    attempt: int = 0
    """How often it was tried before."""
    http: HttpRequest | None = None
    """Set if the function is called by HTTP and sees the request itself."""
    sink: AnswerSink | None = None
    """Takes the answer while it is written, if the function streams it. Without one a streamed answer is collected, and
    may be no larger than any other."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller of an invocation is told."""

    status: OutcomeStatus
    payload: bytes
    content_type: str = "application/json"
    error_type: str = ""
    """Set whenever the caller must see the result as a function error."""
    version: str = ""
    log_tail: bytes = b""
    environment: str = ""
    """The environment that ran it; empty if none did."""
    duration: float = 0.0
    """Seconds from its delivery to its end."""
    memory_mb: int = 0
    """Peak memory of the environment in MiB, where it was asked for."""
    failure: Failure | None = None
    """Why there is no answer of the function's own."""

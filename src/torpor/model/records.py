"""What happened, once: the records from which logs, metrics and traces are derived.

Times `at` are readings of the monotonic clock; durations are in seconds. The driver adds wall-clock time and memory.
"""

import msgspec

from torpor.model.failure import Answer, Failure
from torpor.model.invocation import OutcomeStatus


class InitStarted(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    within_invocation: bool = False


class InitEnded(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    duration: float
    status: OutcomeStatus
    failure: Failure | None = None
    within_invocation: bool = False


class InvocationStarted(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    id: str


class RuntimeDone(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime is through with the invocation; extensions may still work."""

    at: float
    id: str
    status: OutcomeStatus
    duration: float
    failure: Failure | None = None
    produced_bytes: int | None = None
    """Size of the answer; None if there was none."""
    response_latency: float | None = None
    """Seconds from the delivery to the answer's begin."""
    response_duration: float | None = None
    """Seconds from there to its end."""


class InvocationEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The whole Invoke phase is over. `init_duration` is set on the first invocation after a successful Init,
    `reported` is what the runtime answered if that was an error of its function's."""

    at: float
    id: str
    status: OutcomeStatus
    duration: float
    limit: float
    failure: Failure | None = None
    reported: Answer | None = None
    init_duration: float | None = None


class ShutdownStarted(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    reason: str


class ShutdownEnded(msgspec.Struct, frozen=True, kw_only=True):
    """Every process of the environment is gone. `exits` tells how each ended: `exit 0`, `signal 9`."""

    at: float
    reason: str
    duration: float
    exits: dict[str, str]


class CodeFetched(msgspec.Struct, frozen=True, kw_only=True):
    """The code lies on this host; `fetched` if it had to be brought here."""

    at: float
    duration: float
    fetched: bool


class SandboxMade(msgspec.Struct, frozen=True, kw_only=True):
    """The isolated place exists."""

    at: float
    duration: float


class ExtensionReady(msgspec.Struct, frozen=True, kw_only=True):
    """Init is over and this extension takes part; `events` are those it asked for, in order."""

    at: float
    name: str
    events: tuple[str, ...]


Record = (
    InitStarted
    | InitEnded
    | ExtensionReady
    | InvocationStarted
    | RuntimeDone
    | InvocationEnded
    | ShutdownStarted
    | ShutdownEnded
    | CodeFetched
    | SandboxMade
)

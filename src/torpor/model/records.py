"""What happened, once: the records from which logs, metrics and traces are derived.

Times `at` are readings of the monotonic clock; durations are in seconds. The driver adds wall-clock time and memory.
"""

import msgspec

from torpor.model.failure import Answer, Failure
from torpor.model.invocation import OutcomeStatus


class InitStarted(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    within_invocation: bool = False


class InitRuntimeDone(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime is through with its part of Init; extensions may still be at theirs."""

    at: float
    status: OutcomeStatus
    failure: Failure | None = None
    within_invocation: bool = False


class InitEnded(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    duration: float
    status: OutcomeStatus
    failure: Failure | None = None
    within_invocation: bool = False


class RestoreStarted(msgspec.Struct, frozen=True, kw_only=True):
    at: float


class RestoreEnded(msgspec.Struct, frozen=True, kw_only=True):
    """`hooks` is the part of `duration` in which the runtime itself was at work."""

    at: float
    duration: float
    hooks: float
    status: OutcomeStatus
    failure: Failure | None = None


class InvocationStarted(msgspec.Struct, frozen=True, kw_only=True):
    at: float
    id: str


class RuntimeDone(msgspec.Struct, frozen=True, kw_only=True):
    """The runtime is through with the invocation, well or not; extensions may still work.

    `error_type` is set if what it answered was an error of its function's. `answer_began` and `answer_ended` are
    monotonic times, 0 if there was no answer; `produced` is its size in bytes."""

    at: float
    id: str
    status: OutcomeStatus
    duration: float
    failure: Failure | None = None
    error_type: str = ""
    answer_began: float = 0.0
    answer_ended: float = 0.0
    produced: int = 0


class InvocationEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The whole Invoke phase is over. `init_duration` is set on the first invocation after a successful Init,
    `reported` is what the runtime answered if that was an error of its function's, `runtime_done` the monotonic time
    at which the runtime was through; 0 where that is not told apart."""

    at: float
    id: str
    status: OutcomeStatus
    duration: float
    limit: float
    failure: Failure | None = None
    reported: Answer | None = None
    init_duration: float | None = None
    restored: RestoreEnded | None = None
    """On the first invocation after a restoration, how that went."""
    runtime_done: float = 0.0


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


class ExtensionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far an extension has come when Init is over: `ready` unless Init has failed, else the state it was in.
    `events` are those it asked for, in order; `failure` is set if Init failed because of it."""

    at: float
    name: str
    events: tuple[str, ...]
    state: str = "ready"
    failure: Failure | None = None


class Subscribed(msgspec.Struct, frozen=True, kw_only=True):
    """An extension has subscribed to telemetry from these sources, by one of the APIs for it."""

    at: float
    name: str
    api: str
    sources: tuple[str, ...]


class TelemetryDropped(msgspec.Struct, frozen=True, kw_only=True):
    """An extension was too slow: so many events, of so many bytes, were given up."""

    at: float
    name: str
    count: int
    size: int


Record = (
    InitStarted
    | InitRuntimeDone
    | InitEnded
    | RestoreStarted
    | RestoreEnded
    | ExtensionStatus
    | Subscribed
    | TelemetryDropped
    | InvocationStarted
    | RuntimeDone
    | InvocationEnded
    | ShutdownStarted
    | ShutdownEnded
    | CodeFetched
    | SandboxMade
)

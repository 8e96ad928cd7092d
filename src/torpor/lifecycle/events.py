"""What the outside tells the machine. Nothing here is asked for; everything has already happened."""

import msgspec

from torpor.model.failure import Answer, Failure
from torpor.model.invocation import Invocation


class SandboxReady(msgspec.Struct, frozen=True):
    """The isolated place exists; nothing runs in it yet. `extensions` are the external ones found in it."""

    extensions: tuple[str, ...] = ()


class SandboxLost(msgspec.Struct, frozen=True):
    """The isolated place could not be made, or is gone."""

    reason: str


class Assigned(msgspec.Struct, frozen=True):
    """The pool gives this environment an invocation; `timeout` is in seconds."""

    invocation: Invocation
    timeout: float


class NextRequested(msgspec.Struct, frozen=True):
    """An agent asks for work. A server runtime says so by answering its readiness probe."""

    agent: str


class RestoreAwaited(msgspec.Struct, frozen=True):
    """The runtime waits to go on from a snapshot: in the place where that is made, or where it is used."""


class AgentRegistered(msgspec.Struct, frozen=True):
    """An extension has registered for some events."""

    agent: str
    invoke: bool
    shutdown: bool
    internal: bool


class AnswerBegun(msgspec.Struct, frozen=True):
    """The runtime has begun to upload a streamed answer."""

    invocation_id: str


class Answered(msgspec.Struct, frozen=True):
    """The runtime has answered an invocation, well or with an error of the function."""

    invocation_id: str
    answer: Answer


class AnswerRefused(msgspec.Struct, frozen=True):
    """What the runtime made of an invocation is no result: too large, malformed, or nothing any more."""

    invocation_id: str
    failure: Failure


class NextWithdrawn(msgspec.Struct, frozen=True):
    """A parked request for work of a parallel runtime is gone: its worker has ended."""

    agent: str


class Cancelled(msgspec.Struct, frozen=True):
    """The caller of an invocation went away, and the contract takes notice of that."""

    invocation_id: str


class HealthChanged(msgspec.Struct, frozen=True):
    """The runtime's health checks have failed, or passed again, often enough to count."""

    healthy: bool


class AgentFailed(msgspec.Struct, frozen=True):
    """An agent reports that it cannot initialise, or not `starting` any more, go on; it is expected to exit."""

    agent: str
    error_type: str
    payload: bytes
    starting: bool = True


class AgentExited(msgspec.Struct, frozen=True):
    """A process of the environment is gone. `start_error` says why it never ran at all."""

    agent: str
    code: int | None = None
    signal: int | None = None
    out_of_memory: bool = False
    start_error: str = ""


class DeadlineReached(msgspec.Struct, frozen=True):
    """A timer armed by the machine has run out."""

    timer: str


class NothingPending(msgspec.Struct, frozen=True):
    """The pool has no work for this environment now."""


class HookFinished(msgspec.Struct, frozen=True):
    """A hook call that the machine asked for is over; the failure is None if all is well."""

    hook: str
    failure: Failure | None = None


class StopRequested(msgspec.Struct, frozen=True):
    """End the environment: `spindown`, `timeout` or `failure`. Running invocations fail."""

    reason: str


Event = (
    SandboxReady
    | SandboxLost
    | Assigned
    | NextRequested
    | RestoreAwaited
    | AgentRegistered
    | AnswerBegun
    | Answered
    | AnswerRefused
    | NextWithdrawn
    | Cancelled
    | HealthChanged
    | AgentFailed
    | AgentExited
    | DeadlineReached
    | NothingPending
    | HookFinished
    | StopRequested
)

EVENTS: tuple[type, ...] = (
    SandboxReady,
    SandboxLost,
    Assigned,
    NextRequested,
    RestoreAwaited,
    AgentRegistered,
    AnswerBegun,
    Answered,
    AnswerRefused,
    NextWithdrawn,
    Cancelled,
    HealthChanged,
    AgentFailed,
    AgentExited,
    DeadlineReached,
    NothingPending,
    HookFinished,
    StopRequested,
)

"""What the outside tells the machine. Nothing here is asked for; everything has already happened."""

import msgspec

from torpor.model.failure import Answer
from torpor.model.invocation import Invocation


class SandboxReady(msgspec.Struct, frozen=True):
    """The isolated place exists; nothing runs in it yet."""


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


class AgentRegistered(msgspec.Struct, frozen=True):
    """An extension has registered for some events."""

    agent: str
    invoke: bool
    shutdown: bool
    internal: bool


class Answered(msgspec.Struct, frozen=True):
    """The runtime has answered an invocation, well or with an error of the function."""

    invocation_id: str
    answer: Answer


class AnswerRefused(msgspec.Struct, frozen=True):
    """The runtime's answer was taken in but is no result: too large or malformed."""

    invocation_id: str
    oversize: bool
    error_type: str
    size: int


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
    """A hook call that the machine asked for is over, well or not."""

    hook: str
    error: str


class StopRequested(msgspec.Struct, frozen=True):
    """End the environment: `spindown`, `timeout` or `failure`. Running invocations fail."""

    reason: str


Event = (
    SandboxReady
    | SandboxLost
    | Assigned
    | NextRequested
    | AgentRegistered
    | Answered
    | AnswerRefused
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
    AgentRegistered,
    Answered,
    AnswerRefused,
    AgentFailed,
    AgentExited,
    DeadlineReached,
    NothingPending,
    HookFinished,
    StopRequested,
)

"""What the machine asks the outside to do, in the order given. The driver performs it; nothing here decides."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from torpor.model.failure import Answer, Failure
from torpor.model.invocation import Invocation
from torpor.model.records import InvocationEnded, Record


class StartAgents(msgspec.Struct, frozen=True):
    """Start these processes, by agent name."""

    agents: tuple[str, ...]


class Deliver(msgspec.Struct, frozen=True):
    """Hand the invocation to the runtime (the answer to its parked request, or a request to its server), having armed
    the timer of its name at `deadline`, and keep the record of its start: one effect, as it is asked for every time.

    `at` and `deadline` are monotonic times."""

    invocation: Invocation
    at: float
    deadline: float


class SaveRuntime(msgspec.Struct, frozen=True):
    """Make the snapshot of the runtime; then, or if that fails, ask for the environment's end."""


class WakeRuntime(msgspec.Struct, frozen=True):
    """Tell the runtime, which waits for that, that it goes on from a snapshot."""


class DeliverAgain(msgspec.Struct, frozen=True):
    """The runtime has asked once more while it has this invocation: hand it over again, as before."""

    invocation: Invocation
    deadline: float


class NotifyInvoke(msgspec.Struct, frozen=True):
    """Tell an extension of the invocation."""

    agent: str
    invocation: Invocation
    deadline: float


class NotifyShutdown(msgspec.Struct, frozen=True):
    """Tell an extension that the environment ends, and by when."""

    agent: str
    reason: str
    deadline: float


class Freeze(msgspec.Struct, frozen=True):
    """Stop every process."""


class Thaw(msgspec.Struct, frozen=True):
    """Let every process run again."""


class LimitCpu(msgspec.Struct, frozen=True):
    """Hold the processes to their CPU share, or let them burst while they initialise."""

    limited: bool


class ArmTimer(msgspec.Struct, frozen=True):
    """Send `DeadlineReached(timer)` at the monotonic time `at`; arming again replaces."""

    timer: str
    at: float


class CancelTimer(msgspec.Struct, frozen=True):
    timer: str


class SignalName(StrEnum):
    TERMINATE = "terminate"
    KILL = "kill"


class SignalAgent(msgspec.Struct, frozen=True):
    agent: str
    signal: SignalName


class KillAgents(msgspec.Struct, frozen=True):
    """Kill every process inside, whatever it is."""


class CallHook(msgspec.Struct, frozen=True):
    """Call a hook of a server runtime; answer with `HookFinished`."""

    hook: str


class Emit(msgspec.Struct, frozen=True):
    """Keep a record of what happened."""

    record: Record


class Conclude(msgspec.Struct, frozen=True):
    """An invocation is over inside: cancel the timer of its name and keep this record."""

    record: InvocationEnded


class Complete(msgspec.Struct, frozen=True):
    """Tell the caller of an invocation its result."""

    invocation: Invocation
    result: Answer | Failure
    started: float = 0.0
    """When it was delivered, as a monotonic time; 0 if it never was."""


class Destroy(msgspec.Struct, frozen=True):
    """Remove the sandbox; the environment is gone."""

    reason: str


Effect = (
    StartAgents
    | Deliver
    | SaveRuntime
    | WakeRuntime
    | DeliverAgain
    | NotifyInvoke
    | NotifyShutdown
    | Freeze
    | Thaw
    | LimitCpu
    | ArmTimer
    | CancelTimer
    | SignalAgent
    | KillAgents
    | CallHook
    | Emit
    | Conclude
    | Complete
    | Destroy
)
Effects = Sequence[Effect]

"""How the four contracts differ in the life of an environment: one frozen value, no branches elsewhere.

Each field is a row of the design's policy table. The numbers come from the contract's `limits` module.
"""

from dataclasses import dataclass
from enum import StrEnum

from torpor.model.start import Start


class RuntimeKind(StrEnum):
    POLLER = "poller"
    """The runtime asks for work; one request of it at a time."""
    PARALLEL_POLLER = "parallel_poller"
    """Several workers of the runtime ask for work independently."""
    SERVER = "server"
    """The runtime is sent HTTP requests."""


class InitFailure(StrEnum):
    RETRY_IN_INVOCATION = "retry_in_invocation"
    """Initialise again inside the first invocation, under the invocation's own deadline."""
    REPLACE = "replace"
    """End the environment; the pool makes another one."""
    FAIL_WAITING = "fail_waiting"
    """Fail the invocations that wait for this environment and end it."""


class FailureScope(StrEnum):
    ENVIRONMENT = "environment"
    """Reset the environment: processes end, `/tmp` stays, the next invocation initialises again."""
    INVOCATION = "invocation"
    """Only the invocation fails; the environment goes on."""
    DRAIN = "drain"
    """Only the invocation fails, but the environment takes nothing new and ends once the others are through."""
    REPLACE = "replace"
    """End the environment; the pool makes another one."""


class Freezing(StrEnum):
    WHEN_IDLE = "when_idle"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownBudget:
    """Seconds that processes get to end by themselves; 0 means they are killed at once."""

    runtime_only: float
    with_internal_extension: float
    with_external_extension: float
    runtime_share: float
    """The part of the budget in which the runtime must end, as a fraction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LifecyclePolicy:
    """All that the machine knows about a contract."""

    runtime_kind: RuntimeKind
    init_limit: float
    """Seconds for the whole of Init."""
    init_failure: InitFailure
    slots: int
    """Invocations that one environment may run at once."""
    timeout_scope: FailureScope
    runtime_exit_scope: FailureScope
    extension_exit_scope: FailureScope
    freezing: Freezing
    shutdown: ShutdownBudget
    cancel_scope: FailureScope = FailureScope.INVOCATION
    """What follows when a caller goes away before its answer, where the contract notices that."""
    init_hook: bool = False
    """Call the runtime's initialise hook once its port answers, before it is ready."""
    init_hook_limit: float = 0.0
    """Seconds for that hook, counted from the moment the runtime is ready for it."""
    pre_freeze_hook: bool = False
    pre_stop_hook: bool = False
    pre_stop_limit: float = 0.0
    """Seconds for that hook."""
    single_use: bool = False
    """End the environment after its first invocation."""
    is_saved: bool = False
    """The environment is there to make a snapshot of its runtime, and ends with that."""
    restore_limit: float = 0.0
    """Seconds in which the runtime must have gone on from its snapshot; 0 if it is not made from one."""
    early: bool = True
    """Invocations may be assigned to it while it still starts."""


class WhenFull(StrEnum):
    """What becomes of an invocation for which there is neither room nor leave to start an environment."""

    REFUSE = "refuse"
    QUEUE = "queue"
    """It waits its turn for `queue_limit` seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingPolicy:
    """How many environments a version has, and when. Numbers count environments, times are seconds."""

    on_demand: bool = True
    """An invocation without room starts an environment; otherwise environments come and go by load alone."""
    when_full: WhenFull = WhenFull.REFUSE
    queue_limit: float = 10.0
    minimum: int = 0
    kept_as: Start = Start.ON_DEMAND
    """How the environments of the minimum start. If not on demand, they are a set of their own: exactly so many, beside
    those that invocations start."""
    ahead: int = 0
    """Environments started for a new version before anything is asked of it; they are like any other on demand."""
    maximum: int | None = None
    together: int | None = None
    """Bound on the environments of all versions under this contract."""
    counted: bool = True
    """Its invocations count against the account's concurrency."""
    idle_timeout: float | None = None
    """Seconds an idle environment is kept; None for the server's setting."""
    handover: bool = False
    """A version that is replaced goes on serving until its successor is up."""
    starts_as: Start = Start.ON_DEMAND
    """How the environment that an invocation starts comes to be ready."""
    leave_limit: float | None = None
    """Seconds that what runs may still take once its version is replaced or deleted; None for as long as it may take
    anyway."""

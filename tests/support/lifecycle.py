"""Scripted life cycles: events go in at growing times, effects are kept by name."""

from collections.abc import Iterator
from dataclasses import replace

from torpor.lifecycle import RUNTIME, EnvironmentMachine, PhaseName
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.model.failure import Answer, Failure
from torpor.model.invocation import Invocation
from torpor.model.policy import (
    FailureScope,
    Freezing,
    InitFailure,
    LifecyclePolicy,
    RuntimeKind,
    ShutdownBudget,
)
from torpor.model.records import InvocationStarted, Record

KILL_AT_ONCE = ShutdownBudget(
    runtime_only=0.0, with_internal_extension=0.5, with_external_extension=2.0, runtime_share=0.3
)
STANDARD = LifecyclePolicy(
    runtime_kind=RuntimeKind.POLLER,
    init_limit=10.0,
    init_failure=InitFailure.RETRY_IN_INVOCATION,
    slots=1,
    timeout_scope=FailureScope.ENVIRONMENT,
    runtime_exit_scope=FailureScope.ENVIRONMENT,
    extension_exit_scope=FailureScope.ENVIRONMENT,
    freezing=Freezing.WHEN_IDLE,
    shutdown=KILL_AT_ONCE,
)
SAVED = replace(STANDARD, init_limit=130.0, init_failure=InitFailure.REPLACE, is_saved=True)
RESTORED = replace(
    STANDARD,
    timeout_scope=FailureScope.REPLACE,
    runtime_exit_scope=FailureScope.REPLACE,
    extension_exit_scope=FailureScope.REPLACE,
    restore_limit=10.0,
)
MANAGED = LifecyclePolicy(
    runtime_kind=RuntimeKind.PARALLEL_POLLER,
    init_limit=130.0,
    init_failure=InitFailure.REPLACE,
    slots=4,
    timeout_scope=FailureScope.INVOCATION,
    runtime_exit_scope=FailureScope.REPLACE,
    extension_exit_scope=FailureScope.REPLACE,
    freezing=Freezing.NEVER,
    shutdown=KILL_AT_ONCE,
)
FUNCTION_SERVER = LifecyclePolicy(
    runtime_kind=RuntimeKind.SERVER,
    init_limit=120.0,
    init_failure=InitFailure.FAIL_WAITING,
    slots=2,
    timeout_scope=FailureScope.REPLACE,
    runtime_exit_scope=FailureScope.REPLACE,
    extension_exit_scope=FailureScope.REPLACE,
    freezing=Freezing.WHEN_IDLE,
    shutdown=ShutdownBudget(
        runtime_only=5.0, with_internal_extension=5.0, with_external_extension=5.0, runtime_share=1.0
    ),
    init_hook=True,
    init_hook_limit=30.0,
    pre_freeze_hook=True,
    pre_stop_hook=True,
    pre_stop_limit=90.0,
)
WEB_SERVICE = LifecyclePolicy(
    runtime_kind=RuntimeKind.SERVER,
    init_limit=60.0,
    init_failure=InitFailure.FAIL_WAITING,
    slots=10,
    timeout_scope=FailureScope.DRAIN,
    runtime_exit_scope=FailureScope.REPLACE,
    extension_exit_scope=FailureScope.REPLACE,
    freezing=Freezing.WHEN_IDLE,
    shutdown=ShutdownBudget(
        runtime_only=10.0, with_internal_extension=10.0, with_external_extension=10.0, runtime_share=1.0
    ),
)


def invocation(name: str = "i1", *, wants_log: bool = False) -> Invocation:
    return Invocation(id=name, payload=b"{}", resource="f", wants_log=wants_log)


class Story:
    """A machine and what it has asked for."""

    def __init__(self, policy: LifecyclePolicy = STANDARD, extensions: tuple[str, ...] = ()) -> None:
        self.machine = EnvironmentMachine(policy, extensions)
        self.now = 0.0
        self.effects: list[fx.Effect] = []
        self.told: dict[str, Answer | Failure] = {}

    def then(self, event: ev.Event, after: float = 0.0) -> list[str]:
        """Feed an event `after` seconds later; the names of the effects it had."""
        self.now += after
        effects = list(self.machine.handle(event, self.now))
        self.effects += effects
        for effect in effects:
            if isinstance(effect, fx.Complete):
                assert effect.invocation.id not in self.told, "a caller is told its result once"
                self.told[effect.invocation.id] = effect.result
        return [type(effect).__name__ for effect in effects]

    @property
    def phase(self) -> PhaseName:
        return self.machine.phase.name

    def records(self) -> list[str]:
        return [type(record).__name__ for record in self.record_values()]

    def record_values(self) -> Iterator[Record]:
        """What the driver keeps of it."""
        for effect in self.effects:
            if isinstance(effect, fx.Emit | fx.Conclude):
                yield effect.record
            elif isinstance(effect, fx.Deliver):
                yield InvocationStarted(at=effect.at, id=effect.invocation.id)

    def assign(self, name: str = "i1", timeout: float = 3.0, *, wants_log: bool = False) -> list[str]:
        return self.then(ev.Assigned(invocation(name, wants_log=wants_log), timeout))

    def ready(self, after: float = 0.1) -> list[str]:
        return self.then(ev.NextRequested(RUNTIME), after)

    def answer(self, name: str = "i1", after: float = 0.1) -> list[str]:
        return self.then(ev.Answered(name, Answer(payload=b"1")), after)

    def crash(self, code: int = 1, agent: str = RUNTIME, after: float = 0.1) -> list[str]:
        return self.then(ev.AgentExited(agent, code=code), after)

    def initialised(self) -> "Story":
        """Sandbox made, runtime ready, nothing assigned."""
        self.then(ev.SandboxReady())
        self.ready()
        return self

    def frozen(self) -> "Story":
        self.initialised()
        self.then(ev.NothingPending())
        return self

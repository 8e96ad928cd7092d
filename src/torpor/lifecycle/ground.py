"""What every rule of the machine stands on: the state it reads and writes, and the few ways of ending an invocation."""

from collections import deque
from collections.abc import Iterable, Mapping

from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.agents import EXTENSION, RUNTIME, RUNTIME_TABLES, Agent, AgentCall, AgentState
from torpor.lifecycle.phases import Phase, PhaseName, Provisioning
from torpor.lifecycle.slots import Slot, SlotCall, SlotState
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.invocation import OutcomeStatus
from torpor.model.policy import LifecyclePolicy, RuntimeKind
from torpor.model.records import InvocationEnded, InvocationStarted, Record, RestoreEnded, RuntimeDone

INIT_TIMER = "init"
RUNTIME_SHUTDOWN_TIMER = "shutdown-runtime"
SHUTDOWN_TIMER = "shutdown"

_CAN_TAKE = frozenset({PhaseName.IDLE, PhaseName.FROZEN, PhaseName.SERVING, PhaseName.UNINITIALIZED})
_STARTING = frozenset({PhaseName.PROVISIONING, PhaseName.INITIALIZING, PhaseName.RESTORING})
_REGISTERING = frozenset({PhaseName.INITIALIZING, PhaseName.REINITIALIZING, PhaseName.RESTORING})


class IllegalEvent(Exception):
    """The table has no rule for this event in this phase, or there is no room for it: a fault of the platform."""


class Ground:
    """The state of one environment."""

    def __init__(self, policy: LifecyclePolicy, extensions: Iterable[str] = ()) -> None:
        self.policy = policy
        self.phase: Phase = Provisioning()
        self.runtime = Agent(RUNTIME, RUNTIME_TABLES[policy.runtime_kind])
        self.extensions = {name: Agent(name, EXTENSION) for name in extensions}
        self.slots: dict[str, Slot] = {}
        self.waiting: deque[Slot] = deque()
        self.parked = 0
        """Requests for work of a parallel runtime that nothing has answered yet."""
        self.returning = 0
        """Workers of a parallel runtime that have answered and not asked for more yet."""
        self.healthy = True
        self.draining = False
        """It takes nothing new and ends once what runs is through."""
        self._runtime_up = False
        """The runtime is through with its part of Init, and that was told."""
        self._failure: Failure | None = None
        """What an agent reported before it went, until Init starts again."""
        self._exits: dict[str, str] = {}
        """How each process of an ending environment ended, by its title."""
        self._init_duration: float | None = None
        """Of an Init that no invocation has reported yet."""
        self._restored: RestoreEnded | None = None
        """A restoration that no invocation has reported yet."""
        self._out: list[fx.Effect] = []

    @property
    def delivered(self) -> tuple[str, ...]:
        """The invocations whose answer is awaited."""
        return tuple(name for name, slot in self.slots.items() if slot.state is SlotState.DELIVERED)

    @property
    def free_slots(self) -> int:
        """How many invocations could be assigned now: at once, or as one of those that wait for a start."""
        name = self.phase.name
        if self.policy.is_saved:
            return 0
        if name in _STARTING:
            free = self.policy.slots - len(self.waiting) if self.policy.early else 0
        elif name not in _CAN_TAKE or self.waiting or self.draining or not self.healthy:
            return 0
        else:
            free = self.policy.slots - len(self.slots)
        if self.policy.runtime_kind is RuntimeKind.PARALLEL_POLLER:
            free = min(free, self.parked)
        return free if free > 0 else 0

    @property
    def returning_slots(self) -> int:
        """How many slots will be free in a moment: their workers have answered and are about to ask for more."""
        if self.policy.runtime_kind is not RuntimeKind.PARALLEL_POLLER or self.draining:
            return 0
        return max(min(self.returning, self.policy.slots - len(self.slots) - self.parked), 0)

    def _arm(self, timer: str, at: float) -> None:
        self._out.append(fx.ArmTimer(timer, at))

    def _emit(self, record: Record) -> None:
        self._out.append(fx.Emit(record))

    def _agent(self, name: str) -> Agent:
        return self.runtime if name == RUNTIME else self.extensions[name]

    @property
    def takes_registrations(self) -> bool:
        """May extensions register? Until the runtime first asks for work."""
        return self.phase.name in _REGISTERING and self.runtime.state in (AgentState.EXITED, AgentState.STARTED)

    def _gone(self, agent: Agent) -> None:
        """A process has ended, and with the runtime's the extensions inside it."""
        if agent.lives:
            agent.move(AgentCall.EXIT)
        if agent is self.runtime:
            for inner in self.extensions.values():
                if inner.lives and not inner.external:
                    inner.move(AgentCall.EXIT)

    def _all_ready(self) -> bool:
        if self.runtime.state is not AgentState.READY:
            return False
        return not self.extensions or all(agent.state is AgentState.READY for agent in self.extensions.values())

    def _fail(self, slot: Slot, failure: Failure, now: float) -> None:
        """The invocation is over with a failure, whatever it had reached."""
        if slot.state is SlotState.WAITING:
            self._start_late(slot, now)
        if slot.state is not SlotState.EXPIRED:
            if self.policy.runtime_kind is RuntimeKind.POLLER:
                self._runtime_through(slot, failure, now)
            self._report(slot, failure, now)
        if slot.result is None:  # what the runtime answered stays, be it refused
            slot.result = failure
        slot.move(SlotCall.FAIL)
        self._tell(slot)
        self.slots.pop(slot.invocation.id, None)

    def _start_late(self, slot: Slot, now: float) -> None:
        """Its Init was part of it and failed: it has started all the same, and says so afterwards."""
        if not slot.started:
            slot.started = now
        self._emit(InvocationStarted(at=now, id=slot.invocation.id))

    def _fail_all(self, failure: Failure, now: float) -> None:
        for slot in [*self.slots.values(), *self.waiting]:
            self._fail(slot, failure, now)
        self.waiting.clear()

    def _runtime_through(self, slot: Slot, failure: Failure | None, now: float) -> None:
        """The runtime has done, or will do, no more for this invocation. Told once."""
        if slot.runtime_done:
            return
        slot.runtime_done = now
        result = slot.result
        error_type, produced, answered = "", 0, 0.0
        if isinstance(result, Answer):
            error_type, answered = result.error_type, slot.answered_at
            produced = len(result.payload) if result.streamed is None else result.streamed
        if failure is not None:
            status = status_of(failure)
        else:
            status = OutcomeStatus.ERROR if error_type else OutcomeStatus.SUCCESS
        self._emit(
            RuntimeDone(
                at=now,
                id=slot.invocation.id,
                status=status,
                duration=now - slot.started,
                failure=failure,
                error_type=error_type,
                answer_began=slot.answered_from or answered,
                answer_ended=answered,
                produced=produced,
            )
        )

    def _report(self, slot: Slot, failure: Failure | None, now: float) -> None:
        answer = slot.result if isinstance(slot.result, Answer) else None
        record = InvocationEnded(
            at=now,
            id=slot.invocation.id,
            status=status_of(failure) if failure is not None else OutcomeStatus.SUCCESS,
            duration=now - slot.started,
            limit=slot.timeout,
            failure=failure,
            reported=answer if answer is not None and answer.error_type else None,
            init_duration=self._init_duration,
            restored=self._restored,
            runtime_done=slot.runtime_done,
        )
        self._init_duration = self._restored = None
        self._out.append(fx.Conclude(record))

    def _tell(self, slot: Slot) -> None:
        if not slot.told and slot.result is not None:
            slot.told = True
            self._out.append(fx.Complete(slot.invocation, slot.result, slot.started))

    def _settled(self, event: ev.Event, now: float) -> None:
        """Nothing follows from it."""


def status_of(failure: Failure) -> OutcomeStatus:
    return _FAILURE_STATUS.get(failure.kind, OutcomeStatus.ERROR)


_FAILURE_STATUS: Mapping[FailureKind, OutcomeStatus] = {
    FailureKind.TIMEOUT: OutcomeStatus.TIMEOUT,
    FailureKind.SANDBOX: OutcomeStatus.FAILURE,
    FailureKind.STOPPED: OutcomeStatus.FAILURE,
}

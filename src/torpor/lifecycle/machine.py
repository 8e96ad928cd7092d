"""One environment as a pure state machine: events in, effects out.

`handle` looks the event up in the environment table, runs the action it names and checks that the phase reached is one
that the table allows. Only this class changes a phase. Nothing here reads a clock, waits, or touches the outside; times
are monotonic seconds handed in.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.agents import EXTENSION, RUNTIME, RUNTIME_TABLES, Agent, AgentCall, AgentState
from torpor.lifecycle.ending import Ending
from torpor.lifecycle.phases import (
    Frozen,
    Gone,
    Idle,
    Initializing,
    Phase,
    PhaseName,
    Provisioning,
    Quiescing,
    Reinitializing,
    Resetting,
    Serving,
    Stopping,
    Uninitialized,
)
from torpor.lifecycle.slots import Slot, SlotCall, SlotState
from torpor.lifecycle.transitions import TRANSITIONS
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.invocation import OutcomeStatus
from torpor.model.policy import FailureScope, Freezing, InitFailure, LifecyclePolicy, RuntimeKind
from torpor.model.records import (
    InitEnded,
    InitStarted,
    InvocationEnded,
    InvocationStarted,
    RuntimeDone,
    ShutdownStarted,
)

INIT_TIMER = "init"
RUNTIME_SHUTDOWN_TIMER = "shutdown-runtime"
SHUTDOWN_TIMER = "shutdown"

_IDLE, _SERVING, _FROZEN, _QUIESCING = Idle(), Serving(), Frozen(), Quiescing()
_UNINITIALIZED = Uninitialized()
_CAN_TAKE = frozenset({PhaseName.IDLE, PhaseName.FROZEN, PhaseName.SERVING, PhaseName.UNINITIALIZED})


class IllegalEvent(Exception):
    """The table has no rule for this event in this phase: a fault of the platform."""


class EnvironmentMachine:
    """The state of one environment and the rules that move it."""

    def __init__(self, policy: LifecyclePolicy, extensions: Iterable[str] = ()) -> None:
        self.policy = policy
        self.phase: Phase = Provisioning()
        self.runtime = Agent(RUNTIME, RUNTIME_TABLES[policy.runtime_kind])
        self.extensions = {name: Agent(name, EXTENSION) for name in extensions}
        self.slots: dict[str, Slot] = {}
        self.waiting: deque[Slot] = deque()
        self.parked = 0
        """Requests for work of a parallel runtime that nothing has answered yet."""
        self._failure: Failure | None = None
        self._init_duration: float | None = None
        self._out: list[fx.Effect] = []

    # -- what the outside may ask -------------------------------------------------------------------------------------

    @property
    def free_slots(self) -> int:
        """How many invocations could be assigned now and be delivered without waiting for Init or an end."""
        if self.phase.name not in _CAN_TAKE or self.waiting:
            return 0
        free = self.policy.slots - len(self.slots)
        if self.policy.runtime_kind is RuntimeKind.PARALLEL_POLLER:
            free = min(free, self.parked)
        return max(free, 0)

    def is_running(self, invocation_id: str) -> bool:
        """Is this invocation delivered and not finished? Late and foreign ids are not."""
        slot = self.slots.get(invocation_id)
        return slot is not None and slot.state is not SlotState.EXPIRED

    def has_expired(self, invocation_id: str) -> bool:
        """Has this invocation timed out alone, its runtime still working on it?"""
        slot = self.slots.get(invocation_id)
        return slot is not None and slot.state is SlotState.EXPIRED

    @property
    def is_gone(self) -> bool:
        return self.phase.name is PhaseName.GONE

    # -- the one way in -------------------------------------------------------------------------------------------------

    def handle(self, event: ev.Event, now: float) -> fx.Effects:
        """Take note of an event and say what is to be done, in order.

        Raises IllegalEvent if the table has no such move, and TransitionRefused if an agent asks for something that its
        own table does not allow; in both cases nothing has changed."""
        rule = TRANSITIONS[self.phase.name].get(type(event))
        if rule is None:
            raise IllegalEvent(f"{type(event).__name__} while {self.phase.name}")
        self._out = out = []
        action: Callable[[ev.Event, float], None] = getattr(self, "_" + rule.action)
        action(event, now)
        if self.phase.name not in rule.to:
            raise IllegalEvent(f"{rule.action} led to {self.phase.name}")
        return out

    def _settled(self, event: ev.Event, now: float) -> None:
        """Nothing follows from it."""

    # -- Init -------------------------------------------------------------------------------------------------------------

    def _enqueue(self, event: ev.Assigned, now: float) -> None:
        self.waiting.append(Slot(event.invocation, event.timeout))

    def _begin_init(self, event: ev.SandboxReady, now: float) -> None:
        self.phase = Initializing(now)
        self._emit(InitStarted(at=now))
        self._arm(INIT_TIMER, now + self.policy.init_limit)
        self._start_agents()

    def _reinitialize(self, event: ev.Assigned, now: float) -> None:
        self._enqueue(event, now)
        self._begin_inside_invocation(now)

    def _begin_inside_invocation(self, now: float) -> None:
        slot = self.waiting[0]
        self.phase = Reinitializing(now)
        slot.started = now
        slot.deadline = now + slot.timeout
        self._arm(slot.invocation.id, slot.deadline)
        self._emit(InitStarted(at=now, within_invocation=True))
        self._out.append(fx.LimitCpu(False))
        self._start_agents()

    def _start_agents(self) -> None:
        """External extensions first; the runtime once all of them are registered."""
        self._failure = None
        self.parked = 0
        self.extensions = {name: Agent(name, EXTENSION) for name, agent in self.extensions.items() if agent.external}
        for agent in self.extensions.values():
            agent.move(AgentCall.START)
        if self.extensions:
            self._out.append(fx.StartAgents(tuple(self.extensions)))
        else:
            self._start_runtime()

    def _start_runtime(self) -> None:
        self.runtime.move(AgentCall.START)
        self._out.append(fx.StartAgents((RUNTIME,)))

    def _register(self, event: ev.AgentRegistered, now: float) -> None:
        agent = self.extensions.get(event.agent)
        if agent is None:
            agent = self.extensions[event.agent] = Agent(event.agent, EXTENSION, external=False)
            agent.move(AgentCall.START)
        agent.move(AgentCall.REGISTER)
        agent.wants_invoke = event.invoke
        agent.wants_shutdown = event.shutdown
        externals_waiting = any(a.state is AgentState.STARTED for a in self.extensions.values() if a.external)
        if not externals_waiting and not self.runtime.lives:
            self._start_runtime()

    def _agent_ready(self, event: ev.NextRequested, now: float) -> None:
        agent = self._agent(event.agent)
        if agent is self.runtime and agent.state is AgentState.RUNNING:
            self._redeliver()
            return
        agent.move(AgentCall.NEXT)
        self.parked += agent is self.runtime
        name = self.phase.name
        if name is PhaseName.SERVING:
            self._agent_done(agent, now)
        elif self._all_ready():
            self._agents_ready(now)

    def _agents_ready(self, now: float) -> None:
        if self.policy.init_hook and self.phase.name is PhaseName.INITIALIZING:
            self._out.append(fx.CallHook("initialize"))
        else:
            self._init_done(now)

    def _init_hook_finished(self, event: ev.HookFinished, now: float) -> None:
        if not event.error:
            self._init_done(now)
            return
        self._failure = Failure(kind=FailureKind.INIT_ERROR, detail=event.error)
        self._init_failed(self._failure, now)

    def _all_ready(self) -> bool:
        return self.runtime.state is AgentState.READY and all(
            agent.state is AgentState.READY for agent in self.extensions.values()
        )

    def _init_done(self, now: float) -> None:
        phase = self.phase
        assert isinstance(phase, Initializing | Reinitializing)
        inside = isinstance(phase, Reinitializing)
        duration = now - phase.started
        self._emit(InitEnded(at=now, duration=duration, status=OutcomeStatus.SUCCESS, within_invocation=inside))
        self._out.append(fx.LimitCpu(True))
        if not inside:
            self._out.append(fx.CancelTimer(INIT_TIMER))
            self._init_duration = duration
        self.phase = _IDLE
        self._deliver_waiting(now)

    def _init_crashed(self, event: ev.AgentExited, now: float) -> None:
        agent = self._agent(event.agent)
        if not agent.lives:
            return
        agent.move(AgentCall.EXIT)
        self._init_failed(self._failure or _exit_failure(event), now)

    def _init_timed_out(self, event: ev.DeadlineReached, now: float) -> None:
        if event.timer == INIT_TIMER:
            self._init_failed(Failure(kind=FailureKind.TIMEOUT, limit=self.policy.init_limit), now)

    def _init_failed(self, failure: Failure, now: float) -> None:
        """Init is over without success: what becomes of those who wait for it is the policy's."""
        phase = self.phase
        assert isinstance(phase, Initializing | Reinitializing)
        inside = isinstance(phase, Reinitializing)
        status = _status(failure)
        duration = now - phase.started
        self._emit(InitEnded(at=now, duration=duration, status=status, failure=failure, within_invocation=inside))
        if inside:
            self._fail(self.waiting.popleft(), failure, now)
        else:
            self._out.append(fx.CancelTimer(INIT_TIMER))
        if self.policy.init_failure is InitFailure.RETRY_IN_INVOCATION:
            self._reset("timeout" if failure.kind is FailureKind.TIMEOUT else "failure", now)
        else:
            self._fail_all(failure, now)
            self._end("failure", now, graceful=False)

    # -- Invoke -----------------------------------------------------------------------------------------------------------

    def _serve(self, event: ev.Assigned, now: float) -> None:
        slot = Slot(event.invocation, event.timeout)
        slot.started = now
        slot.deadline = now + event.timeout
        self._arm(event.invocation.id, slot.deadline)
        self._deliver(slot, now)

    def _thaw_and_serve(self, event: ev.Assigned, now: float) -> None:
        self._out.append(fx.Thaw())
        self._serve(event, now)

    def _deliver_waiting(self, now: float) -> None:
        while self.waiting and self.free_slots_for_waiting() > 0:
            slot = self.waiting.popleft()
            if not slot.deadline:
                slot.started = now
                slot.deadline = now + slot.timeout
                self._arm(slot.invocation.id, slot.deadline)
            self._deliver(slot, now)

    def free_slots_for_waiting(self) -> int:
        """Room for invocations that waited for Init inside this environment."""
        if self.policy.runtime_kind is RuntimeKind.PARALLEL_POLLER:
            return self.parked
        return self.policy.slots - len(self.slots)

    def _deliver(self, slot: Slot, now: float) -> None:
        slot.move(SlotCall.DELIVER)
        invocation = slot.invocation
        self.slots[invocation.id] = slot
        self.runtime.move(AgentCall.DELIVER)
        self.parked = max(self.parked - 1, 0)
        self.phase = _SERVING
        self._emit(InvocationStarted(at=now, id=invocation.id))
        self._out.append(fx.Deliver(invocation, slot.deadline))
        for agent in self.extensions.values():
            if agent.wants_invoke:
                agent.move(AgentCall.DELIVER)
                self._out.append(fx.NotifyInvoke(agent.name, invocation, slot.deadline))

    def _redeliver(self) -> None:
        slot = next(slot for slot in self.slots.values() if slot.state is SlotState.DELIVERED)
        self._out.append(fx.Deliver(slot.invocation, slot.deadline))

    def _answered(self, event: ev.Answered, now: float) -> None:
        slot = self.slots[event.invocation_id]
        self.runtime.move(AgentCall.ANSWER)
        if slot.state is SlotState.EXPIRED:
            self._drop(slot, now)
            return
        slot.move(SlotCall.ANSWER)
        slot.result = event.answer
        self._runtime_answered(slot, now)

    def _answer_refused(self, event: ev.AnswerRefused, now: float) -> None:
        slot = self.slots[event.invocation_id]
        self.runtime.move(AgentCall.ANSWER)
        slot.move(SlotCall.ANSWER)
        kind = FailureKind.OVERSIZE if event.oversize else FailureKind.MALFORMED
        slot.result = Failure(kind=kind, error_type=event.error_type, size=event.size)
        self._runtime_answered(slot, now)

    def _runtime_answered(self, slot: Slot, now: float) -> None:
        """The caller has its answer at once, unless it also wants the log that is not complete yet."""
        if not slot.invocation.wants_log:
            self._tell(slot)
        if self.policy.runtime_kind is not RuntimeKind.POLLER:
            self._finish(slot, now)

    def _agent_done(self, agent: Agent, now: float) -> None:
        """An agent asks for more work while an invocation runs."""
        if self.policy.runtime_kind is not RuntimeKind.POLLER:
            return
        slot = next(iter(self.slots.values()))
        if agent is self.runtime:
            duration = now - slot.started
            self._emit(RuntimeDone(at=now, id=slot.invocation.id, status=OutcomeStatus.SUCCESS, duration=duration))
        if slot.state is SlotState.ANSWERED and self._all_ready():
            self._finish(slot, now)

    def _finish(self, slot: Slot, now: float) -> None:
        self._out.append(fx.CancelTimer(slot.invocation.id))
        failure = slot.result if isinstance(slot.result, Failure) else None
        self._report(slot, failure, now)
        self._tell(slot)
        self._drop(slot, now)

    def _drop(self, slot: Slot, now: float) -> None:
        slot.move(SlotCall.FINISH) if slot.state is not SlotState.DONE else None
        self.slots.pop(slot.invocation.id, None)
        if self.slots:
            return
        self.phase = _IDLE
        if self.policy.single_use:
            self._end("spindown", now, graceful=True)

    def _invocation_timed_out(self, event: ev.DeadlineReached, now: float) -> None:
        slot = self.slots.get(event.timer)
        if slot is None:
            if self.phase.name is PhaseName.REINITIALIZING and self.waiting[0].invocation.id == event.timer:
                self._init_failed(Failure(kind=FailureKind.TIMEOUT, limit=self.waiting[0].timeout), now)
            return
        failure = Failure(kind=FailureKind.TIMEOUT, limit=slot.timeout)
        scope = self.policy.timeout_scope
        if scope is FailureScope.INVOCATION:
            self._expire(slot, failure, now)
        else:
            self._fail(slot, failure, now)
            self._give_up(scope, "timeout", failure, now)

    def _expire(self, slot: Slot, failure: Failure, now: float) -> None:
        slot.move(SlotCall.EXPIRE)
        slot.result = failure
        self._report(slot, failure, now)
        self._tell(slot)

    def _agent_failed(self, event: ev.AgentFailed, now: float) -> None:
        self._agent(event.agent).move(AgentCall.FAIL)
        if self._failure is None:
            self._failure = Failure(
                kind=FailureKind.INIT_ERROR, agent=event.agent, error_type=event.error_type, payload=event.payload
            )

    def _agent_exited(self, event: ev.AgentExited, now: float) -> None:
        agent = self._agent(event.agent)
        if agent.lives:
            agent.move(AgentCall.EXIT)
        failure = _exit_failure(event)
        scope = self.policy.runtime_exit_scope if agent is self.runtime else self.policy.extension_exit_scope
        if self.phase.name is PhaseName.FROZEN:
            self._out.append(fx.Thaw())
        self._give_up(scope, "failure", failure, now)

    def _give_up(self, scope: FailureScope, reason: str, failure: Failure, now: float) -> None:
        """Fail what runs; then make the environment usable again, or end it, as the scope says."""
        for slot in list(self.slots.values()):
            self._fail(slot, failure, now)
        if scope is FailureScope.ENVIRONMENT:
            self._reset(reason, now)
        else:
            self._fail_all(failure, now)
            self._end(reason, now, graceful=False)

    def _fail(self, slot: Slot, failure: Failure, now: float) -> None:
        """The invocation is over with a failure, whatever it had reached."""
        if slot.state is SlotState.WAITING:
            self._start_late(slot, now)
        if slot.state is not SlotState.EXPIRED:
            self._out.append(fx.CancelTimer(slot.invocation.id))
            self._report(slot, failure, now)
        if slot.result is None or not slot.told:
            slot.result = failure if not isinstance(slot.result, Answer) else slot.result
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

    def _report(self, slot: Slot, failure: Failure | None, now: float) -> None:
        record = InvocationEnded(
            at=now,
            id=slot.invocation.id,
            status=_status(failure),
            duration=now - slot.started,
            limit=slot.timeout,
            failure=failure,
            init_duration=self._init_duration,
        )
        self._init_duration = None
        self._emit(record)

    def _tell(self, slot: Slot) -> None:
        if not slot.told and slot.result is not None:
            slot.told = True
            self._out.append(fx.Complete(slot.invocation, slot.result))

    # -- rest -------------------------------------------------------------------------------------------------------------

    def _parked_again(self, event: ev.NextRequested, now: float) -> None:
        agent = self._agent(event.agent)
        agent.move(AgentCall.NEXT)
        self.parked += agent is self.runtime

    def _rest(self, event: ev.NothingPending, now: float) -> None:
        if self.policy.freezing is Freezing.NEVER:
            return
        if self.policy.pre_freeze_hook:
            self.phase = _QUIESCING
            self._out.append(fx.CallHook("pre-freeze"))
        else:
            self.phase = _FROZEN
            self._out.append(fx.Freeze())

    def _quiesced(self, event: ev.HookFinished, now: float) -> None:
        if self.waiting:
            self.phase = _IDLE
            self._deliver_waiting(now)
        else:
            self.phase = _FROZEN
            self._out.append(fx.Freeze())

    # -- reset and end ----------------------------------------------------------------------------------------------------

    def _reset(self, reason: str, now: float) -> None:
        ending = self._ending(now)
        self.phase = Resetting(reason, ending.deadline)
        self._out.extend(ending.begin(reason, graceful=False))
        self._after_ending(now)

    def _stop(self, event: ev.StopRequested, now: float) -> None:
        failure = Failure(kind=FailureKind.STOPPED, detail=event.reason)
        running = bool(self.slots or self.waiting)
        self._fail_all(failure, now)
        if self.phase.name is PhaseName.INITIALIZING:
            self._out.append(fx.CancelTimer(INIT_TIMER))
        if self.phase.name is PhaseName.FROZEN and self._ending(now).budget > 0:
            self._out.append(fx.Thaw())
        self._end(event.reason, now, graceful=not running)

    def _end(self, reason: str, now: float, *, graceful: bool) -> None:
        self._emit(ShutdownStarted(at=now, reason=reason))
        ending = self._ending(now)
        self.phase = Stopping(reason, ending.deadline)
        if graceful and self.policy.pre_stop_hook and self.runtime.lives:
            self._out.append(fx.CallHook("pre-stop"))
            self._arm(SHUTDOWN_TIMER, ending.deadline)
            return
        self._out.extend(ending.begin(reason, graceful=graceful))
        self._after_ending(now)

    def _stop_hook_finished(self, event: ev.HookFinished, now: float) -> None:
        assert isinstance(self.phase, Stopping)
        self._out.extend(self._ending(now).begin(self.phase.reason, graceful=True))
        self._after_ending(now)

    def _ending(self, now: float) -> Ending:
        return Ending(self.policy.shutdown, self.runtime, self.extensions, now)

    def _agent_ended(self, event: ev.AgentExited, now: float) -> None:
        agent = self._agent(event.agent)
        if agent.lives:
            agent.move(AgentCall.EXIT)
        phase = self.phase
        assert isinstance(phase, Resetting | Stopping)
        if agent is self.runtime:
            self._out.extend(self._ending(now).runtime_gone(phase.reason, phase.deadline))
        self._after_ending(now)

    def _ending_overdue(self, event: ev.DeadlineReached, now: float) -> None:
        if event.timer == RUNTIME_SHUTDOWN_TIMER and self.runtime.lives:
            self._out.append(fx.SignalAgent(RUNTIME, fx.SignalName.KILL))
        elif event.timer == SHUTDOWN_TIMER:
            self._out.append(fx.KillAgents())

    def _after_ending(self, now: float) -> None:
        """Once every process is gone a reset environment stands empty, a stopping one is removed."""
        if self.runtime.lives or any(agent.lives and agent.external for agent in self.extensions.values()):
            return
        for timer in (RUNTIME_SHUTDOWN_TIMER, SHUTDOWN_TIMER):
            self._out.append(fx.CancelTimer(timer))
        phase = self.phase
        if isinstance(phase, Stopping):
            self.phase = Gone(phase.reason)
            self._out.append(fx.Destroy(phase.reason))
            return
        self.phase = _UNINITIALIZED
        if self.waiting:
            self._begin_inside_invocation(now)

    def _sandbox_lost(self, event: ev.SandboxLost, now: float) -> None:
        self._fail_all(Failure(kind=FailureKind.SANDBOX, detail=event.reason), now)
        self.phase = Gone(event.reason)
        self._out.append(fx.CancelTimer(INIT_TIMER))
        self._out.append(fx.Destroy(event.reason))

    # -- small parts ------------------------------------------------------------------------------------------------------

    def _agent(self, name: str) -> Agent:
        return self.runtime if name == RUNTIME else self.extensions[name]

    def _arm(self, timer: str, at: float) -> None:
        self._out.append(fx.ArmTimer(timer, at))

    def _emit(self, record: InitStarted | InitEnded | InvocationStarted | RuntimeDone | InvocationEnded | ShutdownStarted) -> None:
        self._out.append(fx.Emit(record))


def _status(failure: Failure | None) -> OutcomeStatus:
    if failure is None:
        return OutcomeStatus.SUCCESS
    return _FAILURE_STATUS.get(failure.kind, OutcomeStatus.ERROR)


_FAILURE_STATUS: Mapping[FailureKind, OutcomeStatus] = {
    FailureKind.TIMEOUT: OutcomeStatus.TIMEOUT,
    FailureKind.SANDBOX: OutcomeStatus.FAILURE,
    FailureKind.STOPPED: OutcomeStatus.FAILURE,
}


def _exit_failure(event: ev.AgentExited) -> Failure:
    return Failure(
        kind=FailureKind.START if event.start_error else FailureKind.EXIT,
        agent=event.agent,
        code=event.code,
        signal=event.signal,
        out_of_memory=event.out_of_memory,
        detail=event.start_error,
    )

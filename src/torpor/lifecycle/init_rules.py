"""Init: starting the agents, outside an invocation or inside one, and what becomes of a failed start."""

import msgspec

from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.agents import EXTENSION, RUNTIME, Agent, AgentCall, AgentState, TransitionRefused
from torpor.lifecycle.end_rules import exit_failure
from torpor.lifecycle.ground import INIT_TIMER, status_of
from torpor.lifecycle.invoke_rules import InvokeRules
from torpor.lifecycle.phases import Idle, Initializing, PhaseName, Reinitializing
from torpor.lifecycle.slots import Slot, SlotState
from torpor.model.failure import Failure, FailureKind
from torpor.model.invocation import OutcomeStatus
from torpor.model.policy import InitFailure, RuntimeKind
from torpor.model.records import ExtensionStatus, InitEnded, InitRuntimeDone, InitStarted
from torpor.model.server import INITIALIZE

_IDLE = Idle()


class InitRules(InvokeRules):
    """The rules of starting agents."""

    def _enqueue(self, event: ev.Assigned, now: float) -> None:
        self.waiting.append(Slot(event.invocation, event.timeout))

    def _begin(self, event: ev.SandboxReady, now: float) -> None:
        self.extensions |= {name: Agent(name, EXTENSION) for name in event.extensions}
        if self.policy.restore_limit:
            self._begin_restore(now)
        else:
            self._begin_init(now)

    def _begin_restore(self, now: float) -> None:
        """What a runtime is made from is the driver's business; see the rules of restoration."""
        raise NotImplementedError

    def _begin_init(self, now: float) -> None:
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
        self._runtime_up = False
        self.parked = self.returning = 0
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
            if not self.takes_registrations:
                raise TransitionRefused(event.agent, AgentState.EXITED, AgentCall.REGISTER)
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
        self._asked(agent)
        name = self.phase.name
        if name is PhaseName.SERVING:
            self._agent_done(agent, now)
            return
        if agent is self.runtime:
            self._runtime_initialised(None, now)
        if self._all_ready():
            self._agents_ready(now)

    def _runtime_initialised(self, failure: Failure | None, now: float) -> None:
        """The runtime is through with its part of Init, or never will be. Told once; a server has no such part, nor has
        a runtime that goes on from a snapshot."""
        if self._runtime_up or self.policy.restore_limit or self.policy.runtime_kind is RuntimeKind.SERVER:
            return
        self._runtime_up = True
        inside = self.phase.name is PhaseName.REINITIALIZING
        status = OutcomeStatus.SUCCESS if failure is None else status_of(failure)
        self._emit(InitRuntimeDone(at=now, status=status, failure=failure, within_invocation=inside))

    def _tell_extensions(self, failure: Failure | None, now: float) -> None:
        """How far each extension has come, now that Init is over."""
        for agent in self.extensions.values():
            events = (("INVOKE", agent.wants_invoke), ("SHUTDOWN", agent.wants_shutdown))
            wanted = tuple(name for name, is_wanted in events if is_wanted)
            own = failure if failure is not None and failure.agent == agent.name else None
            state = str(agent.state)
            self._emit(ExtensionStatus(at=now, name=agent.title, events=wanted, state=state, failure=own))

    def _agents_ready(self, now: float) -> None:
        if self.policy.is_saved:
            failure = Failure(kind=FailureKind.MALFORMED, detail="the runtime asked for work before it was saved")
            self._init_failed(failure, now)
        elif self.policy.init_hook and self.phase.name is PhaseName.INITIALIZING:
            self._arm(INIT_TIMER, now + self.policy.init_hook_limit)
            self._out.append(fx.CallHook(INITIALIZE))
        else:
            self._init_done(now)

    def _init_hook_finished(self, event: ev.HookFinished, now: float) -> None:
        if event.failure is None:
            self._init_done(now)
        else:
            self._init_failed(event.failure, now)

    def _init_done(self, now: float) -> None:
        phase = self.phase
        assert isinstance(phase, Initializing | Reinitializing)
        inside = isinstance(phase, Reinitializing)
        duration = now - phase.started
        self._tell_extensions(None, now)
        self._emit(InitEnded(at=now, duration=duration, status=OutcomeStatus.SUCCESS, within_invocation=inside))
        self._out.append(fx.LimitCpu(True))
        if not inside:
            self._out.append(fx.CancelTimer(INIT_TIMER))
            self._init_duration = duration
        self.phase = _IDLE
        self._deliver_waiting(now)

    def _agent_failed(self, event: ev.AgentFailed, now: float) -> None:
        """A runtime's report waits for its exit; an extension's is the end of Init, for one inside the runtime too."""
        failure = self._reported(event)
        if event.agent != RUNTIME:
            self._init_failed(failure, now)
        elif self._failure is None:
            self._failure = failure

    def _init_crashed(self, event: ev.AgentExited, now: float) -> None:
        agent = self._agent(event.agent)
        if not agent.lives:
            return
        self._gone(agent)
        self._init_failed(self._failure or exit_failure(event), now)

    def _init_timed_out(self, event: ev.DeadlineReached, now: float) -> None:
        if event.timer != INIT_TIMER:
            return
        if self.policy.init_hook and self._all_ready():
            failure = Failure(kind=FailureKind.TIMEOUT, limit=self.policy.init_hook_limit, detail=INITIALIZE)
        else:
            failure = Failure(kind=FailureKind.TIMEOUT, limit=self.policy.init_limit)
        self._init_failed(failure, now)

    def _init_failed(self, failure: Failure, now: float) -> None:
        """Init is over without success: what becomes of those who wait for it is the policy's."""
        phase = self.phase
        assert isinstance(phase, Initializing | Reinitializing)
        inside = isinstance(phase, Reinitializing)
        failure = msgspec.structs.replace(failure, starting=True)
        status = status_of(failure)
        duration = now - phase.started
        self._runtime_initialised(failure, now)
        self._tell_extensions(failure, now)
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

    def _invocation_timed_out(self, event: ev.DeadlineReached, now: float) -> None:
        slot = self.slots.get(event.timer)
        if slot is None:
            if self.phase.name is PhaseName.REINITIALIZING and self.waiting[0].invocation.id == event.timer:
                self._init_failed(Failure(kind=FailureKind.TIMEOUT, limit=self.waiting[0].timeout), now)
            return
        if slot.state is SlotState.EXPIRED:
            return  # its caller had gone before
        failure = Failure(kind=FailureKind.TIMEOUT, limit=slot.timeout)
        self._abandon(slot, failure, self.policy.timeout_scope, "timeout", now)

"""Snapshots: an environment whose runtime is saved once it is initialised, and one whose runtime goes on from there."""

import msgspec

from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.agents import RUNTIME, Agent, AgentCall, AgentState
from torpor.lifecycle.end_rules import exit_failure
from torpor.lifecycle.ground import INIT_TIMER, status_of
from torpor.lifecycle.init_rules import InitRules
from torpor.lifecycle.phases import Idle, Initializing, PhaseName, Restoring, Saving
from torpor.lifecycle.slots import SlotCall
from torpor.model.failure import Failure, FailureKind
from torpor.model.invocation import OutcomeStatus
from torpor.model.records import InitEnded, RestoreEnded, RestoreStarted

_IDLE = Idle()


class RestoreRules(InitRules):
    """The rules of saving and restoring."""

    def _restore_awaited(self, event: ev.RestoreAwaited, now: float) -> None:
        """The runtime is initialised; it is saved once the extensions are too, which start anew beside each copy."""
        self.runtime.move(AgentCall.AWAIT_RESTORE)
        self._runtime_initialised(None, now)
        self._save_if_ready(now)

    def _agent_ready(self, event: ev.NextRequested, now: float) -> None:
        super()._agent_ready(event, now)
        if self.policy.is_saved and self.phase.name is PhaseName.INITIALIZING:
            self._save_if_ready(now)

    def _save_if_ready(self, now: float) -> None:
        waiting = any(agent.state is not AgentState.READY for agent in self.extensions.values())
        phase = self.phase
        if waiting or self.runtime.state is not AgentState.RESTORABLE or not isinstance(phase, Initializing):
            return
        self._tell_extensions(None, now)
        self._emit(InitEnded(at=now, duration=now - phase.started, status=OutcomeStatus.SUCCESS))
        self._out.append(fx.CancelTimer(INIT_TIMER))
        self.phase = Saving()
        self._out.append(fx.SaveRuntime())

    def _saved_exited(self, event: ev.AgentExited, now: float) -> None:
        """Being saved ends the runtime; whoever saves it asks for the end of the rest."""
        self._gone(self._agent(event.agent))

    def _begin_restore(self, now: float) -> None:
        self.phase = Restoring(now)
        self._emit(RestoreStarted(at=now))
        self._arm(INIT_TIMER, now + self.policy.restore_limit)
        self._start_agents()

    def _wake(self, event: ev.RestoreAwaited, now: float) -> None:
        phase = self.phase
        assert isinstance(phase, Restoring)
        self.runtime.move(AgentCall.AWAIT_RESTORE)
        self.runtime.move(AgentCall.RESTORE)
        self.phase = Restoring(phase.started, now)
        self._out.append(fx.WakeRuntime())

    def _agents_ready(self, now: float) -> None:
        phase = self.phase
        if not isinstance(phase, Restoring):
            super()._agents_ready(now)
            return
        duration = now - phase.started
        hooks = now - phase.woken if phase.woken else 0.0
        self._restored = RestoreEnded(at=now, duration=duration, hooks=hooks, status=OutcomeStatus.SUCCESS)
        self._tell_extensions(None, now)
        self._emit(self._restored)
        self._out.append(fx.CancelTimer(INIT_TIMER))
        self._out.append(fx.LimitCpu(True))
        self.phase = _IDLE
        self._deliver_waiting(now)

    def _restore_reported(self, event: ev.AgentFailed, now: float) -> None:
        """As in Init: a runtime's report waits for its exit."""
        failure = self._reported(event)
        if event.agent != RUNTIME:
            self._restore_failed(failure, now)
        elif self._failure is None:
            self._failure = failure

    def _restore_crashed(self, event: ev.AgentExited, now: float) -> None:
        agent: Agent = self._agent(event.agent)
        if agent.lives:
            self._gone(agent)
            self._restore_failed(self._failure or exit_failure(event), now)

    def _restore_timed_out(self, event: ev.DeadlineReached, now: float) -> None:
        if event.timer == INIT_TIMER:
            self._restore_failed(Failure(kind=FailureKind.TIMEOUT, limit=self.policy.restore_limit), now)

    def _restore_failed(self, failure: Failure, now: float) -> None:
        """Nothing can be made again here: the environment ends, and whoever waited for it is told."""
        phase = self.phase
        assert isinstance(phase, Restoring)
        failure = msgspec.structs.replace(failure, restoring=True)
        hooks = now - phase.woken if phase.woken else 0.0
        duration = now - phase.started
        self._emit(RestoreEnded(at=now, duration=duration, hooks=hooks, status=status_of(failure), failure=failure))
        self._out.append(fx.CancelTimer(INIT_TIMER))
        for slot in self.waiting:
            slot.result = failure
            slot.move(SlotCall.FAIL)
            self._tell(slot)
        self.waiting.clear()
        self._end("timeout" if failure.kind is FailureKind.TIMEOUT else "failure", now, graceful=False)

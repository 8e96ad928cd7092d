"""Reset and end: a failure's consequences, a shutdown's steps."""

from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.agents import RUNTIME
from torpor.lifecycle.ending import KILL_GRACE, Ending
from torpor.lifecycle.ground import INIT_TIMER, RUNTIME_SHUTDOWN_TIMER, SHUTDOWN_TIMER, Ground
from torpor.lifecycle.phases import Gone, PhaseName, Resetting, Stopping, Uninitialized
from torpor.model.failure import Failure, FailureKind
from torpor.model.policy import FailureScope
from torpor.model.records import ShutdownEnded, ShutdownStarted
from torpor.model.server import PRE_STOP

_UNINITIALIZED = Uninitialized()


class EndRules(Ground):
    """The rules by which processes end while the environment stays, or with it."""

    def _begin_inside_invocation(self, now: float) -> None:
        """Initialise again for the invocation that waits; see the rules of Init."""
        raise NotImplementedError

    def _reset(self, reason: str, now: float) -> None:
        ending = self._ending(now)
        self.phase = Resetting(reason, ending.deadline)
        self._out.extend(ending.begin(reason, graceful=False))
        self._after_ending(now)

    def _stop(self, event: ev.StopRequested, now: float) -> None:
        failure = Failure(kind=FailureKind.STOPPED, detail=event.reason)
        running = bool(self.slots or self.waiting)
        self._fail_all(failure, now)
        if self.phase.name in (PhaseName.INITIALIZING, PhaseName.RESTORING):
            self._out.append(fx.CancelTimer(INIT_TIMER))
        if self.phase.name is PhaseName.FROZEN and (self.policy.pre_stop_hook or self._ending(now).budget > 0):
            self._out.append(fx.Thaw())
        self._end(event.reason, now, graceful=not running)

    def _end(self, reason: str, now: float, *, graceful: bool) -> None:
        self._emit(ShutdownStarted(at=now, reason=reason))
        ending = self._ending(now)
        self.phase = Stopping(reason, now, ending.deadline)
        self._exits = {}
        if graceful and self.policy.pre_stop_hook and self.runtime.lives:
            self.phase = Stopping(reason, now, now + self.policy.pre_stop_limit, asked=True)
            self._out.append(fx.CallHook(PRE_STOP))
            self._arm(SHUTDOWN_TIMER, self.phase.deadline)
            return
        self._out.extend(ending.begin(reason, graceful=graceful))
        self._after_ending(now)

    def _stop_hook_finished(self, event: ev.HookFinished, now: float) -> None:
        phase = self.phase
        assert isinstance(phase, Stopping)
        if event.hook == PRE_STOP and phase.asked:  # others were under way when the end came
            self._end_processes(phase, now)

    def _end_processes(self, phase: Stopping, now: float) -> None:
        """The runtime was asked whether it has anything left to do, and has had its time for that."""
        ending = self._ending(now)
        self.phase = Stopping(phase.reason, phase.started, ending.deadline)
        self._out.extend(ending.begin(phase.reason, graceful=True))
        self._after_ending(now)

    def _ending(self, now: float) -> Ending:
        return Ending(self.policy.shutdown, self.runtime, self.extensions, now)

    def _agent_ended(self, event: ev.AgentExited, now: float) -> None:
        agent = self._agent(event.agent)
        self._gone(agent)
        self._exits[agent.title] = exit_text(event)
        phase = self.phase
        assert isinstance(phase, Resetting | Stopping)
        if agent is self.runtime:
            self._out.extend(self._ending(now).runtime_gone(phase.reason, phase.deadline))
        self._after_ending(now)

    def _ending_overdue(self, event: ev.DeadlineReached, now: float) -> None:
        if event.timer == RUNTIME_SHUTDOWN_TIMER and self.runtime.lives:
            self._out.append(fx.SignalAgent(RUNTIME, fx.SignalName.KILL))
        elif event.timer == SHUTDOWN_TIMER:
            self._kill_or_lose(now)

    def _kill_or_lose(self, now: float) -> None:
        """Time is up, be it the hook's or the processes': kill what is left; what outlasts that by long is lost."""
        phase = self.phase
        assert isinstance(phase, Resetting | Stopping)
        if isinstance(phase, Stopping) and phase.asked:
            self._end_processes(phase, now)
        elif now < phase.deadline + KILL_GRACE:
            self._out.append(fx.KillAgents())
            self._arm(SHUTDOWN_TIMER, phase.deadline + KILL_GRACE)
        else:
            self._sandbox_lost(ev.SandboxLost("its processes could not be killed"), now)

    def _after_ending(self, now: float) -> None:
        """Once every process is gone a reset environment stands empty, a stopping one is removed."""
        if self.runtime.lives or any(agent.lives and agent.external for agent in self.extensions.values()):
            return
        for timer in (RUNTIME_SHUTDOWN_TIMER, SHUTDOWN_TIMER):
            self._out.append(fx.CancelTimer(timer))
        phase = self.phase
        if isinstance(phase, Stopping):
            duration = now - phase.started
            self._emit(ShutdownEnded(at=now, reason=phase.reason, duration=duration, exits=dict(self._exits)))
            self.phase = Gone(phase.reason)
            self._out.append(fx.Destroy(phase.reason))
            return
        if self.extensions:
            self._out.append(fx.KillAgents())  # what they left behind, when they were given time to end
        self.phase = _UNINITIALIZED
        if self.waiting:
            self._begin_inside_invocation(now)

    def _sandbox_lost(self, event: ev.SandboxLost, now: float) -> None:
        self._fail_all(Failure(kind=FailureKind.SANDBOX, detail=event.reason), now)
        self.phase = Gone(event.reason)
        self._out.append(fx.CancelTimer(INIT_TIMER))
        self._out.append(fx.Destroy(event.reason))

    def _give_up(self, scope: FailureScope, reason: str, failure: Failure, now: float) -> None:
        """Fail what runs; then make the environment usable again, or end it, as the scope says."""
        for slot in list(self.slots.values()):
            self._fail(slot, failure, now)
        if scope is FailureScope.ENVIRONMENT:
            self._reset(reason, now)
        else:
            self._fail_all(failure, now)
            self._end(reason, now, graceful=False)

    def _agent_exited(self, event: ev.AgentExited, now: float) -> None:
        agent = self._agent(event.agent)
        self._gone(agent)
        failure = exit_failure(event)
        scope = self.policy.runtime_exit_scope if agent is self.runtime else self.policy.extension_exit_scope
        if self.phase.name is PhaseName.FROZEN:
            self._out.append(fx.Thaw())
        self._give_up(scope, "failure", failure, now)


def exit_text(event: ev.AgentExited) -> str:
    """How a process ended, for people."""
    if event.start_error:
        return "not started"
    return f"signal {event.signal}" if event.signal is not None else f"exit {event.code}"


def exit_failure(event: ev.AgentExited) -> Failure:
    return Failure(
        kind=FailureKind.START if event.start_error else FailureKind.EXIT,
        agent=event.agent,
        code=event.code,
        signal=event.signal,
        out_of_memory=event.out_of_memory,
        detail=event.start_error,
    )

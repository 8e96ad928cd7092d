"""Whatever order the world's events come in, environments with several invocations at once keep their promises."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.support.lifecycle import FUNCTION_SERVER, MANAGED, WEB_SERVICE, invocation

from torpor.lifecycle import RUNTIME, EnvironmentMachine, PhaseName, TransitionRefused
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.slots import SlotState
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.policy import FailureScope, LifecyclePolicy

_STARTS = frozenset({PhaseName.PROVISIONING, PhaseName.INITIALIZING})
_RESTS = frozenset({PhaseName.FROZEN, PhaseName.UNINITIALIZED, PhaseName.GONE})
_FAILED = Failure(kind=FailureKind.NO_ANSWER)
_SELDOM = st.integers(0, 19).map(lambda number: number == 3)
"""Whether what ends an environment comes now: most lives should be long."""


class Crowd(RuleBasedStateMachine):
    """A world around one environment; what its processes do is each style's own."""

    policies: tuple[LifecyclePolicy, ...] = ()

    @initialize(data=st.data())
    def choose(self, data: st.DataObject) -> None:
        self.policy = data.draw(st.sampled_from(self.policies))
        self.machine = EnvironmentMachine(self.policy)
        self.now = 0.0
        self.count = 0
        self.assigned: set[str] = set()
        self.told: set[str] = set()
        self.timers: dict[str, float] = {}
        self.created = self.alive = self.frozen = False
        self.destroyed = 0
        self.hooks: list[str] = []

    def feed(self, event: ev.Event) -> None:
        for effect in self.machine.handle(event, self.now):
            self.perform(effect)

    def perform(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.StartAgents):
            assert not self.alive and self.created
            self.alive = True
        elif isinstance(effect, fx.Freeze | fx.Thaw):
            self.frozen = isinstance(effect, fx.Freeze)
        elif isinstance(effect, fx.Deliver):
            assert self.alive and not self.frozen and effect.invocation.id not in self.told
            self.timers[effect.invocation.id] = effect.deadline
            self.take(effect.invocation.id)
        elif isinstance(effect, fx.ArmTimer):
            assert effect.at >= self.now
            self.timers[effect.timer] = effect.at
        elif isinstance(effect, fx.CancelTimer):
            self.timers.pop(effect.timer, None)
        elif isinstance(effect, fx.Conclude):
            self.timers.pop(effect.record.id, None)
        elif isinstance(effect, fx.Complete):
            assert effect.invocation.id not in self.told, "a caller is told its result once"
            self.told.add(effect.invocation.id)
        elif isinstance(effect, fx.CallHook):
            assert self.alive and not self.frozen
            self.hooks.append(effect.hook)
        elif isinstance(effect, fx.Destroy):
            self.destroyed += 1
            self.timers.clear()

    def take(self, name: str) -> None:
        """The processes are handed an invocation."""

    def vanish(self) -> None:
        """The processes are gone."""
        self.alive = False

    @precondition(lambda self: not self.created and not self.machine.is_gone)
    @rule()
    def sandbox_is_ready(self) -> None:
        self.created = True
        self.feed(ev.SandboxReady())

    @precondition(
        lambda self: (
            self.machine.free_slots or (self.machine.phase.name is PhaseName.PROVISIONING and not self.machine.waiting)
        )
    )
    @rule(wants_log=st.booleans())
    def assign(self, wants_log: bool) -> None:
        self.count += 1
        name = f"i{self.count}"
        self.assigned.add(name)
        self.feed(ev.Assigned(invocation(name, wants_log=wants_log), 3.0))

    @precondition(lambda self: self.assigned)
    @rule(data=st.data(), late=st.booleans())
    def caller_leaves(self, data: st.DataObject, late: bool) -> None:
        names = self.assigned if late else self.assigned - self.told
        if names:
            self.feed(ev.Cancelled(data.draw(st.sampled_from(sorted(names)))))

    @precondition(lambda self: self.alive)
    @rule(code=st.sampled_from([0, 1, None]), by_itself=_SELDOM)
    def runtime_dies(self, code: int | None, by_itself: bool) -> None:
        if not (by_itself or self.machine.phase.name is PhaseName.STOPPING):
            return
        self.vanish()
        self.feed(ev.AgentExited(RUNTIME, code=code, signal=9 if code is None else None))

    @precondition(lambda self: self.timers)
    @rule(now=_SELDOM)
    def time_runs_out(self, now: bool) -> None:
        if now:
            self.ring()

    def ring(self) -> None:
        timer = min(self.timers, key=lambda name: self.timers[name])
        self.now = max(self.now, self.timers.pop(timer))
        self.feed(ev.DeadlineReached(timer))

    @rule(seconds=st.floats(0.0, 0.5))
    def time_passes(self, seconds: float) -> None:
        self.now += max(min(seconds, *(at - self.now for at in self.timers.values()), 0.5), 0.0)

    @rule()
    def nothing_pending(self) -> None:
        self.feed(ev.NothingPending())

    @precondition(lambda self: self.count > 3)
    @rule(now=_SELDOM)
    def stop(self, now: bool) -> None:
        if now:
            self.feed(ev.StopRequested("spindown"))

    @precondition(lambda self: self.created and self.count > 2)
    @rule(now=_SELDOM)
    def sandbox_is_lost(self, now: bool) -> None:
        if now:
            self.vanish()
            self.feed(ev.SandboxLost("lost"))

    @invariant()
    def slots_are_bounded(self) -> None:
        held = len(self.machine.slots) + len(self.machine.waiting)
        assert held <= self.policy.slots
        assert 0 <= self.machine.free_slots <= self.policy.slots - held

    @invariant()
    def nobody_is_forgotten(self) -> None:
        untold = self.assigned - self.told
        held = {slot.invocation.id for slot in (*self.machine.slots.values(), *self.machine.waiting)}
        assert untold <= held
        if self.machine.phase.name in _RESTS:
            assert not untold

    @invariant()
    def what_runs_has_a_deadline(self) -> None:
        running = {slot.invocation.id for slot in self.machine.slots.values() if slot.invocation.id not in self.told}
        assert running <= set(self.timers)

    @invariant()
    def a_sandbox_is_destroyed_once_and_only_at_the_end(self) -> None:
        assert self.destroyed <= 1 or self.machine.is_gone
        assert bool(self.destroyed) == self.machine.is_gone

    def teardown(self) -> None:
        """Told to stop, every environment ends, even if its processes do nothing more of their own."""
        if not hasattr(self, "machine"):
            return
        self.feed(ev.StopRequested("spindown"))
        assert self.assigned == self.told
        for _ in range(10):
            if self.machine.is_gone:
                break
            self.ring()
        assert self.machine.is_gone and self.destroyed
        for late in (
            ev.NextRequested(RUNTIME),
            ev.HookFinished("pre-stop"),
            ev.Cancelled("i1"),
            ev.HealthChanged(True),
        ):
            self.feed(late)


class Workers(Crowd):
    """Workers that ask, answer, leave and come back on their own."""

    policies = (MANAGED, replace(MANAGED, timeout_scope=FailureScope.DRAIN), replace(MANAGED, single_use=True))

    @initialize()
    def gather(self) -> None:
        self.asking = 0
        self.busy: list[str] = []
        self.outside = 4
        """Workers that have not asked for work, or not again."""

    def take(self, name: str) -> None:
        assert self.asking, "a worker waits for whatever is delivered"
        self.asking -= 1
        self.busy.append(name)

    def vanish(self) -> None:
        super().vanish()
        self.gather()

    @precondition(lambda self: self.alive and self.outside)
    @rule()
    def worker_asks(self) -> None:
        self.outside -= 1
        self.asking += 1
        self.feed(ev.NextRequested(RUNTIME))

    @precondition(lambda self: self.alive and self.asking)
    @rule()
    def asking_worker_leaves(self) -> None:
        self.asking -= 1
        self.outside += 1
        self.feed(ev.NextWithdrawn(RUNTIME))

    @precondition(lambda self: self.alive and self.busy)
    @rule(data=st.data(), dies=st.booleans())
    def worker_is_through(self, data: st.DataObject, dies: bool) -> None:
        name = data.draw(st.sampled_from(self.busy))
        self.busy.remove(name)
        self.outside += 1
        if not (self.machine.is_running(name) or self.machine.has_expired(name)):
            return  # what answers that is the endpoint's
        self.feed(ev.AnswerRefused(name, _FAILED) if dies else ev.Answered(name, Answer(payload=b"1")))

    @precondition(lambda self: self.alive and self.busy)
    @rule(data=st.data())
    def worker_begins_to_stream(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.busy))
        if self.machine.is_running(name) and self.machine.slots[name].state is not SlotState.ANSWERING:
            self.feed(ev.AnswerBegun(name))
            assert self.machine.slots[name].state is SlotState.ANSWERING

    @precondition(lambda self: self.alive and self.machine.phase.name in _STARTS)
    @rule(now=_SELDOM)
    def runtime_reports_failure(self, now: bool) -> None:
        if not now:
            return
        try:
            self.feed(ev.AgentFailed(RUNTIME, "Runtime.Unknown", b"{}"))
        except TransitionRefused:
            assert self.machine.runtime.state != "started"
        else:
            self.outside = 0

    @invariant()
    def requests_for_work_are_counted(self) -> None:
        if self.alive and self.machine.phase.name in (PhaseName.IDLE, PhaseName.SERVING):
            assert self.machine.parked == self.asking
            assert self.machine.returning <= 4 and self.machine.returning_slots <= self.outside
            assert not (self.machine.waiting and self.asking), "who waits is served by whoever asks"


class Servers(Crowd):
    """A server that becomes ready, answers, runs its hooks and loses its health."""

    policies = (
        FUNCTION_SERVER,
        WEB_SERVICE,
        replace(FUNCTION_SERVER, timeout_scope=FailureScope.DRAIN, cancel_scope=FailureScope.REPLACE),
        replace(FUNCTION_SERVER, init_hook=False, cancel_scope=FailureScope.DRAIN, slots=1),
        replace(WEB_SERVICE, timeout_scope=FailureScope.INVOCATION),
    )

    @initialize()
    def put_up(self) -> None:
        self.reached = False
        self.delivered: list[str] = []

    def take(self, name: str) -> None:
        assert self.reached
        self.delivered.append(name)

    @precondition(lambda self: self.alive and not self.reached)
    @rule()
    def port_answers(self) -> None:
        self.reached = True
        self.feed(ev.NextRequested(RUNTIME))

    @precondition(lambda self: self.hooks)
    @rule(fails=st.booleans())
    def hook_ends(self, fails: bool) -> None:
        """However late: after the environment began to end, and after the process is gone."""
        self.feed(ev.HookFinished(self.hooks.pop(0), _FAILED if fails else None))

    @precondition(lambda self: self.alive and not self.frozen and set(self.delivered) - self.told)
    @rule(data=st.data(), refused=st.booleans())
    def server_answers(self, data: st.DataObject, refused: bool) -> None:
        name = data.draw(st.sampled_from(sorted(set(self.delivered) - self.told)))
        self.feed(ev.AnswerRefused(name, _FAILED) if refused else ev.Answered(name, Answer(payload=b"1")))
        assert name in self.told

    @precondition(lambda self: self.reached and self.machine.phase.name not in _STARTS)
    @rule(healthy=st.booleans())
    def health_changes(self, healthy: bool) -> None:
        self.feed(ev.HealthChanged(healthy))

    @invariant()
    def who_waits_is_served_once_the_server_is_ready(self) -> None:
        if self.machine.phase.name in (PhaseName.IDLE, PhaseName.SERVING):
            assert not self.machine.waiting

    @invariant()
    def what_drains_ends_with_its_last_invocation(self) -> None:
        if self.machine.draining:
            assert self.machine.slots or self.machine.phase.name in (PhaseName.STOPPING, PhaseName.GONE)


TestWorkers = Workers.TestCase
TestServers = Servers.TestCase
TestWorkers.settings = TestServers.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)

"""Whatever order the world's events come in, the machine keeps its promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.lifecycle import STANDARD, invocation

from torpor.lifecycle import RUNTIME, EnvironmentMachine, PhaseName, TransitionRefused
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.slots import SlotState
from torpor.model.failure import Answer

_RUNS = frozenset({PhaseName.INITIALIZING, PhaseName.REINITIALIZING, PhaseName.SERVING})


class Life(RuleBasedStateMachine):
    """A world around one standard environment: processes start, ask, answer, die; timers ring; the pool assigns."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = EnvironmentMachine(STANDARD)
        self.now = 0.0
        self.count = 0
        self.assigned: set[str] = set()
        self.told: set[str] = set()
        self.timers: dict[str, float] = {}
        self.alive = False
        self.frozen = False
        self.delivered: str | None = None
        self.destroyed = 0
        self.created = False

    def feed(self, event: ev.Event) -> None:
        for effect in self.machine.handle(event, self.now):
            self.perform(effect)

    def perform(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.StartAgents):
            assert not self.alive and self.created
            self.alive = True
        elif isinstance(effect, fx.Freeze):
            assert not self.frozen
            self.frozen = True
        elif isinstance(effect, fx.Thaw):
            self.frozen = False
        elif isinstance(effect, fx.Deliver | fx.DeliverAgain):
            self.deliver(effect)
        elif isinstance(effect, fx.Conclude):
            self.timers.pop(effect.record.id, None)
        elif isinstance(effect, fx.ArmTimer):
            assert effect.at >= self.now
            self.timers[effect.timer] = effect.at
        elif isinstance(effect, fx.CancelTimer):
            self.timers.pop(effect.timer, None)
        elif isinstance(effect, fx.Complete):
            assert effect.invocation.id not in self.told
            self.told.add(effect.invocation.id)
        elif isinstance(effect, fx.Destroy):
            self.destroyed += 1

    def deliver(self, effect: fx.Deliver | fx.DeliverAgain) -> None:
        assert self.alive and not self.frozen
        if isinstance(effect, fx.DeliverAgain):
            assert self.delivered == effect.invocation.id
        else:
            assert effect.deadline >= self.now == effect.at
            self.delivered = effect.invocation.id
            self.timers[effect.invocation.id] = effect.deadline

    @precondition(lambda self: not self.created and not self.machine.is_gone)
    @rule()
    def sandbox_is_ready(self) -> None:
        self.created = True
        self.feed(ev.SandboxReady())

    @precondition(lambda self: self.machine.free_slots or self.machine.phase.name is PhaseName.PROVISIONING)
    @rule(wants_log=st.booleans())
    def assign(self, wants_log: bool) -> None:
        if self.machine.phase.name is PhaseName.PROVISIONING and self.assigned:
            return
        self.count += 1
        name = f"i{self.count}"
        self.assigned.add(name)
        self.feed(ev.Assigned(invocation(name, wants_log=wants_log), 3.0))

    @precondition(lambda self: self.alive and not self.frozen)
    @rule()
    def runtime_asks(self) -> None:
        try:
            self.feed(ev.NextRequested(RUNTIME))
        except TransitionRefused:
            assert self.machine.runtime.state in ("failed", "answering")

    @precondition(lambda self: self.alive and self.delivered and self.machine.is_running(self.delivered))
    @rule()
    def runtime_answers(self) -> None:
        assert self.delivered is not None
        try:
            self.feed(ev.Answered(self.delivered, Answer(payload=b"1")))
        except TransitionRefused:
            assert self.machine.runtime.state not in ("running", "answering")

    @precondition(lambda self: self.alive and self.delivered and self.machine.is_running(self.delivered))
    @rule()
    def runtime_begins_to_stream(self) -> None:
        assert self.delivered is not None
        before = self.machine.runtime.state
        try:
            self.feed(ev.AnswerBegun(self.delivered))
        except TransitionRefused:
            assert before != "running"
        else:
            assert before == "running" and self.machine.slots[self.delivered].state is SlotState.ANSWERING

    @precondition(lambda self: self.alive and self.machine.phase.name in _RUNS)
    @rule()
    def runtime_reports_failure(self) -> None:
        try:
            self.feed(ev.AgentFailed(RUNTIME, "Runtime.Unknown", b"{}"))
        except TransitionRefused:
            assert self.machine.runtime.state != "started"

    @precondition(lambda self: self.alive)
    @rule(code=st.sampled_from([0, 1, None]))
    def runtime_dies(self, code: int | None) -> None:
        self.alive = False
        self.feed(ev.AgentExited(RUNTIME, code=code, signal=9 if code is None else None))

    @precondition(lambda self: self.timers)
    @rule()
    def timer_rings(self) -> None:
        timer = min(self.timers, key=lambda name: self.timers[name])
        self.now = max(self.now, self.timers.pop(timer))
        self.feed(ev.DeadlineReached(timer))

    @rule(seconds=st.floats(0.0, 0.5))
    def time_passes(self, seconds: float) -> None:
        self.now += min(seconds, *(at - self.now for at in self.timers.values()), 0.5)

    @rule()
    def nothing_pending(self) -> None:
        self.feed(ev.NothingPending())

    @precondition(lambda self: self.count > 3)
    @rule()
    def stop(self) -> None:
        self.feed(ev.StopRequested("spindown"))

    @precondition(lambda self: self.created and self.count > 2)
    @rule()
    def sandbox_is_lost(self) -> None:
        self.alive = False
        self.feed(ev.SandboxLost("lost"))

    @invariant()
    def a_frozen_environment_runs_nothing(self) -> None:
        if self.machine.phase.name is PhaseName.FROZEN:
            assert self.frozen and self.assigned == self.told

    @invariant()
    def nobody_is_forgotten(self) -> None:
        open_ones = self.assigned - self.told
        assert len(open_ones) <= 1
        if self.machine.phase.name in (PhaseName.IDLE, PhaseName.UNINITIALIZED, PhaseName.GONE):
            assert not open_ones

    @invariant()
    def a_running_invocation_has_a_deadline(self) -> None:
        if self.machine.phase.name is PhaseName.SERVING:
            assert set(self.machine.slots) <= set(self.timers)

    @invariant()
    def a_sandbox_is_destroyed_once_and_only_at_the_end(self) -> None:
        assert self.destroyed == self.machine.is_gone or self.machine.is_gone


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)

"""Whatever an extension and the world around it do, in any order, the machine keeps its promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from tests.support.lifecycle import STANDARD
from tests.unit.test_lifecycle_properties import Life

from torpor.lifecycle import RUNTIME, EnvironmentMachine, PhaseName, TransitionRefused
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev

WATCHER = "extensions/watcher"


class ExtendedLife(Life):
    """The world of a standard environment, with an external extension in it."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = EnvironmentMachine(STANDARD, [WATCHER])
        self.watching = False
        self.registered = False
        self.told_of_shutdown = False

    def perform(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.StartAgents) and effect.agents != (RUNTIME,):
            assert effect.agents == (WATCHER,) and not self.watching and not self.alive and self.created
            self.watching, self.registered, self.told_of_shutdown = True, False, False
            return
        if isinstance(effect, fx.StartAgents):
            assert self.registered
        elif isinstance(effect, fx.NotifyInvoke):
            assert self.watching and not self.frozen and self.delivered == effect.invocation.id
        elif isinstance(effect, fx.NotifyShutdown):
            assert self.watching and self.registered and not self.alive and not self.frozen
            assert effect.deadline >= self.now
            self.told_of_shutdown = True
        elif isinstance(effect, fx.Freeze):
            assert self.alive and self.watching
        super().perform(effect)

    @precondition(lambda self: self.watching and not self.frozen)
    @rule(invoke=st.booleans(), shutdown=st.booleans())
    def extension_registers(self, invoke: bool, shutdown: bool) -> None:
        if self.machine.extensions[WATCHER].state == "started":
            self.registered = self.machine.phase.name in (PhaseName.INITIALIZING, PhaseName.REINITIALIZING)
        try:
            self.feed(ev.AgentRegistered(WATCHER, invoke, shutdown, False))
        except TransitionRefused:
            assert self.machine.extensions[WATCHER].state != "started"

    @precondition(lambda self: self.watching and self.registered and not self.frozen)
    @rule()
    def extension_asks(self) -> None:
        try:
            self.feed(ev.NextRequested(WATCHER))
        except TransitionRefused:
            assert self.machine.extensions[WATCHER].state == "failed"

    @precondition(lambda self: self.watching and self.registered and not self.frozen)
    @rule(starting=st.booleans())
    def extension_reports_failure(self, starting: bool) -> None:
        try:
            self.feed(ev.AgentFailed(WATCHER, "Extension.Reason", b"", starting))
        except TransitionRefused:
            assert self.machine.extensions[WATCHER].state != "registered"

    @precondition(lambda self: self.watching)
    @rule(code=st.sampled_from([0, 1, None]))
    def extension_dies(self, code: int | None) -> None:
        self.watching = False
        self.feed(ev.AgentExited(WATCHER, code=code, signal=9 if code is None else None))

    @rule()
    def sandbox_loses_its_processes(self) -> None:
        """Everything inside is killed, the runtime told of first."""
        for name, lives in ((RUNTIME, self.alive), (WATCHER, self.watching)):
            if not lives:
                continue
            if name == RUNTIME:
                self.alive = False
            else:
                self.watching = False
            self.feed(ev.AgentExited(name, signal=9))
            if self.machine.phase.name in (PhaseName.INITIALIZING, PhaseName.REINITIALIZING):
                return

    @invariant()
    def an_environment_that_stands_empty_runs_nothing(self) -> None:
        if self.machine.phase.name is PhaseName.UNINITIALIZED:
            assert not self.alive and not self.watching

    @invariant()
    def an_environment_that_ends_always_has_a_next_step(self) -> None:
        if self.machine.phase.name in (PhaseName.RESETTING, PhaseName.STOPPING):
            assert self.alive or self.watching


TestExtendedLife = ExtendedLife.TestCase
TestExtendedLife.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)

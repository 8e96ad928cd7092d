"""Extensions in the life cycle, as event lists: start, Init and Invoke, failures, end."""

from typing import TypeVar

import pytest
from tests.support.lifecycle import MANAGED, Story

from torpor.lifecycle import RUNTIME, PhaseName, TransitionRefused
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.records import ExtensionStatus, InitEnded, InvocationEnded, ShutdownEnded

_R = TypeVar("_R")
WATCHER = "extensions/watcher"
INNER = "extensions/inner"


def _register(story: Story, name: str = WATCHER, *, invoke: bool = True, shutdown: bool = True) -> list[str]:
    return story.then(ev.AgentRegistered(name, invoke, shutdown, False))


def _started() -> Story:
    """A standard environment with one external extension that has registered; the runtime runs."""
    story = Story(extensions=(WATCHER,))
    story.then(ev.SandboxReady())
    _register(story)
    return story


def _ready() -> Story:
    story = _started()
    story.ready()
    story.then(ev.NextRequested(WATCHER))
    return story


def _records(story: Story, kind: type[_R]) -> list[_R]:
    return [record for record in story.record_values() if isinstance(record, kind)]


def _failure(story: Story, name: str = "i1") -> Failure:
    result = story.told[name]
    assert isinstance(result, Failure)
    return result


def test_runtime_starts_only_when_all_external_extensions_have_registered() -> None:
    story = Story(extensions=(WATCHER, "extensions/other"))
    assert story.then(ev.SandboxReady())[-1] == "StartAgents"
    assert _register(story) == []
    assert _register(story, "extensions/other") == ["StartAgents"]


def test_each_extension_is_told_of_once_init_is_over_before_the_invocation_starts() -> None:
    story = _started()
    story.assign()
    story.ready()
    story.then(ev.NextRequested(WATCHER))
    assert story.records() == ["InitStarted", "InitRuntimeDone", "ExtensionStatus", "InitEnded", "InvocationStarted"]
    record = _records(story, ExtensionStatus)[0]
    assert (record.name, record.events) == ("watcher", ("INVOKE", "SHUTDOWN"))


def test_extension_without_events_holds_up_init_but_no_invocation() -> None:
    story = Story(extensions=(WATCHER,))
    story.then(ev.SandboxReady())
    _register(story, invoke=False, shutdown=False)
    story.ready()
    assert story.phase is PhaseName.INITIALIZING
    story.then(ev.NextRequested(WATCHER))
    assert "NotifyInvoke" not in story.assign()
    story.answer()
    story.ready()
    assert story.phase is PhaseName.IDLE


def test_internal_extension_registers_until_the_runtime_asks_for_work() -> None:
    story = Story()
    story.then(ev.SandboxReady())
    assert story.machine.takes_registrations
    story.then(ev.AgentRegistered(INNER, True, False, True))
    story.ready()
    assert not story.machine.takes_registrations and story.phase is PhaseName.INITIALIZING
    with pytest.raises(TransitionRefused):
        story.then(ev.AgentRegistered("extensions/late", True, False, True))
    story.then(ev.NextRequested(INNER))
    assert story.phase is PhaseName.IDLE
    assert "NotifyInvoke" in story.assign()


def test_internal_extension_that_never_asks_for_events_makes_init_time_out() -> None:
    story = Story()
    story.then(ev.SandboxReady())
    story.then(ev.AgentRegistered(INNER, True, False, True))
    story.ready()
    story.then(ev.DeadlineReached("init"), after=10.0)
    assert story.phase is PhaseName.RESETTING
    story.then(ev.AgentExited(RUNTIME, signal=9))
    assert story.phase is PhaseName.UNINITIALIZED


def test_registering_twice_is_refused() -> None:
    story = _started()
    with pytest.raises(TransitionRefused):
        _register(story)
    story.ready()
    story.then(ev.NextRequested(WATCHER))
    with pytest.raises(TransitionRefused):
        _register(story)


def test_extension_that_dies_in_init_makes_init_fail_and_be_made_again_in_the_invocation() -> None:
    story = _started()
    story.assign()
    story.crash(1, WATCHER)
    ended = _records(story, InitEnded)[0]
    assert ended.failure is not None and ended.failure.agent == WATCHER and ended.failure.kind is FailureKind.EXIT
    assert story.then(ev.AgentExited(RUNTIME, signal=9))[-1] == "StartAgents"
    assert story.phase is PhaseName.REINITIALIZING
    story.crash(1, WATCHER)
    assert _failure(story).agent == WATCHER and story.phase is PhaseName.UNINITIALIZED


def test_extension_that_cannot_be_started_is_a_failed_start() -> None:
    story = Story(extensions=(WATCHER,))
    story.then(ev.SandboxReady())
    story.then(ev.AgentExited(WATCHER, start_error="permission denied"))
    ended = _records(story, InitEnded)[0]
    assert ended.failure is not None and ended.failure.kind is FailureKind.START


def test_extension_that_reports_an_init_error_ends_init_at_once() -> None:
    story = _started()
    story.then(ev.AgentFailed(WATCHER, "Extension.InitError", b""))
    ended = _records(story, InitEnded)[0]
    assert ended.failure is not None and ended.failure.error_type == "Extension.InitError"
    assert story.phase is PhaseName.RESETTING


def test_extension_that_gives_up_during_an_invocation_fails_it() -> None:
    story = _ready()
    story.assign()
    with pytest.raises(TransitionRefused):
        story.then(ev.AgentFailed(WATCHER, "Extension.InitError", b""))
    story.then(ev.AgentFailed(WATCHER, "Extension.ExitError", b"", starting=False))
    assert _failure(story).error_type == "Extension.ExitError" and story.phase is PhaseName.RESETTING
    assert story.then(ev.AgentExited(RUNTIME, signal=9)) == []
    assert story.then(ev.AgentExited(WATCHER, code=0))[-1] == "KillAgents"
    assert story.phase is PhaseName.UNINITIALIZED


def test_invocation_lasts_until_the_extension_asks_for_more() -> None:
    story = _ready()
    story.assign(timeout=3.0)
    assert story.answer(after=0.1) == ["Complete"]
    assert "InvocationEnded" not in story.records()
    story.ready(after=0.0)
    assert story.phase is PhaseName.SERVING and story.machine.is_working and story.machine.free_slots == 0
    story.then(ev.NextRequested(WATCHER), after=0.4)
    ended = _records(story, InvocationEnded)[0]
    assert ended.duration == pytest.approx(0.5) and ended.failure is None
    assert story.phase is PhaseName.IDLE and not story.machine.is_working


def test_extension_that_outlasts_the_timeout_resets_but_the_caller_keeps_the_answer() -> None:
    story = _ready()
    story.assign(timeout=3.0)
    story.answer(after=2.0)
    story.ready(after=0.0)
    effects = story.then(ev.DeadlineReached("i1"), after=1.0)
    assert "Complete" not in effects and isinstance(story.told["i1"], Answer)
    ended = _records(story, InvocationEnded)[0]
    assert ended.status == "timeout" and ended.duration == pytest.approx(3.0)
    assert story.phase is PhaseName.RESETTING


def test_reset_ends_the_runtime_then_tells_the_extension_why() -> None:
    story = _ready()
    story.assign(timeout=3.0)
    effects = story.then(ev.DeadlineReached("i1"), after=3.0)
    assert effects[-2:] == ["ArmTimer", "SignalAgent"]
    story.then(ev.AgentExited(RUNTIME, signal=9), after=0.1)
    told = story.effects[-1]
    assert isinstance(told, fx.NotifyShutdown)
    assert (told.agent, told.reason, told.deadline) == (WATCHER, "timeout", pytest.approx(story.now + 1.9))
    story.then(ev.AgentExited(WATCHER, code=0))
    assert story.phase is PhaseName.UNINITIALIZED
    assert story.assign("i2")[-1] == "StartAgents"
    assert _register(story) == ["StartAgents"]


def test_crash_of_the_runtime_tells_the_extension_of_a_failure() -> None:
    story = _ready()
    story.assign()
    story.crash(3)
    told = story.effects[-1]
    assert isinstance(told, fx.NotifyShutdown) and told.reason == "failure"


def test_extension_that_ignores_the_shutdown_is_killed_at_the_deadline() -> None:
    story = _ready()
    story.then(ev.NothingPending())
    story.then(ev.StopRequested("spindown"))
    assert story.then(ev.DeadlineReached("shutdown-runtime"), after=0.6) == ["SignalAgent"]
    assert story.then(ev.AgentExited(RUNTIME, signal=9), after=0.0) == ["NotifyShutdown"]
    assert story.then(ev.DeadlineReached("shutdown"), after=1.4) == ["KillAgents", "ArmTimer"]
    assert story.then(ev.AgentExited(WATCHER, signal=9), after=0.0)[-1] == "Destroy"
    ended = _records(story, ShutdownEnded)[0]
    assert ended.exits == {"runtime": "signal 9", "watcher": "signal 9"}
    assert ended.duration == pytest.approx(2.0)


def test_extension_that_wants_no_shutdown_is_killed_once_the_runtime_is_gone() -> None:
    story = Story(extensions=(WATCHER,))
    story.then(ev.SandboxReady())
    _register(story, shutdown=False)
    story.ready()
    story.then(ev.NextRequested(WATCHER))
    story.then(ev.StopRequested("spindown"))
    story.then(ev.AgentExited(RUNTIME, signal=15))
    killed = story.effects[-1]
    assert isinstance(killed, fx.SignalAgent) and killed.agent == WATCHER and killed.signal is fx.SignalName.KILL


def test_internal_extension_alone_gives_the_runtime_a_moment_to_end() -> None:
    story = Story()
    story.then(ev.SandboxReady())
    story.then(ev.AgentRegistered(INNER, False, False, True))
    story.ready()
    story.then(ev.NextRequested(INNER))
    assert story.then(ev.StopRequested("spindown")) == ["Emit", "ArmTimer", "SignalAgent", "ArmTimer"]
    deadline = [effect.at for effect in story.effects if isinstance(effect, fx.ArmTimer) and effect.timer == "shutdown"]
    assert deadline == [pytest.approx(story.now + 0.5)]
    assert story.then(ev.AgentExited(RUNTIME, signal=15))[-1] == "Destroy"


def test_an_extension_may_have_the_name_of_the_runtime() -> None:
    story = Story(extensions=("extensions/runtime",))
    story.then(ev.SandboxReady())
    assert _register(story, "extensions/runtime") == ["StartAgents"]
    story.ready()
    assert story.phase is PhaseName.INITIALIZING
    story.then(ev.NextRequested("extensions/runtime"))
    assert story.phase is PhaseName.IDLE


def test_extension_crash_replaces_a_managed_environment() -> None:
    story = Story(MANAGED, extensions=(WATCHER,))
    story.then(ev.SandboxReady())
    _register(story, invoke=False)
    story.ready()
    story.then(ev.NextRequested(WATCHER))
    story.crash(1, WATCHER)
    assert story.phase is PhaseName.STOPPING

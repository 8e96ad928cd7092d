"""Snapshots in the life cycle, as event lists: an environment that is saved, and those that are made from it."""

import pytest
from tests.support.lifecycle import RESTORED, SAVED, Story

from torpor.lifecycle import RUNTIME, PhaseName, TransitionRefused
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.invocation import OutcomeStatus
from torpor.model.records import InitEnded, InvocationEnded, RestoreEnded

WATCHER = "extensions/watcher"


def _restored(story: Story, *, hooks: float = 0.3) -> list[str]:
    """The runtime asks, is told to go on, and asks for work once its hooks have run."""
    story.then(ev.RestoreAwaited(), after=0.1)
    return story.then(ev.NextRequested(RUNTIME), after=hooks)


def _restores(story: Story) -> list[RestoreEnded]:
    return [record for record in story.record_values() if isinstance(record, RestoreEnded)]


def _failure(story: Story) -> Failure:
    result = story.told["i1"]
    assert isinstance(result, Failure)
    return result


def test_a_runtime_that_waits_is_saved_and_the_environment_ends() -> None:
    story = Story(SAVED)
    story.then(ev.SandboxReady())

    assert story.then(ev.RestoreAwaited(), after=12.0) == ["Emit", "Emit", "CancelTimer", "SaveRuntime"]
    assert story.phase is PhaseName.SAVING
    (ended,) = [record for record in story.record_values() if isinstance(record, InitEnded)]
    assert (ended.duration, ended.failure) == (12.0, None)

    story.then(ev.AgentExited(RUNTIME, signal=9))  # being saved ends it
    story.then(ev.StopRequested("spindown"))
    assert story.phase is PhaseName.GONE


def test_the_extensions_must_be_ready_before_the_runtime_is_saved() -> None:
    story = Story(SAVED, extensions=(WATCHER,))
    story.then(ev.SandboxReady())
    story.then(ev.AgentRegistered(WATCHER, True, True, False))

    assert story.then(ev.RestoreAwaited()) == ["Emit"]
    assert "SaveRuntime" in story.then(ev.NextRequested(WATCHER))


def test_a_runtime_that_asks_for_work_instead_cannot_be_saved() -> None:
    story = Story(SAVED)
    story.then(ev.SandboxReady())
    story.then(ev.NextRequested(RUNTIME))

    (ended,) = [record for record in story.record_values() if isinstance(record, InitEnded)]
    assert ended.failure is not None and "before it was saved" in ended.failure.detail
    assert story.phase is PhaseName.STOPPING


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([ev.AgentFailed(RUNTIME, "Runtime.BeforeSnapshotError", b"{}"), ev.AgentExited(RUNTIME, code=64)], "error"),
        ([ev.DeadlineReached("init")], "timeout"),
    ],
)
def test_an_init_that_fails_is_not_made_again_where_it_was_to_be_saved(events: list[ev.Event], status: str) -> None:
    story = Story(SAVED)
    story.then(ev.SandboxReady())
    for event in events:
        story.then(event, after=1.0)

    (ended,) = [record for record in story.record_values() if isinstance(record, InitEnded)]
    assert ended.status == status
    assert story.phase in (PhaseName.STOPPING, PhaseName.GONE)


def test_an_invocation_waits_for_the_restoration_and_reports_it() -> None:
    story = Story(RESTORED)
    story.assign()
    story.then(ev.SandboxReady())
    assert story.phase is PhaseName.RESTORING
    assert story.then(ev.RestoreAwaited(), after=0.1) == ["WakeRuntime"]

    assert "Deliver" in story.then(ev.NextRequested(RUNTIME), after=0.3)
    assert story.records() == ["RestoreStarted", "RestoreEnded", "InvocationStarted"]

    story.then(ev.Answered("i1", Answer(payload=b"1")), after=0.1)
    story.then(ev.NextRequested(RUNTIME))
    (ended,) = [record for record in story.record_values() if isinstance(record, InvocationEnded)]
    assert ended.init_duration is None
    assert ended.restored is not None
    assert (round(ended.restored.duration, 3), round(ended.restored.hooks, 3)) == (0.4, 0.3)


def test_the_next_invocation_says_nothing_of_the_restoration() -> None:
    story = Story(RESTORED)
    story.then(ev.SandboxReady())
    _restored(story)
    for name in ("i1", "i2"):
        story.assign(name)
        story.then(ev.Answered(name, Answer(payload=b"1")))
        story.then(ev.NextRequested(RUNTIME))

    ended = [record.restored is None for record in story.record_values() if isinstance(record, InvocationEnded)]
    assert ended == [False, True]


def test_a_restoration_over_its_limit_fails_who_waits_and_ends_the_environment() -> None:
    story = Story(RESTORED)
    story.assign()
    story.then(ev.SandboxReady())
    story.then(ev.RestoreAwaited())
    story.then(ev.DeadlineReached("init"), after=10.0)

    failure = _failure(story)
    assert (failure.kind, failure.restoring, failure.limit) == (FailureKind.TIMEOUT, True, 10.0)
    assert _restores(story)[0].status is OutcomeStatus.TIMEOUT
    assert story.phase is PhaseName.STOPPING
    assert "InvocationStarted" not in story.records()


def test_a_hook_that_ends_the_process_fails_who_waits() -> None:
    story = Story(RESTORED)
    story.assign()
    story.then(ev.SandboxReady())
    story.then(ev.RestoreAwaited())
    story.then(ev.AgentExited(RUNTIME, code=3))

    failure = _failure(story)
    assert (failure.kind, failure.restoring, failure.code) == (FailureKind.EXIT, True, 3)
    assert _restores(story)[0].status is OutcomeStatus.ERROR


def test_what_a_failing_hook_reports_is_told() -> None:
    story = Story(RESTORED)
    story.assign()
    story.then(ev.SandboxReady())
    story.then(ev.RestoreAwaited())
    story.then(ev.AgentFailed(RUNTIME, "Runtime.AfterRestoreError", b'{"errorMessage":"no"}'))
    story.then(ev.AgentExited(RUNTIME, code=65))

    failure = _failure(story)
    assert (failure.error_type, failure.payload) == ("Runtime.AfterRestoreError", b'{"errorMessage":"no"}')
    assert failure.restoring


def test_after_a_failure_a_restored_environment_is_replaced() -> None:
    story = Story(RESTORED)
    story.then(ev.SandboxReady())
    _restored(story)
    story.assign()
    story.then(ev.AgentExited(RUNTIME, code=1))

    assert story.phase in (PhaseName.STOPPING, PhaseName.GONE)
    assert not _failure(story).restoring


def test_extensions_start_anew_beside_a_restored_runtime() -> None:
    story = Story(RESTORED, extensions=(WATCHER,))
    assert story.then(ev.SandboxReady())[-1] == "StartAgents"
    assert story.then(ev.AgentRegistered(WATCHER, True, True, False)) == ["StartAgents"]
    assert story.effects[-1] == fx.StartAgents((RUNTIME,))

    _restored(story)
    assert story.phase is PhaseName.RESTORING
    story.then(ev.NextRequested(WATCHER))
    assert story.phase is PhaseName.IDLE


def test_a_runtime_asks_to_go_on_once_only() -> None:
    story = Story(RESTORED)
    story.then(ev.SandboxReady())
    story.then(ev.RestoreAwaited())

    with pytest.raises(TransitionRefused):
        story.then(ev.RestoreAwaited())

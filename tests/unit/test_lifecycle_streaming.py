"""Streamed answers in the life of an environment: what a runtime may do meanwhile, and what cuts them off."""

import pytest
from pytest import approx
from tests.support.lifecycle import MANAGED, Story

from torpor.lifecycle import RUNTIME, PhaseName, TransitionRefused
from torpor.lifecycle import events as ev
from torpor.lifecycle.slots import SlotState
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.records import RuntimeDone

WHOLE = Answer(payload=b"", streamed=2_000)


def streaming(*, wants_log: bool = False) -> Story:
    story = Story().frozen()
    story.assign(wants_log=wants_log)
    assert story.then(ev.AnswerBegun("i1"), after=0.25) == []
    return story


def managed() -> Story:
    story = Story(MANAGED)
    story.then(ev.SandboxReady())
    for _ in range(2):
        story.ready()
    return story


def done(story: Story) -> RuntimeDone:
    return next(record for record in story.record_values() if isinstance(record, RuntimeDone))


def test_caller_is_told_when_the_stream_has_ended_and_the_runtime_goes_on() -> None:
    story = streaming()
    assert not story.told
    assert story.then(ev.Answered("i1", WHOLE), after=0.5) == ["Complete"]
    assert story.told["i1"] is WHOLE and story.phase is PhaseName.SERVING
    story.ready()
    assert story.phase is PhaseName.IDLE


def test_while_it_streams_a_runtime_may_ask_for_nothing_else() -> None:
    story = streaming()
    with pytest.raises(TransitionRefused, match="may not next while answering"):
        story.ready()
    with pytest.raises(TransitionRefused, match="may not begin_answer while answering"):
        story.then(ev.AnswerBegun("i1"))
    assert story.machine.slots["i1"].state is SlotState.ANSWERING and not story.machine.delivered


def test_second_stream_is_refused_and_the_first_answer_stands() -> None:
    story = streaming()
    story.then(ev.Answered("i1", WHOLE))
    with pytest.raises(TransitionRefused, match="may not begin_answer while answered"):
        story.then(ev.AnswerBegun("i1"))
    assert story.told["i1"] is WHOLE


def test_time_out_cuts_a_running_stream_and_resets() -> None:
    story = streaming()
    assert story.then(ev.DeadlineReached("i1"), after=2.75) == [
        "Emit",
        "Conclude",
        "Complete",
        "KillAgents",
        "ArmTimer",
    ]
    result = story.told["i1"]
    assert isinstance(result, Failure) and result.kind is FailureKind.TIMEOUT
    assert story.phase is PhaseName.RESETTING and not story.machine.is_running("i1")


def test_crash_and_stop_within_a_stream_are_told() -> None:
    crashed = streaming()
    crashed.crash()
    stopped = streaming()
    stopped.then(ev.StopRequested("spindown"))
    kinds = [result.kind for story in (crashed, stopped) if isinstance(result := story.told["i1"], Failure)]
    assert kinds == [FailureKind.EXIT, FailureKind.STOPPED]


def test_upload_that_breaks_off_fails_the_invocation_and_not_the_environment() -> None:
    story = streaming()
    broken = Failure(kind=FailureKind.MALFORMED, error_type="Runtime.TruncatedResponse")
    assert story.then(ev.AnswerRefused("i1", broken)) == ["Complete"]
    assert story.told["i1"] is broken
    story.ready()
    assert story.phase is PhaseName.IDLE


def test_caller_that_wants_the_log_is_told_after_the_stream_once_all_is_reported() -> None:
    story = streaming(wants_log=True)
    assert story.then(ev.Answered("i1", WHOLE)) == []
    assert "Complete" in story.ready()


def _answer(record: RuntimeDone) -> tuple[int, float, float]:
    """Its size, how long it took to begin, and how long to end."""
    began = record.answer_began - (record.at - record.duration)
    return record.produced, began, record.answer_ended - record.answer_began


def test_record_says_how_much_was_produced_when_it_began_and_how_long_it_took() -> None:
    story = streaming()
    story.then(ev.Answered("i1", WHOLE), after=0.5)
    story.ready(after=0.125)
    record = done(story)
    assert _answer(record) == approx((2_000, 0.25, 0.5))
    assert record.duration == approx(0.875)


def test_record_of_an_answer_that_came_whole_has_no_duration_of_it() -> None:
    story = Story().frozen()
    story.assign()
    story.then(ev.Answered("i1", Answer(payload=b"12345")), after=0.25)
    story.ready()
    record = done(story)
    assert _answer(record) == approx((5, 0.25, 0.0))


def test_workers_stream_side_by_side() -> None:
    story = managed()
    for name in ("i1", "i2"):
        story.assign(name)
        story.then(ev.AnswerBegun(name))
    story.then(ev.Answered("i2", WHOLE))
    story.ready()
    assert list(story.told) == ["i2"] and story.machine.slots["i1"].state is SlotState.ANSWERING


def test_managed_time_out_within_a_stream_fails_one_invocation_and_its_late_end_is_dropped() -> None:
    story = managed()
    story.assign()
    story.then(ev.AnswerBegun("i1"))
    story.then(ev.DeadlineReached("i1"), after=3.0)
    assert isinstance(story.told["i1"], Failure) and story.machine.has_expired("i1")
    story.then(ev.Answered("i1", Answer(payload=b"")))
    assert story.phase is PhaseName.IDLE and story.machine.runtime.name == RUNTIME

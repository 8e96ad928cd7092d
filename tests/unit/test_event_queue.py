"""The queue of asynchronous events: order, retries, throttles, and what a function may not do to others."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from tests.support.events import BAD, GOOD, Clock, Functions, Mail, Rules, down, running

from torpor.model.errors import PlatformError, StoreUnavailable, TargetRefused, Throttled, TorporError
from torpor.model.event import Event, EventState, Result
from torpor.model.invocation import Outcome, OutcomeStatus
from torpor.scheduling import ThrottleReason
from torpor.scheduling.retries import Condition, RetryPolicy
from torpor.service.events.lanes import QueueLimits

FULL = Throttled("full", reason=ThrottleReason.ACCOUNT)


async def test_an_event_is_accepted_run_and_remembered(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        identity = await bench.accept(payload=b'{"a":1}')
        (row,) = await bench.ends()

    assert row.event.request_id == identity
    assert (row.state, row.progress.condition, row.progress.runs) == (EventState.SUCCEEDED, "success", 1)
    assert [step.what for step in row.progress.steps] == ["run", "ended"]


async def test_events_of_a_function_begin_in_the_order_of_their_arrival(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        wanted = await asyncio.gather(*(bench.accept_later() for _ in range(2000)))
        await bench.ends(2000)

    assert bench.functions.begun == wanted


async def test_a_failing_event_is_tried_again_after_its_waits_and_then_given_up(tmp_path: Path) -> None:
    async with running(tmp_path, Functions(lambda _: BAD), rules=Rules(retries=2)) as bench:
        await bench.accept()
        (row,) = await bench.ends()

    assert (row.state, row.progress.condition, row.progress.runs) == (EventState.FAILED, "exhausted", 3)
    assert [step.what for step in row.progress.steps] == ["run", "wait", "run", "wait", "run", "ended"]
    assert [step.seconds for step in row.progress.steps if step.what == "wait"] == [0.01, 0.02]


async def test_a_wait_that_would_end_after_the_event_s_time_is_not_begun(tmp_path: Path) -> None:
    async with running(tmp_path, Functions(lambda _: BAD), rules=Rules(wait=60, max_age=60)) as bench:
        await bench.accept()
        (row,) = await bench.ends()

    assert (row.progress.condition, row.progress.runs) == ("aged", 1)


async def test_a_refused_function_waits_with_back_off_and_uses_no_retry_for_it(tmp_path: Path) -> None:
    answers = iter([FULL, FULL, FULL])
    async with running(tmp_path, Functions(lambda _: next(answers, GOOD)), rules=Rules(retries=0)) as bench:
        await bench.accept()
        (row,) = await bench.ends()

        assert (row.state, row.progress.runs, len(bench.functions.begun)) == (EventState.SUCCEEDED, 1, 4)
        assert bench.store.counters()["f", "throttled"] == 3
        throttled, run, _ = row.progress.steps
        assert (throttled.what, throttled.detail, throttled.times, run.what) == ("throttled", "full", 3, "run")
        assert 0.02 < throttled.seconds < run.waited


async def test_a_function_at_its_limit_never_starves_another(tmp_path: Path) -> None:
    functions = Functions(lambda run: None if run.resource == "slow" else GOOD)
    async with running(tmp_path, functions) as bench:
        for _ in range(300):
            bench.accept_later("slow")
        for _ in range(50):
            bench.accept_later("quick")
        await bench.ends(50)

        assert len(functions.running) >= 16


async def test_what_all_share_is_shared_when_another_function_is_refused_it(tmp_path: Path) -> None:
    """20 may run at once on the whole; one function takes them all, then a second one comes."""
    functions = Functions(lambda _: FULL if len(functions.running) > 20 else None)
    async with running(tmp_path, functions) as bench:
        for _ in range(200):
            bench.accept_later("greedy")
        await bench.until(lambda: len(functions.running) == 20)
        bench.accept_later("late")
        await bench.until(lambda: "late-201" in functions.begun)
        for identity in list(functions.running)[:3]:
            functions.end(identity)
        await bench.until(lambda: "late-201" in functions.running)


async def test_more_run_at_once_the_longer_they_take(tmp_path: Path) -> None:
    functions = Functions(lambda _: None)
    async with running(tmp_path, functions) as bench:
        for _ in range(100):
            bench.accept_later()
        await bench.until(lambda: len(functions.running) == 100)

        assert functions.begun == [f"f-{number}" for number in range(1, 101)]


async def test_what_is_refused_is_not_tried_until_one_has_ended(tmp_path: Path) -> None:
    functions = Functions(
        lambda _: Throttled("", reason=ThrottleReason.RESERVED) if len(functions.running) > 5 else None
    )
    async with running(tmp_path, functions, rules=Rules(back_off=30)) as bench:
        for _ in range(20):
            bench.accept_later()
        await bench.until(lambda: len(functions.begun) == 6)
        for number in range(1, 11):
            functions.end(f"f-{number}")
            await bench.until(lambda number=number: f"f-{number + 5}" in functions.running)

        assert functions.most <= 6


async def test_a_delayed_event_runs_when_its_time_has_come(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.accept(delay=0.3)
        await bench.accept()
        late, early = await bench.ends(2)

    assert bench.functions.begun == ["f-2", "f-1"]
    assert late.progress.steps[0].at - early.progress.steps[0].at >= 0.25


async def test_an_event_with_a_key_that_was_used_is_not_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        assert await bench.accept(task="once") == "f-1"
        assert await bench.accept(task="once") == "twice"
        await bench.ends()

        assert len(bench.rows()) == 1


@pytest.mark.parametrize(
    ("rules", "condition", "state"),
    [
        (Rules(barred=Condition.BLOCKED), "blocked", EventState.FAILED),
        (Rules(gone=True), "gone", EventState.FAILED),
        (Rules(max_age=-1), "aged", EventState.FAILED),
    ],
)
async def test_what_must_not_or_cannot_run_is_given_up_at_once(
    tmp_path: Path, rules: Rules, condition: str, state: EventState
) -> None:
    async with running(tmp_path, rules=rules) as bench:
        await bench.accept()
        (row,) = await bench.ends()

    assert (row.state, row.progress.condition, row.progress.runs, bench.functions.begun) == (state, condition, 0, [])


async def test_a_failure_of_the_platform_is_tried_again_without_using_a_retry(tmp_path: Path) -> None:
    answers = iter([PlatformError("no sandbox"), BAD, GOOD])
    async with running(tmp_path, Functions(lambda _: next(answers)), rules=Rules(retries=1)) as bench:
        await bench.accept()
        (row,) = await bench.ends()

    assert (row.state, row.progress.runs, row.progress.errors) == (EventState.SUCCEEDED, 2, 1)


async def test_an_event_that_does_not_fit_into_memory_waits_in_the_store(tmp_path: Path) -> None:
    async with running(tmp_path, Functions(lambda _: None), limits=QueueLimits(memory=100_000)) as bench:
        for _ in range(30):
            bench.accept_later(payload=b"x" * 10_000)
        await bench.until(lambda: len(bench.functions.running) >= 8)
        for number in range(1, 31):
            await bench.until(lambda number=number: f"f-{number}" in bench.functions.running)
            bench.functions.end(f"f-{number}")
        await bench.ends(30)


# -- results ----------------------------------------------------------------------------------------------------------


async def test_a_result_goes_to_its_destination(tmp_path: Path) -> None:
    async with running(tmp_path, rules=Rules(targets=("a", "b"))) as bench:
        await bench.accept()
        (row,) = await bench.ends()

    assert sorted(parcel.url for parcel in bench.mail.sent) == ["a", "b"]
    assert row.state is EventState.SUCCEEDED
    assert [step.what for step in row.progress.steps] == ["run", "ended", "delivered", "delivered"]


async def test_a_destination_that_fails_now_and_then_gets_everything_once(tmp_path: Path) -> None:
    tries = iter(range(10_000))
    mail = Mail(failing=lambda parcel: down(parcel) if next(tries) % 2 else None)
    patient = RetryPolicy(retries=0, waits=(), max_age=60, first_back_off=0.01, longest_back_off=0.1, refused_for=60)
    async with running(tmp_path, mail=mail, rules=Rules(targets=("a",), delivery=patient)) as bench:
        for _ in range(60):
            bench.accept_later()
        rows = await bench.ends(60, timeout=30)

    assert sorted(parcel.identity for parcel in mail.sent) == sorted(row.event.request_id for row in rows)
    assert {row.state for row in rows} == {EventState.SUCCEEDED}


async def test_a_destination_that_is_down_for_good_leaves_a_dead_event(tmp_path: Path) -> None:
    async with running(tmp_path, mail=Mail(failing=down), rules=Rules(targets=("a",))) as bench:
        await bench.accept()
        (row,) = await bench.ends(timeout=20)

    assert (row.state, row.progress.condition) == (EventState.DEAD, "success")
    assert row.progress.steps[-1].detail == "destination a: It is down."


async def test_a_destination_that_refuses_is_not_asked_again(tmp_path: Path) -> None:
    mail = Mail(failing=lambda _: TargetRefused("Too large."))
    async with running(tmp_path, mail=mail, rules=Rules(targets=("a",))) as bench:
        await bench.accept()
        (row,) = await bench.ends()

    assert (row.state, mail.tried) == (EventState.DEAD, 1)


async def test_a_destination_that_is_down_holds_up_neither_the_queue_nor_other_destinations(tmp_path: Path) -> None:
    mail = Mail(failing=lambda parcel: down(parcel) if parcel.url == "a" else None)
    rules = Rules(targets=("a",))
    async with running(tmp_path, mail=mail, rules=rules) as bench:
        for _ in range(600):
            bench.accept_later()
        await bench.until(lambda: len(bench.functions.begun) == 600)
        bench.rules.targets = ("b",)
        for _ in range(20):
            bench.accept_later("g")
        await bench.until(lambda: sum(parcel.identity.startswith("g") for parcel in mail.sent) == 20)


# -- ends and clocks --------------------------------------------------------------------------------------------------


async def test_what_ran_when_the_server_ended_runs_again_and_that_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path, Functions(lambda _: None)) as bench:
        for _ in range(40):
            await bench.accept()
        await bench.until(lambda: bench.functions.running)
    async with running(tmp_path) as bench:
        rows = await bench.ends(40)

    assert sum(row.progress.interruptions for row in rows) >= 1
    assert {row.state for row in rows} == {EventState.SUCCEEDED}


async def test_results_that_were_on_their_way_when_the_server_ended_arrive(tmp_path: Path) -> None:
    async with running(tmp_path, mail=Mail(failing=down), rules=Rules(targets=("a",))) as bench:
        for _ in range(300):
            bench.accept_later()
        await bench.until(lambda: len(bench.functions.begun) == 300 and not bench.functions.running)
    async with running(tmp_path, rules=Rules(targets=("a",))) as bench:
        await bench.ends(300)

    assert len(bench.functions.begun) == 0
    assert len({parcel.identity for parcel in bench.mail.sent}) == 300


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
async def test_a_clock_that_is_set_holds_no_event_up_and_makes_none_old(tmp_path: Path, jump: float) -> None:
    clock = Clock()
    answers = iter([BAD])
    async with running(tmp_path, Functions(lambda _: next(answers, GOOD)), rules=Rules(wait=0.3), clock=clock) as bench:
        await bench.accept()
        await bench.until(lambda: bench.functions.begun)
        clock.jumped = jump
        (row,) = await bench.ends(timeout=5)

    assert row.state is EventState.SUCCEEDED


async def test_a_clock_that_was_set_back_while_the_server_was_down_holds_no_event_up(tmp_path: Path) -> None:
    clock = Clock()
    async with running(tmp_path, Functions(lambda _: BAD), rules=Rules(wait=0.5), clock=clock) as bench:
        await bench.accept()
        await bench.until(lambda: EventState.QUEUED in bench.states())
    clock.jumped = -7 * 86_400.0
    async with running(tmp_path, clock=clock) as bench:
        (row,) = await bench.ends(timeout=5)

    assert row.state is EventState.SUCCEEDED


async def test_ended_events_are_kept_up_to_a_bound(tmp_path: Path) -> None:
    async with running(tmp_path, limits=QueueLimits(history=100)) as bench:
        for _ in range(2500):
            bench.accept_later()
        await bench.until(lambda: bench.states() == {EventState.SUCCEEDED: 100}, timeout=30)

        assert bench.store.counters() == {("f", "accepted"): 2500, ("f", "succeeded"): 2500, ("f", "success"): 2500}


# -- what must not hold up or hurt others -----------------------------------------------------------------------------


async def test_an_event_is_not_given_up_earlier_because_others_end_and_it_is_refused_each_time(tmp_path: Path) -> None:
    functions = Functions(lambda run: FULL if run.resource == "big" else GOOD)
    async with running(tmp_path, functions, rules=Rules(max_age=60, back_off=1.0)) as bench:
        for _ in range(20):
            bench.accept_later("big")
        for _ in range(100):
            await bench.accept("small")
        await bench.ends(100)
        await asyncio.sleep(0.05)
        states = bench.store.numbers()

    assert states.get(("big", EventState.FAILED)) is None
    assert states["small", EventState.SUCCEEDED] == 100


async def test_one_function_that_can_never_run_leaves_others_what_they_have(tmp_path: Path) -> None:
    functions = Functions(lambda run: FULL if run.resource == "never" else None)
    async with running(tmp_path, functions, rules=Rules(back_off=0.2)) as bench:
        for _ in range(400):
            bench.accept_later("busy")
        await bench.until(lambda: len(functions.running) >= 64)
        bench.accept_later("never")
        for _ in range(100):
            for identity in list(functions.running)[:2]:
                functions.end(identity)
            await asyncio.sleep(0.005)

        assert len(functions.running) > 20


async def test_large_events_of_one_function_hold_up_no_other(tmp_path: Path) -> None:
    functions = Functions(lambda run: None if run.resource == "large" else GOOD)
    async with running(tmp_path, functions, limits=QueueLimits(memory=4 * 1024 * 1024)) as bench:
        for _ in range(64):
            bench.accept_later("large", payload=b"x" * 500_000)
        await bench.until(lambda: functions.running)
        for _ in range(20):
            bench.accept_later("small")
        await bench.ends(20)


async def test_an_answer_that_is_no_text_fails_its_event_and_nothing_else(tmp_path: Path) -> None:
    odd = Outcome(status=OutcomeStatus.ERROR, payload=b'{"errorMessage":"\xff"}', error_type="Unhandled")
    async with running(tmp_path, Functions(lambda _: odd), rules=Rules(retries=0)) as bench:
        await bench.accept()
        (row,) = await bench.ends()

    assert (row.state, row.progress.condition) == (EventState.FAILED, "exhausted")


async def test_what_nobody_can_understand_is_tried_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Rules):
        def judged(self, event: Event, result: Outcome | TorporError) -> Result:
            raise RuntimeError("broken")

    async with running(tmp_path, rules=Broken()) as bench:
        await bench.accept()
        await bench.until(lambda: bench.states().get(EventState.QUEUED) == 1)

    assert "could not be understood" in caplog.text


async def test_a_store_that_has_failed_once_is_tried_again_on_a_quiet_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as bench:
        with monkeypatch.context() as broken:
            broken.setattr(bench.store, "note", _full)
            with pytest.raises(StoreUnavailable):
                await bench.accept()
        await bench.until(lambda: bench.queue.writer.works)
        await bench.accept()
        await bench.ends()


def _full(*_: object) -> None:
    raise StoreUnavailable("The disk is full.")


async def test_a_damaged_event_leaves_its_function_s_queue_at_rest(tmp_path: Path) -> None:
    async with running(tmp_path) as bench:
        await bench.accept(delay=60)
    database = sqlite3.connect(tmp_path / "events.db")
    with database:
        database.execute("UPDATE events SET state = 0, due = 0, body = x'ff'")
    database.close()
    async with running(tmp_path) as bench:
        await bench.until(lambda: not bench.queue.lanes)


async def test_an_event_that_was_told_to_stop_and_is_refused_is_stopped(tmp_path: Path) -> None:
    async with running(tmp_path, Functions(lambda _: None)) as bench:
        identity = await bench.accept()
        await bench.until(lambda: bench.functions.running)
        (held,) = bench.queue.lanes["f"].running.values()
        held.is_stopped = True
        bench.functions.end(identity, FULL)
        (row,) = await bench.ends()

    assert (row.state, row.progress.condition) == (EventState.DROPPED, "stopped")

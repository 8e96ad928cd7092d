"""Looking at events, trying them again and taking them out, while the queue runs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.events import BAD, GOOD, Bench, Functions, Mail, Rules, down, running

from torpor.model.errors import Conflict, NotFound, TargetRefused, Throttled
from torpor.model.event import EventState
from torpor.scheduling import ThrottleReason
from torpor.service.events.desk import EventDesk
from torpor.service.events.interventions import Interventions
from torpor.store.ports import EventFilter, KeyedFilter


@asynccontextmanager
async def desk_of(folder: Path, *parts: Any, **options: Any) -> AsyncIterator[tuple[Bench, EventDesk]]:
    async with running(folder, *parts, **options) as bench:
        interventions = Interventions(bench.queue, bench.functions, bench.clock)
        yield bench, EventDesk(bench.queue, interventions)


async def test_an_event_is_found_by_number_and_by_request_id(tmp_path: Path) -> None:
    async with desk_of(tmp_path) as (bench, desk):
        identity = await bench.accept()
        (row,) = await bench.ends()

        assert (await desk.get(str(row.id))).row.event.request_id == identity
        assert (await desk.get(identity)).row.id == row.id
        with pytest.raises(NotFound):
            await desk.get("nobody")


async def test_where_an_event_stands_is_told_as_it_is_now(tmp_path: Path) -> None:
    async with desk_of(tmp_path, Functions(lambda _: None)) as (bench, desk):
        for _ in range(20):
            await bench.accept()
        await bench.until(lambda: len(bench.functions.running) >= 16)
        seen = [each.standing for each in await desk.list(EventFilter(limit=100))]

    assert set(seen) <= {"waiting", "running", "queued"}
    assert seen.count("queued") <= 4


def ending(bench: Bench, read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What is read is old when it comes back: the event has ended, and that is written."""
    loop = asyncio.get_running_loop()

    def wrapped(wanted: Any) -> Any:
        rows = read(wanted)
        loop.call_soon_threadsafe(bench.functions.end, "f-1")
        while not bench.states().get(EventState.SUCCEEDED):
            time.sleep(0.001)
        return rows

    return wrapped


@pytest.mark.parametrize(
    ("read", "look"),
    [
        ("list", lambda desk: desk.list(EventFilter(limit=9))),
        ("keyed", lambda desk: desk.keyed(KeyedFilter(prefix="", limit=9))),
        ("find", lambda desk: desk.get("f-1")),
        ("by_key", lambda desk: desk.by_key("task")),
    ],
)
async def test_an_event_that_ends_while_it_is_read_is_told_as_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: str, look: Callable[[EventDesk], Awaitable[Any]]
) -> None:
    async with desk_of(tmp_path, Functions(lambda _: None)) as (bench, desk):
        await bench.accept(task="task")
        await bench.until(lambda: bench.functions.running)
        with monkeypatch.context() as patch:
            patch.setattr(bench.queue.store, read, ending(bench, getattr(bench.queue.store, read)))
            found = await look(desk)

    assert "standing='succeeded'" in str(found)


async def test_why_an_event_does_not_begin_is_told_while_it_waits(tmp_path: Path) -> None:
    full = Throttled("The function is at its limit.", reason=ThrottleReason.RESERVED)
    async with desk_of(tmp_path, Functions(lambda _: full), rules=Rules(back_off=60)) as (bench, desk):
        identity = await bench.accept()
        await bench.until(lambda: bench.functions.begun)
        seen = await desk.get(identity)

    (step,) = seen.row.progress.steps
    assert (seen.standing, step.what, step.detail) == ("queued", "throttled", "The function is at its limit.")


async def test_functions_are_told_with_their_numbers_ages_and_counters(tmp_path: Path) -> None:
    full = Throttled("", reason=ThrottleReason.RESERVED)
    functions = Functions(lambda run: GOOD if run.resource == "good" else full)
    async with desk_of(tmp_path, functions, rules=Rules(back_off=60)) as (bench, desk):
        await bench.accept("good")
        for _ in range(3):
            await bench.accept("full")
        await bench.ends()
        await asyncio.sleep(0.05)
        full_one, good = await desk.functions()

    assert (good.function, good.queued, good.ended[EventState.SUCCEEDED]) == ("good", 0, 1)
    assert (full_one.queued, full_one.running, full_one.ended[EventState.FAILED]) == (3, 0, 0)
    assert full_one.oldest is not None and full_one.oldest > 0.04
    assert full_one.counters["accepted"] == 3
    assert full_one.accepted_rate > 0


async def test_a_failed_event_is_run_again_with_all_its_attempts(tmp_path: Path) -> None:
    answers = iter([BAD, BAD, BAD, BAD, GOOD])
    async with desk_of(tmp_path, Functions(lambda _: next(answers)), rules=Rules(retries=2)) as (bench, desk):
        await bench.accept()
        (row,) = await bench.ends()
        assert row.state is EventState.FAILED
        await desk.retry(str(row.id))
        await bench.until(lambda: bench.ended() and bench.ended()[0].state is EventState.SUCCEEDED)
        (row,) = bench.ended()

    assert row.progress.runs == 5
    assert "retried" in [step.what for step in row.progress.steps]


async def test_an_event_that_was_too_old_runs_again_as_if_it_were_new(tmp_path: Path) -> None:
    rules = Rules(max_age=-1)
    async with desk_of(tmp_path, rules=rules) as (bench, desk):
        await bench.accept()
        (row,) = await bench.ends()
        rules.max_age = 0.5
        await asyncio.sleep(0.6)
        await desk.retry(str(row.id))
        await bench.until(lambda: bench.ended() and bench.ended()[0].state is EventState.SUCCEEDED)


async def test_a_dead_event_s_result_is_delivered_again_and_the_event_does_not_run_again(tmp_path: Path) -> None:
    mail = Mail(failing=lambda parcel: TargetRefused("No.") if parcel.url == "b" else None)
    async with desk_of(tmp_path, mail=mail, rules=Rules(targets=("a", "b"))) as (bench, desk):
        await bench.accept()
        (row,) = await bench.ends()
        assert row.state is EventState.DEAD
        mail.failing = lambda _: None
        await desk.retry(str(row.id))
        await bench.until(lambda: bench.ended() and bench.ended()[0].state is EventState.SUCCEEDED)

    assert [parcel.url for parcel in mail.sent] == ["a", "b"]
    assert len(bench.functions.begun) == 1


async def test_an_event_under_way_is_not_run_again(tmp_path: Path) -> None:
    async with desk_of(tmp_path, Functions(lambda _: None)) as (bench, desk):
        identity = await bench.accept()
        await bench.until(lambda: bench.functions.running)
        with pytest.raises(Conflict):
            await desk.retry(identity)


@pytest.mark.parametrize("delay", [0.0, 60.0], ids=["that waits in memory", "of the store"])
async def test_a_waiting_event_is_taken_out(tmp_path: Path, delay: float) -> None:
    full = Throttled("", reason=ThrottleReason.RESERVED)
    async with desk_of(tmp_path, Functions(lambda _: full), rules=Rules(back_off=60)) as (bench, desk):
        identity = await bench.accept(delay=delay)
        if not delay:
            await bench.until(lambda: bench.functions.begun)
        await desk.drop(identity)
        (row,) = await bench.ends()

    assert (row.state, row.progress.condition) == (EventState.DROPPED, "stopped")


async def test_an_event_that_runs_is_stopped_and_not_tried_again(tmp_path: Path) -> None:
    async with desk_of(tmp_path, Functions(lambda _: None)) as (bench, desk):
        identity = await bench.accept()
        await bench.until(lambda: bench.functions.running)
        await desk.drop(identity)
        (row,) = await bench.ends()
        with pytest.raises(Conflict):
            await desk.drop(identity)

    assert (row.state, row.progress.runs) == (EventState.DROPPED, 1)


async def test_a_result_that_cannot_be_delivered_yet_is_dropped(tmp_path: Path) -> None:
    async with desk_of(tmp_path, mail=Mail(failing=down), rules=Rules(targets=("a",))) as (bench, desk):
        identity = await bench.accept()
        await bench.until(lambda: bench.mail.tried)

        async def dropped() -> bool:
            try:
                await desk.drop(identity)
            except Conflict:  # it was just being taken up
                return False
            return True

        for _ in range(500):
            if await dropped():
                break
            await asyncio.sleep(0.01)
        (row,) = await bench.ends()

    assert row.state is EventState.DROPPED


async def test_what_is_taken_out_holds_up_nothing_behind_it(tmp_path: Path) -> None:
    full = Throttled("", reason=ThrottleReason.RESERVED)
    answers = iter([full])
    async with desk_of(tmp_path, Functions(lambda _: next(answers, GOOD)), rules=Rules(back_off=0.2)) as (bench, desk):
        first = await bench.accept()
        second = await bench.accept()
        await desk.drop(first)
        await bench.ends(2)
        states = {row.event.request_id: row.state for row in bench.ended()}

    assert states == {first: EventState.DROPPED, second: EventState.SUCCEEDED}

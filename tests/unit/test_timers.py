"""Timers against a clock that is set by hand, and the schedules of Function Compute."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from torpor.contracts.function_compute.api_failures import ApiFailure
from torpor.contracts.function_compute.timing import next_fire, timer_event
from torpor.service.timers import Timers


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


def every(seconds: float) -> Callable[[float], float]:
    return lambda after: after + seconds


async def test_a_timer_fires_at_each_planned_time_and_not_before() -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[float]()
    timers.put("a", every(10), fired.append)

    assert timers.tick() == 10
    clock.now = 1010.5
    assert timers.tick() == 9.5
    clock.now = 1020.0
    timers.tick()

    assert fired == [1010.0, 1020.0]


async def test_what_is_due_fires_in_the_order_in_which_it_was_planned() -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[str]()
    timers.put("late", every(9), lambda _: fired.append("late"))
    timers.put("early", every(5), lambda _: fired.append("early"))

    clock.now = 1009.0
    timers.tick()

    assert fired == ["early", "late"]


async def test_after_a_standstill_only_the_last_missed_time_is_made_up_for() -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[float]()
    timers.put("a", every(100), fired.append)

    clock.now = 1950.0
    timers.tick()

    assert fired == [1900.0]
    assert timers.planned("a") == 2000.0


async def test_a_timer_that_fails_goes_on_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[float]()

    def broken(_: float) -> None:
        raise RuntimeError("broken")

    timers.put("a", every(10), broken)
    timers.put("b", every(10), fired.append)
    clock.now = 1010.0
    timers.tick()

    assert fired == [1010.0]
    assert timers.planned("a") == 1020.0
    assert "a timer failed" in caplog.text


async def test_a_removed_timer_is_silent_and_a_replaced_one_begins_anew() -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[str]()
    timers.put("a", every(10), lambda _: fired.append("old"))
    timers.put("b", every(10), lambda _: fired.append("gone"))
    timers.put("a", every(20), lambda _: fired.append("new"))
    timers.remove("b")
    timers.remove("nothing")

    clock.now = 1020.0
    timers.tick()

    assert fired == ["new"]


def moments(expression: str, start: str, count: int = 3) -> list[str]:
    following, moment, found = next_fire(expression), datetime.fromisoformat(start).timestamp(), []
    for _ in range(count):
        moment = following(moment)
        found.append(datetime.fromtimestamp(moment, UTC).strftime("%m-%dT%H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("@every 4m", ["01-01T00:04:00", "01-01T00:08:00", "01-01T00:12:00"]),
        ("@every 90s", ["01-01T00:01:30", "01-01T00:03:00", "01-01T00:04:30"]),
        ("@every 12h", ["01-01T12:00:00", "01-02T00:00:00", "01-02T12:00:00"]),
        ("0 0 4 1 * *", ["01-01T04:00:00", "02-01T04:00:00", "03-01T04:00:00"]),
        ("30 0/20 * * * *", ["01-01T00:00:30", "01-01T00:20:30", "01-01T00:40:30"]),
        ("0 5/25 * * * ?", ["01-01T00:05:00", "01-01T00:30:00", "01-01T00:55:00"]),
        ("0 0 9 ? * MON-FRI", ["01-01T09:00:00", "01-02T09:00:00", "01-05T09:00:00"]),
        ("0 0 9 ? * 7", ["01-04T09:00:00", "01-11T09:00:00", "01-18T09:00:00"]),
        ("0 0 0 1 jan,JUL ?", ["07-01T00:00:00", "01-01T00:00:00", "07-01T00:00:00"]),
        ("CRON_TZ=Asia/Shanghai 0 0 4 * * *", ["01-01T20:00:00", "01-02T20:00:00", "01-03T20:00:00"]),
    ],
)
def test_schedules(expression: str, expected: list[str]) -> None:
    assert moments(expression, "2026-01-01T00:00:00+00:00") == expected


@pytest.mark.parametrize(
    "expression",
    ["", "@every", "@every 4x", "@every 0s", "0 0 * * *", "0 60 * * * *", "0 0 24 * * *", "0 0 0 0 * *", "0 0 0 * 13 *",
     "0 0 0 * * 8", "0 0 0 31 2 *", "CRON_TZ=Nowhere/City 0 0 0 * * *", "CRON_TZ=../../etc/passwd 0 0 0 * * *"],
)  # fmt: skip
def test_expressions_that_are_none_are_refused(expression: str) -> None:
    with pytest.raises(ApiFailure):
        next_fire(expression)


def test_the_event_names_the_planned_time() -> None:
    moment = datetime(2023, 12, 26, 7, 49, tzinfo=UTC).timestamp()

    assert timer_event(moment, "timer-trigger", "ä") == (
        '{"triggerTime":"2023-12-26T07:49:00Z","triggerName":"timer-trigger","payload":"ä"}'.encode()
    )


async def test_a_timer_whose_schedule_fails_holds_up_no_other() -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[float]()

    def following(after: float) -> float:
        if after > 1000.0:
            raise ValueError("no such time")
        return 1005.0

    timers.put("ends", following, fired.append)
    timers.put("goes on", every(10), fired.append)
    clock.now = 1021.0
    timers.tick()

    assert fired == [1005.0, 1010.0, 1020.0]

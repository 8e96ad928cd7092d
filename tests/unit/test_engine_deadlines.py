"""The timers of an environment on a loop whose time is told by the test."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from torpor.engine.deadlines import Deadlines


class _Alarm:
    def __init__(self, at: float, ring: Callable[[], None]) -> None:
        self.at = at
        self.ring = ring
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class _Loop:
    """Both the loop and the clock. `skew` is how much too early the loop rings."""

    def __init__(self, skew: float = 0.0) -> None:
        self.now = 100.0
        self.skew = skew
        self.alarms: list[_Alarm] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def call_later(self, delay: float, ring: Callable[[], None]) -> Any:
        self.alarms.append(_Alarm(self.now + max(delay - self.skew, 0.001), ring))
        return self.alarms[-1]

    def run_until(self, end: float) -> None:
        while due := [alarm for alarm in self.alarms if not alarm.cancelled and alarm.at <= end]:
            alarm = min(due, key=lambda alarm: alarm.at)
            self.alarms.remove(alarm)
            self.now = max(self.now, alarm.at)
            alarm.ring()
        self.now = end


@pytest.fixture
def loop() -> _Loop:
    return _Loop()


def deadlines(loop: _Loop) -> tuple[Deadlines, list[tuple[str, float]]]:
    reached: list[tuple[str, float]] = []
    timers = Deadlines(
        cast(asyncio.AbstractEventLoop, loop), loop, lambda timer: reached.append((timer, round(loop.now, 6)))
    )
    return timers, reached


def test_timers_are_told_in_the_order_of_their_times(loop: _Loop) -> None:
    timers, reached = deadlines(loop)
    timers.arm("late", 103.0)
    timers.arm("early", 101.0)
    loop.run_until(110.0)
    assert reached == [("early", 101.0), ("late", 103.0)]


def test_cancelled_timer_is_never_told(loop: _Loop) -> None:
    timers, reached = deadlines(loop)
    timers.arm("gone", 101.0)
    timers.cancel("gone")
    timers.cancel("unknown")
    loop.run_until(110.0)
    assert reached == []


def test_timer_armed_again_is_told_once_at_its_last_time(loop: _Loop) -> None:
    timers, reached = deadlines(loop)
    timers.arm("it", 101.0)
    timers.arm("it", 105.0)
    loop.run_until(110.0)
    assert reached == [("it", 105.0)]


def test_many_timers_that_are_cancelled_in_time_share_one_alarm(loop: _Loop) -> None:
    timers, reached = deadlines(loop)
    for number in range(100):
        timers.arm(f"i{number}", loop.now + 3.0)
        loop.run_until(loop.now + 0.01)
        timers.cancel(f"i{number}")
    assert len(loop.alarms) == 1 and reached == []


def test_loop_that_rings_early_never_makes_a_deadline_early() -> None:
    loop = _Loop(skew=0.4)
    timers, reached = deadlines(loop)
    timers.arm("it", 101.0)
    loop.run_until(110.0)
    assert reached[0][0] == "it" and reached[0][1] >= 101.0


def test_timer_cancelled_by_one_due_at_the_same_time_is_not_told(loop: _Loop) -> None:
    reached: list[str] = []

    def tell(timer: str) -> None:
        reached.append(timer)
        timers.cancel("second")
        if timer == "first":
            timers.arm("third", 102.0)

    timers = Deadlines(cast(asyncio.AbstractEventLoop, loop), loop, tell)
    timers.arm("first", 101.0)
    timers.arm("second", 101.0)
    loop.run_until(101.5)
    assert reached == ["first"]
    loop.run_until(103.0)
    assert reached == ["first", "third"]


def test_cleared_timers_leave_no_alarm(loop: _Loop) -> None:
    timers, reached = deadlines(loop)
    timers.arm("it", 101.0)
    timers.clear()
    assert all(alarm.cancelled for alarm in loop.alarms)
    loop.run_until(110.0)
    assert reached == []

"""The timer wheel, ticked by hand."""

import asyncio
from collections.abc import Iterator

import pytest

from torpor import is_compiled
from torpor.transport.wheel import TICK, Timed, TimerWheel, ticks, wheel_of_loop

pytestmark = pytest.mark.skipif(is_compiled(), reason="classes of tests cannot derive from compiled ones")


class Noted(Timed):
    def __init__(self) -> None:
        super().__init__()
        self.expired = 0

    def expire(self) -> None:
        self.expired += 1


class HandLoop:
    """Keeps the wheel's next tick instead of waiting for it."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def call_later(self, delay: float, call: object) -> None:
        self.calls.append(call)

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.calls.pop()()  # type: ignore[operator]


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[HandLoop]:
    hand = HandLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: hand)
    yield hand


def test_deadline_reached_expires_once(loop: HandLoop) -> None:
    wheel, timed = TimerWheel(), Noted()
    wheel.arm(timed, 3)
    loop.tick(2)
    assert timed.expired == 0
    loop.tick()
    assert timed.expired == 1 and loop.calls == []


def test_deadline_put_off_expires_at_the_later_time(loop: HandLoop) -> None:
    wheel, timed = TimerWheel(), Noted()
    wheel.arm(timed, 2)
    loop.tick()
    wheel.arm(timed, 4)
    loop.tick(3)
    assert timed.expired == 0
    loop.tick()
    assert timed.expired == 1


def test_deadline_brought_forward_expires_at_the_earlier_time(loop: HandLoop) -> None:
    wheel, timed = TimerWheel(), Noted()
    wheel.arm(timed, 50)
    wheel.arm(timed, 2)
    loop.tick(2)
    assert timed.expired == 1


def test_deadline_cleared_by_its_owner_does_not_expire_and_stops_the_ticking(loop: HandLoop) -> None:
    wheel, timed = TimerWheel(), Noted()
    wheel.arm(timed, 2)
    timed.deadline = 0
    loop.tick(2)
    assert timed.expired == 0 and loop.calls == []


def test_forgotten_leaves_the_wheel_empty_and_can_be_armed_again(loop: HandLoop) -> None:
    wheel, timed = TimerWheel(), Noted()
    wheel.arm(timed, 2)
    wheel.forget(timed)
    wheel.forget(timed)
    loop.tick()
    assert loop.calls == []
    wheel.arm(timed, 1)
    loop.tick()
    assert timed.expired == 1


def test_many_armed_need_one_timer_and_expire_in_their_slots(loop: HandLoop) -> None:
    wheel, crowd = TimerWheel(), [Noted() for _ in range(100)]
    for number, timed in enumerate(crowd):
        wheel.arm(timed, number % 10 + 1)
    assert len(loop.calls) == 1
    loop.tick(5)
    assert sum(timed.expired for timed in crowd) == 50
    loop.tick(5)
    assert {timed.expired for timed in crowd} == {1}


def test_one_that_forgets_another_in_the_same_slot_spares_it(loop: HandLoop) -> None:
    wheel = TimerWheel()

    class Rival(Noted):
        other: "Rival"

        def expire(self) -> None:
            super().expire()
            wheel.forget(self.other)

    one, two = Rival(), Rival()
    one.other, two.other = two, one
    wheel.arm(one, 1)
    wheel.arm(two, 1)
    loop.tick()
    assert one.expired + two.expired == 1


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.1, 1.0, 15.0])
def test_ticks_always_cover_the_seconds(seconds: float) -> None:
    assert (ticks(seconds) - 1) * TICK >= seconds


async def test_one_loop_has_one_wheel() -> None:
    assert wheel_of_loop() is wheel_of_loop()

"""Timers against a clock that is set by hand, and the schedules of Function Compute."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.function_compute.api_failures import ApiFailure
from torpor.contracts.function_compute.timing import next_fire, timer_event
from torpor.scheduling.due import Missed
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


@pytest.mark.parametrize("ending", [None, 1005.0])
async def test_a_timer_whose_schedule_ends_is_silent_from_then_on(ending: float | None) -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[float]()
    timers.put("ends", lambda after: ending if ending is None or after < ending else None, fired.append)
    assert timers.planned("ends") == ending
    for clock.now in (1005.0, 1015.0, 2000.0):
        timers.tick()

    assert fired == ([] if ending is None else [ending])
    assert timers.planned("ends") is None
    assert timers.tick() == 30.0


async def test_a_timer_whose_schedule_fails_from_the_beginning_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    timers, fired = Timers(clock), list[float]()

    def broken(_: float) -> float:
        raise ValueError("no such time")

    timers.put("broken", broken, fired.append)
    timers.put("goes on", every(10), fired.append)
    assert timers.planned("broken") is None
    clock.now = 1010.0
    timers.tick()
    clock.now = 500.0
    timers.tick()

    assert fired == [1010.0]
    assert timers.planned("goes on") == 510.0
    assert caplog.text.count("a timer has no planned time") == 2


async def test_the_wait_is_as_long_as_until_the_next_planned_time_but_never_long() -> None:
    clock, slept = Clock(), list[float]()
    timers, fired = Timers(clock), asyncio.Event()
    timers.put("a", every(47), lambda _: fired.set())

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds
        await asyncio.sleep(0)

    running = asyncio.create_task(timers.run(sleep))
    await fired.wait()
    running.cancel()

    assert slept[:2] == [30.0, 17.0]


async def test_a_timer_that_is_put_wakes_whoever_waits_for_the_next_one() -> None:
    clock = Clock()
    timers, fired = Timers(clock), asyncio.Event()
    running = asyncio.create_task(timers.run())
    await asyncio.sleep(0)
    timers.put("due", every(5), lambda _: fired.set())
    clock.now = 1005.0
    async with asyncio.timeout(5):
        await fired.wait()
    running.cancel()


# -- over the lives of a server ---------------------------------------------------------------------------------------


@dataclass
class Kept:
    """What outlives a server: until when timers have been looked after, and their events, kept in the same step."""

    clock: Clock = field(default_factory=Clock)
    times: dict[str, float] = field(default_factory=dict)
    events: list[float] = field(default_factory=list)

    def keep(self, name: str, moment: float | None) -> None:
        if moment is None:
            self.times.pop(name, None)
        else:
            self.times[name] = moment

    def life(self, missed: Missed = Missed.ONCE, **schedules: Callable[[float], float | None]) -> Timers:
        """A server that has just started, with these timers."""
        timers = Timers(self.clock, self.times, self.keep, missed)
        for name, following in schedules.items():
            timers.put(name, following, lambda planned, name=name: self.fire(name, planned))
        timers.started()
        return timers

    def fire(self, name: str, planned: float) -> None:
        self.events.append(planned)
        self.times[name] = planned

    def at(self, now: float, timers: Timers) -> list[float]:
        """What goes off at this time."""
        before, self.clock.now = len(self.events), now
        timers.tick()
        return self.events[before:]


async def test_a_timer_keeps_its_step_however_often_the_server_is_restarted() -> None:
    kept = Kept()
    kept.life(a=every(100))
    for now in (1030.0, 1060.0, 1099.0):
        assert kept.at(now, kept.life(a=every(100))) == []
    assert kept.at(1100.5, kept.life(a=every(100))) == [1100.0]
    assert kept.at(1101.0, kept.life(a=every(100))) == []
    assert kept.life(a=every(100)).planned("a") == 1200.0


@pytest.mark.parametrize(
    ("missed", "expected"), [(Missed.ONCE, [1400.0]), (Missed.ALL, [1100.0, 1200.0, 1300.0, 1400.0]), (Missed.NONE, [])]
)
async def test_times_that_passed_while_the_server_was_down_go_off_as_its_owner_wants(
    missed: Missed, expected: list[float]
) -> None:
    kept = Kept()
    kept.life(missed, a=every(100))
    kept.clock.now = 1450.0
    timers = kept.life(missed, a=every(100))

    assert kept.at(1450.0, timers) == expected
    assert kept.at(1500.0, timers) == [1500.0]
    assert kept.at(1500.0, kept.life(missed, a=every(100))) == []


@pytest.mark.parametrize(("missed", "expected"), [(Missed.ONCE, [1010.0]), (Missed.NONE, [])])
async def test_a_time_that_passed_a_moment_before_the_start_counts_as_missed_too(
    missed: Missed, expected: list[float]
) -> None:
    kept = Kept()
    kept.life(missed, a=every(5))
    kept.clock.now = 1010.0

    assert kept.at(1010.0, kept.life(missed, a=every(5))) == expected


async def test_only_the_first_look_of_a_life_makes_up_for_what_the_server_missed() -> None:
    kept = Kept()
    kept.life(Missed.NONE, a=every(50))
    timers = kept.life(Missed.NONE, a=every(50))

    assert kept.at(1010.0, timers) == []
    assert kept.at(1070.0, timers) == [1050.0]


async def test_each_timer_makes_up_for_its_own_missed_times_in_the_order_in_which_they_were_planned() -> None:
    kept = Kept()
    kept.life(a=every(70), b=every(100))
    kept.clock.now = 1500.0

    assert kept.at(1500.0, kept.life(a=every(70), b=every(100))) == [1490.0, 1500.0]


async def test_a_server_that_ends_before_its_timer_s_event_is_kept_lets_it_go_off_again() -> None:
    kept = Kept()
    timers = kept.life()
    lost = list[float]()
    timers.put("a", every(100), lost.append)
    kept.at(1100.0, timers)

    assert lost == [1100.0]
    assert kept.at(1101.0, kept.life(a=every(100))) == [1100.0]


async def test_timers_that_are_not_there_any_more_are_forgotten() -> None:
    kept = Kept()
    kept.life(a=every(100), b=every(100))
    kept.clock.now = 1450.0
    timers = kept.life(b=every(100))
    assert list(kept.times) == ["b"]
    timers.remove("b")

    assert kept.times == {}
    timers.put("a", every(100), lambda planned: kept.fire("a", planned))
    assert timers.planned("a") == 1550.0


async def test_a_timer_that_is_replaced_while_the_server_runs_owes_nothing_of_its_old_schedule() -> None:
    kept = Kept()
    timers = kept.life(a=every(100))
    kept.clock.now = 1350.0
    timers.put("a", every(60), lambda planned: kept.fire("a", planned))

    assert kept.at(1350.0, timers) == []
    assert kept.at(1411.0, kept.life(a=every(60))) == [1410.0]


@pytest.mark.parametrize(("now", "expected"), [(1400.0, []), (1201.0, []), (1200.9, []), (1600.0, [1600.0])])
async def test_while_the_clock_is_a_little_behind_a_timer_of_an_earlier_life_waits(
    now: float, expected: list[float]
) -> None:
    kept = Kept(Clock())
    kept.times["a"] = 1500.0
    kept.clock.now = now
    timers = kept.life(a=every(100))

    assert kept.at(now, timers) == expected
    assert timers.planned("a") == (1600.0 if 1200.0 <= now < 1600.0 else 1700.0)


async def test_a_timer_of_an_earlier_life_goes_on_from_a_clock_that_was_set_far_back_meanwhile() -> None:
    kept = Kept()
    kept.times["a"] = 1500.0
    kept.clock.now = 1199.0
    timers = kept.life(a=every(100))

    assert timers.planned("a") == 1299.0
    assert kept.times == {"a": 1199.0}


async def test_a_clock_that_is_set_back_a_little_holds_timers_up_and_makes_none_go_off_twice() -> None:
    kept = Kept()
    timers = kept.life(a=every(100))

    assert kept.at(1100.0, timers) == [1100.0]
    assert kept.at(900.0, timers) == []
    assert kept.at(1199.0, timers) == []
    assert kept.at(1200.0, timers) == [1200.0]


async def test_timers_go_on_from_a_clock_that_was_set_far_back(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    timers = kept.life(a=every(100))
    assert kept.at(1100.0, timers) == [1100.0]

    assert kept.at(799.0, timers) == []
    assert "The clock was set back" in caplog.text
    assert kept.at(899.0, timers) == [899.0]
    assert kept.at(950.0, kept.life(a=every(100))) == []


@pytest.mark.parametrize(
    ("missed", "expected"),
    [(Missed.ONCE, [4600.0]), (Missed.ALL, [1600.0 + 600 * n for n in range(6)]), (Missed.NONE, [])],
)
async def test_a_clock_that_is_set_forward_counts_as_a_standstill(missed: Missed, expected: list[float]) -> None:
    kept = Kept()
    timers = kept.life(missed, a=every(600))

    assert kept.at(4900.0, timers) == expected
    assert kept.at(5200.0, timers) == [5200.0]


async def test_a_standstill_of_less_than_a_minute_loses_nothing() -> None:
    kept = Kept()
    timers = kept.life(Missed.NONE, a=every(10))

    assert kept.at(1059.0, timers) == [1010.0, 1020.0, 1030.0, 1040.0, 1050.0]


LOOK, RESTART = "look", "restart"
STEPS = st.lists(
    st.tuples(st.sampled_from([LOOK, LOOK, RESTART]), st.sampled_from([-250, -30, 0, 1, 7, 59, 61, 400, 5000])),
    max_size=30,
)


@given(STEPS, st.sampled_from([5, 60, 330, 3600]), st.sampled_from(list(Missed)))
async def test_no_planned_time_goes_off_twice_or_too_early_whenever_the_server_is_restarted(
    steps: list[tuple[str, int]], period: int, missed: Missed
) -> None:
    """The clock may be set back a little now and then, but not again before it has caught up."""
    kept = Kept()
    following = next_fire(f"@every {period}s")
    timers, latest = kept.life(missed, a=following), kept.clock.now
    for what, seconds in steps:
        if what is RESTART:
            timers = kept.life(missed, a=following)
        for planned in kept.at(max(kept.clock.now + seconds, latest - 250), timers):
            assert planned <= kept.clock.now
        latest = max(latest, kept.clock.now)
    planned_next = timers.planned("a")

    assert kept.events == sorted(set(kept.events))
    assert all((planned - 1000.0) % period == 0 for planned in kept.events)
    assert planned_next is not None and planned_next > max([kept.clock.now, *kept.events])
    if missed is Missed.ALL:
        assert len(kept.events) == (planned_next - 1000.0) / period - 1
    if missed is Missed.ONCE and planned_next > 1000.0 + period:
        assert kept.events[-1] == planned_next - period


# -- where clocks are changed in summer and winter --------------------------------------------------------------------


def local(zone: str, fields: str, start: str, count: int) -> list[str]:
    """The next planned times of a schedule by the clocks of its zone, with their distance from UTC in hours."""
    following, moment, found = next_fire(f"CRON_TZ={zone} {fields}"), datetime.fromisoformat(start).timestamp(), []
    for _ in range(count):
        later = following(moment)
        assert later > moment
        moment = later
        found.append(datetime.fromtimestamp(moment, ZoneInfo(zone)).strftime("%m-%d %H:%M %z")[:-2])
    return found


def test_a_daily_time_that_there_is_not_when_clocks_go_forward_is_left_out_that_day() -> None:
    assert local("Europe/Berlin", "0 30 2 * * *", "2026-03-27T12:00:00Z", 3) == [
        "03-28 02:30 +01", "03-30 02:30 +02", "03-31 02:30 +02"
    ]  # fmt: skip


def test_a_daily_time_that_there_is_twice_when_clocks_go_back_goes_off_at_both() -> None:
    assert local("Europe/Berlin", "0 30 2 * * *", "2026-10-23T12:00:00Z", 4) == [
        "10-24 02:30 +02", "10-25 02:30 +02", "10-25 02:30 +01", "10-26 02:30 +01"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2026-03-28T00:00:00Z", ["03-28 09:00 +01", "03-29 09:00 +02", "03-30 09:00 +02"]),
        ("2026-10-24T00:00:00Z", ["10-24 09:00 +02", "10-25 09:00 +01", "10-26 09:00 +01"]),
    ],
)
def test_a_daily_time_out_of_the_hour_that_changes_comes_once_a_day(start: str, expected: list[str]) -> None:
    assert local("Europe/Berlin", "0 0 9 * * *", start, 3) == expected


@pytest.mark.parametrize("start", ["2026-03-28T20:00:00Z", "2026-10-24T20:00:00Z"])
def test_an_hourly_time_comes_every_hour_though_clocks_change(start: str) -> None:
    following, moment = next_fire("CRON_TZ=Europe/Berlin 0 0 * * * *"), datetime.fromisoformat(start).timestamp()
    for _ in range(10):
        assert following(moment) == moment + 3600
        moment += 3600


def test_a_zone_whose_clocks_never_change_is_as_regular_as_utc() -> None:
    assert local("Asia/Shanghai", "0 30 2 * * *", "2026-03-28T00:00:00Z", 2) == ["03-29 02:30 +08", "03-30 02:30 +08"]
    following = next_fire("CRON_TZ=Asia/Shanghai 0 30 2 * * *")
    moment = first = following(datetime(2026, 1, 1, tzinfo=UTC).timestamp())
    for _ in range(366):
        moment = following(moment)
    assert moment == first + 366 * 24 * 3600


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2026-03-28T00:00:00Z", ["03-28T01:30:00Z", "03-30T00:30:00Z"]),
        ("2026-10-24T00:00:00Z", ["10-24T00:30:00Z", "10-25T00:30:00Z", "10-25T01:30:00Z", "10-26T01:30:00Z"]),
    ],
)
async def test_over_a_change_of_clocks_no_planned_moment_goes_off_twice_though_the_server_is_restarted(
    start: str, expected: list[str]
) -> None:
    kept, following = Kept(), next_fire("CRON_TZ=Europe/Berlin 0 30 2 * * *")
    kept.clock.now = datetime.fromisoformat(start).timestamp()
    for _ in range(3 * 24 * 6):
        kept.at(kept.clock.now + 600, kept.life(a=following))

    assert [datetime.fromtimestamp(planned, UTC).strftime("%m-%dT%H:%M:%SZ") for planned in kept.events] == expected


CHANGES = [datetime(2026, month, day, tzinfo=UTC).timestamp() for month, day in ((3, 29), (10, 25))]


@given(
    st.sampled_from(CHANGES),
    st.integers(-48 * 3600, 48 * 3600),
    st.integers(0, 59),
    st.integers(0, 59),
    st.sampled_from(["*", "1", "2", "3", "0/2", "1-3"]),
)
def test_a_planned_time_is_later_than_the_last_and_by_the_clocks_of_its_zone_what_was_asked_for(
    change: float, offset: int, second: int, minute: int, hours: str
) -> None:
    moment = change + offset
    planned = next_fire(f"CRON_TZ=Europe/Berlin {second} {minute} {hours} * * *")(moment)
    shown = datetime.fromtimestamp(planned, ZoneInfo("Europe/Berlin"))

    wanted = {"*": range(24), "0/2": range(0, 24, 2), "1-3": range(1, 4)}.get(hours) or [int(hours)]
    assert planned > moment
    assert (shown.second, shown.minute, shown.hour in wanted) == (second, minute, True)

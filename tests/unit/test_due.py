"""Which planned times of a timer have passed, and which of them are made good."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.scheduling.due import LATE, Following, Missed, passed, to_fire

NOW = 1_000_000.0


def every(period: float) -> Following:
    """From wherever it is asked."""
    return lambda after: after + period


def on_the(period: float) -> Following:
    """At whole multiples."""
    return lambda after: (after // period + 1) * period


def at(times: Sequence[float]) -> Following:
    """At these times and never again."""

    def following(after: float) -> float | None:
        position = bisect_right(times, after)
        return times[position] if position < len(times) else None

    return following


# -- passed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planned", "now", "found", "upcoming"),
    [
        (1010.0, 1009.9, [], 1010.0),
        (1010.0, 1010.0, [1010.0], 1020.0),
        (1010.0, 1019.9, [1010.0], 1020.0),
        (1010.0, 1030.0, [1010.0, 1020.0, 1030.0], 1040.0),
    ],
)
def test_a_planned_time_has_passed_once_it_has_come(
    planned: float, now: float, found: list[float], upcoming: float
) -> None:
    assert passed(every(10), planned, now) == (found, upcoming)


def test_without_a_planned_time_none_has_passed() -> None:
    assert passed(every(10), None, NOW) == ([], None)


def test_a_schedule_that_ends_has_no_time_after_its_last() -> None:
    assert passed(at([10.0, 20.0]), 10.0, 15.0) == ([10.0], 20.0)
    assert passed(at([10.0, 20.0]), 10.0, 25.0) == ([10.0, 20.0], None)


@pytest.mark.parametrize("period", [1.0, 60.0, 3600.0, 24 * 3600.0])
def test_of_too_many_planned_times_the_latest_are_told(period: float) -> None:
    now = 20_000 * period + period / 2
    found, upcoming = passed(on_the(period), period, now)

    assert 1 <= len(found) < 10_000
    assert found == [found[0] + number * period for number in range(len(found))]
    assert found[-1] == 20_000 * period
    assert upcoming == 20_001 * period


@given(st.lists(st.integers(0, 1000), unique=True, max_size=40), st.integers(-10, 1010))
def test_what_has_passed_and_what_has_not_are_together_all_planned_times_in_order(numbers: list[int], now: int) -> None:
    times = [float(number) for number in sorted(numbers)]
    found, upcoming = passed(at(times), times[0] if times else None, float(now))

    assert found == [planned for planned in times if planned <= now]
    assert upcoming == next((planned for planned in times if planned > now), None)


@given(st.integers(1, 5000), st.integers(0, 10**6), st.integers(0, 10**7))
def test_the_next_planned_time_is_never_one_that_has_passed(period: int, planned: int, elapsed: int) -> None:
    now = float(planned + elapsed)
    found, upcoming = passed(every(period), float(planned), now)

    assert found and found[-1] <= now < found[-1] + period
    assert upcoming is not None and now < upcoming
    assert all(later - earlier == period for earlier, later in pairwise(found))


@given(st.integers(1, 500), st.lists(st.integers(0, 5000), max_size=10))
def test_looking_often_or_once_finds_the_same_times(period: int, looks: list[int]) -> None:
    found: list[float] = []
    planned: float | None = float(period)
    for now in sorted([*looks, 5000]):
        times, planned = passed(every(period), planned, float(now))
        found += times

    assert (found, planned) == passed(every(period), float(period), 5000.0)


# -- to_fire ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missed", Missed)
def test_times_that_have_just_come_all_go_off(missed: Missed) -> None:
    times = [NOW - LATE + 1, NOW - 1, NOW]

    assert to_fire(times, NOW, missed) == times


@pytest.mark.parametrize(
    ("missed", "expected"),
    [(Missed.ONCE, [NOW - 100]), (Missed.ALL, [NOW - 300, NOW - 200, NOW - 100]), (Missed.NONE, [])],
)
def test_of_missed_times_the_last_or_all_or_none_go_off(missed: Missed, expected: list[float]) -> None:
    assert to_fire([NOW - 300, NOW - 200, NOW - 100], NOW, missed) == expected


@pytest.mark.parametrize(
    ("missed", "expected"),
    [(Missed.ONCE, [NOW - 10]), (Missed.ALL, [NOW - 200, NOW - 100, NOW - 10]), (Missed.NONE, [NOW - 10])],
)
def test_one_that_is_on_time_stands_for_those_that_were_missed(missed: Missed, expected: list[float]) -> None:
    assert to_fire([NOW - 200, NOW - 100, NOW - 10], NOW, missed) == expected


def test_a_time_is_missed_from_the_bound_on() -> None:
    assert to_fire([NOW - LATE], NOW, Missed.NONE) == []
    assert to_fire([NOW - LATE + 0.001], NOW, Missed.NONE) == [NOW - LATE + 0.001]
    assert to_fire([NOW], NOW, Missed.NONE, 0.0) == []
    assert to_fire([NOW - 5, NOW], NOW, Missed.ONCE, 0.0) == [NOW]


def test_at_most_a_thousand_missed_times_are_made_good_and_they_are_the_latest() -> None:
    times = [NOW - 5000 + number for number in range(3000)]

    assert to_fire(times, NOW, Missed.ALL) == times[-1000:]


def test_as_many_missed_times_are_made_good_after_a_long_while_as_after_a_short_one() -> None:
    for periods in (9_000, 11_000, 1_000_000):
        times, _ = passed(on_the(60.0), 60.0, periods * 60.0)
        assert len(to_fire(times, periods * 60.0, Missed.ALL, 0.0)) == 1000, periods


TIMES = st.lists(st.integers(0, 1000), unique=True, max_size=50).map(
    lambda found: [float(each) for each in sorted(found)]
)


@given(TIMES, st.sampled_from(list(Missed)), st.sampled_from([0.0, LATE, 500.0]))
def test_what_goes_off_was_planned_and_goes_off_once_in_order(
    times: list[float], missed: Missed, late_after: float
) -> None:
    fired = to_fire(times, 1000.0, missed, late_after)

    assert fired == sorted(set(fired))
    assert set(fired) <= set(times)
    assert {planned for planned in times if planned > 1000.0 - late_after} <= set(fired)


@given(TIMES, st.sampled_from([0.0, LATE, 500.0]))
def test_none_is_less_than_once_and_once_less_than_all(times: list[float], late_after: float) -> None:
    none, once, every_one = (
        set(to_fire(times, 1000.0, missed, late_after)) for missed in (Missed.NONE, Missed.ONCE, Missed.ALL)
    )

    assert none <= once <= every_one == set(times)
    assert bool(once) is bool(times)
    assert len(once) <= max(len(none), 1)

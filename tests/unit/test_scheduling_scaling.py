"""How many environments a version has: what an invocation may start, and what load adds and takes away."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.model.policy import ScalingPolicy, WhenFull
from torpor.scheduling import Apart, Load, Placement, Steps, overflow, retry_pause, steps, wanted

BY_DEMAND = ScalingPolicy(maximum=3, together=5)
BY_LOAD = ScalingPolicy(on_demand=False, minimum=2, maximum=4)


@pytest.mark.parametrize(
    ("policy", "counts", "patient", "expected"),
    [
        (BY_DEMAND, (2, 4), False, Placement.START),
        (BY_DEMAND, (3, 3), False, Placement.REFUSE_FULL),
        (BY_DEMAND, (1, 5), False, Placement.REFUSE_FULL),
        (BY_DEMAND, (3, 3), True, Placement.QUEUE),
        (ScalingPolicy(maximum=1, when_full=WhenFull.QUEUE), (1, 1), False, Placement.QUEUE),
        (ScalingPolicy(), (1000, 1000), False, Placement.START),
        (BY_LOAD, (0, 0), False, Placement.REFUSE_FULL),
    ],
)
def test_an_invocation_without_room_starts_waits_or_is_refused(
    policy: ScalingPolicy, counts: tuple[int, int], patient: bool, expected: Placement
) -> None:
    environments, together = counts
    assert overflow(policy, environments=environments, together=together, patient=patient) is expected


def _load(**given: Any) -> Load:
    return Load(**{"environments": 2, "slots": 10, "busy": 0, **given})


@pytest.mark.parametrize(
    ("policy", "load", "expected"),
    [
        (BY_LOAD, _load(environments=0), 2),
        (BY_LOAD, _load(environments=1, busy=10, refused=True), 2),
        (BY_LOAD, _load(), 2),
        (BY_LOAD, _load(busy=17), 3),
        (BY_LOAD, _load(busy=16), 2),
        (BY_LOAD, _load(refused=True), 3),
        (BY_LOAD, _load(environments=4, busy=40, refused=True), 4),
        (BY_LOAD, _load(environments=3, idle_long=1, busy=10), 2),
        (BY_LOAD, _load(environments=3, idle_long=1, busy=11), 3),
        (BY_LOAD, _load(environments=2, idle_long=2), 2),
        (ScalingPolicy(minimum=1, maximum=1), _load(environments=0), 1),
        (ScalingPolicy(minimum=1), _load(environments=5, busy=50, refused=True), 5),
    ],
)
def test_load_adds_one_environment_at_a_time_and_takes_idle_ones_away(
    policy: ScalingPolicy, load: Load, expected: int
) -> None:
    assert wanted(policy, load) == expected


@given(st.integers(0, 5), st.integers(0, 8), st.integers(0, 20), st.integers(1, 20), st.booleans(), st.integers(0, 20))
def test_what_is_wanted_always_lies_within_the_bounds(
    minimum: int, more: int, environments: int, slots: int, refused: bool, idle: int
) -> None:
    policy = ScalingPolicy(on_demand=False, minimum=minimum, maximum=minimum + more)
    load = Load(environments=environments, slots=slots, busy=0, refused=refused, idle_long=min(idle, environments))
    assert minimum <= wanted(policy, load) <= minimum + more


def test_failed_starts_are_tried_again_ever_later_up_to_a_minute() -> None:
    assert [retry_pause(failures) for failures in (0, 1, 2, 3, 20)] == [1.0, 1.0, 2.0, 4.0, 60.0]


@pytest.mark.parametrize(
    ("minimum", "apart", "expected"),
    [
        (3, Apart(up=0, starting=0), Steps(start=3)),
        (3, Apart(up=1, starting=1), Steps(start=1)),
        (3, Apart(up=2, starting=1), Steps()),
        (1, Apart(up=2, starting=1), Steps(end=2)),
        (0, Apart(up=2, starting=0, aged=1), Steps(end=2, replace=1)),
        (2, Apart(up=0, starting=0, aged=2), Steps(start=1)),
        (2, Apart(up=0, starting=1, aged=2), Steps()),
        (2, Apart(up=1, starting=0, aged=2), Steps(start=1, replace=1)),
        (2, Apart(up=1, starting=1, aged=1), Steps()),
        (2, Apart(up=2, starting=0, aged=1), Steps(replace=1)),
        (3, Apart(up=0, starting=0, aged=2), Steps(start=1)),
        (2, Apart(up=0, starting=0, aged=5), Steps(start=1, replace=3)),
        (5, Apart(up=0, starting=1, aged=2), Steps(start=2)),
    ],
)
def test_a_set_of_its_own_is_kept_at_its_number_and_aged_ones_are_replaced_one_by_one(
    minimum: int, apart: Apart, expected: Steps
) -> None:
    assert steps(minimum, apart) == expected


@given(st.integers(0, 6), st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_what_ends_always_leaves_as_many_up_as_there_are_to_be(minimum: int, up: int, starting: int, aged: int) -> None:
    todo = steps(minimum, Apart(up=up, starting=starting, aged=aged))
    left = up - max(todo.end - starting, 0) + aged - todo.replace  # those that start end first
    assert left >= min(minimum, up + aged)
    assert not (todo.start and todo.end)
    assert up + starting + todo.start - todo.end <= max(minimum, 0)
    assert todo.replace <= aged and todo.end <= up + starting

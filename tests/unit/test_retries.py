"""What follows an attempt at an event: a success, another attempt after a wait, or its end."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from torpor.scheduling.retries import Again, Condition, Ended, RetryPolicy, Verdict, back_off, decide

HOUR = 3600.0
LONG_AGO = 1e9
SECONDS = st.floats(0.0, 1e7, allow_nan=False)
WAITS = st.lists(st.floats(0.0, 1e5, allow_nan=False), max_size=4).map(tuple)
POLICIES = st.builds(
    RetryPolicy,
    retries=st.integers(0, 8),
    waits=WAITS,
    max_age=SECONDS,
    first_back_off=st.floats(0.001, 10.0),
    longest_back_off=st.floats(0.001, 1000.0),
    refused_for=st.none() | SECONDS,
)
NOT_RUN = st.sampled_from([Verdict.THROTTLED, Verdict.SYSTEM])
PLAIN = RetryPolicy(retries=2, waits=(60.0, 120.0), max_age=6 * HOUR, first_back_off=1.0, longest_back_off=300.0)


def after_error(policy: RetryPolicy, errors: int, age: float = 0.0) -> Again | Ended:
    return decide(policy, Verdict.ERROR, errors=errors, refusals=0, refused_for=0.0, age=age)


def after_refusal(
    policy: RetryPolicy, refusals: int, age: float = 0.0, refused_for: float = 0.0, verdict: Verdict = Verdict.THROTTLED
) -> Again | Ended:
    return decide(policy, verdict, errors=0, refusals=refusals, refused_for=refused_for, age=age)


# -- examples ---------------------------------------------------------------------------------------------------------


def test_a_failing_function_is_tried_after_each_wait_and_then_given_up() -> None:
    moves = [after_error(PLAIN, errors) for errors in (1, 2, 3)]
    assert moves == [Again(60.0), Again(120.0), Ended(Condition.EXHAUSTED)]


def test_the_last_wait_stands_for_all_that_follow() -> None:
    policy = RetryPolicy(retries=4, waits=(1.0, 5.0), max_age=HOUR, first_back_off=1.0, longest_back_off=1.0)
    moves = [after_error(policy, errors) for errors in (1, 2, 3, 4, 5)]
    assert moves == [Again(1.0), Again(5.0), Again(5.0), Again(5.0), Ended(Condition.EXHAUSTED)]


def test_without_waits_the_next_attempt_follows_at_once() -> None:
    policy = RetryPolicy(retries=1, waits=(), max_age=HOUR, first_back_off=1.0, longest_back_off=1.0)
    assert after_error(policy, 1) == Again(0.0)


def test_a_wait_that_would_end_after_the_event_s_time_is_not_begun() -> None:
    policy = RetryPolicy(retries=2, waits=(60.0,), max_age=60.0, first_back_off=1.0, longest_back_off=300.0)
    assert after_error(policy, 1, age=0.0) == Again(60.0)
    assert after_error(policy, 1, age=0.01) == Ended(Condition.AGED)
    assert after_refusal(policy, 1, age=59.0) == Again(1.0)
    assert after_refusal(policy, 2, age=59.0) == Ended(Condition.AGED)


def test_an_event_that_is_both_used_up_and_too_old_is_used_up() -> None:
    assert after_error(PLAIN, 3, age=LONG_AGO) == Ended(Condition.EXHAUSTED)


def test_what_is_not_run_is_tried_after_waits_that_double_to_a_bound() -> None:
    waits = [after_refusal(PLAIN, refusals) for refusals in range(1, 13)]
    assert waits == [Again(float(wait)) for wait in (1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300)]


def test_what_is_not_run_is_tried_for_so_long_and_no_longer() -> None:
    policy = RetryPolicy(
        retries=0, waits=(), max_age=HOUR, first_back_off=1.0, longest_back_off=300.0, refused_for=10.0
    )
    assert after_refusal(policy, 1, refused_for=9.0) == Again(1.0)
    assert after_refusal(policy, 2, refused_for=9.0) == Ended(Condition.AGED)


# -- properties -------------------------------------------------------------------------------------------------------


@given(policy=POLICIES, errors=st.integers(0, 20), refusals=st.integers(0, 100), seconds=SECONDS, age=SECONDS)
@pytest.mark.parametrize(
    ("verdict", "condition"), [(Verdict.SUCCESS, Condition.SUCCESS), (Verdict.CANCELLED, Condition.STOPPED)]
)
def test_success_and_a_stop_end_an_event_whatever_came_before(
    policy: RetryPolicy, errors: int, refusals: int, seconds: float, age: float, verdict: Verdict, condition: Condition
) -> None:
    move = decide(policy, verdict, errors=errors, refusals=refusals, refused_for=seconds, age=age)
    assert move == Ended(condition)


@given(policy=POLICIES, errors=st.integers(1, 20), age=SECONDS)
def test_a_failing_function_is_never_tried_more_often_than_the_policy_says(
    policy: RetryPolicy, errors: int, age: float
) -> None:
    move = after_error(policy, errors, age)
    assert (move == Ended(Condition.EXHAUSTED)) is (errors > policy.retries)


@given(policy=POLICIES)
def test_a_function_that_always_fails_comes_to_an_end(policy: RetryPolicy) -> None:
    age, attempts = 0.0, 0
    while True:
        attempts += 1
        move = after_error(policy, attempts, age)
        if isinstance(move, Ended):
            break
        age += move.wait
    assert attempts <= policy.retries + 1
    assert age <= policy.max_age


@given(policy=POLICIES, verdict=st.sampled_from(Verdict), errors=st.integers(1, 20), refusals=st.integers(1, 200),
       seconds=SECONDS, age=SECONDS)  # fmt: skip
def test_no_wait_is_negative_or_ends_after_the_event_s_time(
    policy: RetryPolicy, verdict: Verdict, errors: int, refusals: int, seconds: float, age: float
) -> None:
    move = decide(policy, verdict, errors=errors, refusals=refusals, refused_for=seconds, age=age)
    if isinstance(move, Again):
        assert move.wait >= 0.0
        assert age + move.wait <= policy.max_age


@given(policy=POLICIES, verdict=NOT_RUN, errors=st.integers(0, 20), refusals=st.integers(1, 200), age=SECONDS)
def test_what_is_not_run_uses_up_no_attempt(
    policy: RetryPolicy, verdict: Verdict, errors: int, refusals: int, age: float
) -> None:
    moves = {
        decide(policy, verdict, errors=failed, refusals=refusals, refused_for=0.0, age=age)
        for failed in (0, errors, policy.retries + 1)
    }
    assert len(moves) == 1
    assert moves <= {Ended(Condition.AGED), Again(back_off(policy.first_back_off, policy.longest_back_off, refusals))}


@given(policy=POLICIES, refusals=st.integers(1, 200), seconds=SECONDS, verdict=NOT_RUN)
def test_a_bound_on_refusals_is_kept(policy: RetryPolicy, refusals: int, seconds: float, verdict: Verdict) -> None:
    move = after_refusal(policy, refusals, refused_for=seconds, verdict=verdict)
    if policy.refused_for is not None and isinstance(move, Again):
        assert seconds + move.wait <= policy.refused_for
    if policy.refused_for is not None and seconds > policy.refused_for:
        assert move == Ended(Condition.AGED)


@given(policy=POLICIES, errors=st.integers(1, 20), younger=SECONDS, older=SECONDS)
def test_an_older_event_never_gets_an_attempt_that_a_younger_one_does_not(
    policy: RetryPolicy, errors: int, younger: float, older: float
) -> None:
    assume(younger <= older)
    if isinstance(after_error(policy, errors, older), Again):
        assert after_error(policy, errors, younger) == after_error(policy, errors, older)


@given(first=st.floats(0.0001, 100.0), longest=st.floats(0.0001, 1e6))
def test_back_off_begins_with_the_first_wait_doubles_and_stays_at_its_bound(first: float, longest: float) -> None:
    waits = [back_off(first, longest, times) for times in range(1, 70)]
    assert waits[0] == min(first, longest)
    for earlier, later in pairwise(waits):
        assert later == min(earlier * 2.0, longest)
    assert waits[-1] == longest


@given(first=st.floats(0.0, 1e300), longest=st.floats(0.0, 1e300), times=st.integers(-5, 10**18))
def test_back_off_is_never_out_of_bounds(first: float, longest: float, times: int) -> None:
    assert 0.0 <= back_off(first, longest, times) <= longest

"""Where an invocation runs, and which environments have lived long enough."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.scheduling import IdleView, Placement, ThrottleReason, overdue, place

ROOMY: dict[str, Any] = {
    "function_running": 0,
    "unreserved_running": 0,
    "reserved": None,
    "total_reserved": 0,
    "account": 10,
    "free_environments": 0,
    "settling_slots": 0,
}


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({}, Placement.START),
        ({"free_environments": 1}, Placement.REUSE),
        ({"settling_slots": 1}, Placement.AWAIT),
        ({"settling_slots": -1}, Placement.START),
        ({"settling_slots": 1, "free_environments": 1}, Placement.REUSE),
        ({"unreserved_running": 9}, Placement.START),
        ({"unreserved_running": 10}, Placement.REFUSE_ACCOUNT),
        ({"unreserved_running": 10, "free_environments": 3}, Placement.REFUSE_ACCOUNT),
        ({"unreserved_running": 6, "total_reserved": 4}, Placement.REFUSE_ACCOUNT),
        ({"unreserved_running": 5, "total_reserved": 4}, Placement.START),
        ({"reserved": 0}, Placement.REFUSE_RESERVED),
        ({"reserved": 2, "function_running": 1}, Placement.START),
        ({"reserved": 2, "function_running": 2}, Placement.REFUSE_RESERVED),
        ({"reserved": 1, "total_reserved": 1, "unreserved_running": 9}, Placement.START),
    ],
)
def test_placement_follows_limits_first_then_what_is_there(given_: dict[str, Any], expected: Placement) -> None:
    assert place(**{**ROOMY, **given_}) is expected


def test_throttle_reasons_are_the_api_s_words() -> None:
    assert {str(reason) for reason in ThrottleReason} == {
        "ConcurrentInvocationLimitExceeded",
        "ReservedFunctionConcurrentInvocationLimitExceeded",
        "ReservedFunctionInvocationRateLimitExceeded",
    }


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.integers(0, 4), st.integers(4, 8))
def test_running_invocations_never_exceed_either_limit(
    steps: list[tuple[bool, bool]], reserved: int, account: int
) -> None:
    own = others = 0
    for is_own, arrives in steps:
        if not arrives:
            own, others = (max(own - 1, 0), others) if is_own else (own, max(others - 1, 0))
            continue
        decision = place(
            function_running=own if is_own else others,
            unreserved_running=others,
            reserved=reserved if is_own else None,
            total_reserved=reserved,
            account=account,
            free_environments=0,
            settling_slots=0,
        )
        own += is_own and decision is Placement.START
        others += not is_own and decision is Placement.START
        assert own <= reserved
        assert own + others <= account


def test_overdue_are_those_unused_or_old_for_long_enough() -> None:
    idle = [
        IdleView(id="fresh", created=90.0, last_used=95.0),
        IdleView(id="unused", created=80.0, last_used=90.0),
        IdleView(id="old", created=0.0, last_used=99.0),
    ]
    assert overdue(idle, 100.0, idle_timeout=10.0, max_age=100.0) == ("unused", "old")
    assert overdue(idle, 99.9, idle_timeout=10.0, max_age=100.0) == ()


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100))), st.integers(0, 100), st.integers(1, 100))
def test_what_is_not_overdue_is_neither_unused_nor_old(
    rows: list[tuple[int, int]], idle_timeout: int, max_age: int
) -> None:
    idle = [IdleView(id=str(at), created=made, last_used=max(made, used)) for at, (made, used) in enumerate(rows)]
    ended = overdue(idle, 100.0, idle_timeout=idle_timeout, max_age=max_age)
    for one in idle:
        assert (one.id in ended) is (100 - one.last_used >= idle_timeout or 100 - one.created >= max_age)

"""Batches of one subscriber: when they are complete, what is told again, what is given up."""

from hypothesis import given
from hypothesis import strategies as st

from torpor.model.telemetry import BufferLimits
from torpor.telemetry import Batches

LIMITS = BufferLimits(items=3, size=100, seconds=1.0)


def filled(*events: bytes, limits: BufferLimits = LIMITS, waiting_max: int = 10_000, now: float = 0.0) -> Batches:
    batches = Batches(limits, waiting_max)
    for event in events:
        batches.add(event, now)
    return batches


def test_nothing_is_due_of_nothing() -> None:
    batches = filled()
    assert batches.due_at is None and batches.take(9.0) is None and batches.is_empty


def test_batch_is_complete_by_its_number_of_events() -> None:
    batches = filled(b"1", b"2")
    assert batches.take(0.0) is None
    batches.add(b"3", 0.5)
    batches.add(b"4", 0.5)
    assert batches.due_at == 0.0
    assert batches.take(0.5) == [b"1", b"2", b"3"]


def test_batch_is_complete_by_its_bytes() -> None:
    batches = filled(b"x" * 60, b"y" * 60)
    assert batches.take(0.0) == [b"x" * 60, b"y" * 60]


def test_batch_is_complete_so_long_after_its_first_event() -> None:
    batches = filled(b"1", now=5.0)
    batches.add(b"2", 5.9)
    assert batches.due_at == 6.0 and batches.take(5.99) is None
    assert batches.take(6.0) == [b"1", b"2"]


def test_batch_on_its_way_is_told_again_until_it_is_done() -> None:
    batches = filled(b"1", b"2", b"3", b"4")
    assert batches.take(0.0) == batches.take(0.0) == [b"1", b"2", b"3"]
    assert not batches.is_empty and batches.due_at == 0.0
    batches.done()
    assert batches.take(0.0) is None and batches.take(1.0) == [b"4"]
    batches.done()
    assert batches.is_empty and batches.due_at is None


def test_in_a_hurry_no_event_waits_for_others() -> None:
    batches = filled(b"1")
    batches.hurry()
    assert batches.take(0.0) == [b"1"]
    batches.done()
    batches.add(b"2", 3.0)
    assert batches.due_at == 3.0 and batches.take(3.0) == [b"2"]


def test_too_slow_the_oldest_whole_batch_that_waits_is_dropped_and_counted_once() -> None:
    limits = BufferLimits(items=1, size=1_000, seconds=1.0)
    batches = filled(b"on its way", limits=limits, waiting_max=2_000)
    assert batches.take(0.0) == [b"on its way"]
    for number in range(4):
        batches.add(b"%d" % number * 800, 0.0)
    assert batches.take_dropped() == (2, 1600) and batches.take_dropped() == (0, 0)
    batches.put_first(b"dropped", 0.0)
    taken = []
    batches.done()
    while (events := batches.take(0.0)) is not None:
        taken += events
        batches.done()
    assert taken == [b"dropped", b"2" * 800, b"3" * 800]


def test_batch_that_is_given_up_counts_as_dropped() -> None:
    batches = filled(b"1", b"22", b"3")
    batches.take(0.0)
    batches.give_up()
    assert batches.take_dropped() == (3, 4) and batches.is_empty


def test_limits_of_a_subscription_that_replaces_an_earlier_one_hold_from_then_on() -> None:
    batches = filled(b"1", b"2")
    batches.limit(BufferLimits(items=10, size=100, seconds=0.0))
    assert batches.take(0.0) == [b"1", b"2"]


@given(st.lists(st.integers(min_value=1, max_value=60), max_size=60), st.integers(min_value=200, max_value=2_000))
def test_every_event_is_delivered_once_in_order_or_counted_as_dropped(sizes: list[int], waiting_max: int) -> None:
    batches = Batches(LIMITS, waiting_max)
    events = [b"%05d" % number + b"x" * size for number, size in enumerate(sizes)]
    delivered: list[bytes] = []
    dropped = 0
    for number, event in enumerate(events):
        batches.add(event, float(number))
        if number % 7 == 0 and (taken := batches.take(float(number))) is not None:
            delivered += taken
            batches.done()
        dropped += batches.take_dropped()[0]
    batches.hurry()
    while (taken := batches.take(1e9)) is not None:
        delivered += taken
        batches.done()
    dropped += batches.take_dropped()[0]
    assert delivered == sorted(delivered) and len(set(delivered)) == len(delivered)
    assert len(delivered) + dropped == len(events) and set(delivered) <= set(events)

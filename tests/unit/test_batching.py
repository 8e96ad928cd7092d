"""Batches and readers of a queue: what is asked for and complete, how many read, how long failures are left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.scheduling import batching
from torpor.scheduling.batching import BackOff, BatchRules, Gathered, Pause, ReaderRules, Readers

RULES = BatchRules(size=25, window=5.0, room=1000, at_once=10)
READERS = ReaderRules(idle=2, first=5, most=64, period=1.0)
BACK_OFF = BackOff(first=1.0, longest=60.0)
LONG_AGO = float("-inf")


def gathered(*sizes: int, now: float = 100.0) -> Gathered:
    found = Gathered()
    for size in sizes:
        found = batching.joined(found, size, now)
    return found


def test_a_batch_counts_its_messages_their_bytes_and_the_time_of_the_first() -> None:
    first = batching.joined(Gathered(), 10, 100.0)

    assert batching.joined(first, 20, 103.0) == Gathered(2, 30, 100.0)


@pytest.mark.parametrize(
    ("sizes", "size", "expected"),
    [((), 1000, True), ((), 1001, False), ((400,), 600, True), ((400,), 601, False), ((1,) * 25, 1, False)],
)
def test_a_message_joins_while_there_is_room(sizes: tuple[int, ...], size: int, expected: bool) -> None:
    assert batching.fits(RULES, gathered(*sizes), size) is expected


def test_a_batch_is_full_by_messages_or_bytes() -> None:
    assert not batching.is_full(RULES, gathered(*[1] * 24))
    assert batching.is_full(RULES, gathered(*[1] * 25))
    assert batching.is_full(RULES, gathered(400, 600))


def test_a_batch_waits_for_its_window_unless_it_is_full() -> None:
    assert batching.waits(RULES, gathered(1), 102.0) == 3.0
    assert batching.waits(RULES, gathered(1), 105.0) == 0.0
    assert batching.waits(RULES, gathered(1), 200.0) == 0.0
    assert batching.waits(RULES, gathered(1000), 100.0) == 0.0
    assert batching.waits(BatchRules(size=10, window=0, room=1000, at_once=10), gathered(1), 100.0) == 0.0


@pytest.mark.parametrize(("count", "expected"), [(0, 10), (15, 10), (16, 9), (24, 1), (25, 10)])
def test_what_the_batch_lacks_is_asked_for_as_far_as_one_answer_goes(count: int, expected: int) -> None:
    assert batching.asked(RULES, gathered(*[1] * count)) == expected


def test_a_small_batch_is_asked_for_at_once() -> None:
    assert batching.asked(BatchRules(size=3, window=0, room=1000, at_once=10), Gathered()) == 3


@pytest.mark.parametrize(("waiting", "most", "expected"), [(0, 64, 2), (1, 64, 5), (900, 64, 5), (9, 3, 3), (0, 1, 1)])
def test_a_queue_begins_with_few_readers(waiting: int, most: int, expected: int) -> None:
    rules = ReaderRules(idle=2, first=5, most=most, period=1.0)

    assert batching.begun(rules, waiting).count == expected


def answered(readers: Readers, got: int, now: float, rules: ReaderRules = READERS) -> Readers:
    return batching.received(rules, readers, asked=10, got=got, now=now)


def test_a_queue_that_fills_gets_the_usual_readers_at_once_and_then_one_a_second() -> None:
    readers = answered(Readers(count=2), 10, 100.0)
    assert readers.count == 5
    for now, expected in ((100.5, 5), (101.0, 6), (101.5, 6), (102.0, 7)):
        readers = answered(readers, 10, now)
        assert readers.count == expected


def test_an_answer_that_is_not_full_holds_up_more_readers() -> None:
    readers = answered(Readers(count=5, since=100.0), 9, 101.0)

    assert readers.count == 5
    assert answered(readers, 10, 101.9).count == 5
    assert answered(readers, 10, 102.0).count == 6


def test_every_empty_answer_takes_a_reader_away_down_to_the_least() -> None:
    readers, counts = Readers(count=5), list[int]()
    for now in range(5):
        readers = answered(readers, 0, float(now))
        counts.append(readers.count)

    assert counts == [4, 3, 2, 2, 2]


def test_a_throttle_leaves_what_runs_and_more_are_tried_late_and_one_by_one() -> None:
    readers = batching.throttled(2, 100.0)
    assert readers.count == 2
    assert answered(readers, 10, 100.0 + batching.CALM).count == 2
    readers = answered(readers, 10, 101.0 + batching.CALM)
    assert readers.count == 3
    assert answered(readers, 10, 102.0 + batching.CALM).count == 4


def test_one_reader_is_left_whatever_is_throttled() -> None:
    assert batching.throttled(0, 100.0).count == 1
    assert answered(batching.throttled(0, 100.0), 0, 101.0).count == 1


def test_changed_rules_bound_the_readers() -> None:
    assert batching.bounded(ReaderRules(idle=2, first=5, most=3, period=1.0), Readers(count=9)).count == 3
    assert batching.bounded(READERS, Readers(count=9)).count == 9


@given(st.integers(1, 100), st.lists(st.tuples(st.integers(0, 10), st.floats(0, 3))))
def test_there_is_always_a_reader_and_never_one_too_many(most: int, answers: list[tuple[int, float]]) -> None:
    rules = ReaderRules(idle=2, first=5, most=most, period=1.0)
    readers, now = batching.begun(rules, 1), 0.0
    for got, later in answers:
        now += later
        readers = answered(readers, got, now, rules)
        assert 1 <= readers.count <= most


def test_failures_double_the_pause_up_to_the_longest() -> None:
    pause, now, waits = Pause(), 0.0, list[float]()
    for _ in range(8):
        pause = batching.failed(BACK_OFF, pause, now)
        waits.append(pause.until - now)
        now = pause.until

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


def test_failures_of_what_was_under_way_count_once() -> None:
    pause = batching.failed(BACK_OFF, Pause(), 100.0)

    assert batching.failed(BACK_OFF, pause, 100.9) == pause
    assert batching.failed(BACK_OFF, pause, 101.0).until == 103.0


def test_an_empty_answer_that_came_at_once_is_rested_from() -> None:
    assert batching.rest(0.25) == 0.75
    assert batching.rest(20.0) == 0.0

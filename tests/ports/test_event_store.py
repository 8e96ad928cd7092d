"""The store of asynchronous events on a disk: what it promises, and what a disk can do to it."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from torpor.model.errors import StoreUnavailable
from torpor.model.event import NOTHING_YET, Event, EventRequest, EventState, Owed, Progress, Result, Step
from torpor.store.events import SqliteEventStore
from torpor.store.ports import Backlog, EventFilter, EventRow, EventStore, KeyedFilter, NewEvent, RowChange

NOW = 1000.0
"""A time of the queue's own."""
WALL = 1_700_000_000.0
MUCH = 1 << 30
BATCH = 50
NOBODY = 65_534
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.floats(0.0, 1e12, allow_nan=False)
STEPS = st.builds(Step, at=NUMBERS, what=TEXT, detail=TEXT, seconds=NUMBERS, waited=NUMBERS)
RESULTS = st.builds(Result, verdict=TEXT, payload=st.binary(max_size=50), error_type=TEXT, version=TEXT, refusal=TEXT)
OWED = st.builds(Owed, target=TEXT, role=TEXT, attempts=st.integers(0, 1000), since=NUMBERS)
REQUESTS = st.builds(
    EventRequest, method=TEXT, target=TEXT, fields=st.lists(st.tuples(TEXT, TEXT), max_size=3).map(tuple), peer=TEXT
)
EVENTS = st.builds(
    Event,
    request_id=TEXT,
    function=TEXT,
    contract=TEXT,
    payload=st.binary(max_size=200),
    accepted=NUMBERS,
    qualifier=TEXT,
    trace=TEXT,
    tenant=TEXT,
    source=TEXT,
    planned=NUMBERS,
    task=TEXT,
    request=st.none() | REQUESTS,
)
PROGRESS = st.builds(
    Progress,
    runs=st.integers(0, 1000),
    errors=st.integers(0, 1000),
    refused_since=NUMBERS,
    ended=NUMBERS,
    condition=TEXT,
    result=st.none() | RESULTS,
    owed=st.lists(OWED, max_size=3).map(tuple),
    steps=st.lists(STEPS, max_size=5).map(tuple),
)


class Opened:
    """One file, opened again and again; `store` is the present opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store: SqliteEventStore = SqliteEventStore(str(path))

    def again(self) -> EventStore:
        self.store.close()
        self.store = SqliteEventStore(str(self.path))
        return self.store


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path / "events.db")
    yield made
    made.store.close()


@pytest.fixture
def store(opened: Opened) -> EventStore:
    return opened.store


def event(function: str = "f", payload: bytes = b"{}", request: str = "r") -> Event:
    return Event(request_id=request, function=function, contract="c", payload=payload, accepted=WALL)


def new(
    identity: int,
    function: str = "f",
    *,
    payload: bytes = b"{}",
    state: EventState = EventState.QUEUED,
    due: float = 0.0,
    **fields: Any,
) -> NewEvent:
    """A new event with the request id `r` and its number."""
    made = event(function, payload, f"r{identity}")
    return NewEvent(id=identity, event=made, state=state, due=due, **{"born": float(identity), **fields})


def add(store: EventStore, *events: NewEvent) -> frozenset[int]:
    with store.transaction(durable=True):
        return store.add(events)


def change(
    store: EventStore, identity: int, state: EventState, progress: Progress = NOTHING_YET, due: float = 0.0
) -> None:
    with store.transaction(durable=False):
        store.change([RowChange(id=identity, state=state, due=due, progress=progress)])


def taken(store: EventStore, lane: str = "f", *, now: float = NOW, limit: int = 100, room: int = MUCH) -> list[int]:
    """The ids of what a lane gives."""
    with store.transaction(durable=False):
        return [row.id for row in store.take(lane, now=now, limit=limit, room=room).rows]


def owed(store: EventStore, *, now: float = NOW, limit: int = 100, room: int = MUCH) -> list[int]:
    with store.transaction(durable=False):
        return [row.id for row in store.take_owed(now=now, limit=limit, room=room).rows]


def trim(store: EventStore, state: EventState, keep: int, *, size: int = MUCH, now: float = WALL) -> int:
    with store.transaction(durable=False):
        return store.trim(state, keep=keep, keep_bytes=size, now=now)


def ids(store: EventStore, **wanted: Any) -> list[int]:
    return [row.id for row in store.list(EventFilter(**{"limit": 1000, **wanted}))]


def states(store: EventStore) -> dict[int, EventState]:
    return {row.id: row.state for row in store.list(EventFilter(limit=1000))}


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_a_new_store_holds_nothing(store: EventStore) -> None:
    assert (store.last_id(), ids(store), store.backlogs(), store.numbers(), store.oldest()) == (0, [], {}, {}, {})
    assert (store.counters(), store.timers(), store.fact("a"), keyed(store, "")) == ({}, {}, None, [])
    assert store.get(1) is store.find("r1") is None
    assert (taken(store), owed(store)) == ([], [])


def test_an_event_comes_back_as_it_was_kept_after_reopening(opened: Opened) -> None:
    add(opened.store, new(7, payload=b"\x00\xff", due=NOW, born=3.25, state=EventState.DELIVERING))
    row = opened.again().get(7)

    assert row is not None
    assert (row.id, row.state, row.due, row.born) == (7, EventState.DELIVERING, NOW, 3.25)
    assert (row.event, row.progress) == (event(payload=b"\x00\xff", request="r7"), NOTHING_YET)
    assert opened.store.last_id() == 7


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kept=EVENTS, progress=PROGRESS, state=st.sampled_from(EventState), due=NUMBERS, born=NUMBERS)
def test_any_event_and_progress_come_back_equal(
    opened: Opened, kept: Event, progress: Progress, state: EventState, due: float, born: float
) -> None:
    identity = opened.store.last_id() + 1
    add(opened.store, NewEvent(id=identity, event=kept, state=EventState.RUNNING, due=0.0, born=born))
    change(opened.store, identity, state, progress, due)
    row = opened.again().get(identity)
    assert row is not None
    assert (row.event, row.progress, row.state, row.due, row.born) == (kept, progress, state, due, born)


def test_a_change_to_an_event_that_is_not_there_is_passed_over(store: EventStore) -> None:
    add(store, new(1))
    with store.transaction(durable=False):
        nowhere = RowChange(id=9, state=EventState.FAILED, due=0.0, progress=NOTHING_YET)
        store.change([nowhere, RowChange(id=1, state=EventState.FAILED, due=0.0, progress=NOTHING_YET)])
    assert states(store) == {1: EventState.FAILED}


def test_an_event_that_begins_anew_is_as_old_as_is_said(store: EventStore) -> None:
    add(store, new(1, born=5.0), new(2, born=6.0))
    with store.transaction(durable=False):
        store.change([
            RowChange(id=1, state=EventState.QUEUED, due=0.0, progress=NOTHING_YET, born=50.0),
            RowChange(id=2, state=EventState.QUEUED, due=0.0, progress=NOTHING_YET),
        ])  # fmt: skip
    assert [row.born for row in store.list(EventFilter(limit=9))] == [6.0, 50.0]


def test_what_is_not_committed_is_seen_by_nobody_and_gone_when_it_fails(store: EventStore) -> None:
    add(store, new(1))
    with pytest.raises(ZeroDivisionError), store.transaction(durable=True):
        store.add([new(2), new(3, key="k", key_until=WALL)])
        store.change([RowChange(id=1, state=EventState.FAILED, due=0.0, progress=NOTHING_YET)])
        store.count({("f", "a"): 1})
        store.note("n", 1.0)
        store.note_timer("t", 1.0)
        assert store.take("f", now=NOW, limit=9, room=MUCH).rows
        assert (ids(store), store.get(2), store.fact("n")) == ([1], None, None)
        raise ZeroDivisionError

    assert states(store) == {1: EventState.QUEUED}
    assert (store.counters(), store.fact("n"), store.timers(), keyed(store, "")) == ({}, None, {}, [])
    assert add(store, new(2, key="k", key_until=WALL)) == frozenset()


def test_an_id_that_is_there_already_keeps_the_whole_transaction_out(store: EventStore) -> None:
    add(store, new(1))
    with pytest.raises(StoreUnavailable):
        add(store, new(2), new(1))
    assert ids(store) == [1]


# -- keys -------------------------------------------------------------------------------------------------------------


def test_an_event_whose_key_is_taken_is_not_kept_and_told(store: EventStore) -> None:
    first = add(store, new(1, key="a", key_until=WALL + 10), new(2, key="a", key_until=WALL + 10), new(3))
    second = add(store, new(4, key="a", key_until=WALL + 10), new(5, key="b", key_until=WALL + 10), new(6))

    assert (first, second) == ({2}, {4})
    assert ids(store) == [6, 5, 3, 1]


def test_events_without_a_key_are_never_twice(store: EventStore) -> None:
    assert add(store, *(new(number) for number in range(1, 20))) == frozenset()


def test_a_key_is_taken_after_reopening_too(opened: Opened) -> None:
    add(opened.store, new(1, key="a", key_until=WALL + 10))
    assert add(opened.again(), new(2, key="a", key_until=WALL + 10)) == {2}


def test_a_key_is_free_again_once_its_time_is_over_and_old_things_were_removed(store: EventStore) -> None:
    add(store, new(1, key="a", key_until=WALL), new(2, key="b", key_until=WALL + 100))
    trim(store, EventState.SUCCEEDED, 100, now=WALL + 50)
    assert add(store, new(3, key="a", key_until=WALL + 100), new(4, key="b", key_until=WALL + 100)) == {4}


def keyed(
    store: EventStore, prefix: str, *, limit: int = 100_000, newest_first: bool = False, beyond: int | None = None
) -> Sequence[tuple[str, EventRow]]:
    return store.keyed(KeyedFilter(prefix=prefix, limit=limit, newest_first=newest_first, beyond=beyond))


def test_events_are_found_by_the_beginning_of_their_keys(store: EventStore) -> None:
    keys = ["task:f:b", "task:f:a", "task:g:a", "task:f", "task:f:", "timer:x", "task:f:\U0001f600", "task:f:%"]
    add(store, *(new(number, key=key, key_until=WALL) for number, key in enumerate(keys, 1)))

    found = ["task:f:b", "task:f:a", "task:f:", "task:f:\U0001f600", "task:f:%"]
    assert [key for key, _ in keyed(store, "task:f:")] == found
    assert [key for key, _ in keyed(store, "task:f:", newest_first=True)] == found[::-1]
    assert [key for key, _ in keyed(store, "task:f:", limit=2, beyond=2)] == found[2:4]
    assert [key for key, _ in keyed(store, "task:f:", newest_first=True, beyond=5)] == found[1::-1]
    row = store.by_key("task:g:a")
    assert row is not None and row.event.request_id == "r3"
    assert store.by_key("task:g") is None
    assert [(key, row.event.request_id) for key, row in keyed(store, "task:g:")] == [("task:g:a", "r3")]
    assert keyed(store, "none") == []
    assert len(keyed(store, "")) == len(keys)


# -- taking -----------------------------------------------------------------------------------------------------------


def test_events_are_taken_in_the_order_of_their_arrival_and_once(store: EventStore) -> None:
    add(store, new(3), new(1), new(2))
    assert taken(store) == [1, 2, 3]
    assert taken(store) == []
    assert set(states(store).values()) == {EventState.RUNNING}


def test_a_lane_gives_its_own_events_only(store: EventStore) -> None:
    add(store, new(1, "f"), new(2, "g"), new(3, "f"), new(4, "F"), new(5, "f1"), new(6, ""))
    assert (taken(store, "g"), taken(store, "f"), taken(store, "nobody")) == ([2], [1, 3], [])


@pytest.mark.parametrize("state", [state for state in EventState if state is not EventState.QUEUED])
def test_only_queued_events_are_taken(store: EventStore, state: EventState) -> None:
    add(store, new(1, state=state))
    assert taken(store) == []


def test_those_whose_time_has_come_are_first_by_that_time_then_the_others_in_their_order(store: EventStore) -> None:
    add(store, new(1), new(2, due=30.0), new(3, due=10.0), new(4), new(5, due=10.0), new(6, due=NOW))
    assert taken(store, now=NOW) == [3, 5, 2, 6, 1, 4]


def test_events_whose_time_has_not_come_stay_and_the_first_such_time_is_told(store: EventStore) -> None:
    add(store, new(1, due=NOW + 5), new(2, due=NOW + 3), new(3), new(4, "g", due=NOW + 1))
    with store.transaction(durable=False):
        found = store.take("f", now=NOW, limit=100, room=MUCH)
    assert ([row.id for row in found.rows], found.later) == ([3], NOW + 3)
    with store.transaction(durable=False):
        found = store.take("f", now=NOW + 4, limit=100, room=MUCH)
    assert ([row.id for row in found.rows], found.later) == ([2], NOW + 5)
    assert taken(store, now=NOW + 5) == [1]


def test_nothing_later_is_told_when_there_is_nothing(store: EventStore) -> None:
    add(store, new(1), new(2))
    with store.transaction(durable=False):
        assert store.take("f", now=NOW, limit=1, room=MUCH).later is None


def test_those_that_are_due_and_did_not_fit_are_told_as_later(store: EventStore) -> None:
    add(store, new(1, due=10.0), new(2, due=20.0))
    with store.transaction(durable=False):
        found = store.take("f", now=NOW, limit=1, room=MUCH)
    assert ([row.id for row in found.rows], found.later) == ([1], 20.0)


@pytest.mark.parametrize("due", [0.0, 10.0])
def test_no_more_are_taken_than_are_wanted(store: EventStore, due: float) -> None:
    add(store, *(new(number, due=due) for number in range(1, 11)))
    assert [taken(store, limit=4) for _ in range(4)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], []]


def test_a_limit_counts_those_that_are_due_and_those_that_are_not_timed_together(store: EventStore) -> None:
    add(store, *(new(number) for number in range(1, 5)), *(new(number, due=10.0) for number in range(5, 8)))
    assert taken(store, limit=5) == [5, 6, 7, 1, 2]


@pytest.mark.parametrize("due", [0.0, 10.0])
def test_about_as_many_bytes_are_taken_as_there_is_room_for_and_at_least_one_event(
    store: EventStore, due: float
) -> None:
    add(store, *(new(number, payload=b"x" * 10_000, due=due) for number in range(1, 11)))
    found = taken(store, room=35_000)
    assert found == list(range(1, len(found) + 1))
    assert len(found) in (3, 4)
    assert taken(store, room=1) == [len(found) + 1]


def test_room_counts_those_that_are_due_and_those_that_are_not_timed_together(store: EventStore) -> None:
    add(store, *(new(number, payload=b"x" * 10_000, due=0.0 if number > 2 else 10.0) for number in range(1, 8)))
    assert len(taken(store, room=35_000)) in (3, 4)


def test_results_are_taken_by_their_time_of_whatever_lane(store: EventStore) -> None:
    delivering = EventState.DELIVERING
    add(store, new(1, due=30.0, state=delivering), new(2, "g", due=10.0, state=delivering), new(3, state=delivering))
    add(store, new(4, due=NOW + 1, state=delivering), new(5), new(6, state=EventState.RUNNING))
    with store.transaction(durable=False):
        found = store.take_owed(now=NOW, limit=100, room=MUCH)

    assert ([row.id for row in found.rows], found.later) == ([3, 2, 1], NOW + 1)
    assert owed(store) == []
    assert owed(store, now=NOW + 1) == [4]
    assert states(store)[3] is EventState.RUNNING


def test_results_are_taken_within_the_same_bounds(store: EventStore) -> None:
    add(store, *(new(number, payload=b"x" * 10_000, state=EventState.DELIVERING) for number in range(1, 11)))
    assert owed(store, limit=2) == [1, 2]
    assert len(owed(store, room=35_000)) in (3, 4)
    assert len(owed(store, room=1)) == 1


def test_an_event_is_claimed_out_of_the_states_that_are_named_and_no_other(store: EventStore) -> None:
    add(store, new(1), new(2, state=EventState.FAILED), new(3, state=EventState.DEAD), new(4, state=EventState.RUNNING))
    ended = (EventState.FAILED, EventState.DEAD)
    with store.transaction(durable=False):
        claimed = [store.claim(identity, ended) for identity in (1, 2, 3, 4, 9)]

    assert [row and (row.id, row.state) for row in claimed] == [
        None, (2, EventState.FAILED), (3, EventState.DEAD), None, None,
    ]  # fmt: skip
    assert states(store) == {
        1: EventState.QUEUED, 2: EventState.RUNNING, 3: EventState.RUNNING, 4: EventState.RUNNING,
    }  # fmt: skip
    with store.transaction(durable=False):
        assert store.claim(2, ended) is None


# -- the next life ----------------------------------------------------------------------------------------------------


def test_what_ran_when_the_server_ended_is_queued_again_and_that_is_counted(opened: Opened) -> None:
    add(opened.store, new(1), new(2, state=EventState.RUNNING), new(3, due=NOW + 9), new(4, state=EventState.FAILED))
    change(opened.store, 2, EventState.RUNNING, Progress(runs=1, errors=1), due=NOW + 99)
    add(opened.store, new(5, state=EventState.RUNNING))
    store = opened.again()

    assert store.recover(WALL) == 2
    assert states(store) == {
        1: EventState.QUEUED, 2: EventState.QUEUED, 3: EventState.QUEUED, 4: EventState.FAILED, 5: EventState.QUEUED,
    }  # fmt: skip
    rows = {row.id: row for row in store.list(EventFilter(limit=9))}
    assert {number: row.progress.interruptions for number, row in rows.items()} == {1: 0, 2: 1, 3: 0, 4: 0, 5: 1}
    assert (rows[2].progress.runs, rows[2].progress.errors, rows[2].due) == (1, 1, 0.0)
    assert [(step.what, step.at) for step in rows[2].progress.steps] == [("interrupted", WALL)]
    assert rows[3].due == NOW + 9
    assert taken(store, now=NOW) == [1, 2, 5]


def test_results_that_were_on_their_way_when_the_server_ended_wait_to_be_delivered(opened: Opened) -> None:
    result = Progress(runs=1, condition="success", owed=(Owed(target="t", role="destination"),))
    add(opened.store, new(1, state=EventState.RUNNING), new(2, state=EventState.DELIVERING, due=NOW + 5))
    change(opened.store, 1, EventState.RUNNING, result)
    store = opened.again()

    assert store.recover(WALL) == 0
    assert states(store) == {1: EventState.DELIVERING, 2: EventState.DELIVERING}
    assert owed(store) == [1]
    row = store.get(1)
    assert row is not None and row.progress.owed == result.owed and row.progress.condition == "success"


def test_a_life_that_ended_well_leaves_nothing_to_recover(opened: Opened) -> None:
    add(opened.store, new(1), new(2, state=EventState.SUCCEEDED))
    before = opened.store.list(EventFilter(limit=9))
    store = opened.again()
    assert (store.recover(WALL), store.list(EventFilter(limit=9))) == (0, before)


# -- what is known of all ---------------------------------------------------------------------------------------------


def test_backlogs_tell_of_each_lane_with_queued_events_how_many_may_run_and_when_the_first_other_may(
    store: EventStore,
) -> None:
    add(store, new(1, "a"), new(2, "a"), new(3, "a", due=NOW + 2), new(4, "a", due=NOW + 1))
    add(store, new(5, "b", due=NOW), new(6, "c", state=EventState.RUNNING), new(7, "d", state=EventState.FAILED))
    add(store, new(8, "e", state=EventState.DELIVERING), new(9, "ä"), new(10, ""))
    assert store.backlogs() == {
        "": Backlog(fresh=1, later=None),
        "a": Backlog(fresh=2, later=NOW + 1),
        "b": Backlog(fresh=0, later=NOW),
        "ä": Backlog(fresh=1, later=None),
    }


def test_numbers_are_told_by_lane_and_state(store: EventStore) -> None:
    add(store, new(1, "a"), new(2, "a"), new(3, "a", state=EventState.DEAD), new(4, "b", state=EventState.RUNNING))
    assert store.numbers() == {
        ("a", EventState.QUEUED): 2,
        ("a", EventState.DEAD): 1,
        ("b", EventState.RUNNING): 1,
    }


def test_the_oldest_is_the_one_that_is_queued_longest(store: EventStore) -> None:
    add(store, new(1, "a", born=50.0), new(2, "a", born=60.0), new(3, "b", born=70.0, due=NOW))
    add(store, new(4, "c", state=EventState.RUNNING), new(5, "d", born=20.0, due=NOW), new(6, "d", born=80.0))
    assert store.oldest() == {"a": 50.0, "b": 70.0, "d": 20.0}


def test_events_are_listed_newest_first_by_state_lane_and_page(store: EventStore) -> None:
    kinds = [EventState.QUEUED, EventState.FAILED, EventState.DEAD]
    add(store, *(new(number, "ab"[number % 2], state=kinds[number % 3]) for number in range(1, 13)))

    assert ids(store) == list(range(12, 0, -1))
    assert ids(store, limit=3) == [12, 11, 10]
    assert ids(store, limit=3, before=10) == [9, 8, 7]
    assert ids(store, before=1) == []
    assert ids(store, lane="a") == [12, 10, 8, 6, 4, 2]
    assert ids(store, states=(EventState.FAILED,)) == [10, 7, 4, 1]
    assert ids(store, states=(EventState.FAILED, EventState.DEAD), lane="b", before=8, limit=2) == [7, 5]
    assert ids(store, lane="nobody") == []


def test_an_event_is_found_by_its_request_id_the_newest_if_there_are_several(store: EventStore) -> None:
    with store.transaction(durable=True):
        store.add(
            [NewEvent(id=each, event=event(request="same"), state=EventState.QUEUED, due=0, born=0) for each in (1, 2)]
        )
    found = store.find("same")
    assert found is not None and found.id == 2
    assert store.find("SAME") is None


def test_counters_go_up_by_what_is_added(opened: Opened) -> None:
    for numbers in ({("f", "ended"): 2, ("g", "ended"): 1}, {("f", "ended"): 3, ("f", "retried"): 1}, {}):
        with opened.store.transaction(durable=False):
            opened.store.count(numbers)
    assert opened.again().counters() == {("f", "ended"): 5, ("g", "ended"): 1, ("f", "retried"): 1}


def test_notes_are_kept_by_name_and_replaced(opened: Opened) -> None:
    for name, value in (("a", 1.5), ("b", 0.0), ("a", -2.25)):
        with opened.store.transaction(durable=False):
            opened.store.note(name, value)
    store = opened.again()
    assert (store.fact("a"), store.fact("b"), store.fact("c")) == (-2.25, 0.0, None)


def test_timers_are_kept_by_name_replaced_and_forgotten(opened: Opened) -> None:
    for name, planned in (("a", 1.0), ("b", 2.0), ("a", 3.0), ("b", None), ("c", None)):
        with opened.store.transaction(durable=False):
            opened.store.note_timer(name, planned)
    assert opened.again().timers() == {"a": 3.0}


# -- forgetting -------------------------------------------------------------------------------------------------------


def test_ended_events_beyond_a_number_go_the_oldest_first(store: EventStore) -> None:
    add(store, *(new(number, state=EventState.SUCCEEDED) for number in range(1, 8)))
    add(store, new(8, state=EventState.FAILED), new(9), new(10, state=EventState.RUNNING))
    assert (trim(store, EventState.SUCCEEDED, 3), trim(store, EventState.SUCCEEDED, 3)) == (4, 0)
    assert ids(store) == [10, 9, 8, 7, 6, 5]
    assert store.get(1) is store.find("r1") is None


def test_ended_events_beyond_a_size_go_the_oldest_first(store: EventStore) -> None:
    add(store, *(new(number, payload=b"x" * 10_000) for number in range(1, 31)))
    for number in range(1, 31):
        change(store, number, EventState.SUCCEEDED)
    gone = 0
    while more := trim(store, EventState.SUCCEEDED, 1000, size=100_000):
        gone += more
    assert ids(store) == list(range(30, gone, -1))
    assert 5 <= len(ids(store)) <= 10


@pytest.mark.parametrize("state", [EventState.QUEUED, EventState.RUNNING, EventState.DELIVERING])
def test_events_that_are_not_through_are_never_removed(store: EventStore, state: EventState) -> None:
    add(store, *(new(number, state=state) for number in range(1, 5)))
    assert trim(store, state, 0, size=0) == 0
    assert len(ids(store)) == 4


def test_events_that_must_be_kept_for_a_while_stay_for_so_long(store: EventStore) -> None:
    add(store, *(new(number, state=EventState.FAILED, kept_until=WALL + 10 * number) for number in range(1, 5)))
    trim(store, EventState.FAILED, 0, now=WALL + 20)
    assert ids(store) == [4, 3, 2]
    trim(store, EventState.FAILED, 0, now=WALL + 21)
    assert ids(store) == [4, 3]
    trim(store, EventState.FAILED, 0, now=WALL + 1000)
    assert ids(store) == []


def test_room_of_removed_events_is_used_again(opened: Opened) -> None:
    numbers, sizes = count(1), []
    for _ in range(6):
        batch = [next(numbers) for _ in range(100)]
        add(opened.store, *(new(number, payload=b"x" * 2000) for number in batch))
        with opened.store.transaction(durable=False):
            opened.store.change([
                RowChange(id=number, state=EventState.SUCCEEDED, due=0.0, progress=NOTHING_YET) for number in batch
            ])  # fmt: skip
        trim(opened.store, EventState.SUCCEEDED, 0)
        (pages,) = opened.store._reading.execute("PRAGMA page_count").fetchone()
        sizes.append(pages)
    assert max(sizes) <= 1.1 * sizes[0]


# -- threads and processes --------------------------------------------------------------------------------------------


def test_readers_in_other_threads_are_not_held_up_by_a_writer(store: EventStore) -> None:
    add(store, new(1))
    found: list[list[int]] = []
    with store.transaction(durable=True):
        store.add([new(2)])
        threads = [threading.Thread(target=lambda: found.append(ids(store))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()
    assert found == [[1]] * 8
    assert ids(store) == [2, 1]


def test_readers_see_whole_transactions_while_a_writer_goes_on(store: EventStore) -> None:
    over, odd = threading.Event(), list[int]()

    def read() -> None:
        while not over.is_set():
            odd.extend(number for number in store.numbers().values() if number % BATCH)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 40 * BATCH, BATCH):
        add(store, *(new(start + number) for number in range(1, BATCH + 1)))
    over.set()
    for reader in readers:
        reader.join(10)
    assert odd == []


WRITER = f"""
import sys
from torpor.model.event import Event, EventState
from torpor.store.events import SqliteEventStore
from torpor.store.ports import NewEvent

store, durable = SqliteEventStore(sys.argv[1]), sys.argv[2] == "durable"
last = store.last_id()
while True:
    with store.transaction(durable=durable):
        for _ in range({BATCH}):
            last += 1
            event = Event(request_id=f"r{{last}}", function="f", contract="c", payload=b"x" * 3000, accepted=1.0)
            store.add([NewEvent(id=last, event=event, state=EventState.RUNNING, due=0.0, born=1.0, key=f"k{{last}}",
                                key_until=1e12)])
        store.count({{("f", "accepted"): {BATCH}}})
    print(last, flush=True)
"""


def written_until_killed(path: Path, kind: str, batches: int) -> int:
    """The last id that a writer told to be committed before it was killed in the middle of its work."""
    command = [sys.executable, "-c", WRITER, str(path), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(batches):
            told = writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split("\n")[:-1]  # a line that was cut off was told nobody
        assert writer.wait(20) == -signal.SIGKILL
    return int((rest or [told])[-1])


@pytest.mark.parametrize("kind", ["durable", "quick"])
def test_a_writer_that_is_killed_leaves_every_committed_event_and_no_part_of_any_other(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "events.db"
    for batches in (3, 8, 20):
        told = written_until_killed(path, kind, batches)
        store = SqliteEventStore(str(path))
        found = ids(store, limit=100_000)
        assert found == list(range(len(found), 0, -1))
        assert told <= len(found) <= told + BATCH
        assert len(found) % BATCH == 0
        assert store.counters() == {("f", "accepted"): len(found)}
        assert len(keyed(store, "k")) == len(found)
        assert store.last_id() == len(found)
        if batches == 20:
            assert store.recover(WALL) == len(found)
            assert len(taken(store, limit=100_000)) == len(found)
        store.close()


# -- the file ---------------------------------------------------------------------------------------------------------


def statement(path: Path, text: str) -> None:
    """Write to the file beside the store."""
    connection = sqlite3.connect(path)
    connection.execute(text)
    connection.commit()
    connection.close()


def test_the_file_and_what_stands_beside_it_is_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqliteEventStore(str(tmp_path / "sub" / "events.db"))
        add(store, new(1))
    finally:
        os.umask(before)
    files = sorted((tmp_path / "sub").iterdir())
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {
        "events.db": 0o600, "events.db-shm": 0o600, "events.db-wal": 0o600,
    }  # fmt: skip
    store.close()


def test_the_file_is_flushed_at_a_commit_that_has_to_survive_the_loss_of_power_only(store: SqliteEventStore) -> None:
    def flushes() -> int:
        (level,) = store._writing.execute("PRAGMA synchronous").fetchone()
        return int(level)

    assert store._writing.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    for durable, level in ((True, 2), (False, 1), (False, 1), (True, 2)):
        with store.transaction(durable=durable):
            assert flushes() == level


@pytest.mark.parametrize("version", [2, 99])
def test_the_file_of_a_newer_release_is_refused_and_left_as_it_is(opened: Opened, version: int) -> None:
    add(opened.store, new(1))
    opened.store.close()
    statement(opened.path, f"PRAGMA user_version = {version}")
    before = opened.path.read_bytes()
    with pytest.raises(StoreUnavailable, match=rf"revision {version}, this one knows 1\); upgrade first\.$"):
        SqliteEventStore(str(opened.path))
    assert opened.path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database " * 600, b"SQLite format 3\0" + b"\xff" * 8000])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.db"
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"is damaged or not a database; restore a backup\.$"):
        SqliteEventStore(str(path))
    assert path.read_bytes() == content
    assert not open_files(path)


def open_files(path: Path) -> list[str]:
    """Which of this process' open files are the database or stand beside it?"""
    links = (os.path.join("/proc/self/fd", number) for number in os.listdir("/proc/self/fd"))
    return [target for link in links if os.path.lexists(link) and (target := os.readlink(link)).startswith(str(path))]


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=str(tmp_path)):
        SqliteEventStore(str(tmp_path))


def test_an_event_that_was_damaged_is_told(opened: Opened) -> None:
    add(opened.store, new(1))
    statement(opened.path, "UPDATE events SET body = x'ff'")
    for read in (lambda: opened.store.get(1), lambda: ids(opened.store)):
        with pytest.raises(StoreUnavailable, match="damaged"):
            read()


def test_an_event_that_was_damaged_holds_up_no_other(opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    add(opened.store, new(1), new(2), new(3))
    statement(opened.path, "UPDATE events SET body = x'ff' WHERE id = 1")
    statement(opened.path, "UPDATE events SET state = 1, progress = x'ff' WHERE id = 3")
    opened.store.recover(0.0)

    assert taken(opened.store) == [2, 3]
    assert "set aside" in caplog.text


def test_progress_of_a_later_release_is_read_without_what_is_not_known(opened: Opened) -> None:
    add(opened.store, new(1))
    change(opened.store, 1, EventState.FAILED, Progress(runs=2))
    opened.store.close()
    later = msgspec.msgpack.encode({"runs": 2, "later": {"a": [1]}})
    statement(opened.path, f"UPDATE events SET progress = x'{later.hex()}'")
    opened.store = SqliteEventStore(str(opened.path))
    row = opened.store.get(1)
    assert row is not None and row.progress == Progress(runs=2)


# -- disks ------------------------------------------------------------------------------------------------------------


@contextmanager
def full_disk(store: SqliteEventStore) -> Iterator[None]:
    """The file cannot grow."""
    (pages,) = store._writing.execute("PRAGMA page_count").fetchone()
    store._writing.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    yield
    store._writing.execute(f"PRAGMA max_page_count = {1 << 30}").fetchone()


@contextmanager
def read_only(store: SqliteEventStore) -> Iterator[None]:
    """Nothing can be written."""
    store._writing.execute("PRAGMA query_only = ON")
    yield
    store._writing.execute("PRAGMA query_only = OFF")


@contextmanager
def locked(store: SqliteEventStore) -> Iterator[None]:
    """Another program writes."""
    store._writing.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(store._path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (full_disk, "cannot grow because the disk is full; free some space and try again"),
        (read_only, "is read-only; make the file and its folder writable"),
        (locked, "is locked by another program; stop that program and try again"),
    ],
)
def test_a_disk_that_takes_nothing_is_told_changes_nothing_and_works_again_afterwards(
    opened: Opened, trouble: Callable[[SqliteEventStore], Any], told: str
) -> None:
    store = opened.store
    add(store, new(1, payload=b"kept"), new(2, state=EventState.DELIVERING))
    attempts: Sequence[Callable[[], object]] = (
        lambda: add(store, *(new(number, payload=b"x" * 50_000, key="k", key_until=WALL) for number in (3, 4))),
        lambda: change(store, 1, EventState.FAILED, Progress(steps=(Step(at=1.0, what="x" * 100_000),))),
    )
    with trouble(store):
        for attempt in attempts:
            with pytest.raises(StoreUnavailable) as error:
                attempt()
            assert str(error.value) == f"The event queue {opened.path} {told}."
        assert states(store) == {1: EventState.QUEUED, 2: EventState.DELIVERING}
        assert keyed(store, "") == []

    assert add(store, new(3, payload=b"x" * 50_000, key="k", key_until=WALL)) == frozenset()
    assert (taken(store), owed(store)) == ([1, 3], [2])
    assert len(ids(opened.again())) == 3


def test_a_disk_that_is_full_for_new_events_still_takes_what_has_become_of_others(opened: Opened) -> None:
    store = opened.store
    add(store, *(new(number, payload=b"x" * 50_000) for number in range(1, 6)))
    change(store, 5, EventState.SUCCEEDED)
    trim(store, EventState.SUCCEEDED, 0)
    with full_disk(store):
        with pytest.raises(StoreUnavailable, match="the disk is full"):
            add(store, *(new(number, payload=b"x" * 50_000) for number in range(10, 20)))
        change(store, 1, EventState.FAILED, Progress(runs=3, condition="exhausted"))
    assert states(store)[1] is EventState.FAILED


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that other users may look into, unlike pytest's own."""
    with TemporaryDirectory(prefix="torpor-events-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may write whatever the file's mode says, so the test goes on as nobody."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o444, 0o000])
def test_a_file_that_may_not_be_written_is_told_when_it_is_opened_or_written(shared: Path, mode: int) -> None:
    path = shared / "events.db"
    store = SqliteEventStore(str(path))
    add(store, new(1))
    store.close()
    path.chmod(mode)
    shared.chmod(0o555)
    try:
        with ordinary_user(), pytest.raises(StoreUnavailable, match=rf"^The event queue {path} .+\.$") as error:
            readable = SqliteEventStore(str(path))
            try:
                add(readable, new(2))
            finally:
                readable.close()
        assert "writable" in str(error.value) or "Permission denied" in str(error.value)
    finally:
        path.chmod(0o600)
        shared.chmod(0o755)
    again = SqliteEventStore(str(path))
    add(again, new(2))
    assert ids(again) == [2, 1]
    again.close()

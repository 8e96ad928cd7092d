"""Pages of events in the order of their times, whatever lies in which source."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.telemetry import search as search_module
from torpor.telemetry.entries import LogEvent
from torpor.telemetry.search import MemorySource, Page, Position, Query, Source, search


class Counted(MemorySource):
    """A source that costs something, and tells how often it was read."""

    def __init__(self, *events: LogEvent, size: int = 0) -> None:
        super().__init__(events)
        self.size = size
        self.reads = 0

    def read(self) -> tuple[LogEvent, ...]:
        self.reads += 1
        return tuple(super().read())


def event(number: int, time: float, stream: str = "s", message: str = "m") -> LogEvent:
    return LogEvent(number, time, stream, message)


def all_pages(sources: list[Source], query: Query) -> list[LogEvent]:
    """What a caller gets who follows every page."""
    found: list[LogEvent] = []
    for _ in range(1000):
        page = search(sources, query)
        assert len(page.events) <= query.limit
        found += page.events
        if page.next is None:
            return found
        assert query.after is None or page.next != query.after, "the caller would turn in a circle"
        query = Query(
            start=query.start,
            end=query.end,
            stream=query.stream,
            after=page.next,
            descending=query.descending,
            limit=query.limit,
        )
    raise AssertionError("the pages never end")


cut_up = st.lists(st.lists(st.tuples(st.integers(0, 30), st.sampled_from("ab")), min_size=1, max_size=12), max_size=6)


@given(cut_up, st.integers(1, 7), st.booleans(), st.integers(0, 20), st.integers(0, 40), st.integers(0, 3))
def test_pages_together_are_what_is_looked_for_in_order(
    parts: list[list[tuple[int, str]]], limit: int, descending: bool, start: int, end: int, cost: int
) -> None:
    number = 0
    sources: list[Source] = []
    expected: list[LogEvent] = []
    for part in parts:
        events = [event(number + index, time, stream) for index, (time, stream) in enumerate(part, 1)]
        number += len(part)
        sources.append(Counted(*events, size=cost * search_module.BUDGET // 2))
        expected += [each for each in events if start <= each.time < end and each.stream == "a"]
    expected.sort(key=lambda each: (each.time, each.number), reverse=descending)
    query = Query(start=start, end=end, stream=lambda name: name == "a", descending=descending, limit=limit)
    assert all_pages(sources, query) == expected


def test_sources_outside_the_times_are_not_read() -> None:
    early, wanted, late = Counted(event(1, 10)), Counted(event(2, 20)), Counted(event(3, 30))
    assert search([early, wanted, late], Query(start=15, end=30, limit=5)).events == [event(2, 20)]
    assert (early.reads, wanted.reads, late.reads) == (0, 1, 0)


def test_no_more_is_read_than_the_page_needs() -> None:
    sources = [Counted(event(number, number)) for number in range(1, 9)]
    page = search(sources, Query(limit=2))
    assert page == Page([event(1, 1), event(2, 2)], Position(2, 2))
    assert sum(source.reads for source in sources) == 3
    newest = search(sources, Query(limit=2, descending=True))
    assert [each.number for each in newest.events] == [8, 7]


def test_a_page_is_cut_when_much_was_read_and_goes_on_behind_it() -> None:
    size = search_module.BUDGET + 1
    sources = [Counted(event(number, number), size=size) for number in range(1, 5)]
    query = Query(message=lambda message: False, limit=5)
    page = search(sources, query)
    assert page == Page([], Position(2, 0))
    assert [source.reads for source in sources] == [1, 0, 0, 0]


def test_events_with_much_text_are_few_on_a_page_but_never_none() -> None:
    big = "x" * (search_module.PAGE_SIZE + 1)
    sources = [MemorySource(tuple(event(number, number, message=big) for number in (1, 2, 3)))]
    page = search(sources, Query(limit=10))
    assert [each.number for each in page.events] == [1]
    assert page.next == Position(1, 1)


def test_hidden_events_are_passed_over_up_to_their_number() -> None:
    source = MemorySource((event(1, 1, "gone"), event(2, 2, "kept"), event(3, 3, "gone")))
    found = search([source], Query(hidden={"gone": 2}, limit=9, end=math.inf)).events
    assert [each.number for each in found] == [2, 3]


@pytest.mark.parametrize(("descending", "expected"), [(False, [1, 2, 3]), (True, [3, 2, 1])])
def test_events_of_the_same_time_are_in_the_order_they_came(descending: bool, expected: list[int]) -> None:
    sources: list[Source] = [MemorySource((event(3, 5),)), MemorySource((event(1, 5), event(2, 5)))]
    assert [each.number for each in all_pages(sources, Query(limit=1, descending=descending))] == expected

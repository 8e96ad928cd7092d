"""Events in the order of their times, page by page, out of sources that each hold them in the order they came in.

Pure: what is read comes from the sources. Only sources whose times can matter are read, as few as the page needs, and
never much more than a budget: then the page is cut, and may be empty, and says where to go on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Protocol

from torpor.telemetry.entries import LogEvent

PAGE_SIZE = 1024 * 1024
"""Characters of messages on a page; one event is always there."""
BUDGET = 4 * 1024 * 1024
"""Bytes of sources that are read for one page, unless it could not be said where to go on."""
EVENT_OVERHEAD = 26
"""Characters that an event counts beside its message."""
_ANY_NUMBER = 10**15
"""Above every event's number."""

_FIRST = itemgetter(0)

_Key = tuple[float, int]


class Source(Protocol):
    """Some events with the bounds of their times, in milliseconds; `size` is the cost of reading them, in bytes."""

    @property
    def size(self) -> int: ...

    @property
    def earliest(self) -> float: ...

    @property
    def latest(self) -> float: ...

    def read(self) -> Sequence[LogEvent]: ...


class MemorySource:
    """Events at hand; at least one."""

    size = 0

    def __init__(self, events: tuple[LogEvent, ...]) -> None:
        self._events = events
        self.earliest = min(event.time for event in events)
        self.latest = max(event.time for event in events)

    def read(self) -> Sequence[LogEvent]:
        return self._events


@dataclass(frozen=True, slots=True)
class Position:
    """A place between events: behind the one with this time and number, in the direction that is read in."""

    time: float
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What is looked for. Times in milliseconds since the epoch."""

    start: float = 0.0
    end: float = math.inf
    """The first time that is not looked for."""
    stream: Callable[[str], bool] | None = None
    message: Callable[[str], bool] | None = None
    """Called in a worker thread."""
    hidden: Mapping[str, int] = field(default_factory=dict)
    """Events of these streams up to these numbers are passed over."""
    after: Position | None = None
    """None begins at the first event, or the last one."""
    descending: bool = False
    limit: int


@dataclass(frozen=True, slots=True)
class Page:
    """Events in the order they were asked for, and where the next page begins; None if nothing can follow."""

    events: list[LogEvent]
    next: Position | None


def search(sources: Sequence[Source], query: Query) -> Page:
    """One page. Blocking."""
    return _Search(query).run(sources)


class _Search:
    """Keys are times and numbers with the sign of the direction, so that they always grow."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._sign = -1 if query.descending else 1
        after = query.after
        self._after: _Key | None = self._key(after.time, after.number) if after is not None else None
        self._found: list[tuple[_Key, LogEvent]] = []
        self._overflow = False
        """There is more than fits on the page, all of it behind what is on it."""

    def run(self, sources: Sequence[Source]) -> Page:
        ahead = sorted(((self._lead(source), source) for source in sources if self._matters(source)), key=_FIRST)
        cost = 0
        for lead, source in ahead:
            if self._overflow and self._found[-1][0][0] < lead:
                break
            if cost > BUDGET and self._moves_to(lead):
                return self._cut(lead)
            cost += source.size
            self._take(source.read())
        return self._page(self._found, self._overflow)

    def _matters(self, source: Source) -> bool:
        earliest, latest = source.earliest, source.latest
        if latest < self._query.start or earliest >= self._query.end:
            return False
        trail = latest if self._sign > 0 else -earliest
        return self._after is None or trail >= self._after[0]

    def _lead(self, source: Source) -> float:
        return source.earliest if self._sign > 0 else -source.latest

    def _moves_to(self, lead: float) -> bool:
        """Is a page that ends here, maybe an empty one, a step forward?"""
        return self._after is None or lead > self._after[0]

    def _take(self, events: Sequence[LogEvent]) -> None:
        query, found = self._query, self._found
        bound = found[-1][0] if self._overflow else None
        for event in events:
            if not query.start <= event.time < query.end:
                continue
            key = self._key(event.time, event.number)
            if (self._after is not None and key <= self._after) or (bound is not None and key > bound):
                continue
            if query.hidden and event.number <= query.hidden.get(event.stream, 0):
                continue
            if query.stream is not None and not query.stream(event.stream):
                continue
            if query.message is None or query.message(event.message):
                found.append((key, event))
        found.sort(key=_FIRST)
        self._trim()

    def _trim(self) -> None:
        size = 0
        for index, (_, event) in enumerate(self._found):
            size += len(event.message) + EVENT_OVERHEAD
            if index and (index >= self._query.limit or size > PAGE_SIZE):
                del self._found[index:]
                self._overflow = True
                return

    def _cut(self, lead: float) -> Page:
        """What is surely before everything that was not read."""
        kept = [(key, event) for key, event in self._found if key[0] < lead]
        if self._overflow and len(kept) == len(self._found):
            return self._page(kept, True)
        number = _ANY_NUMBER if self._query.descending else 0
        return Page([event for _, event in kept], Position(self._sign * lead, number))

    def _page(self, found: list[tuple[_Key, LogEvent]], more: bool) -> Page:
        events = [event for _, event in found]
        last = events[-1] if events and more else None
        return Page(events, Position(last.time, last.number) if last is not None else None)

    def _key(self, time: float, number: int) -> _Key:
        return self._sign * time, self._sign * number

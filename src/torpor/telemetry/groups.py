"""The log groups and streams of a journal as readers know them: found, searched, made, kept for a time, deleted."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec

from torpor.model.clock import Clock
from torpor.model.errors import Conflict, NotFound, TooLarge
from torpor.telemetry.entries import GroupDocument, LogEvent
from torpor.telemetry.journal import Journal
from torpor.telemetry.log_group import LogGroup
from torpor.telemetry.search import MemorySource, Page, Query, Source, search
from torpor.telemetry.segments import stored_size

GROUPS_MAX = 10_000
"""Groups beyond which no more are made by hand; functions' own always are."""
EMPTY_STREAMS_MAX = 1_000
"""Streams of a group that were made by hand and never written to."""
_SEARCHES = 2
"""Searches that run at the same time; others wait for their turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEntry:
    """A stream; times in milliseconds since the epoch, None before its first event."""

    name: str
    created: float
    first: float | None = None
    last: float | None = None
    received: float | None = None


class LogGroups:
    """All groups of a journal.

    What is made, set or deleted here is durable once the call returns. Raises NotFound (`what` is `group` or `stream`),
    Conflict for a name that is taken, and StoreUnavailable.
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._turn = asyncio.Semaphore(_SEARCHES)

    def all(self) -> Mapping[str, GroupDocument]:
        """Every group, by name."""
        return self._journal.existing()

    def get(self, group: str) -> GroupDocument:
        """What is known of the group."""
        found = self._group(group)
        return found.document or GroupDocument(name=group, created=found.created)

    def stored(self, group: str) -> int:
        """Bytes of its events on disk."""
        return stored_size(self._journal.folder_of(group))

    def create(self, group: str, tags: Mapping[str, str]) -> None:
        """Make an empty group. Raises TooLarge if there are too many."""
        existing = self._journal.existing()
        if group in existing:
            raise Conflict("The specified log group already exists")
        if len(existing) >= GROUPS_MAX:
            raise TooLarge("There are too many log groups; delete some first.", what="groups", limit=GROUPS_MAX)
        document = GroupDocument(name=group, created=self._now(), tags=dict(tags))
        self._change(self._journal.open(group), document)

    def delete(self, group: str) -> None:
        """Delete it with all its events. What still writes to it makes it anew."""
        found = self._group(group)
        try:
            self._journal.forget(found)
        except OSError as error:
            raise self._journal.unavailable(error) from error

    def keep_for(self, group: str, days: int) -> None:
        """Events expire after so many days; 0: never."""
        self._change(self._group(group), msgspec.structs.replace(self.get(group), retention=days))

    def tag(self, group: str, tags: Mapping[str, str]) -> None:
        """These are its tags."""
        self._change(self._group(group), msgspec.structs.replace(self.get(group), tags=dict(tags)))

    def streams(self, group: str) -> list[StreamEntry]:
        """Its streams, in no order. A stream is forgotten with its last event."""
        found = self._group(group)
        made = dict(found.document.streams) if found.document is not None else {}
        entries = []
        for name, times in found.streams().items():
            created = min(made.pop(name, times.received), times.received)
            entries.append(
                StreamEntry(name=name, created=created, first=times.first, last=times.last, received=times.received)
            )
        return entries + [StreamEntry(name=name, created=created) for name, created in made.items()]

    def has_stream(self, group: str, stream: str) -> bool:
        """Is there such a stream?"""
        found = self._group(group)
        return found.has_stream(stream) or (found.document is not None and stream in found.document.streams)

    def create_stream(self, group: str, stream: str) -> None:
        """Make an empty stream. Raises TooLarge if there are too many empty ones."""
        if self.has_stream(group, stream):
            raise Conflict("The specified log stream already exists")
        document, written = self.get(group), self._group(group).streams()
        empty = {name: created for name, created in document.streams.items() if name not in written}
        if len(empty) >= EMPTY_STREAMS_MAX:
            text = "There are too many log streams without events; delete some first."
            raise TooLarge(text, what="streams", limit=EMPTY_STREAMS_MAX)
        empty[stream] = self._now()
        self._change(self._group(group), msgspec.structs.replace(document, streams=empty))

    def delete_stream(self, group: str, stream: str) -> None:
        """Delete it with its events. What still writes to it makes it anew."""
        if not self.has_stream(group, stream):
            raise NotFound("The specified log stream does not exist.", what="stream")
        found, document = self._group(group), self.get(group)
        first = found.segments.first
        deleted = {name: last for name, last in document.deleted.items() if last >= first}
        left = {name: created for name, created in document.streams.items() if name != stream}
        if found.has_stream(stream):
            deleted[stream] = found.last
        self._change(found, msgspec.structs.replace(document, streams=left, deleted=deleted))
        found.forget_stream(stream)

    def put(self, group: str, stream: str, timed: Sequence[tuple[float, str]]) -> None:
        """Add events with times of their own, in milliseconds. On disk with the journal's next flush."""
        if not self.has_stream(group, stream):
            raise NotFound("The specified log stream does not exist.", what="stream")
        self._journal.put(group, stream, timed, self._now())

    def expired_before(self, group: str) -> float:
        """Events with an earlier time have expired; in milliseconds."""
        return self._group(group).expired_before(self._now())

    async def search(self, group: str, query: Query) -> Page:
        """One page of its events, deleted and expired ones left out."""
        async with self._turn:
            found = self._group(group)
            hidden = found.document.deleted if found.document is not None else {}
            start = max(query.start, found.expired_before(self._now()))
            asked = replace(query, start=start, hidden=hidden)
            return await asyncio.to_thread(search, _sources(found), asked)

    def follow(self, group: str, after: int | None, limit: int) -> tuple[list[LogEvent], int]:
        """The events in memory numbered above `after`, and the last number; None begins behind the newest."""
        found = self._journal.find(group)
        if found is None:
            return [], after or 0
        if after is None:
            return [], found.last
        events = self._journal.read(group, after, limit) if found.last > after else []
        return events, events[-1].number if events else max(after, found.last)

    def _group(self, group: str) -> LogGroup:
        found = self._journal.find(group)
        if found is None:
            raise NotFound("The specified log group does not exist.", what="group")
        return found

    def _change(self, group: LogGroup, document: GroupDocument) -> None:
        try:
            group.change(document)
        except OSError as error:
            raise self._journal.unavailable(error) from error

    def _now(self) -> float:
        return round(self._clock.wall() * 1000, 3)


def _sources(group: LogGroup) -> list[Source]:
    memory = tuple(group.events)
    below = memory[0].number if memory else group.last + 1
    return [*group.segments.sources(below), *([MemorySource(memory)] if memory else [])]

"""One log group: its newest events in memory, all of them in segments on disk."""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from torpor.telemetry.entries import GroupDocument, LogEvent, StreamTimes
from torpor.telemetry.segments import Segments, summary_of

MEMORY_EVENTS = 10_000
MEMORY_SIZE = 16 * 1024 * 1024
"""Characters of messages kept in memory, each group."""
UNSAVED_SIZE = 4 * 1024 * 1024
"""Characters of messages that may wait for the next `save`."""
DAY = 24 * 3600 * 1000.0
_DOCUMENT = "group.json"


class LogGroup:
    """The events of one group. `folder` empty keeps everything in memory only; `limit` is the bound on disk, in bytes.

    A group exists once it has a document or an event.
    """

    def __init__(self, name: str, folder: str, limit: int) -> None:
        self.name = name
        self.folder = folder
        self.events: deque[LogEvent] = deque()
        self.size = 0
        """Characters of the messages in `events`."""
        self.unsaved: list[LogEvent] = []
        self._unsaved_size = 0
        self.changed: asyncio.Event | None = None
        """There only while somebody waits for an event."""
        self.last = 0
        self.document: GroupDocument | None = None
        self.segments = Segments(folder, limit)

    def load(self) -> None:
        """Find what an earlier life has left."""
        if self.document is None:
            self.document = read_document(self.folder)
        deleted = self.document.deleted if self.document is not None else {}
        self.segments.load(deleted)
        # Numbers of events that never reached the disk may count among what was deleted.
        self.last = max([self.segments.last, *deleted.values()])
        for event in self.segments.newest(MEMORY_EVENTS, MEMORY_SIZE):
            if event.number > deleted.get(event.stream, 0):
                self.events.append(event)
                self.size += len(event.message)

    @property
    def exists(self) -> bool:
        return self.document is not None or bool(self.events) or self.segments.last > 0

    def append(self, time: float, stream: str, messages: Iterable[str]) -> None:
        """Add events of the same time, in milliseconds."""
        for message in messages:
            self.last += 1
            event = LogEvent(self.last, time, stream, message)
            self.events.append(event)
            self.unsaved.append(event)
            self.size += len(message)
            self._unsaved_size += len(message)
        self._bound()

    def put(self, stream: str, timed: Sequence[tuple[float, str]], received: float) -> None:
        """Add events with times of their own. Times in milliseconds."""
        for time, message in timed:
            self.last += 1
            event = LogEvent(self.last, time, stream, message, received)
            self.events.append(event)
            self.unsaved.append(event)
            self.size += len(message)
            self._unsaved_size += len(message)
        self._bound()

    def wake(self) -> None:
        """Tell those who wait."""
        if self.changed is not None:
            self.changed.set()
            self.changed = None

    def _bound(self) -> None:
        self._forget_oldest()
        if self._unsaved_size > UNSAVED_SIZE or len(self.unsaved) > MEMORY_EVENTS:
            # A full disk costs the events their place on it, never the function its run; the next flush tells of it.
            with contextlib.suppress(OSError):
                self.save()
            self._drop_unsaved()

    def _forget_oldest(self) -> None:
        while len(self.events) > MEMORY_EVENTS or self.size > MEMORY_SIZE:
            self.size -= len(self.events.popleft().message)

    def save(self) -> None:
        """Write what is not on disk yet. Raises OSError; the events then stay readable in memory."""
        unsaved = self.unsaved
        if not unsaved or not self.folder:
            self._drop_unsaved()
            return
        if self.document is None:
            document = GroupDocument(name=self.name, created=self.created)
            write_document(self.folder, document, durably=False)
            self.document = document
        self.segments.write(unsaved)
        self._drop_unsaved()

    def _drop_unsaved(self) -> None:
        """What waits to be saved is saved, or given up; it stays readable as long as memory keeps it."""
        self.unsaved = []
        self._unsaved_size = 0

    @property
    def created(self) -> float:
        """When it was made, in milliseconds since the epoch: with its first event, if nobody made it."""
        if self.document is not None:
            return self.document.created
        return self.events[0].time if self.events else 0.0

    def change(self, document: GroupDocument) -> None:
        """Keep this document, durable once this returns. Raises OSError; nothing has changed then."""
        if self.folder:
            write_document(self.folder, document, durably=True)
        self.document = document

    def streams(self) -> dict[str, StreamTimes]:
        """The streams that have events, each with its times."""
        found: dict[str, StreamTimes] = {}
        in_memory = summary_of(tuple(self.events))
        for summary in (*self.segments.summaries(), *([in_memory] if in_memory is not None else [])):
            for stream, times in summary.streams.items():
                known = found.get(stream)
                if known is None:
                    found[stream] = StreamTimes(times.first, times.last, times.received)
                else:
                    known.first = min(known.first, times.first)
                    known.last = max(known.last, times.last)
                    known.received = max(known.received, times.received)
        return found

    def has_stream(self, stream: str) -> bool:
        """Has the stream events?"""
        in_files = any(stream in summary.streams for summary in self.segments.summaries())
        return in_files or any(event.stream == stream for event in self.events)

    def forget_stream(self, stream: str) -> None:
        """Take the stream's events out of memory; in the files they are hidden by the document."""
        self.events = deque([event for event in self.events if event.stream != stream])
        self.unsaved = [event for event in self.unsaved if event.stream != stream]
        self.size = sum([len(event.message) for event in self.events])
        self._unsaved_size = sum([len(event.message) for event in self.unsaved])
        self.segments.forget_stream(stream)

    def expire(self, now: float) -> None:
        """Let what is older than the group's retention go; `now` in milliseconds. Raises OSError."""
        before = self.expired_before(now)
        if before <= 0:
            return
        while self.events and self.events[0].time < before:
            self.size -= len(self.events.popleft().message)
        self.segments.expire(before, now)

    def expired_before(self, now: float) -> float:
        """Events with an earlier time have expired; 0 without retention. In milliseconds."""
        if self.document is None or not self.document.retention:
            return 0.0
        return now - self.document.retention * DAY


_documents = msgspec.json.Decoder(GroupDocument)


def read_document(folder: str) -> GroupDocument | None:
    """None if there is none, or a damaged one."""
    try:
        with open(os.path.join(folder, _DOCUMENT), "rb") as file:
            return _documents.decode(file.read())
    except (OSError, msgspec.MsgspecError):
        return None


def write_document(folder: str, document: GroupDocument, *, durably: bool) -> None:
    """The old one or the new one is there, whatever happens. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, _DOCUMENT)
    with open(path + ".new", "wb") as file:
        file.write(msgspec.json.encode(document))
        file.flush()
        if durably:
            os.fsync(file.fileno())
    os.replace(path + ".new", path)
    if durably:
        _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    for each in (folder, os.path.dirname(folder)):
        descriptor = os.open(each, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

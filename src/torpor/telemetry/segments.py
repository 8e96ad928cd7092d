"""The files of one log group: events in the order they came in, cut into segments.

`events.jsonl` is written to. Once it is full it becomes `events.<its first number>.jsonl`, beside a `.json` that sums
it up, so that finding a time or a stream opens no file that has none of it. The oldest go when all together are over
the bound, and those whose every event has expired.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from torpor.telemetry.entries import LogEvent, StreamTimes, Summary

SEGMENTS = 32
"""Segments of a group that has reached its bound."""
_CURRENT = "events.jsonl"
_CLOSED = re.compile(r"events\.(?:old|[0-9]{20})\.jsonl")
"""`old` is the one file that earlier versions kept beside the current one."""
_DAY = 24 * 3600 * 1000.0
_SLICES = 16
"""A segment of a group with retention holds about this fraction of it, so that files go soon after their events."""

_decoder = msgspec.json.Decoder(LogEvent)
_encoder = msgspec.json.Encoder()
_summaries = msgspec.json.Decoder(Summary)


def note(summary: Summary, events: Iterable[LogEvent]) -> None:
    """Count these in."""
    earliest, latest = summary.earliest, summary.latest
    stream, known = "", StreamTimes(0.0, 0.0, 0.0)
    for event in events:
        time, received = event.time, event.received or event.time
        if time > latest:
            latest = time
        elif time < earliest:
            earliest = time
        if event.stream != stream or not stream:
            stream = event.stream
            known = summary.streams.get(stream) or summary.streams.setdefault(stream, StreamTimes(time, time, received))
        if time > known.last:
            known.last = time
        elif time < known.first:
            known.first = time
        if received > known.received:
            known.received = received
        summary.last = event.number
    summary.earliest, summary.latest = earliest, latest


def summary_of(events: Sequence[LogEvent]) -> Summary | None:
    """None if there are no events."""
    if not events:
        return None
    head = events[0]
    summary = Summary(head.number, head.number, head.time, head.time, {})
    note(summary, events)
    return summary


def _without(deleted: Mapping[str, int], events: Sequence[LogEvent]) -> Summary | None:
    """The summary of a file that holds these, in which deleted streams are not to be found."""
    summary = summary_of(events)
    if summary is not None and deleted:
        shown = summary_of([event for event in events if event.number > deleted.get(event.stream, 0)])
        summary.streams = shown.streams if shown is not None else {}
    return summary


class Segment:
    """One file; `size` in bytes."""

    def __init__(self, name: str, summary: Summary, size: int) -> None:
        self.name = name
        self.summary = summary
        self.size = size


class FileSource:
    """A segment as it was at one moment, readable from any thread however its file is renamed meanwhile.

    It may be at any of `paths`, tried in this order. Events numbered `below` and on are read elsewhere.
    """

    def __init__(self, paths: tuple[str, ...], size: int, summary: Summary, below: int) -> None:
        self.paths = paths
        self.size = size
        self.first = summary.first
        self.earliest = summary.earliest
        self.latest = summary.latest
        self.below = below

    def read(self) -> list[LogEvent]:
        """Its events; none if the file is gone."""
        for path in self.paths:
            with contextlib.suppress(OSError), open(path, "rb") as file:
                events = decoded(file.read(self.size))
                # Another file may have come in its place.
                if events and events[0].number == self.first:
                    return [event for event in events if event.number < self.below]
        return []


class Segments:
    """All segments of one group. `limit` is the bound in bytes."""

    def __init__(self, folder: str, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self.closed: list[Segment] = []
        self.current: Summary | None = None
        self._size = 0
        """Bytes of the current file."""
        self._torn = False
        """The current file ends inside a line."""

    def load(self, deleted: Mapping[str, int]) -> None:
        """Find what an earlier life has left. What cannot be read is passed over."""
        self.closed = [found for name in self._names() if (found := self._summed_up(name, deleted)) is not None]
        self._size, self._torn = 0, False
        events: list[LogEvent] = []
        with contextlib.suppress(OSError), open(self._path(_CURRENT), "rb") as file:
            data = file.read()
            self._size, self._torn = len(data), not data.endswith(b"\n") and bool(data)
            events = decoded(data)
        self.current = _without(deleted, events)
        for summary in self.summaries():
            for stream in [name for name in summary.streams if summary.last <= deleted.get(name, 0)]:
                del summary.streams[stream]

    def newest(self, count: int, size: int) -> list[LogEvent]:
        """The last events, oldest first: at most `count`, with `size` characters of messages."""
        found: list[LogEvent] = []
        for source in reversed(self.sources(self.last + 1)):
            for event in reversed(source.read()):
                size -= len(event.message)
                if len(found) >= count or size < 0:
                    return found[::-1]
                found.append(event)
        return found[::-1]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return self._size + sum(segment.size for segment in self.closed)

    @property
    def first(self) -> int:
        """The number of the oldest event; 0 if there is none."""
        return next((summary.first for summary in self.summaries()), 0)

    @property
    def last(self) -> int:
        """The number of the newest event; 0 if there is none."""
        return max((summary.last for summary in self.summaries()), default=0)

    def summaries(self) -> Iterator[Summary]:
        """Of each segment, oldest first."""
        yield from (segment.summary for segment in self.closed)
        if self.current is not None:
            yield self.current

    def write(self, events: list[LogEvent]) -> None:
        """Append. Raises OSError; what was written of it then is no event."""
        data = _encoder.encode_lines(events)
        with open(self._path(_CURRENT), "ab", buffering=0) as file:
            before = file.tell()
            if file.write(b"\n" + data if self._torn else data) < len(data):
                file.truncate(before)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._size, self._torn = file.tell(), False
        if self.current is None:
            self.current = summary_of(events)
        else:
            note(self.current, events)
        if self._size > self._limit // SEGMENTS:
            with contextlib.suppress(OSError):  # the events are written; the next ones try again
                self.close_current()

    def close_current(self) -> None:
        """Begin a new file. Raises OSError."""
        summary = self.current
        if summary is None:
            return
        name = _closed_name(summary.first)
        os.replace(self._path(_CURRENT), self._path(name))
        self._write_summary(name, summary)
        self.closed.append(Segment(name, summary, self._size))
        self.current, self._size, self._torn = None, 0, False
        while self.closed and self.size > self._limit:
            self._remove(self.closed.pop(0))

    def expire(self, before: float, now: float) -> None:
        """Remove what is older than `before`, in milliseconds; a file goes once all in it is. Raises OSError."""
        if self.current is not None and self.current.earliest < now - max(_DAY, (now - before) / _SLICES):
            self.close_current()
        gone = [segment for segment in self.closed if segment.summary.latest < before]
        self.closed = [segment for segment in self.closed if segment.summary.latest >= before]
        for segment in gone:
            self._remove(segment)

    def forget_stream(self, stream: str) -> None:
        """What is in the files of this stream is not to be found any more."""
        for summary in self.summaries():
            summary.streams.pop(stream, None)

    def sources(self, below: int) -> list[FileSource]:
        """The segments with events numbered below this, oldest first."""
        found = [
            self._source((each.name,), each.size, each.summary, below)
            for each in self.closed
            if each.summary.first < below
        ]
        summary = self.current
        if summary is not None and summary.first < below:
            closed = _closed_name(summary.first)
            found.append(self._source((closed, _CURRENT, closed), self._size, summary, below))
        return found

    def _source(self, names: tuple[str, ...], size: int, summary: Summary, below: int) -> FileSource:
        return FileSource(tuple([self._path(name) for name in names]), size, summary, below)

    def _names(self) -> list[str]:
        try:
            found = [name for name in os.listdir(self._folder) if _CLOSED.fullmatch(name)]
        except OSError:
            return []
        return sorted(found, key=lambda name: ("old" not in name, name))

    def _summed_up(self, name: str, deleted: Mapping[str, int]) -> Segment | None:
        path = self._path(name)
        try:
            size = os.stat(path).st_size
            with contextlib.suppress(OSError, msgspec.MsgspecError), open(_summary_path(path), "rb") as file:
                return Segment(name, _summaries.decode(file.read()), size)
            with open(path, "rb") as file:
                summary = _without(deleted, decoded(file.read()))
        except OSError:
            return None
        if summary is None:
            return None
        self._write_summary(name, summary)
        return Segment(name, summary, size)

    def _write_summary(self, name: str, summary: Summary) -> None:
        # Without one the segment itself is read when the group is opened.
        with contextlib.suppress(OSError), open(_summary_path(self._path(name)), "wb") as file:
            file.write(_encoder.encode(summary))

    def _remove(self, segment: Segment) -> None:
        path = self._path(segment.name)
        for each in (path, _summary_path(path)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each)

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)


def decoded(data: bytes) -> list[LogEvent]:
    """The events of these lines; what is no event is left out."""
    try:
        return _decoder.decode_lines(data)
    except msgspec.MsgspecError:
        return _one_by_one(data.splitlines())


def stored_size(folder: str) -> int:
    """Bytes of the events that a group's folder holds."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.name.endswith(".jsonl"))
    except OSError:
        return 0


def _one_by_one(lines: Iterable[bytes]) -> list[LogEvent]:
    events: list[LogEvent] = []
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError):
            events.append(_decoder.decode(line))
    return events


def _closed_name(first: int) -> str:
    return f"events.{first:020d}.jsonl"


def _summary_path(path: str) -> str:
    return path.removesuffix("l")

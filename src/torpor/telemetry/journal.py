"""The journal: every log event of every function, newest kept in memory, all of it appended to disk.

One folder per log group holds `events.jsonl` and, after it has grown to `FILE_MAX`, the one before it. Events are
written in batches by `flush`, which the server calls every moment and at its end, so the hot path only appends to a
list.
"""

import asyncio
import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from torpor.model.errors import StoreUnavailable
from torpor.telemetry.entries import LogEvent

_log = logging.getLogger(__name__)

MEMORY_EVENTS = 10_000
MEMORY_SIZE = 16 * 1024 * 1024
"""Characters of messages kept in memory, each group."""
UNSAVED_SIZE = 4 * 1024 * 1024
"""Characters of messages that may wait for the next `flush`."""
FILE_MAX = 16 * 1024 * 1024
DEFERRED_FOR = 0.01
"""Seconds that what is noted may wait to be appended."""
_NAME_MAX = 150
"""Longest folder name kept whole."""
_FILE = "events.jsonl"
_OLDER = "events.old.jsonl"


class _Group:
    """The events of one log group."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.events: deque[LogEvent] = deque()
        self.size = 0
        """Characters of the messages in `events`."""
        self.unsaved: list[LogEvent] = []
        self._unsaved_size = 0
        self.changed: asyncio.Event | None = None
        """There only while somebody waits for an event."""
        self.last = 0

    def load(self) -> None:
        decoder = msgspec.json.Decoder(LogEvent)
        for name in (_OLDER, _FILE):
            for line in _tail_lines(os.path.join(self.folder, name)):
                try:
                    event = decoder.decode(line)
                except msgspec.DecodeError:
                    continue
                self.events.append(event)
                self.size += len(event.message)
                self._forget_oldest()
                self.last = max(self.last, event.number)

    def append(self, time: float, stream: str, messages: Iterable[str]) -> None:
        for message in messages:
            self.last += 1
            event = LogEvent(self.last, time, stream, message)
            self.events.append(event)
            self.unsaved.append(event)
            self.size += len(message)
            self._unsaved_size += len(message)
        self._forget_oldest()
        if self._unsaved_size > UNSAVED_SIZE or len(self.unsaved) > MEMORY_EVENTS:
            # A full disk costs the events their place on it, never the function its run; the next flush tells of it.
            with contextlib.suppress(OSError):
                self.save()
            self.drop_unsaved()

    def _forget_oldest(self) -> None:
        while len(self.events) > MEMORY_EVENTS or self.size > MEMORY_SIZE:
            self.size -= len(self.events.popleft().message)

    def save(self) -> None:
        unsaved = self.unsaved
        if not unsaved or not self.folder:
            self.drop_unsaved()
            return
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        path = os.path.join(self.folder, _FILE)
        with open(path, "ab") as file:
            file.write(msgspec.json.Encoder().encode_lines(unsaved))
            full = file.tell() > FILE_MAX
        self.drop_unsaved()
        if full:
            os.replace(path, os.path.join(self.folder, _OLDER))

    def drop_unsaved(self) -> None:
        """What waits to be saved is saved, or given up; it stays readable as long as memory keeps it."""
        self.unsaved = []
        self._unsaved_size = 0


class Journal:
    """All log groups of one data folder. `folder` empty keeps everything in memory only."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder
        self._groups: dict[str, _Group] = {}
        self._deferred: list[Callable[[], None]] = []

    def append(self, group: str, stream: str, wall: float, messages: Iterable[str]) -> None:
        """Add events of the same time; `wall` is in seconds since the epoch."""
        found = self._groups.get(group) or self._open(group)
        found.append(round(wall * 1000, 3), stream, messages)
        if found.changed is not None:
            found.changed.set()
            found.changed = None

    def defer(self, write: Callable[[], None]) -> None:
        """Call `write` in a moment, and in any case before the journal is read: it will append what is only noted."""
        if not self._deferred:
            asyncio.get_running_loop().call_later(DEFERRED_FOR, self._write_deferred)
        self._deferred.append(write)

    def _write_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for write in deferred:
            try:
                write()
            except Exception:  # one environment's trouble is not the others'
                _log.exception("writing log lines failed")

    def read(self, group: str, after: int = 0, limit: int = 1000) -> list[LogEvent]:
        """Up to `limit` events with a number above `after`, oldest first; the newest ones if `after` is 0."""
        self._write_deferred()
        events = [event for event in self._open(group).events if event.number > after]
        return events[:limit] if after else events[-limit:]

    async def wait(self, group: str, after: int, timeout: float) -> None:
        """Return when the group has an event above `after`, or after `timeout` seconds."""
        self._write_deferred()
        found = self._open(group)
        if found.last > after:
            return
        changed = found.changed = found.changed or asyncio.Event()
        try:
            await asyncio.wait_for(changed.wait(), timeout)
        except TimeoutError:
            return

    def flush(self) -> None:
        """Write what is not on disk yet. Raises StoreUnavailable; the events then stay readable in memory."""
        self._write_deferred()
        if not self._folder:
            return
        failed: OSError | None = None
        for group in self._groups.values():
            try:
                group.save()
            except OSError as error:
                failed = error
        if failed is not None:
            raise StoreUnavailable(f"The log folder {self._folder} cannot be written: {failed.strerror}.") from failed

    def _open(self, group: str) -> _Group:
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = _Group(self._path(group))
            if self._folder:
                found.load()
        return found

    def _path(self, group: str) -> str:
        if not self._folder:
            return ""
        safe = "".join(char if char.isalnum() or char in "-_" else f"%{ord(char):02x}" for char in group)
        if len(safe) > _NAME_MAX:
            safe = f"{safe[:_NAME_MAX]}-{hashlib.sha256(group.encode()).hexdigest()}"
        return os.path.join(self._folder, safe)


def _tail_lines(path: str) -> Iterable[bytes]:
    """The last lines of a file, as many as memory keeps; none if there is no file."""
    try:
        with open(path, "rb") as file:
            return deque(file, maxlen=MEMORY_EVENTS)
    except OSError:
        return ()

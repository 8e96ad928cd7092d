"""The journal: every log event of every function, newest kept in memory, all of it appended to disk.

One folder per log group. Events are written in batches by `flush`, which the server calls every moment and at its end,
so the hot path only appends to a list.
"""

import asyncio
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence

from torpor.model.errors import StoreUnavailable
from torpor.telemetry.entries import GroupDocument, LogEvent
from torpor.telemetry.log_group import LogGroup, read_document

_log = logging.getLogger(__name__)

GROUP_SIZE = 32 * 1024 * 1024
"""Bytes of events kept on disk, each group, unless told otherwise."""
DEFERRED_FOR = 0.01
"""Seconds that what is noted may wait to be appended."""
_NAME_MAX = 150
"""Longest folder name kept whole."""
_HASHED = re.compile(r".{150}-[0-9a-f]{64}")
_GOING = ".going"
"""Ends the name of a folder whose group was deleted; no folder of a group has a dot in its name."""
_EXPIRED_AGAIN = 3600.0 * 1000
"""Milliseconds after which groups that are not in memory are looked at for expired events again."""


class Journal:
    """All log groups of one data folder. `folder` empty keeps everything in memory only; `group_size` is the bound of
    each group on disk, in bytes."""

    def __init__(self, folder: str = "", group_size: int = GROUP_SIZE) -> None:
        self._folder = folder
        self._group_size = group_size
        self._groups: dict[str, LogGroup] = {}
        self._shelf: dict[str, GroupDocument] | None = None
        """Groups of an earlier life that nobody has opened yet; None until somebody asks what there is."""
        self._unexpired: list[str] = []
        self._expired = 0.0
        self._deferred: list[Callable[[], None]] = []

    def append(self, group: str, stream: str, wall: float, messages: Iterable[str]) -> None:
        """Add events of the same time; `wall` is in seconds since the epoch."""
        found = self._groups.get(group) or self.open(group)
        found.append(round(wall * 1000, 3), stream, messages)
        if found.changed is not None:
            found.wake()

    def put(self, group: str, stream: str, timed: Sequence[tuple[float, str]], received: float) -> None:
        """Add events with times of their own. Times in milliseconds since the epoch."""
        self.settle()
        found = self.open(group)
        found.put(stream, timed, received)
        found.wake()

    def defer(self, write: Callable[[], None]) -> None:
        """Call `write` in a moment, and in any case before the journal is read: it will append what is only noted."""
        if not self._deferred:
            asyncio.get_running_loop().call_later(DEFERRED_FOR, self.settle)
        self._deferred.append(write)

    def settle(self) -> None:
        """Append what is only noted."""
        deferred, self._deferred = self._deferred, []
        for write in deferred:
            try:
                write()
            except Exception:  # one environment's trouble is not the others'
                _log.exception("writing log lines failed")

    def read(self, group: str, after: int = 0, limit: int = 1000) -> list[LogEvent]:
        """Up to `limit` events in memory with a number above `after`, oldest first; the newest if `after` is 0."""
        self.settle()
        events = [event for event in self.open(group).events if event.number > after]
        return events[:limit] if after else events[-limit:]

    async def wait(self, group: str, after: int, timeout: float) -> None:
        """Return when the group has an event above `after`, or after `timeout` seconds."""
        self.settle()
        found = self.open(group)
        if found.last > after:
            return
        changed = found.changed = found.changed or asyncio.Event()
        try:
            await asyncio.wait_for(changed.wait(), timeout)
        except TimeoutError:
            return

    def flush(self) -> None:
        """Write what is not on disk yet. Raises StoreUnavailable; the events then stay readable in memory."""
        self.settle()
        if not self._folder:
            return
        failed: OSError | None = None
        for group in self._groups.values():
            try:
                group.save()
            except OSError as error:
                failed = error
        if failed is not None:
            raise self.unavailable(failed) from failed

    def expire(self, wall: float) -> None:
        """Let events that are older than their group's retention go; `wall` is in seconds since the epoch. Quick:
        groups that are not in memory are looked at one by one, one in each call. Raises StoreUnavailable."""
        now = wall * 1000
        try:
            for group in self._groups.values():
                group.expire(now)
            self._expire_next(now)
        except OSError as error:
            raise self.unavailable(error) from error

    def _expire_next(self, now: float) -> None:
        if not self._folder:
            return
        if now - self._expired > _EXPIRED_AGAIN:
            self._expired = now
            self._unexpired = [name for name, document in self.shelf().items() if document.retention]
        while self._unexpired:
            name = self._unexpired.pop()
            if name not in self.shelf():
                continue
            group = self._new(name)
            group.document = self.shelf()[name]
            group.segments.load({})
            group.expire(now)
            return

    def find(self, group: str) -> LogGroup | None:
        """The group if it exists, opened."""
        self.settle()
        if group not in self._groups and group not in self.shelf():
            return None
        found = self.open(group)
        return found if found.exists else None

    def existing(self) -> dict[str, GroupDocument]:
        """What is known of every group that exists, by name."""
        self.settle()
        found = dict(self.shelf())
        for name, group in self._groups.items():
            if group.exists:
                found[name] = group.document or GroupDocument(name=name, created=group.created)
        return found

    def open(self, group: str) -> LogGroup:
        """The group, ready to be written to."""
        found = self._groups.get(group)
        if found is None:
            found = self._groups[group] = self._new(group)
            if self._folder:
                found.load()
            if self._shelf is not None:
                self._shelf.pop(group, None)
        return found

    def forget(self, group: LogGroup) -> None:
        """The group is no more; its next event makes it anew. Raises OSError; nothing has changed then."""
        if group.folder:
            self._remove(group.folder)
        after = self._groups[group.name] = self._new(group.name)
        # Whoever follows it goes on where it was.
        after.last, after.changed = group.last, group.changed

    def folder_of(self, group: str) -> str:
        """Where the group's files lie; empty if it has none."""
        if not self._folder:
            return ""
        safe = "".join([char if char.isalnum() or char in "-_" else f"%{ord(char):02x}" for char in group])
        if len(safe) > _NAME_MAX:
            safe = f"{safe[:_NAME_MAX]}-{hashlib.sha256(group.encode()).hexdigest()}"
        return os.path.join(self._folder, safe)

    def unavailable(self, error: OSError) -> StoreUnavailable:
        """The error that tells what to do."""
        return StoreUnavailable(f"The log folder {self._folder} cannot be written: {error.strerror}.")

    def shelf(self) -> dict[str, GroupDocument]:
        """The groups on disk that nobody has opened yet."""
        if self._shelf is None:
            self._shelf = self._discover() if self._folder else {}
        return self._shelf

    def _discover(self) -> dict[str, GroupDocument]:
        found: dict[str, GroupDocument] = {}
        try:
            entries = list(os.scandir(self._folder))
        except OSError:
            return found
        for entry in entries:
            if entry.name.endswith(_GOING):
                shutil.rmtree(entry.path, ignore_errors=True)
                continue
            document = read_document(entry.path) or _document_of(entry)
            if document is not None and document.name not in self._groups:
                found[document.name] = document
        return found

    def _remove(self, folder: str) -> None:
        going = folder + _GOING
        shutil.rmtree(going, ignore_errors=True)
        try:
            os.replace(folder, going)
        except FileNotFoundError:
            return
        shutil.rmtree(going, ignore_errors=True)

    def _new(self, group: str) -> LogGroup:
        return LogGroup(group, self.folder_of(group), self._group_size)


def _document_of(entry: os.DirEntry[str]) -> GroupDocument | None:
    """Of a folder that an earlier version has left: its name tells the group's, unless that was too long."""
    if not entry.is_dir() or _HASHED.fullmatch(entry.name):
        return None
    name = re.sub("%([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), entry.name)
    return GroupDocument(name=name, created=round(entry.stat().st_mtime * 1000, 3))

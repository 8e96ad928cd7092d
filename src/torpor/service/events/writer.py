"""The one thread that writes events: whatever has come up since the last commit goes into the next one together."""

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TypeAlias

from torpor.model.errors import StoreUnavailable, TorporError
from torpor.model.event import EventState
from torpor.service.events.steady import MARK
from torpor.store.ports import EventRow, EventStore, NewEvent, RowChange, Taken

log = logging.getLogger(__name__)
_BATCH = 2000
_LINGER = 0.004
"""Seconds that what nobody waits for is gathered before it is written."""
_AGAIN_AFTER = 0.5
"""Seconds before what could not be written is tried again."""
_TOLD_EVERY = 30.0

Accepted: TypeAlias = Callable[[TorporError | None, bool], None]
"""Told why an event was not kept, or that it was, and whether its key was taken already."""


@dataclass(slots=True)
class Add:
    """Keep a new event. One that cannot be kept is refused."""

    new: NewEvent
    done: Accepted
    timer: tuple[str, float] | None = None
    """The timer that made it, and the planned time, kept in the same step."""


@dataclass(slots=True)
class Together:
    """Keep all of these new events, or none."""

    adds: tuple[Add, ...]


@dataclass(slots=True)
class Change:
    """Keep where an event stands. This is tried until it works."""

    change: RowChange
    counted: tuple[str, ...] = ()
    """What is counted of it, for its lane."""
    lane: str = ""


@dataclass(slots=True)
class Take:
    """Load events of a lane, or with an empty one those whose results are to be delivered."""

    lane: str
    now: float
    limit: int
    room: int
    done: Callable[[Taken | None], None]
    """Told None if they could not be read."""


@dataclass(slots=True)
class Claim:
    """Take one event out of whatever state of these it is in."""

    id: int
    states: tuple[EventState, ...]
    done: Callable[[EventRow | None], None]
    """Told None if it is in no such state, or could not be read."""


@dataclass(slots=True)
class Note:
    """Keep a fact, or when a timer went off last."""

    name: str
    value: float | None
    timer: bool = False


@dataclass(slots=True)
class Count:
    """Count one more of something that is no event's new state."""

    lane: str
    what: str


@dataclass(slots=True)
class Trim:
    """Keep at most so many ended events of a state, and so many bytes; `now` in seconds since the epoch."""

    state: EventState
    keep: int
    keep_bytes: int
    now: float


Work: TypeAlias = Add | Together | Change | Take | Claim | Note | Count | Trim


@dataclass(slots=True)
class _Batch:
    adds: list[Add] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    takes: list[Take] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    others: list[Note | Count | Trim] = field(default_factory=list)
    loaded: list[Taken] = field(default_factory=list)
    claimed: list[EventRow | None] = field(default_factory=list)
    twice: frozenset[int] = frozenset()
    size: int = 0
    refused: TorporError | None = None
    """Why the new events could not be kept."""
    failed: TorporError | None = None
    """Why nothing at all could be written."""

    def put(self, work: Work) -> None:
        if isinstance(work, Add):
            self.adds.append(work)
        elif isinstance(work, Together):
            self.adds += work.adds
        elif isinstance(work, Change):
            self.changes.append(work)
        elif isinstance(work, Take):
            self.takes.append(work)
        elif isinstance(work, Claim):
            self.claims.append(work)
        else:
            self.others.append(work)


class EventWriter:
    """Belongs to one event loop; everything but `_run` and what it calls happens in that loop's thread."""

    def __init__(self, store: EventStore, loop: asyncio.AbstractEventLoop, steady: Callable[[], float]) -> None:
        self._store = store
        self._loop = loop
        self._steady = steady
        self._gathered: list[Work] = []
        self._timer: asyncio.TimerHandle | None = None
        self._work: SimpleQueue[list[Work] | None] = SimpleQueue()
        self._unwritten: list[Change] = []
        self._told_until = 0.0
        self._thread = threading.Thread(target=self._run, name="torpor-events", daemon=True)
        self.pending = 0
        """Bytes of events that wait to be kept."""
        self.changing: dict[int, RowChange] = {}
        """Where events stand that the store does not know yet, by id."""
        self.works = True
        """Could the last thing be written?"""

    def start(self) -> None:
        self._thread.start()

    def submit(self, work: Work) -> None:
        """Never waits. What came first is written first, or together with what came later; what nobody waits for is
        written a moment later, so that more of it is written at once."""
        adds = (work,) if isinstance(work, Add) else work.adds if isinstance(work, Together) else ()
        for add in adds:
            self.pending += len(add.new.event.payload)
        if isinstance(work, Change):
            self.changing[work.change.id] = work.change
        self._gathered.append(work)
        if adds or isinstance(work, Claim) or len(self._gathered) >= _BATCH:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(_LINGER, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gathered:
            self._work.put(self._gathered)
            self._gathered = []

    def close(self) -> None:
        """Take nothing more, and write what is left."""
        self._flush()
        self._work.put(None)

    def join(self) -> None:
        """Return once all is written; blocking."""
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        ending = False
        while not ending:
            batch = _Batch()
            ending = self._gather(batch)
            batch.changes[:0], self._unwritten = self._unwritten, []
            self._write(batch)
            self._tell(batch)
        if self._unwritten:
            log.error("What has become of %d events could not be kept; they will run again.", len(self._unwritten))

    def _gather(self, batch: _Batch) -> bool:
        """Everything that waits by now; is it the end?"""
        try:
            works = self._work.get(timeout=_AGAIN_AFTER if self._unwritten else None)
            while works is not None:
                for work in works:
                    batch.put(work)
                    batch.size += 1
                if batch.size >= _BATCH:
                    return False
                works = self._work.get_nowait()
        except Empty:
            return False
        return True

    def _write(self, batch: _Batch) -> None:
        """New events may be too much for the disk while the rest is not."""
        batch.refused = self._tried(batch, batch.adds)
        batch.failed = self._tried(batch, []) if batch.refused is not None and batch.adds else batch.refused
        if batch.failed is not None:
            self._unwritten = batch.changes

    def _tried(self, batch: _Batch, adds: list[Add]) -> TorporError | None:
        try:
            with self._store.transaction(durable=bool(adds)):
                self._write_events(batch, adds)
                self._write_others(batch, adds)
        except StoreUnavailable as error:
            self._complain(str(error))
            return error
        except Exception:  # the thread must go on whatever happens
            log.exception("writing events failed")
            return StoreUnavailable("The event queue failed; the server's log has the details.")
        return None

    def _complain(self, message: str) -> None:
        if time.monotonic() > self._told_until:
            self._told_until = time.monotonic() + _TOLD_EVERY
            log.error("%s", message)

    def _write_events(self, batch: _Batch, adds: list[Add]) -> None:
        if adds:
            batch.twice = self._store.add([add.new for add in adds])
        if batch.changes:
            self._store.change([each.change for each in batch.changes])
        numbers = Counter((each.lane, what) for each in batch.changes for what in each.counted)
        numbers.update((each.lane, each.what) for each in batch.others if isinstance(each, Count))
        numbers.update((add.new.event.function, "accepted") for add in adds if add.new.id not in batch.twice)
        if numbers:
            self._store.count(numbers)
        batch.claimed = [self._store.claim(each.id, each.states) for each in batch.claims]
        batch.loaded = [self._take(take) for take in batch.takes]

    def _take(self, take: Take) -> Taken:
        if not take.lane:
            return self._store.take_owed(now=take.now, limit=take.limit, room=take.room)
        return self._store.take(take.lane, now=take.now, limit=take.limit, room=take.room)

    def _write_others(self, batch: _Batch, adds: list[Add]) -> None:
        for add in adds:
            if add.timer is not None:
                self._store.note_timer(*add.timer, fired=True)
        trimmed: set[EventState] = set()
        for other in batch.others:
            if isinstance(other, Trim) and other.state in trimmed:
                continue
            if isinstance(other, Trim):
                trimmed.add(other.state)
                self._store.trim(other.state, keep=other.keep, keep_bytes=other.keep_bytes, now=other.now)
            elif isinstance(other, Count):
                continue
            elif other.timer:
                self._store.note_timer(other.name, other.value)
            elif other.value is not None:
                self._store.note(other.name, other.value)
        self._store.note(MARK, self._steady())

    def _tell(self, batch: _Batch) -> None:
        try:
            self._loop.call_soon_threadsafe(self._written, batch)
        except RuntimeError:  # the loop has ended; nobody is left who could be told
            return

    def _written(self, batch: _Batch) -> None:
        self.works = batch.failed is None
        if self.works:
            for each in batch.changes:
                if self.changing.get(each.change.id) is each.change:
                    del self.changing[each.change.id]
        for add in batch.adds:
            self.pending -= len(add.new.event.payload)
            _call(add.done, batch.refused, add.new.id in batch.twice)
        for index, take in enumerate(batch.takes):
            _call(take.done, batch.loaded[index] if self.works else None)
        for index, claim in enumerate(batch.claims):
            _call(claim.done, batch.claimed[index] if self.works else None)


def _call(done: Callable[..., None], *values: object) -> None:
    """Those behind it are told too, whatever happens."""
    try:
        done(*values)
    except Exception:
        log.exception("what follows the writing of an event failed")

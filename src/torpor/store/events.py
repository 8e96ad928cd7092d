"""Asynchronous events in one SQLite file of their own: a queue for every function, and what has become of its events.

Rows are written in transactions of many (docs/decisions/0013-events.md). One connection writes, from one thread at a
time; another one reads, so that a listing never waits for a writer nor holds it up.
"""

import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import product
from typing import Any

import msgspec

from torpor.model.errors import StoreUnavailable
from torpor.model.event import NOTHING_YET, Event, EventState, Progress, Step
from torpor.scheduling.retries import final_state
from torpor.store.ports import Backlog, EventFilter, EventRow, KeyedFilter, NewEvent, RowChange, Taken
from torpor.store.sqlite import BUSY_WAIT, PRAGMAS, prepare_file, reason_of

log = logging.getLogger(__name__)
_VERSION = 1
_TABLES = """
CREATE TABLE events (
    id INTEGER PRIMARY KEY, request TEXT NOT NULL, lane TEXT NOT NULL, state INTEGER NOT NULL, due REAL NOT NULL,
    born REAL NOT NULL, kept REAL NOT NULL, progress BLOB, body BLOB NOT NULL
);
CREATE INDEX waiting ON events (lane, due, id, state) WHERE state = 0;
CREATE INDEX delivering ON events (due, id) WHERE state = 2;
CREATE INDEX taken ON events (lane, state) WHERE state = 1;
CREATE INDEX ended ON events (state, kept, id, lane) WHERE state > 2;
CREATE TABLE keys (key TEXT PRIMARY KEY, event INTEGER NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE INDEX keys_by_time ON keys (until);
CREATE TABLE counters (
    lane TEXT NOT NULL, what TEXT NOT NULL, number INTEGER NOT NULL, PRIMARY KEY (lane, what)
) WITHOUT ROWID;
CREATE TABLE facts (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE timers (name TEXT PRIMARY KEY, planned REAL NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "id, request, lane, state, due, born, progress, body"
_INSERT = "INSERT INTO events (id, request, lane, state, due, born, kept, progress, body) VALUES (?,?,?,?,?,?,?,NULL,?)"
_LANES = """
WITH RECURSIVE lanes(lane) AS (
    SELECT min(lane) FROM events INDEXED BY waiting WHERE state = 0
    UNION ALL
    SELECT (SELECT min(lane) FROM events INDEXED BY waiting WHERE state = 0 AND lane > lanes.lane)
    FROM lanes WHERE lanes.lane IS NOT NULL
) SELECT lane FROM lanes WHERE lane IS NOT NULL
"""
_FRESH = "SELECT count(*) FROM events INDEXED BY waiting WHERE state = 0 AND lane = ? AND due = 0"
_LATER = "SELECT min(due) FROM events INDEXED BY waiting WHERE state = 0 AND lane = ? AND due > 0"
_TAKE_FRESH = f"SELECT {_COLUMNS} FROM events INDEXED BY waiting WHERE state = 0 AND lane = ? AND due = 0 ORDER BY id"
_TAKE_LATER = (
    f"SELECT {_COLUMNS} FROM events INDEXED BY waiting WHERE state = 0 AND lane = ? AND due > 0 AND due <= ? "
    "ORDER BY due, id"
)
_TAKE_OWED = f"SELECT {_COLUMNS} FROM events INDEXED BY delivering WHERE state = 2 AND due <= ? ORDER BY due, id"
_OWED_LATER = "SELECT min(due) FROM events INDEXED BY delivering WHERE state = 2"
_COUNT = "INSERT INTO counters VALUES (?,?,?) ON CONFLICT (lane, what) DO UPDATE SET number = number + excluded.number"
_NUMBERS = """
SELECT lane, 0, count(*) FROM events INDEXED BY waiting WHERE state = 0 GROUP BY lane
UNION ALL SELECT lane, 1, count(*) FROM events INDEXED BY taken WHERE state = 1 GROUP BY lane
UNION ALL SELECT lane, 2, count(*) FROM events INDEXED BY delivering WHERE state = 2 GROUP BY lane
UNION ALL SELECT lane, state, count(*) FROM events INDEXED BY ended WHERE state > 2 GROUP BY lane, state
"""
"""In one statement, so that no event is counted twice or not at all; all but the third by what the indexes hold."""
_OLDEST_OWED = "SELECT lane, min(born) FROM events INDEXED BY delivering WHERE state = 2 GROUP BY lane"
_CLAIM_KEY = """
INSERT INTO keys VALUES (?,?,?) ON CONFLICT (key) DO UPDATE SET event = excluded.event, until = excluded.until
WHERE keys.until < ?
"""
_TIMER_FIRED = """
INSERT INTO timers VALUES (?,?) ON CONFLICT (name) DO UPDATE SET planned = max(planned, excluded.planned)
"""
_TRIMMED = 4000
"""Rows that are removed at once."""
_OLDEST = """
SELECT min(born) FROM (
    SELECT * FROM (
        SELECT born FROM events INDEXED BY waiting WHERE state = 0 AND lane = ? AND due = 0 ORDER BY id LIMIT 1
    )
    UNION ALL SELECT min(born) FROM events INDEXED BY waiting WHERE state = 0 AND lane = ? AND due > 0
)
"""
_ENDED = """
SELECT count(*), coalesce(sum(length(body) + length(progress)), 0)
FROM events INDEXED BY ended WHERE state = ? AND state > 2 AND kept < ?
"""
_TRIM = """
DELETE FROM events WHERE id IN (
    SELECT id FROM events INDEXED BY ended WHERE state = ? AND state > 2 AND kept < ? ORDER BY kept, id LIMIT ?
)
"""
_TRIM_KEYS = "DELETE FROM keys WHERE key IN (SELECT key FROM keys WHERE until < ? ORDER BY until LIMIT ?)"
_encode = msgspec.msgpack.Encoder().encode
_event = msgspec.msgpack.Decoder(Event)
_progress = msgspec.msgpack.Decoder(Progress)


class SqliteEventStore:
    """An `EventStore` in a file. Raises StoreUnavailable when the file cannot do its part."""

    def __init__(self, path: str, *, busy_wait: float = BUSY_WAIT) -> None:
        self._path = path
        with self._translated(), ExitStack() as opened:  # closed again when the file is refused
            prepare_file(path)
            self._writing = opened.enter_context(closing(self._connect(busy_wait)))
            self._reading = opened.enter_context(closing(self._connect(busy_wait)))
            for database, pragma in product((self._writing, self._reading), PRAGMAS):
                database.execute(f"PRAGMA {pragma}")
            self._reading.execute("PRAGMA query_only = ON")
            self._set_up()
            opened.pop_all()
        self._reader = threading.Lock()
        self._durable = True

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[None]:
        with self._translated():
            if durable is not self._durable:
                self._writing.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._writing.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writing.execute("COMMIT")
            except BaseException:
                if self._writing.in_transaction:
                    self._writing.execute("ROLLBACK")
                raise

    def add(self, events: Sequence[NewEvent]) -> frozenset[int]:
        with self._translated():
            twice = frozenset(new.id for new in events if new.key and not self._claim(new))
            rows = [_row(new) for new in events if new.id not in twice]
            self._writing.executemany(_INSERT, rows)
        return twice

    def _claim(self, new: NewEvent) -> bool:
        """Is the event's key free? Then it is taken."""
        values = (new.key, new.id, new.key_until, new.event.accepted)
        return self._writing.execute(_CLAIM_KEY, values).rowcount == 1

    def change(self, changes: Sequence[RowChange]) -> None:
        rows = [(each.state, each.due, _encode(each.progress), each.id) for each in changes]
        with self._translated():
            self._writing.executemany("UPDATE events SET state = ?, due = ?, progress = ? WHERE id = ?", rows)
            renewed = [(each.born, each.id) for each in changes if each.born is not None]
            self._writing.executemany("UPDATE events SET born = ? WHERE id = ?", renewed)

    def take(self, lane: str, *, now: float, limit: int, room: int) -> Taken:
        rows, _ = self._rows(_TAKE_LATER, (lane, now), limit, room)
        left, damaged = room - sum(len(row.event.payload) for row in rows), 0
        if len(rows) < limit and left > 0:
            fresh, damaged = self._rows(_TAKE_FRESH, (lane,), limit - len(rows), left)
            rows += fresh
        return self._taken(rows, _LATER, (lane,), damaged)

    def take_owed(self, *, now: float, limit: int, room: int) -> Taken:
        rows, _ = self._rows(_TAKE_OWED, (now,), limit, room)
        return self._taken(rows, _OWED_LATER, (), 0)

    def claim(self, identity: int, states: Sequence[EventState]) -> EventRow | None:
        with self._translated():
            query = f"SELECT {_COLUMNS} FROM events WHERE id = ? AND state IN ({_listed(states)})"
            found = self._writing.execute(query, (identity,)).fetchone()
            if found is None:
                return None
            try:
                row = _read(found)
            except StoreUnavailable as error:
                self._set_aside(identity, error)
                return None
            self._writing.execute("UPDATE events SET state = 1 WHERE id = ?", (identity,))
        return row

    def _taken(self, rows: list[EventRow], later: str, values: tuple[Any, ...], damaged: int) -> Taken:
        with self._translated():
            self._writing.executemany("UPDATE events SET state = 1 WHERE id = ?", [(row.id,) for row in rows])
            (moment,) = self._writing.execute(later, values).fetchone()
        return Taken(rows=rows, later=moment, damaged=damaged)

    def _rows(self, query: str, values: tuple[Any, ...], limit: int, room: int) -> tuple[list[EventRow], int]:
        """Rows, and how many more could not be read."""
        rows: list[EventRow] = []
        unreadable: list[tuple[int, StoreUnavailable]] = []
        with self._translated():
            for each in self._writing.execute(f"{query} LIMIT {limit}", values):
                try:
                    rows.append(_read(each))
                except StoreUnavailable as error:
                    unreadable.append((each[0], error))
                room -= len(each[-1]) + len(each[-2] or b"")
                if room <= 0:
                    break
            for identity, reason in unreadable:
                self._set_aside(identity, reason)
        return rows, len(unreadable)

    def _set_aside(self, identity: int, error: StoreUnavailable) -> None:
        """What cannot be read any more holds up nothing else."""
        log.error("%s It is set aside as dead.", error)
        self._writing.execute("UPDATE events SET state = ? WHERE id = ?", (EventState.DEAD, identity))

    def count(self, numbers: Mapping[tuple[str, str], int]) -> None:
        with self._translated():
            self._writing.executemany(_COUNT, [(*key, number) for key, number in numbers.items()])

    def note(self, name: str, value: float) -> None:
        with self._translated():
            self._writing.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (name, value))

    def note_timer(self, name: str, planned: float | None, *, fired: bool = False) -> None:
        with self._translated():
            if planned is None:
                self._writing.execute("DELETE FROM timers WHERE name = ?", (name,))
            elif fired:
                self._writing.execute(_TIMER_FIRED, (name, planned))
            else:
                self._writing.execute("INSERT OR REPLACE INTO timers VALUES (?,?)", (name, planned))

    def trim(self, state: EventState, *, keep: int, keep_bytes: int, now: float) -> int:
        with self._translated():
            number, size = self._writing.execute(_ENDED, (state, now)).fetchone()
            surplus = min(number - keep, _TRIMMED)
            if size > keep_bytes:
                surplus = max(surplus, number // 10 + 1)
            gone = self._writing.execute(_TRIM, (state, now, surplus)).rowcount if surplus > 0 else 0
            self._writing.execute(_TRIM_KEYS, (now, _TRIMMED))
        return gone

    def recover(self, wall: float) -> int:
        with self.transaction(durable=True):
            rows = self._writing.execute("SELECT id, progress FROM events WHERE state = 1").fetchall()
            interrupted = [_after_end(identity, progress, wall) for identity, progress in rows]
            self._writing.executemany("UPDATE events SET state = ?, due = 0, progress = ? WHERE id = ?", interrupted)
        return sum(state is EventState.QUEUED for state, _, _ in interrupted)

    # -- reading ------------------------------------------------------------------------------------------------------

    def backlogs(self) -> Mapping[str, Backlog]:
        with self._read() as database:
            lanes = [lane for (lane,) in database.execute(_LANES)]
            return {lane: self._backlog(database, lane) for lane in lanes}

    def _backlog(self, database: sqlite3.Connection, lane: str) -> Backlog:
        (fresh,) = database.execute(_FRESH, (lane,)).fetchone()
        (later,) = database.execute(_LATER, (lane,)).fetchone()
        return Backlog(fresh=fresh, later=later)

    def last_id(self) -> int:
        with self._read() as database:
            (last,) = database.execute("SELECT max(id) FROM events").fetchone()
        return last or 0

    def get(self, identity: int) -> EventRow | None:
        with self._read() as database:
            found = database.execute(f"SELECT {_COLUMNS} FROM events WHERE id = ?", (identity,)).fetchone()
        return _read(found) if found else None

    def find(self, request: str) -> EventRow | None:
        """Looks at every event: nothing that happens often may need it."""
        with self._read() as database:
            query = f"SELECT {_COLUMNS} FROM events WHERE request = ? ORDER BY id DESC LIMIT 1"
            found = database.execute(query, (request,)).fetchone()
        return _read(found) if found else None

    def keyed(self, wanted: KeyedFilter) -> Sequence[tuple[str, EventRow]]:
        direction, beyond = ("DESC", "<") if wanted.newest_first else ("ASC", ">")
        start = wanted.beyond if wanted.beyond is not None else (1 << 62 if wanted.newest_first else 0)
        query = (
            f"SELECT key, {_COLUMNS} FROM keys JOIN events ON events.id = keys.event "
            f"WHERE key >= ? AND key < ? AND events.id {beyond} ? ORDER BY events.id {direction} LIMIT {wanted.limit}"
        )
        with self._read() as database:
            found = database.execute(query, (wanted.prefix, wanted.prefix + "\U0010ffff", start)).fetchall()
        return [(key, _read(row)) for key, *row in found]

    def by_key(self, key: str) -> EventRow | None:
        query = f"SELECT {_COLUMNS} FROM keys JOIN events ON events.id = keys.event WHERE key = ?"
        with self._read() as database:
            found = database.execute(query, (key,)).fetchone()
        return _read(found) if found else None

    def list(self, wanted: EventFilter) -> Sequence[EventRow]:
        where, values = ["id < ?"], [wanted.before if wanted.before is not None else 1 << 62]
        if wanted.states:
            where.append(f"state IN ({_listed(wanted.states)})")
        if wanted.lane:
            where.append("lane = ?")
            values.append(wanted.lane)  # type: ignore[arg-type]
        query = f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT {wanted.limit}"
        with self._read() as database:
            return [_read(row) for row in database.execute(query, values)]

    def numbers(self) -> Mapping[tuple[str, EventState], int]:
        with self._read() as database:
            found = database.execute(_NUMBERS).fetchall()
        return {(lane, EventState(state)): number for lane, state, number in found}

    def oldest(self) -> Mapping[str, float]:
        with self._read() as database:
            lanes = [lane for (lane,) in database.execute(_LANES)]
            found = {lane: database.execute(_OLDEST, (lane, lane)).fetchone()[0] for lane in lanes}
            for lane, born in database.execute(_OLDEST_OWED):
                found[lane] = min(born, found.get(lane, born))
        return found

    def counters(self) -> Mapping[tuple[str, str], int]:
        with self._read() as database:
            return {(lane, what): number for lane, what, number in database.execute("SELECT * FROM counters")}

    def fact(self, name: str) -> float | None:
        with self._read() as database:
            found = database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return found[0] if found else None

    def timers(self) -> Mapping[str, float]:
        with self._read() as database:
            return dict(database.execute("SELECT name, planned FROM timers").fetchall())

    def close(self) -> None:
        with self._translated():
            self._reading.close()
            self._writing.close()

    # -- the file -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._reader:
            yield self._reading

    def _connect(self, busy_wait: float) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=busy_wait, isolation_level=None, check_same_thread=False)

    def _set_up(self) -> None:
        (version,) = self._writing.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._writing.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        elif version != _VERSION:
            reason = f"was written by another release (revision {version}, this one knows {_VERSION}); upgrade first"
            raise StoreUnavailable(f"The event queue {self._path} {reason}.")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreUnavailable(f"The event queue {self._path} {reason_of(error)}.") from error


def _row(new: NewEvent) -> tuple[Any, ...]:
    event = new.event
    return (
        new.id, event.request_id, event.function, new.state, new.due, new.born, new.kept_until, _encode(event),
    )  # fmt: skip


def _read(found: Iterable[Any]) -> EventRow:
    identity, _, _, state, due, born, progress, body = found
    try:
        return EventRow(
            id=identity,
            state=EventState(state),
            due=due,
            born=born,
            event=_event.decode(body),
            progress=_progress.decode(progress) if progress else NOTHING_YET,
        )
    except (msgspec.DecodeError, ValueError) as error:
        raise StoreUnavailable(f"The event {identity} is damaged in the database.") from error


def _listed(states: Iterable[EventState]) -> str:
    return ",".join(str(int(state)) for state in states)


def _after_end(identity: int, kept: bytes | None, wall: float) -> tuple[EventState, bytes, int]:
    """How an event goes on that the server had taken up when it ended."""
    try:
        before = _progress.decode(kept) if kept else NOTHING_YET
    except (msgspec.DecodeError, ValueError):  # what is left of the event may be read all the same
        before = NOTHING_YET
    if before.ended and not before.owed:  # it was through, and somebody had just taken it out to change it
        return final_state(before), _encode(before), identity
    again = msgspec.structs.replace(before, interruptions=before.interruptions + 1)
    progress = again.with_step(Step(at=wall, what="interrupted"))
    return EventState.DELIVERING if progress.owed else EventState.QUEUED, _encode(progress), identity

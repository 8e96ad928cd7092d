"""The ports of the store. Adapters translate every foreign error to `StoreUnavailable` (cause kept)."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from torpor.model.event import Event, EventState, Progress
from torpor.model.function import CodeRef, FunctionRecord
from torpor.model.layer import LayerVersion


class MetadataStore(Protocol):
    """Functions, layers and other resources, durable once a call has returned. Calls are short and synchronous."""

    def functions(self) -> Iterable[FunctionRecord]:
        """Every function with its versions and aliases, ordered by name."""
        ...

    def save(self, record: FunctionRecord) -> None:
        """Insert or replace with all versions and aliases, atomically and durably; what has not changed is not
        written again, versions that the record does not name go."""
        ...

    def remove(self, name: str) -> None:
        """Forget a function with all its versions and aliases. Unknown names are no error."""
        ...

    def layers(self) -> Iterable[LayerVersion]:
        """Every version of every layer, deleted ones too, ordered by name and number."""
        ...

    def save_layer(self, layer: LayerVersion) -> None:
        """Insert or replace a version, atomically and durably."""
        ...

    def resources(self, kind: str) -> Iterable[tuple[str, dict[str, Any]]]:
        """Name and document of every resource of a kind, ordered by name."""
        ...

    def save_resource(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        """Insert or replace, atomically and durably."""
        ...

    def remove_resource(self, kind: str, name: str) -> None:
        """Unknown names are no error."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder that becomes a package as it is: owners, modes and times of its files stay."""

    folder: str


class ArchiveHome(Protocol):
    """Where archives are kept, by the hex SHA-256 of their content. Blocking (call it from worker threads)."""

    def put(self, digest: str, archive: bytes) -> None:
        """Keep an archive, durable once this returns; one that is there is written again."""
        ...

    def get(self, digest: str) -> bytes:
        """The content as it is now. Raises NotFound."""
        ...

    def keep_only(self, digests: Iterable[str]) -> None:
        """Remove every other archive, and what unfinished writes have left."""
        ...


class CodeStore(Protocol):
    """Packages, named by the digest of the archive or tree they came from: archives to keep, and unpacked trees."""

    def add(self, archive: bytes, *, unpacked_limit: int) -> CodeRef:
        """Check, unpack and keep a zip archive; a package already present is not unpacked again.

        Blocking (call it from a worker thread). Raises InvalidPackage for a broken or unsafe archive and TooLarge when
        it unpacks to more than `unpacked_limit` bytes; in both cases nothing is left behind.
        """
        ...

    def adopt(self, tree: Tree, *, unpacked_limit: int) -> CodeRef:
        """Keep a tree, which is moved away from where it was, its owners, modes and times unchanged.

        Blocking. Raises TooLarge when it has more than `unpacked_limit` bytes; then the tree stays where it is.
        """
        ...

    def folder(self, code: CodeRef) -> str:
        """Path of the unpacked tree, if it is present; of an archive: directories 0755, files 0644 or 0755."""
        ...

    def present(self, code: CodeRef) -> bool:
        """Is the unpacked tree there? It counts as used now. Quick enough for the event loop."""
        ...

    def fetch(self, code: CodeRef, in_use: Iterable[CodeRef]) -> str:
        """Path of the unpacked tree, which is made again out of its archive if it is not there.

        Blocking. To keep the bound, trees that are not `in_use` are removed, least recently used first. Raises
        StoreUnavailable if the archive is missing, damaged or out of reach, or the disk full.
        """
        ...

    def trim(self, in_use: Iterable[CodeRef]) -> None:
        """Remove trees that are not `in_use`, least recently used first, until the bound is kept. Blocking."""
        ...

    def archive(self, code: CodeRef) -> bytes:
        """The archive as it was given. Raises NotFound, for adopted trees too; StoreUnavailable for a damaged one."""
        ...

    def keep_only(self, used: Iterable[CodeRef]) -> None:
        """Remove every package not in `used`, and unfinished ones of an earlier life."""
        ...


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event to keep. Times without another word are the queue's own, in seconds."""

    id: int
    """Its place in the order of arrival."""
    event: Event
    state: EventState
    due: float
    """When it may run; 0 for at once."""
    born: float
    """What its age is counted from."""
    key: str = ""
    """If there is one, no other event with it is taken while it is remembered."""
    key_until: float = 0.0
    kept_until: float = 0.0
    """Before this time it is not trimmed away."""


class RowChange(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event stands now."""

    id: int
    state: EventState
    due: float
    progress: Progress
    born: float | None = None
    """What its age is counted from, if that is new."""


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it is kept."""

    id: int
    state: EventState
    due: float
    born: float
    event: Event
    progress: Progress


class Backlog(msgspec.Struct, frozen=True, kw_only=True):
    """What of a function is queued in the store."""

    fresh: int
    """Events that may run at once."""
    later: float | None
    """When the first of the others may run."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """Events that were loaded."""

    rows: Sequence[EventRow]
    later: float | None
    """When the first of those may be taken whose time has not come; None if there is none."""
    damaged: int = 0
    """Events that could run at once but cannot be read any more; they count as dead from now on."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events are listed, newest first."""

    limit: int
    states: tuple[EventState, ...] = ()
    lane: str = ""
    before: int | None = None
    """Only those that arrived before this one."""


class KeyedFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which events with a key are listed."""

    prefix: str
    """Of their keys."""
    limit: int
    newest_first: bool = True
    beyond: int | None = None
    """Only those that come after this one in that order."""


class EventStore(Protocol):
    """Events in the order of their arrival, a lane for each function.

    The methods down to `trim` write, and are called inside `transaction`, from one thread at a time; the others may be
    called from any thread. All are blocking and raise StoreUnavailable.
    """

    def transaction(self, *, durable: bool) -> AbstractContextManager[None]:
        """What is written inside is kept together or not at all. `durable` if it must survive the loss of power; all of
        it survives the end of the process."""
        ...

    def add(self, events: Sequence[NewEvent]) -> frozenset[int]:
        """Keep new events; the ids of those that were not kept because their key is taken."""
        ...

    def change(self, changes: Sequence[RowChange]) -> None:
        """Events that are not there are passed over."""
        ...

    def take(self, lane: str, *, now: float, limit: int, room: int) -> Taken:
        """Queued events of a lane that may run, at most about `room` bytes of them; they count as running from now on.

        First those whose time has come, by that time, then the others in their order."""
        ...

    def take_owed(self, *, now: float, limit: int, room: int) -> Taken:
        """Events whose results are to be delivered and whose time for it has come; they count as running as well."""
        ...

    def claim(self, identity: int, states: Sequence[EventState]) -> EventRow | None:
        """An event as it is, if it is in one of these states; it counts as running from now on."""
        ...

    def count(self, numbers: Mapping[tuple[str, str], int]) -> None:
        """Add to counters, by lane and by what is counted."""
        ...

    def note(self, name: str, value: float) -> None:
        """Keep a number under a name."""
        ...

    def note_timer(self, name: str, planned: float | None, *, fired: bool = False) -> None:
        """Keep until when a timer was looked after; None forgets it. If it has `fired` for that time, a later one that
        is kept already stays."""
        ...

    def trim(self, state: EventState, *, keep: int, keep_bytes: int, now: float) -> int:
        """Remove ended events of a state beyond a number and beyond a size, the oldest first, some at a time; how many
        went. `now` is in seconds since the epoch, as are the times until which keys and events are kept."""
        ...

    def recover(self, wall: float) -> int:
        """In a transaction of its own: those that ran when the server ended are queued again, those whose results
        were on their way wait to be delivered again; how many ran. `wall` is the time in seconds since the epoch, for
        their history."""
        ...

    def backlogs(self) -> Mapping[str, Backlog]:
        """By lane, of those that have queued events."""
        ...

    def last_id(self) -> int:
        """The newest event's; 0 if there is none."""
        ...

    def get(self, identity: int) -> EventRow | None: ...

    def find(self, request: str) -> EventRow | None:
        """By request id; the newest, if there are several."""
        ...

    def keyed(self, wanted: KeyedFilter) -> Sequence[tuple[str, EventRow]]:
        """Events that have a key, with it, in the order of their arrival or against it."""
        ...

    def by_key(self, key: str) -> EventRow | None: ...

    def list(self, wanted: EventFilter) -> Sequence[EventRow]:
        """Newest first."""
        ...

    def numbers(self) -> Mapping[tuple[str, EventState], int]:
        """How many there are, by lane and state."""
        ...

    def oldest(self) -> Mapping[str, float]:
        """When the event was born that is queued, or waits to be delivered, longest; by lane."""
        ...

    def counters(self) -> Mapping[tuple[str, str], int]: ...

    def fact(self, name: str) -> float | None:
        """A number that was noted."""
        ...

    def timers(self) -> Mapping[str, float]:
        """When each timer went off last."""
        ...

    def close(self) -> None: ...

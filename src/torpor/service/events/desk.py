"""Where somebody looks at events, tries them again, takes them out, and reads what became of them."""

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from torpor.model.errors import Conflict, NotFound
from torpor.model.event import ENDED, EventState
from torpor.service.events.interventions import Interventions
from torpor.service.events.lanes import Held
from torpor.service.events.queue import EventQueue
from torpor.service.events.writer import Claim
from torpor.store.ports import EventFilter, EventRow, KeyedFilter

_SAID = {
    EventState.SUCCEEDED: "it has succeeded",
    EventState.FAILED: "it has failed",
    EventState.DEAD: "it is dead",
    EventState.DROPPED: "it was dropped",
}

_ROUNDS = 3
"""In which what was read and may be old by now is read again."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An event as it stands now."""

    row: EventRow
    standing: str
    """`queued`, `waiting` (for an environment), `running`, `delivering`, or how it ended."""
    started: float = 0.0
    """Seconds since the epoch at which the attempt began that runs; 0 if none does."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FunctionEvents:
    """The events of one function: how many stand where, and how they come and go."""

    function: str
    queued: int = 0
    running: int = 0
    delivering: int = 0
    ended: Mapping[EventState, int]
    oldest: float | None = None
    """Seconds since the event was accepted that has waited longest, to run or to be delivered."""
    accepted_rate: float = 0.0
    """A second, over the last minute, as is the next."""
    ended_rate: float = 0.0
    counters: Mapping[str, int]
    """Of everything that has ever happened, by what it was."""


class EventDesk:
    """Reads what is kept and what is under way."""

    def __init__(self, queue: EventQueue, interventions: Interventions) -> None:
        self._queue = queue
        self._store = queue.store
        self._interventions = interventions

    # -- reading ------------------------------------------------------------------------------------------------------

    async def list(self, wanted: EventFilter) -> Sequence[Seen]:
        """Newest first."""
        rows = await asyncio.to_thread(self._store.list, wanted)
        return await self._all_seen(rows)

    async def get(self, identity: str) -> Seen:
        """By number or by request id. Raises NotFound."""
        (seen,) = await self._all_seen([await self._row(identity)])
        return self._with_refusals(seen)

    async def keyed(self, wanted: KeyedFilter) -> Sequence[tuple[str, Seen]]:
        """Those that have a key, with it."""
        found = await asyncio.to_thread(self._store.keyed, wanted)
        seen = await self._all_seen([row for _, row in found])
        return [(key, each) for (key, _), each in zip(found, seen, strict=True)]

    async def by_key(self, key: str) -> Seen | None:
        """The one of this key, if there is one."""
        row = await asyncio.to_thread(self._store.by_key, key)
        return (await self._all_seen([row]))[0] if row is not None else None

    async def functions(self) -> Sequence[FunctionEvents]:
        """Every function that has had events, by name."""
        numbers, oldest, counters = await asyncio.to_thread(self._read)
        names = sorted({lane for lane, _ in (*numbers, *counters)})
        return [self._function(name, numbers, oldest.get(name), counters) for name in names]

    def _read(
        self,
    ) -> tuple[Mapping[tuple[str, EventState], int], Mapping[str, float], Mapping[tuple[str, str], int]]:
        return self._store.numbers(), self._store.oldest(), self._store.counters()

    def _function(
        self,
        name: str,
        numbers: Mapping[tuple[str, EventState], int],
        oldest: float | None,
        counters: Mapping[tuple[str, str], int],
    ) -> FunctionEvents:
        lane, rates = self._queue.lanes.get(name), self._queue.rates
        running = len(lane.running) if lane is not None else 0
        held = sum(held.event.function == name for held in self._queue.deliveries.held.values())
        taken_up = numbers.get((name, EventState.RUNNING), 0)
        born = [lane.ready[0].born] if lane is not None and lane.ready else []
        born += [held.born for held in self._queue.deliveries.held.values() if held.event.function == name]
        oldest = min([*born, *([] if oldest is None else [oldest])], default=None)
        return FunctionEvents(
            function=name,
            queued=numbers.get((name, EventState.QUEUED), 0) + max(taken_up - running - held, 0),
            running=running,
            delivering=numbers.get((name, EventState.DELIVERING), 0) + held,
            ended={state: numbers.get((name, state), 0) for state in ENDED},
            oldest=None if oldest is None else max(self._queue.steady.now() - oldest, 0.0),
            accepted_rate=rates.of(name, "accepted"),
            ended_rate=rates.of(name, "ended"),
            counters={what: number for (lane_name, what), number in sorted(counters.items()) if lane_name == name},
        )

    async def _row(self, identity: str) -> EventRow:
        row = None
        if identity.isdecimal() and len(identity) < 19:
            row = await asyncio.to_thread(self._store.get, int(identity))
        row = row or await asyncio.to_thread(self._store.find, identity)
        if row is None:
            raise NotFound(f"There is no event {identity}.", what="event")
        return row

    async def _all_seen(self, rows: Sequence[EventRow]) -> Sequence[Seen]:
        """Those are read again whose end may have been written meanwhile: nothing here knows of that end then."""
        for _ in range(_ROUNDS):
            unsettled = self._unsettled(rows)
            if not unsettled:
                break
            again = await asyncio.to_thread(self._read_again, unsettled)
            rows = [again.get(row.id, row) for row in rows]
        return [self._seen(row) for row in rows]

    def _read_again(self, rows: Sequence[EventRow]) -> Mapping[int, EventRow]:
        return {row.id: self._store.get(row.id) or row for row in rows}

    def _unsettled(self, rows: Sequence[EventRow]) -> Sequence[EventRow]:
        """Those that were taken up when they were read, and that nothing here has any more."""
        taken_up = [row for row in rows if row.state is EventState.RUNNING]
        lanes = [
            self._queue.lanes[name] for name in {row.event.function for row in taken_up} & self._queue.lanes.keys()
        ]
        known = {held.id for lane in lanes for held in (*lane.ready, *lane.running.values())}
        known |= self._queue.writer.changing.keys()
        known |= {row.id for row in taken_up if row.progress.owed and row.id in self._queue.deliveries.held}
        return [row for row in taken_up if row.id not in known]

    def _seen(self, row: EventRow) -> Seen:
        newer = self._queue.writer.changing.get(row.id)
        if newer is not None:
            row = replace(row, state=newer.state, due=newer.due, progress=newer.progress)
        held = self._running(row)
        standing = row.state.word if row.state is not EventState.RUNNING else self._standing(row, held)
        started = held.started_at + self._queue.steady.offset if held is not None and standing == "running" else 0.0
        return Seen(row=row, standing=standing, started=started)

    def _standing(self, row: EventRow, held: Held | None) -> str:
        if held is not None:
            return "waiting" if held.is_waiting else "running"
        return EventState.DELIVERING.word if row.progress.owed else EventState.QUEUED.word

    def _with_refusals(self, seen: Seen) -> Seen:
        """Refusals of one that waits are in memory only."""
        lane = self._queue.lanes.get(seen.row.event.function)
        taken_up = (*lane.ready, *lane.running.values()) if lane is not None else ()
        held = next((held for held in taken_up if held.id == seen.row.id), None)
        return seen if held is None else dataclasses.replace(seen, row=replace(seen.row, progress=held.progress))

    def wall_of(self, moment: float) -> float | None:
        """Seconds since the epoch of a moment of the queue's own time; None for none."""
        return round(moment + self._queue.steady.offset, 3) if moment else None

    def is_stopping(self, seen: Seen) -> bool:
        """Was it told to stop, and runs still?"""
        held = self._running(seen.row)
        return held is not None and held.is_stopped

    def _running(self, row: EventRow) -> Held | None:
        lane = self._queue.lanes.get(row.event.function)
        return lane.running.get(row.id) if lane is not None else None

    # -- changing -----------------------------------------------------------------------------------------------------

    async def retry(self, identity: str) -> Seen:
        """Run an event that is through once more, with all its attempts; one whose result could not be delivered is
        delivered again instead. Raises NotFound, Conflict."""
        row = await self._row(identity)
        claimed = await self._claim(row, ENDED)
        if claimed is None:
            raise Conflict(f"The event {row.id} is not through: it is {self._seen(row).standing}.")
        if claimed.state is EventState.DEAD:
            self._interventions.deliver_again(claimed)
        else:
            self._interventions.run_again(claimed)
        return await self._written(row)

    async def drop(self, identity: str) -> Seen:
        """Take an event out: it is not run any more, and its result goes nowhere. What runs is told to stop, if its
        contract knows of such a thing. Raises NotFound, Conflict."""
        row = await self._row(identity)
        if row.state.is_ended:
            raise Conflict(f"The event {row.id} is through already: {_SAID[row.state]}.")
        if not self._interventions.stop(row.event.function, row.id):
            claimed = await self._claim(row, (EventState.QUEUED, EventState.DELIVERING))
            if claimed is None:
                raise Conflict(f"The event {row.id} is just being taken up; try again.")
            self._interventions.drop(claimed)
        return await self._written(row)

    async def _written(self, row: EventRow) -> Seen:
        """The event, once everything that has come up so far is in the store."""
        await self._claim(row, ())
        return await self.get(str(row.id))

    async def _claim(self, row: EventRow, states: tuple[EventState, ...]) -> EventRow | None:
        claimed: asyncio.Future[EventRow | None] = asyncio.get_running_loop().create_future()
        self._queue.writer.submit(Claim(row.id, states, claimed.set_result))
        return await claimed

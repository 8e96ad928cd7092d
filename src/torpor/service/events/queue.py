"""The queue of asynchronous events: accepts them once they are on the disk, runs each until it is through.

Every function has a lane, so none waits for another's events. A lane runs as many events at once as the platform lets
it; what the platform refuses goes back to its place, and the lane tries again when one of its events has ended or a
back-off is over. Everything here happens in the event loop's thread, and what an event has become is handed to the
writer as soon as it is known.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from msgspec.structs import replace

from torpor.model.clock import Clock
from torpor.model.errors import NotFound, ShuttingDown, TorporError
from torpor.model.event import EventState, Progress, Result, Step
from torpor.model.failure import FailureKind
from torpor.model.invocation import Outcome
from torpor.scheduling import ThrottleReason, windows
from torpor.scheduling.retries import Again, Condition, Verdict
from torpor.service.events import attempts
from torpor.service.events.deliveries import Deliveries
from torpor.service.events.intake import HELD, EventIntake
from torpor.service.events.lanes import Held, Lane
from torpor.service.events.port import Courier, Dispatcher, EventContract
from torpor.service.events.rates import Rates
from torpor.service.events.steady import MARK, OFFSET, SteadyTime
from torpor.service.events.writer import Change, Count, EventWriter, Note, Take, Trim
from torpor.store.ports import EventStore, RowChange, Taken

log = logging.getLogger(__name__)
_TICK = 0.5
_LOAD = 128
"""Events of a lane that are loaded at once."""
_LOW = 64
"""Of those at hand, below which more are loaded."""
_AGAIN = 1.0
"""Seconds until a lane that could not be loaded is tried again."""
_RESULT_SHOWN, _TASK_RESULT_SHOWN = 64 * 1024, 1024 * 1024
"""Bytes of a result that are kept once it needs to go nowhere any more."""
_TRIMS = 4
"""How often ended events are trimmed after the last of them, a bounded number each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What a queue may hold."""

    history: int = 10_000
    """Ended events that are kept, of each kind of end."""
    history_bytes: int = 256 * 1024 * 1024
    """The same, in bytes."""
    memory: int = 64 * 1024 * 1024
    """Bytes of events in memory."""
    unwritten: int = 256 * 1024 * 1024
    """Bytes of events that wait to be kept; more are refused."""


class EventQueue:
    """All events of a server."""

    def __init__(
        self,
        store: EventStore,
        dispatcher: Dispatcher,
        courier: Courier,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        limits: QueueLimits | None = None,
    ) -> None:
        """Raises StoreUnavailable."""
        self._dispatcher = dispatcher
        self._clock = clock
        self._loop = loop
        self.limits = limits or QueueLimits()
        self.store = store
        self.steady = SteadyTime(clock, store.fact(OFFSET), store.fact(MARK))
        self.writer = EventWriter(store, loop, self.steady.now)
        self.contracts: dict[str, EventContract] = {}
        self.lanes: dict[str, Lane] = {}
        self.deliveries = Deliveries(self, courier)
        self.rates = Rates(clock.monotonic)
        self.intake = EventIntake(self, clock, store.last_id())
        self.room = self.limits.memory
        """Bytes of events that may still be held in memory."""
        self._running = 0
        self._hungry: set[Lane] = set()
        """Those that were refused for what others use."""
        self._untrimmed = 0
        self._pausing = True

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, contracts: Mapping[str, EventContract]) -> None:
        """Take up what an earlier life has left. Raises StoreUnavailable."""
        self.contracts.update(contracts)
        interrupted = self.store.recover(self._clock.wall())
        if interrupted:
            log.warning("%d events ran when the server ended; they run again.", interrupted)
        self.writer.start()
        self._pausing = False
        for name, backlog in self.store.backlogs().items():
            lane = self.lane(name)
            lane.spilled, lane.later = backlog.fresh, backlog.later
            self.pump(lane)
        self.deliveries.poke()

    async def tick(self) -> None:
        """Look after the clock and after old events, until cancelled."""
        while True:
            await asyncio.sleep(_TICK)
            moved = self.steady.moved()
            if moved is not None:
                self.writer.submit(Note(OFFSET, moved))
            if self._untrimmed:
                self._untrimmed -= 1
                for state in (EventState.SUCCEEDED, EventState.FAILED, EventState.DEAD, EventState.DROPPED):
                    self.writer.submit(self._trim(state))
            for lane in list(self.lanes.values()):
                self.pump(lane)
            self.deliveries.poke()

    def _trim(self, state: EventState) -> Trim:
        return Trim(state, self.limits.history, self.limits.history_bytes, self._clock.wall())

    def pause(self) -> None:
        """Begin nothing any more; what runs goes on, and events are still accepted."""
        self._pausing = True

    async def close(self) -> None:
        """Write what is left; call it once nothing runs any more."""
        self._pausing = True
        self.intake.close()
        await self.deliveries.close()
        for lane in self.lanes.values():
            lane.cancel_timers()
        self.writer.close()
        await asyncio.to_thread(self.writer.join)

    # -- lanes --------------------------------------------------------------------------------------------------------

    def lane(self, name: str) -> Lane:
        """The lane of this function, which is made if it has none."""
        lane = self.lanes.get(name)
        if lane is None:
            lane = self.lanes[name] = Lane(name)
        return lane

    def pump(self, lane: Lane) -> None:
        """Begin what may begin, load what is needed for that."""
        if lane.is_pumped:
            return
        lane.is_pumped = True
        try:
            while self._may_begin(lane):
                self._begin(lane, lane.ready.popleft())
        finally:
            lane.is_pumped = False
        self._refill(lane)
        if lane.has_backlog and lane.running and lane.look is None:
            lane.look = self._loop.call_later(windows.LOOK, self._look, lane)
        if lane.is_empty and self.lanes.get(lane.name) is lane:
            lane.cancel_timers()
            self._hungry.discard(lane)
            del self.lanes[lane.name]

    def _may_begin(self, lane: Lane) -> bool:
        if not lane.ready or self._pausing or not self.writer.works:
            return False
        now = self._clock.monotonic()
        if now < lane.retry_at:
            self._wake(lane, lane.retry_at - now)
            return False
        return len(lane.running) < lane.window.size and self._is_fair(lane)

    def _is_fair(self, lane: Lane) -> bool:
        """Others wait for what all share: then nobody takes more than its share."""
        if not self._hungry or lane in self._hungry:
            return True
        return len(lane.running) < windows.share(self._running, len(self.lanes))

    def _refill(self, lane: Lane) -> None:
        if lane.loading or self._pausing or len(lane.ready) >= _LOW:
            return
        now = self.steady.now()
        if lane.later is not None and lane.later > now:
            self._wake(lane, lane.later - now)
        if (lane.spilled or (lane.later is not None and lane.later <= now)) and self.room > 0:
            lane.loading, lane.later_meanwhile = True, None
            limit = min(_LOAD, HELD - len(lane.ready))
            self.writer.submit(Take(lane.name, now, limit, self.room, partial(self._loaded, lane)))

    def _loaded(self, lane: Lane, taken: Taken | None) -> None:
        if taken is None:
            lane.loaded(lane.later)
            self._wake(lane, _AGAIN)
            return
        lane.loaded(taken.later)
        for row in taken.rows:
            held = Held(row.id, row.event, row.progress, row.born, row.due or row.born)
            self.room -= held.size
            if row.due:
                lane.put_back(held)
            else:
                lane.spilled -= 1
                lane.ready.append(held)
        self.pump(lane)

    def _wake(self, lane: Lane, seconds: float) -> None:
        moment = self._clock.monotonic() + seconds
        if lane.wake is not None:
            if lane.wake_at <= moment:
                return
            lane.wake.cancel()
        lane.wake_at = moment
        lane.wake = self._loop.call_later(max(seconds, 0.001), self._woken, lane)

    def _woken(self, lane: Lane) -> None:
        lane.wake = None
        self.pump(lane)

    def _look(self, lane: Lane) -> None:
        """May more of it run at once?"""
        lane.look = None
        most = self._most(lane)
        now, running = self._clock.monotonic(), len(lane.running)
        if lane.has_backlog and lane not in self._hungry:
            lane.window = windows.looked(lane.window, running=running, finished=lane.finished, most=most, now=now)
        lane.finished = 0
        self.pump(lane)

    def _most(self, lane: Lane) -> int:
        held = next(iter(lane.running.values()), None)
        return self.contracts[held.event.contract].most if held is not None else windows.FIRST

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _begin(self, lane: Lane, held: Held) -> None:
        contract = self.contracts[held.event.contract]
        is_aged = self.steady.now() - held.born > contract.policy(held.event).max_age
        condition = contract.bar(held.event) or (Condition.AGED if is_aged else None)
        if condition is not None:
            self.end(lane, held, condition)
            return
        held.started_at = self.steady.now()
        lane.running[held.id] = held
        self._running += 1
        done = partial(self._done, lane, held)
        try:
            run = contract.run(held.event, held.progress)
        except TorporError as error:
            done(error)
            return
        held.request = self._dispatcher.submit(run.version, run.invocation, run.reserved, done)

    def _done(self, lane: Lane, held: Held, result: Outcome | TorporError) -> None:
        del lane.running[held.id]
        self._running -= 1
        if isinstance(result, ShuttingDown) or (self._pausing and _was_stopped(result)):
            self._release(lane, held)
            return
        if isinstance(result, NotFound):
            self.end(lane, held, Condition.GONE)
        else:
            judged = self.contracts[held.event.contract].judged(held.event, result)
            if judged.verdict == Verdict.THROTTLED:
                self._throttled(lane, held, judged, result)
                return
            self._attempted(lane, held, judged, result)
        lane.finished += 1
        self._freed(lane)

    def _release(self, lane: Lane, held: Held) -> None:
        """The server ends before it could run: its next life runs it."""
        self.room += held.size
        lane.spilled += 1
        lane.retry_at = self._clock.monotonic() + _AGAIN
        self.change(held, EventState.QUEUED, held.progress)

    def _throttled(self, lane: Lane, held: Held, judged: Result, result: Outcome | TorporError) -> None:
        """Back to its place: what it was refused for is a matter of its lane."""
        now, monotonic = self.steady.now(), self._clock.monotonic()
        lane.refusals += 1
        lane.window = windows.refused(len(lane.running), monotonic)
        if getattr(result, "reason", None) != ThrottleReason.RESERVED:
            self._hungry.add(lane)
        held.progress = replace(held.progress, refused_since=held.progress.refused_since or now)
        policy = self.contracts[held.event.contract].policy(held.event)
        move = attempts.next_move(policy, held, Verdict.THROTTLED, lane.refusals, now)
        self.writer.submit(Count(lane.name, "throttled"))
        if isinstance(move, Again):
            lane.put_back(held)
            lane.retry_at = monotonic + move.wait
            self._wake(lane, move.wait)
        else:
            self.end(lane, held, move.condition, judged)

    def _attempted(self, lane: Lane, held: Held, judged: Result, result: Outcome | TorporError) -> None:
        """It ran, or the platform failed at it."""
        outcome = result if isinstance(result, Outcome) else None
        now, wall, verdict = self.steady.now(), self._clock.wall(), attempts.verdict_of(held, judged)
        step = attempts.run_step(held, judged, outcome, wall=wall, now=now)
        progress = attempts.after(held.progress, verdict, judged, outcome, step)
        held.progress = (
            replace(progress, refused_since=progress.refused_since or now) if progress.refusals else progress
        )
        policy = self.contracts[held.event.contract].policy(held.event)
        move = attempts.next_move(policy, held, verdict, progress.refusals, now)
        if isinstance(move, Again):
            step = Step(at=wall, what="wait", seconds=move.wait)
            self._put_off(lane, held, held.progress.with_step(step), now + move.wait)
        else:
            self.end(lane, held, move.condition)

    def _put_off(self, lane: Lane, held: Held, progress: Progress, due: float) -> None:
        self.room += held.size
        self.change(held, EventState.QUEUED, progress, "retried", due=due)
        lane.note_later(due)

    def end(self, lane: Lane, held: Held, condition: Condition, judged: Result | None = None) -> None:
        """No more attempts; `judged` is the last one if that is not in its progress yet."""
        self.room += held.size
        self._untrimmed = _TRIMS
        self.rates.add(lane.name, "ended")
        if judged is not None and not held.progress.runs:
            held.progress = replace(held.progress, result=judged)
        progress = attempts.finished(held.progress, condition, self._clock.wall())
        owed = self.contracts[held.event.contract].owed(held.event, progress)
        held.progress = replace(progress, owed=owed)
        state = attempts.final_state(progress)
        if owed:
            self.deliveries.take(held, state.word, condition.value)
        else:
            self.change(held, state, progress, state.word, condition.value)

    def change(
        self,
        held: Held,
        state: EventState,
        progress: Progress,
        *counted: str,
        due: float = 0.0,
        born: float | None = None,
    ) -> None:
        """Keep where an event stands now, and count what that means."""
        if state.is_ended and state is not EventState.DEAD:
            progress = attempts.shortened(progress, _RESULT_SHOWN if not held.event.task else _TASK_RESULT_SHOWN)
        change = RowChange(id=held.id, state=state, due=due, progress=progress, born=born)
        what = tuple(dict.fromkeys(counted))
        self.writer.submit(Change(change, counted=what, lane=held.event.function))

    def count(self, held: Held, what: str) -> None:
        """Count something for an event's function."""
        self.writer.submit(Count(held.event.function, what))

    def wall(self) -> float:
        """Seconds since the epoch."""
        return self._clock.wall()

    def _freed(self, lane: Lane) -> None:
        """One of its events has ended: there is room for one more, first of all for who was refused it."""
        lane.refusals, lane.retry_at = 0, 0.0
        self._hungry.discard(lane)
        for other in list(self._hungry):
            other.retry_at = 0.0
            self.pump(other)
        self.pump(lane)


def _was_stopped(result: Outcome | TorporError) -> bool:
    """Did it end because the server told its environment to?"""
    failure = result.failure if isinstance(result, Outcome) else None
    return failure is not None and failure.kind is FailureKind.STOPPED

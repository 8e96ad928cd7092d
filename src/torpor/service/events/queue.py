"""The queue of asynchronous events: accepts them once they are on the disk, runs each until it is through.

Every function has a lane, so none waits for another's events. A lane runs as many events at once as the platform lets
it; what the platform refuses goes back to its place, and the lane tries again when one of its events has ended or a
back-off is over. Everything here happens in the event loop's thread, and what an event has become is handed to the
writer as soon as it is known.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from msgspec.structs import replace

from torpor.model.clock import Clock
from torpor.model.errors import NotFound, ShuttingDown, TorporError
from torpor.model.event import ENDED, EventState, Progress, Result, Step
from torpor.model.failure import FailureKind
from torpor.model.invocation import Outcome
from torpor.scheduling import ThrottleReason, windows
from torpor.scheduling.retries import Again, Condition, Verdict, final_state
from torpor.service.events import attempts
from torpor.service.events.deliveries import Deliveries
from torpor.service.events.intake import HELD, EventIntake
from torpor.service.events.lanes import Held, Lane, QueueLimits
from torpor.service.events.port import Courier, Dispatcher, EventContract
from torpor.service.events.rates import Rates
from torpor.service.events.sharing import Sharing
from torpor.service.events.steady import MARK, OFFSET, SteadyTime
from torpor.service.events.writer import Change, Count, EventWriter, Note, Take, Trim
from torpor.store.ports import EventStore, RowChange, Taken

log = logging.getLogger(__name__)
_TICK = 0.5
_LOAD = 128
"""Events of a lane that are loaded at once."""
_LOW = 64
"""Of those at hand, below which more are loaded."""
_LANE_MIN = 1024 * 1024
"""Bytes of a function's events that are held whatever those of others take."""
_MISHAP = 30.0
"""Seconds until an event is tried again at which the queue itself has failed."""
_AGAIN = 1.0
"""Seconds until a lane that could not be loaded is tried again."""
_RESULT_SHOWN, _TASK_RESULT_SHOWN = 64 * 1024, 1024 * 1024
"""Bytes of a result that are kept once it needs to go nowhere any more."""
_TRIMS = 4
"""How often ended events are trimmed after the last of them, a bounded number each time."""


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
        self._sharing = Sharing(clock.monotonic, loop, self.pump)
        self._untrimmed = 0
        self._pausing = True

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, contracts: Mapping[str, EventContract]) -> None:
        """Take up what an earlier life has left. Raises StoreUnavailable."""
        self.contracts.update(contracts)
        interrupted = self.store.recover(self._clock.wall())
        if interrupted:
            log.warning("Events that ran when the server ended, and run again: %d.", interrupted)
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
                self._trim()
            if not self.writer.works:
                self.writer.submit(Note(MARK, self.steady.now()))
            for lane in list(self.lanes.values()):
                self.pump(lane)
            self.deliveries.poke()

    def _trim(self) -> None:
        for state in ENDED:
            self.writer.submit(Trim(state, self.limits.history, self.limits.history_bytes, self._clock.wall()))

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
            for held in lane.ready:
                self.change(held, EventState.QUEUED, held.progress)
        self.writer.close()
        await asyncio.to_thread(self.writer.join)

    # -- lanes --------------------------------------------------------------------------------------------------------

    def lane(self, name: str) -> Lane:
        """The lane of this function, which is made if it has none."""
        return self.lanes.get(name) or self.lanes.setdefault(name, Lane(name))

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
            self._sharing.forget(lane)
            del self.lanes[lane.name]

    def _may_begin(self, lane: Lane) -> bool:
        if not lane.ready or self._pausing or not self.writer.works:
            return False
        now = self._clock.monotonic()
        if now < lane.retry_at:
            self._wake(lane, lane.retry_at - now)
            return False
        return len(lane.running) < lane.window.size and self._sharing.is_fair(lane, self.lanes.values())

    def hold(self, lane: Lane, held: Held) -> None:
        """It is in memory from now on."""
        held.counted = held.size
        lane.bytes += held.counted
        self.room -= held.counted

    def let_go(self, lane: Lane, held: Held) -> None:
        """It is in memory no more, or no more its lane's."""
        lane.bytes -= held.counted
        self.room += held.counted
        held.counted = 0

    def room_of(self, lane: Lane) -> int:
        """Bytes that a lane may still take: a little whatever others hold, and never all there is."""
        return max(min(self.room, self.limits.memory // 2 - lane.bytes), _LANE_MIN - lane.bytes)

    def _refill(self, lane: Lane) -> None:
        if lane.loading or self._pausing or len(lane.ready) >= _LOW:
            return
        now = self.steady.now()
        if lane.later is not None and lane.later > now:
            self._wake(lane, lane.later - now)
        room = self.room_of(lane)
        if (lane.spilled or (lane.later is not None and lane.later <= now)) and room > 0:
            lane.loading, lane.later_meanwhile = True, None
            limit = min(_LOAD, HELD - len(lane.ready))
            self.writer.submit(Take(lane.name, now, limit, room, partial(self._loaded, lane)))

    def _loaded(self, lane: Lane, taken: Taken | None) -> None:
        if taken is None:
            lane.loaded(lane.later)
            self._wake(lane, _AGAIN)
            return
        lane.loaded(taken.later)
        lane.spilled -= taken.damaged
        for row in taken.rows:
            held = Held(row.id, row.event, row.progress, row.born, row.due or row.born)
            self.hold(lane, held)
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
        if lane.has_backlog and lane not in self._sharing:
            lane.window = windows.looked(lane.window, running=running, finished=lane.finished, most=most, now=now)
        lane.finished = 0
        self.pump(lane)

    def _most(self, lane: Lane) -> int:
        held = next(iter(lane.running.values()), None)
        return self.contracts[held.event.contract].most if held is not None else windows.FIRST

    # -- attempts -----------------------------------------------------------------------------------------------------

    def _begin(self, lane: Lane, held: Held) -> None:
        try:
            self._try(lane, held)
        except Exception:
            log.exception("beginning the event %d of %s failed", held.id, lane.name)
            self._mishap(lane, held)

    def _try(self, lane: Lane, held: Held) -> None:
        contract = self.contracts[held.event.contract]
        is_aged = self.steady.now() - held.born > contract.policy(held.event).max_age
        if condition := contract.bar(held.event) or (Condition.AGED if is_aged else None):
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
        if lane.running.pop(held.id, None) is None:
            return
        self._running -= 1
        try:
            self._judge(lane, held, result)
        except Exception:
            log.exception("what came of the event %d of %s could not be understood", held.id, lane.name)
            self._mishap(lane, held)

    def _mishap(self, lane: Lane, held: Held) -> None:
        """Something went wrong here: the event is tried again later, whatever it was."""
        if lane.running.pop(held.id, None) is not None:
            self._running -= 1
        self._put_off(lane, held, held.progress, self.steady.now() + _MISHAP)

    def _judge(self, lane: Lane, held: Held, result: Outcome | TorporError) -> None:
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
        lane.retry_at = 0.0
        self._sharing.freed(lane)
        self.pump(lane)

    def _release(self, lane: Lane, held: Held) -> None:
        """The server ends before it could run: its next life runs it."""
        if held.is_stopped:
            self.end(lane, held, Condition.STOPPED)
            return
        self.let_go(lane, held)
        lane.spilled += 1
        lane.retry_at = self._clock.monotonic() + _AGAIN
        self.change(held, EventState.QUEUED, held.progress)

    def _throttled(self, lane: Lane, held: Held, judged: Result, result: Outcome | TorporError) -> None:
        """Back to its place. Whoever is tried before its back-off is over, because something else ended, and refused
        once more, has not been refused again for that."""
        now, monotonic = self.steady.now(), self._clock.monotonic()
        lane.window = windows.refused(len(lane.running), monotonic)
        self.writer.submit(Count(lane.name, "throttled"))
        if held.is_stopped:
            self.end(lane, held, Condition.STOPPED)
            return
        if monotonic >= held.backs_off_until:
            held.refusals += 1
            held.progress = attempts.throttled(held.progress, judged.refusal, wall=self._clock.wall(), now=now)
            policy = self.contracts[held.event.contract].policy(held.event)
            move = attempts.next_move(policy, held, Verdict.THROTTLED, held.refusals, now)
            if not isinstance(move, Again):
                self.end(lane, held, move.condition, judged)
                return
            held.backs_off_until = monotonic + move.wait
            if getattr(result, "reason", None) != ThrottleReason.RESERVED:
                self._sharing.refused(lane, self._running)
        lane.put_back(held)
        lane.retry_at = held.backs_off_until
        self._wake(lane, max(lane.retry_at - monotonic, 0.0))

    def _attempted(self, lane: Lane, held: Held, judged: Result, result: Outcome | TorporError) -> None:
        """It ran, or the platform failed at it."""
        outcome = result if isinstance(result, Outcome) else None
        now, wall, verdict = self.steady.now(), self._clock.wall(), attempts.verdict_of(held, judged)
        step = attempts.run_step(held, judged, outcome, wall=wall, now=now)
        progress = attempts.after(held.progress, verdict, judged, outcome, step)
        held.progress = attempts.since(progress, now)
        policy = self.contracts[held.event.contract].policy(held.event)
        move = attempts.next_move(policy, held, verdict, progress.refusals, now)
        if isinstance(move, Again):
            step = Step(at=wall, what="wait", seconds=move.wait)
            self._put_off(lane, held, held.progress.with_step(step), now + move.wait)
        else:
            self.end(lane, held, move.condition)

    def _put_off(self, lane: Lane, held: Held, progress: Progress, due: float) -> None:
        self.let_go(lane, held)
        self.change(held, EventState.QUEUED, attempts.shortened(progress, _RESULT_SHOWN), "retried", due=due)
        lane.note_later(due)

    def end(self, lane: Lane, held: Held, condition: Condition, judged: Result | None = None) -> None:
        """No more attempts; `judged` is the last one if that is not in its progress yet."""
        self.let_go(lane, held)
        self._untrimmed = _TRIMS
        self.rates.add(lane.name, "ended")
        if judged is not None and not held.progress.runs:
            held.progress = replace(held.progress, result=judged)
        progress = attempts.finished(held.progress, condition, self._clock.wall())
        owed = self.contracts[held.event.contract].owed(held.event, progress)
        held.progress = replace(progress, owed=owed)
        state = final_state(progress)
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


def _was_stopped(result: Outcome | TorporError) -> bool:
    """Did it end because the server told its environment to?"""
    failure = result.failure if isinstance(result, Outcome) else None
    return failure is not None and failure.kind is FailureKind.STOPPED

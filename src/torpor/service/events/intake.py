"""The entrance of the queue: an event is answered for once it is on the disk."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from torpor.model.clock import Clock
from torpor.model.errors import ShuttingDown, Throttled, TorporError
from torpor.model.event import NOTHING_YET, Event, EventState
from torpor.scheduling import ThrottleReason
from torpor.service.events.lanes import Held, Lane
from torpor.service.events.writer import Accepted, Add, Together
from torpor.store.ports import NewEvent

if TYPE_CHECKING:
    from torpor.service.events.queue import EventQueue

HELD = 512
"""Of one function's events that are held in memory at most."""
_KEY_KEPT = 7 * 24 * 3600.0


class EventIntake:
    """Belongs to the queue's event loop."""

    def __init__(self, queue: "EventQueue", clock: Clock, last: int) -> None:
        """`last` is the number of the newest event that there is."""
        self._queue = queue
        self._clock = clock
        self._last = last
        self._refuses = False

    def close(self) -> None:
        """Take nothing any more."""
        self._refuses = True

    def accept(
        self, event: Event, done: Accepted, *, delay: float = 0.0, timer: tuple[str, float] | None = None
    ) -> None:
        """Take an event. `done` is called once, when it is on the disk or why it is not; and whether an event of the
        same key was taken before, in which case this one is not. It runs after `delay` seconds."""
        refusal = self._refusal(event)
        if refusal is not None:
            done(refusal, False)
            return
        self._queue.writer.submit(self._addition(event, done, delay=delay, timer=timer))

    def accept_together(
        self, events: Sequence[Event], done: Callable[[TorporError | None], None], timer: tuple[str, float]
    ) -> None:
        """Take all of these events of a timer, or none."""
        refusal = next(filter(None, map(self._refusal, events)), None)
        if refusal is not None:
            done(refusal)
            return
        told = _Once(done)
        adds = [self._addition(event, told, timer=timer) for event in events]
        self._queue.writer.submit(Together(tuple(adds)))

    def _addition(
        self,
        event: Event,
        done: Accepted,
        *,
        delay: float = 0.0,
        timer: tuple[str, float] | None = None,
    ) -> Add:
        key, kept = self._queue.contracts[event.contract].kept_as(event)
        self._last += 1
        now, wall, lane = self._queue.steady.now(), self._clock.wall(), self._queue.lane(event.function)
        held = Held(self._last, event, NOTHING_YET, now, now)
        at_once = (
            not delay
            and not lane.spilled
            and len(lane.ready) + lane.expected < HELD
            and held.size <= self._queue.room_of(lane)
        )
        due = now + delay if delay else 0.0
        lane.expected += 1
        if at_once:
            self._queue.hold(lane, held)
        elif delay:
            lane.note_later(due)
        else:
            lane.spilled += 1
        new = NewEvent(
            id=held.id,
            event=event,
            state=EventState.RUNNING if at_once else EventState.QUEUED,
            due=due,
            born=now,
            key=key,
            key_until=wall + max(kept, _KEY_KEPT),
            kept_until=wall + kept if kept else 0.0,
        )
        told = partial(self._kept, lane, held, done, at_once, bool(delay))
        return Add(new, told, timer)

    def _refusal(self, event: Event) -> TorporError | None:
        if self._refuses:
            return ShuttingDown("The server is shutting down; send the request again in a moment.")
        if self._queue.writer.pending + len(event.payload) > self._queue.limits.unwritten:
            message = "Events arrive faster than they can be kept; send it again later."
            return Throttled(message, reason=ThrottleReason.ACCOUNT, retry_after=1.0)
        return None

    def _kept(
        self, lane: Lane, held: Held, told: Accepted, at_once: bool, later: bool, error: TorporError | None, twice: bool
    ) -> None:
        lane.expected -= 1
        if error is not None or twice:
            self._queue.let_go(lane, held)
            lane.spilled -= not at_once and not later
        else:
            self._queue.rates.add(lane.name, "accepted")
            if at_once:
                lane.ready.append(held)
        told(error, twice)
        self._queue.pump(lane)


class _Once:
    """Tells of several what is true of each of them."""

    def __init__(self, done: Callable[[TorporError | None], None]) -> None:
        self._done: Callable[[TorporError | None], None] | None = done

    def __call__(self, error: TorporError | None, _twice: bool) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(error)

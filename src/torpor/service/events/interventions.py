"""What a person does to single events: run or deliver them again, take them out."""

from msgspec.structs import replace

from torpor.model.clock import Clock
from torpor.model.event import EventState, Step
from torpor.scheduling.retries import Condition, final_state
from torpor.service.events import attempts
from torpor.service.events.lanes import Held
from torpor.service.events.port import Dispatcher
from torpor.service.events.queue import EventQueue
from torpor.store.ports import EventRow


class Interventions:
    """Belongs to the queue's event loop. What is `claimed` was taken out of its state in the store."""

    def __init__(self, queue: EventQueue, dispatcher: Dispatcher, clock: Clock) -> None:
        self._queue = queue
        self._dispatcher = dispatcher
        self._clock = clock

    def run_again(self, claimed: EventRow) -> None:
        """An ended event runs as if it had just come."""
        step = Step(at=self._clock.wall(), what="retried")
        progress = replace(
            claimed.progress.with_step(step), errors=0, refusals=0, refused_since=0.0, ended=0.0, condition="", owed=()
        )
        lane = self._queue.lane(claimed.event.function)
        lane.spilled += 1
        held = self._held(claimed)
        self._queue.change(held, EventState.QUEUED, progress, born=held.born)
        self._queue.pump(lane)

    def deliver_again(self, claimed: EventRow) -> None:
        """The result of an ended event is sent to where it could not be delivered."""
        steps = tuple(step for step in claimed.progress.steps if step.what != "undelivered")
        progress = replace(claimed.progress, steps=(*steps, Step(at=self._clock.wall(), what="retried")))
        delivered = {step.detail for step in steps if step.what == "delivered"}
        owed = self._queue.contracts[claimed.event.contract].owed(claimed.event, progress)
        held = self._held(claimed)
        held.progress = replace(
            progress, owed=tuple(each for each in owed if f"{each.role} {each.target}" not in delivered)
        )
        if held.progress.owed:
            self._queue.deliveries.take(held)
        else:
            self._queue.change(held, final_state(progress), held.progress)

    def stop(self, function: str, identity: int) -> bool:
        """Stop an event that is held in memory; is it?"""
        lane = self._queue.lanes.get(function)
        if lane is None:
            return self._queue.deliveries.stop(identity)
        waiting = next((held for held in lane.ready if held.id == identity), None)
        if waiting is not None:
            lane.ready.remove(waiting)
            self._queue.end(lane, waiting, Condition.STOPPED)
            return True
        running = lane.running.get(identity)
        if running is None:
            return self._queue.deliveries.stop(identity)
        running.is_stopped = True
        if running.request is not None:
            self._dispatcher.cancel(running.request)
        return True

    def drop(self, claimed: EventRow) -> None:
        """An event of the store is taken out for good."""
        lane = self._queue.lane(claimed.event.function)
        if claimed.state is EventState.QUEUED and not claimed.due:
            lane.spilled -= 1
        progress = attempts.finished(claimed.progress, Condition.STOPPED, self._clock.wall())
        dropped = EventState.DROPPED
        self._queue.change(self._held(claimed), dropped, replace(progress, owed=()), dropped.word)
        self._queue.pump(lane)

    def _held(self, claimed: EventRow) -> Held:
        now = self._queue.steady.now()
        return Held(claimed.id, claimed.event, claimed.progress, now, now)

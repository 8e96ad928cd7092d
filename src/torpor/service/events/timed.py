"""Events that timers make: taken into the queue for certain, however long the store takes to work again."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from torpor.model.errors import TorporError
from torpor.model.event import Event
from torpor.service.events.queue import EventQueue
from torpor.service.events.writer import Note

log = logging.getLogger(__name__)
_AGAIN = 1.0


class TimedEvents:
    """Between timers and the queue."""

    def __init__(self, queue: EventQueue, loop: asyncio.AbstractEventLoop) -> None:
        self._queue = queue
        self._loop = loop

    def submit(self, events: Sequence[Event], timer: str, planned: float) -> None:
        """Take the events of a timer that goes off; that it has, for this planned time, is kept in the same step."""
        if not events:
            self.keep(timer, planned)
            return
        again = partial(self.submit, events, timer, planned)
        self._queue.intake.accept_together(events, partial(self._done, again, timer), (timer, planned))

    def keep(self, timer: str, moment: float | None) -> None:
        """Keep until when a timer has been looked after; None forgets it."""
        self._queue.writer.submit(Note(timer, moment, timer=True))

    def _done(self, again: Callable[[], None], timer: str, error: TorporError | None) -> None:
        if error is not None:
            log.warning("The timer %s went off but its event is not kept yet: %s", timer, error)
            self._loop.call_later(_AGAIN, again)

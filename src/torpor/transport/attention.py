"""Attention: a moment of looking again after each event, before the event loop goes to sleep.

What follows an event of an invocation (the runtime's next request, the caller's next call) often comes within a tenth
of a millisecond. To fall asleep and be woken costs about as much, on virtual machines more. So the loop stays awake for
a moment, and what can wait is done when the moment is over. A loop that has other work never waits.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable


class Attention:
    """One loop's attention; `moment` is in seconds, and 0 is none at all."""

    __slots__ = ("_awake", "_clock", "_postponed", "_until", "moment")

    def __init__(self, moment: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self.moment = moment
        self._clock = clock
        self._until = 0.0
        self._awake = False
        self._postponed: deque[tuple[float, Callable[[], None]]] = deque()

    def attend(self) -> None:
        """Something has happened: stay awake for what follows."""
        if self.moment:
            self._until = self._clock() + self.moment
            self._wake()

    def afterwards(self, call: Callable[[], None]) -> None:
        """Make this call when a moment has passed; at once if there is none."""
        if not self.moment:
            call()
            return
        self._postponed.append((self._clock() + self.moment, call))
        self._wake()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        """Once in every turn of the loop while it is awake."""
        postponed, now = self._postponed, self._clock()
        self._awake = False
        try:
            while postponed and postponed[0][0] <= now:
                postponed.popleft()[1]()
        finally:
            if postponed or now < self._until:
                os.sched_yield()  # whoever else wants this CPU goes first
                self._wake()

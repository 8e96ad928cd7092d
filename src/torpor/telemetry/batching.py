"""The events that wait for one subscriber: gathered into batches, bounded, given up by whole batches.

Pure: times are monotonic seconds that come in from outside, and nothing is sent from here.
"""

from collections import deque

from torpor.model.telemetry import BufferLimits

WAITING_MAX = 4 * 1024 * 1024
"""Bytes of complete batches that wait for a subscriber, beside the one that is being filled and the one on its way."""
_RECORD_COST = 64
"""Bytes that an event takes in memory beside its own."""


class Batch:
    """Events that are delivered together."""

    __slots__ = ("began", "events", "size")

    def __init__(self, began: float) -> None:
        self.began = began
        self.events: list[bytes] = []
        self.size = 0

    @property
    def cost(self) -> int:
        """Bytes of memory."""
        return self.size + _RECORD_COST * len(self.events)


class Batches:
    """What waits for one subscriber, oldest first. What it cannot take in time is dropped and counted."""

    def __init__(self, limits: BufferLimits, waiting_max: int = WAITING_MAX) -> None:
        self._limits = limits
        self._seconds = limits.seconds
        self._waiting_max = waiting_max
        self._waiting: deque[Batch] = deque()
        self._cost = 0
        self._filling: Batch | None = None
        self._current: Batch | None = None
        self._dropped_count = self._dropped_size = 0

    def add(self, event: bytes, now: float) -> None:
        """Take an event."""
        batch = self._filling
        if batch is None:
            batch = self._filling = Batch(now)
        batch.events.append(event)
        batch.size += len(event)
        if len(batch.events) >= self._limits.items or batch.size >= self._limits.size:
            self._close()

    @property
    def due_at(self) -> float | None:
        """When there will be something to deliver even if nothing more comes; None if never."""
        first = self._current or (self._waiting[0] if self._waiting else None)
        if first is not None:
            return first.began
        return self._filling.began + self._seconds if self._filling is not None else None

    @property
    def is_empty(self) -> bool:
        """Is nothing waiting, and nothing on its way?"""
        return not self._waiting and self._filling is None and self._current is None

    def hurry(self) -> None:
        """From now on no event waits for others."""
        self._seconds = 0.0
        self._close()

    def take(self, now: float) -> list[bytes] | None:
        """The oldest complete batch, which is on its way from now on; None if there is none. The batch that is on its
        way already is told again until `done`."""
        if self._current is None:
            filling = self._filling
            if not self._waiting and filling is not None and filling.began + self._seconds <= now:
                self._close()
            if not self._waiting:
                return None
            self._current = self._waiting.popleft()
            self._cost -= self._current.cost
        return self._current.events

    def done(self) -> None:
        """The batch that was taken has been delivered."""
        self._current = None

    def give_up(self) -> None:
        """The batch that was taken cannot be delivered."""
        if self._current is not None:
            self._drop(self._current)
            self._current = None

    def limit(self, limits: BufferLimits) -> None:
        """From now on gather by these."""
        self._limits = limits
        self._seconds = limits.seconds

    def take_dropped(self) -> tuple[int, int]:
        """How many events, of how many bytes, were dropped since this was last asked."""
        dropped = (self._dropped_count, self._dropped_size)
        self._dropped_count = self._dropped_size = 0
        return dropped

    def put_first(self, event: bytes, now: float) -> None:
        """Deliver an event before all that waits: it tells of what was dropped there."""
        batch = Batch(now)
        batch.events.append(event)
        batch.size = len(event)
        self._waiting.appendleft(batch)
        self._cost += batch.cost

    def _close(self) -> None:
        batch, self._filling = self._filling, None
        if batch is None:
            return
        self._waiting.append(batch)
        self._cost += batch.cost
        while self._cost > self._waiting_max and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            self._cost -= oldest.cost
            self._drop(oldest)

    def _drop(self, batch: Batch) -> None:
        self._dropped_count += len(batch.events)
        self._dropped_size += batch.size

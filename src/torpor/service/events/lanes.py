"""What the queue holds in memory: a lane for every function with events, and the events that are taken up."""

import asyncio
from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from torpor.model.event import Event, Progress
from torpor.scheduling.windows import Window


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


@dataclass(slots=True, eq=False)
class Held:
    """An event that the server has taken up."""

    id: int
    event: Event
    progress: Progress
    born: float
    since: float
    """When it could have begun, by the queue's own time."""
    request: Any = None
    """What the dispatcher has given for it, while it runs."""
    is_stopped: bool = False
    started_at: float = 0.0
    """When it was handed to the dispatcher, by the queue's own time."""
    refusals: int = 0
    """How often in a row the platform has refused it, once for each back-off."""
    backs_off_until: float = 0.0
    """As a monotonic time: refusals before it count no more."""
    counted: int = 0
    """Bytes that it is reckoned with in its lane."""

    @property
    def size(self) -> int:
        """Bytes, about."""
        result = self.progress.result
        return len(self.event.payload) + (len(result.payload) if result is not None else 0) + 512

    @property
    def is_waiting(self) -> bool:
        """Is it with the dispatcher, but in no environment yet?"""
        return self.request is not None and getattr(self.request, "environment", None) is None


@dataclass(slots=True, eq=False)
class Lane:
    """The events of one function."""

    name: str
    ready: deque[Held] = field(default_factory=deque)
    """Those that run next, in the order of their arrival."""
    running: dict[int, Held] = field(default_factory=dict)
    bytes: int = 0
    """Of events in memory."""
    spilled: int = 0
    """Events that could run but are in the store only."""
    later: float | None = None
    """When the first of the others in the store may run, by the queue's own time."""
    later_meanwhile: float | None = None
    """The earliest such time that came up while the store was being asked."""
    expected: int = 0
    """Events that are being kept and then run, or wait behind others in the store."""
    loading: bool = False
    is_pumped: bool = False
    """Are events of it being started right now?"""
    window: Window = field(default_factory=Window)
    finished: int = 0
    """Runs that ended since the last look at the window."""
    retry_at: float = 0.0
    """Before this monotonic time nothing is tried."""
    wake: asyncio.TimerHandle | None = None
    wake_at: float = 0.0
    """When, as a monotonic time."""
    look: asyncio.TimerHandle | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.ready or self.running or self.spilled or self.expected or self.loading) and self.later is None

    @property
    def has_backlog(self) -> bool:
        return bool(self.ready or self.spilled)

    def put_back(self, held: Held) -> None:
        """It is to run again, in its old place."""
        if not self.ready or held.id < self.ready[0].id:
            self.ready.appendleft(held)
            return
        ordered = list(self.ready)
        insort(ordered, held, key=lambda other: other.id)
        self.ready = deque(ordered)

    def note_later(self, due: float) -> None:
        """An event of the store may run at this time."""
        self.later = due if self.later is None else min(self.later, due)
        if self.loading:
            meanwhile = self.later_meanwhile
            self.later_meanwhile = due if meanwhile is None else min(meanwhile, due)

    def loaded(self, later: float | None) -> None:
        """The store has told when the first of the others may run."""
        self.loading = False
        moments = [moment for moment in (later, self.later_meanwhile) if moment is not None]
        self.later = min(moments, default=None)
        self.later_meanwhile = None

    def cancel_timers(self) -> None:
        for timer in (self.wake, self.look):
            if timer is not None:
                timer.cancel()
        self.wake = self.look = None

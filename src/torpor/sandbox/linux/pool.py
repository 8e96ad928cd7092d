"""Prepared sandboxes of one image, made ahead and refilled off the cold path."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.linux.prepared import PreparedSandbox

REFILL_DELAY = 0.15
"""Seconds after the last cold start before new ones are made, so as not to compete with it."""
MOST = 8
"""Never more than this many ahead, however many come at once."""
_RECENT_SECONDS = 10.0

_log = logging.getLogger(__name__)


class PreparedPool:
    """Holds up to `target` prepared sandboxes, more (up to MOST) while many are taken."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[], Awaitable[PreparedSandbox]], target: int
    ) -> None:
        self._loop = loop
        self._make = make
        self._target = target
        self._idle: deque[PreparedSandbox] = deque()
        self._taken: deque[float] = deque(maxlen=MOST)
        self._timer: asyncio.TimerHandle | None = None
        self._filling: asyncio.Task[None] | None = None
        self._closed = False
        self._one_at_a_time = asyncio.Lock()

    def __len__(self) -> int:
        return sum(prepared.is_alive for prepared in self._idle)

    async def take(self) -> PreparedSandbox:
        """One that is ready, else a new one. Raises SandboxUnavailable."""
        self._taken.append(self._loop.time())
        self._schedule_refill()
        while self._idle:
            prepared = self._idle.popleft()
            if prepared.is_alive:
                return prepared
            await prepared.discard()
        return await self._make()

    async def fill(self) -> None:
        """Make as many as are missing now, one after the other."""
        async with self._one_at_a_time:
            while not self._closed and len(self) < self._wanted():
                await self._keep(await self._make())

    async def _keep(self, prepared: PreparedSandbox) -> None:
        if self._closed:
            await prepared.discard()
        else:
            self._idle.append(prepared)

    async def close(self) -> None:
        """Discard all. Idempotent."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._filling is not None:
            self._filling.cancel()
            await asyncio.gather(self._filling, return_exceptions=True)
        while self._idle:
            await self._idle.popleft().discard()

    def _wanted(self) -> int:
        if self._target <= 0:
            return 0
        now = self._loop.time()
        recent = sum(now - moment < _RECENT_SECONDS for moment in self._taken)
        return min(max(self._target, recent), max(MOST, self._target))

    def _schedule_refill(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed and self._target > 0:
            self._timer = self._loop.call_later(REFILL_DELAY, self._refill)

    def _refill(self) -> None:
        self._timer = None
        if self._closed or (self._filling is not None and not self._filling.done()):
            return
        self._filling = self._loop.create_task(self._fill_quietly())

    async def _fill_quietly(self) -> None:
        try:
            await self.fill()
        except SandboxUnavailable as error:
            # The next cold start makes its own and tells its caller if it cannot.
            _log.warning("sandboxes cannot be prepared ahead: %s", error)

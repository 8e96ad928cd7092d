"""Timers: calls at planned times, for as long as the server runs."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import inf

from torpor.model.clock import Clock

_LOG = logging.getLogger(__name__)
_LATEST_LOOK = 30.0
"""Longest sleep in seconds: the wall clock may be set meanwhile."""
_LATE = 60.0
"""Seconds after which planned times that were missed are passed over, except the last one."""

Following = Callable[[float], float]
"""Tells, of a moment in seconds since the epoch, the next planned time after it."""
Fire = Callable[[float], None]
"""Called with the planned time, in seconds since the epoch, once it has come."""


@dataclass(slots=True)
class _Timer:
    following: Following
    fire: Fire
    planned: float


class Timers:
    """Every timer by a name of its own. Belongs to one event loop's thread."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: dict[str, _Timer] = {}
        self._changed = asyncio.Event()

    def put(self, name: str, following: Following, fire: Fire) -> None:
        """Start a timer, or replace the one of that name; its first planned time is the next one from now."""
        self._timers[name] = _Timer(following, fire, following(self._clock.wall()))
        self._changed.set()

    def remove(self, name: str) -> None:
        """Names that are not there are passed over."""
        self._timers.pop(name, None)

    def planned(self, name: str) -> float | None:
        """When it goes off next, in seconds since the epoch; None if there is no such timer."""
        timer = self._timers.get(name)
        return timer.planned if timer is not None else None

    def tick(self) -> float:
        """Fire what is due, in the order in which it was planned; the seconds until the next planned time."""
        now = self._clock.wall()
        while due := [timer for timer in self._timers.values() if timer.planned <= now]:
            self._fire(min(due, key=lambda timer: timer.planned), now)
        upcoming = min((timer.planned for timer in self._timers.values()), default=now + _LATEST_LOOK)
        return min(_LATEST_LOOK, upcoming - now)

    async def run(self, sleep: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Fire timers until cancelled."""
        while True:
            wait = self.tick()
            if sleep is not None:
                await sleep(wait)
                continue
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _fire(self, timer: _Timer, now: float) -> None:
        planned = timer.planned
        try:
            timer.planned = timer.following(planned)
        except Exception:  # the others go on
            _LOG.exception("a timer has no planned time any more")
            timer.planned = inf
        # After a standstill (a suspended machine) only the last of the missed times is made up for.
        if planned < now - _LATE and timer.planned <= now:
            return
        try:
            timer.fire(planned)
        except Exception:
            _LOG.exception("a timer failed")

"""Timers: events at planned times. When each went off last is kept with its event in one step, so that none goes off
twice for the same time, whenever the server ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from torpor.model.clock import Clock
from torpor.scheduling.due import LATE, Following, Missed, passed, to_fire

_LOG = logging.getLogger(__name__)
_LATEST_LOOK = 30.0
"""Longest sleep in seconds: the wall clock may be set meanwhile."""
_SET_BACK = 300.0
"""Seconds by which the clock may go back without anything following from it; a timer just waits for its time."""

Fire = Callable[[float], None]
"""Called with the planned time, in seconds since the epoch, once it has come."""
Keep = Callable[[str, float | None], None]
"""Keeps until when a timer has been looked after; None forgets it."""


@dataclass(slots=True)
class _Timer:
    following: Following
    fire: Fire
    planned: float | None
    is_resumed: bool = False
    """It was kept from an earlier life and has not been looked at since."""


class Timers:
    """Every timer by a name of its own. Belongs to one event loop's thread."""

    def __init__(
        self,
        clock: Clock,
        kept: Mapping[str, float] | None = None,
        keep: Keep = lambda _name, _moment: None,
        missed: Missed = Missed.ONCE,
    ) -> None:
        """`kept` says when timers went off last in an earlier life."""
        self._clock = clock
        self._kept = dict(kept or {})
        self._keep = keep
        self._missed = missed
        self._timers: dict[str, _Timer] = {}
        self._changed = asyncio.Event()
        self._seen = clock.wall()
        self._is_starting = True

    def put(self, name: str, following: Following, fire: Fire) -> None:
        """Start a timer, or replace the one of that name. Its first planned time is the next one from now; when the
        server starts, the next one after that at which it went off last."""
        now = self._clock.wall()
        since = self._kept.get(name) if self._is_starting else None
        is_resumed = since is not None and since <= now + _SET_BACK
        if since is None or not is_resumed:
            since = now
            self._keep(name, now)
        self._timers[name] = _Timer(following, fire, _guarded(following, since), is_resumed)
        self._changed.set()

    def remove(self, name: str) -> None:
        """Names that are not there are passed over."""
        if self._timers.pop(name, None) is not None:
            self._keep(name, None)

    def planned(self, name: str) -> float | None:
        """When it goes off next, in seconds since the epoch; None if there is no such timer, or no such time."""
        timer = self._timers.get(name)
        return timer.planned if timer is not None else None

    def started(self) -> None:
        """All timers of the earlier life are there: what was kept of others is forgotten."""
        self._is_starting = False
        for name in self._kept.keys() - self._timers.keys():
            self._keep(name, None)
        self._kept.clear()

    def tick(self) -> float:
        """Fire what is due, in the order in which it was planned; the seconds until the next planned time."""
        now = self._clock.wall()
        if now < self._seen - _SET_BACK:
            _LOG.warning("The clock was set back; timers go on from the time it shows now.")
            for timer in self._timers.values():
                timer.planned = _guarded(timer.following, now)
        self._seen = now
        for planned, timer in sorted(self._due(now), key=lambda pair: pair[0]):
            self._fire(timer, planned)
        upcoming = [timer.planned for timer in self._timers.values() if timer.planned is not None]
        return min([_LATEST_LOOK, *(planned - now for planned in upcoming)])

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

    def _due(self, now: float) -> list[tuple[float, _Timer]]:
        found: list[tuple[float, _Timer]] = []
        for timer in self._timers.values():
            late_after, timer.is_resumed = 0.0 if timer.is_resumed else LATE, False
            if timer.planned is None or timer.planned > now:
                continue
            times = self._passed(timer, timer.planned, now)
            found += [(planned, timer) for planned in to_fire(times, now, self._missed, late_after)]
        return found

    def _passed(self, timer: _Timer, planned: float, now: float) -> list[float]:
        try:
            times, timer.planned = passed(timer.following, planned, now)
        except Exception:  # the others go on
            _LOG.exception("a timer has no planned time any more")
            times, timer.planned = [planned], None
        return times

    def _fire(self, timer: _Timer, planned: float) -> None:
        try:
            timer.fire(planned)
        except Exception:
            _LOG.exception("a timer failed")


def _guarded(following: Following, moment: float) -> float | None:
    try:
        return following(moment)
    except Exception:
        _LOG.exception("a timer has no planned time")
        return None

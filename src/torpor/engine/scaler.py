"""Keeps environments up that no invocation has asked for: a version's minimum, and what its load calls for."""

import logging

from torpor.engine.environment import Environment
from torpor.engine.fleet import STEADY
from torpor.engine.groups import Group
from torpor.engine.pool import Pool
from torpor.model.clock import Clock
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion, Key
from torpor.scheduling import Load, retry_pause, wanted

log = logging.getLogger(__name__)
_KEPT_FOR = 60.0
"""Seconds an environment beyond the minimum is kept without work where the contract says nothing."""
_GIVEN_UP_AFTER = 3
"""Starts that failed in a row after which a version that never was up counts as failed."""


class Scaler:
    """Call `tick` a few times a second; all else happens by itself."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._up: set[Key] = set()
        """Versions whose minimum was reached once."""

    def keep(self, version: FunctionVersion) -> None:
        """From now on the version's environments are kept up; called again when its bounds change."""
        self._adjust(self._pool.keep(version))

    def forget(self, version: FunctionVersion) -> None:
        """The version is gone; its environments are the pool's to end."""
        self._up.discard(version.key)

    def tick(self) -> None:
        """Start what is missing, end what is too much."""
        for group in self._pool.kept:
            self._adjust(group)

    def state(self, version: FunctionVersion) -> tuple[bool, str]:
        """Is the version's minimum up, or was it once? If not, why its starts fail; empty while they go on."""
        group = self._pool.group(version.key)
        if version.key in self._up:
            return True, ""
        if group is None:
            return version.minimum == 0, ""
        self._note_up(group)
        failed = group.failures >= _GIVEN_UP_AFTER
        return version.key in self._up, group.reason if failed else ""

    def _adjust(self, group: Group) -> None:
        self._note_failures(group)
        self._note_up(group)
        load = self._load(group)
        missing = wanted(group.scaling, load) - load.environments
        group.refused = False
        if missing > 0 and self._clock.monotonic() >= group.retry_at:
            self._start(group, missing)
        elif missing < 0:
            self._end_idle(group, -missing)

    def _start(self, group: Group, number: int) -> None:
        try:
            for _ in range(number):
                group.starved = self._pool.start(group) is None
                if group.starved:
                    self._postpone(group, _no_memory(group))
                    return
        except TorporError as error:
            self._postpone(group, str(error))

    def _note_failures(self, group: Group) -> None:
        """Environments that ended before they were ready count against the next start, and so does want of memory while
        there are fewer than there must be."""
        if group.failed_starts:
            group.failed_starts = 0
            self._postpone(group, group.reason)
        elif len(group.active) >= group.scaling.minimum and any(
            self._is_steady(environment) for environment in group.active
        ):
            group.failures = 0

    def _is_steady(self, environment: Environment) -> bool:
        """Being up for a moment proves nothing: some end again before anybody asks anything of them."""
        served = environment.invocations or self._clock.monotonic() - environment.created >= STEADY
        return bool(served) and environment.is_up

    def _postpone(self, group: Group, reason: str) -> None:
        group.failures += 1
        group.reason = reason
        group.retry_at = self._clock.monotonic() + retry_pause(group.failures)
        if group.failures == _GIVEN_UP_AFTER:
            log.warning("environments of %s cannot be kept up: %s", group.version.function, reason)

    def _note_up(self, group: Group) -> None:
        ready = sum(environment.is_up for environment in group.active)
        if ready >= group.scaling.minimum:
            self._up.add(group.version.key)

    def _load(self, group: Group) -> Load:
        now = self._clock.monotonic()
        chosen = group.scaling.idle_timeout
        timeout = _KEPT_FOR if chosen is None else chosen
        active = group.active
        return Load(
            environments=len(active),
            slots=group.version.concurrency,
            busy=sum(environment.running for environment in active),
            refused=group.refused,
            idle_long=sum(env.is_up and not env.is_busy and now - env.last_used > timeout for env in active),
        )

    def _end_idle(self, group: Group, number: int) -> None:
        idle = [environment for environment in group.active if not environment.is_busy]
        for environment in sorted(idle, key=lambda env: env.last_used)[:number]:
            self._pool.end(environment)


def _no_memory(group: Group) -> str:
    each, there, least = group.version.memory_mb, len(group.active), group.scaling.minimum
    return (
        f"No memory is free for another environment of {each} MB: there are {there}, and {least} have to be kept up. "
        "Keep up fewer, make them smaller, or give the server a larger memory budget."
    )

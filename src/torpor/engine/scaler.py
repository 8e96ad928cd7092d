"""Keeps environments up that no invocation has asked for: a version's minimum, and what its load calls for."""

import logging

from torpor.engine.environment import Environment
from torpor.engine.fleet import STEADY
from torpor.engine.groups import Group
from torpor.engine.pool import Pool
from torpor.model.clock import Clock
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion, Key
from torpor.model.provision import Standing
from torpor.scheduling import Apart, Load, retry_pause, steps, wanted

log = logging.getLogger(__name__)
_KEPT_FOR = 60.0
"""Seconds an environment beyond the minimum is kept without work where the contract says nothing."""
_GIVEN_UP_AFTER = 3
"""Starts that failed in a row after which a version that never was up counts as failed."""
_AT_ONCE = 16
"""Environments of a version kept apart that start together at most: invocations need the host too."""


class Scaler:
    """Call `tick` a few times a second; all else happens by itself."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock
        self._up: set[Key] = set()
        """Versions whose minimum was reached once."""

    def keep(self, version: FunctionVersion) -> None:
        """From now on the version's environments are kept up; called again when its bounds change: what failed before
        is tried again at once."""
        group = self._pool.keep(version)
        group.failures, group.overran, group.starved, group.retry_at = 0, False, False, 0.0
        self._adjust(group)

    def release(self, version: FunctionVersion) -> None:
        """Nothing of the version has to be up any more; its other bounds may be new."""
        self._pool.release(version)
        self.forget(version)

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
        return version.key in self._up, group.reason if _is_given_up(group) else ""

    def standing(self, version: FunctionVersion) -> Standing:
        """How many of a version's minimum are up, and what becomes of the others."""
        group = self._pool.group(version.key)
        if group is None or not group.kept:
            return Standing()
        up = sum(environment.is_up for environment in group.standing)
        lacking = up < group.scaling.minimum
        reason = group.reason if lacking and group.starved else ""
        return Standing(up=up, failed=lacking and _is_given_up(group), reason=reason)

    def _adjust(self, group: Group) -> None:
        self._note_failures(group)
        self._note_up(group)
        if group.is_apart:
            self._keep_apart(group)
            return
        load = self._load(group)
        missing = wanted(group.scaling, load) - load.environments
        group.refused = False
        if missing > 0:
            self._start(group, missing)
        elif missing < 0:
            self._end_idle(group, -missing)

    def _keep_apart(self, group: Group) -> None:
        """Exactly the minimum, replaced one by one when they are old."""
        standing = group.standing
        aged = [environment for environment in standing if environment.is_up and self._pool.is_old(environment)]
        fresh = [environment for environment in standing if environment not in aged]
        up = sum(environment.is_up for environment in fresh)
        apart = Apart(up=up, starting=len(fresh) - up, aged=len(aged))
        todo = steps(group.scaling.minimum, apart)
        for surplus, number in ((aged, todo.replace), (fresh, todo.end)):
            surplus.sort(key=_use)
            for environment in surplus[:number]:
                self._pool.dismiss(environment)
        if todo.start:
            self._start(group, min(todo.start, _AT_ONCE - apart.starting))

    def _start(self, group: Group, number: int) -> None:
        if self._clock.monotonic() < group.retry_at:
            return
        try:
            for _ in range(number):
                group.starved = self._pool.start(group, group.scaling.kept_as) is None
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
            return
        up = [environment for environment in group.standing if environment.is_up]
        if len(up) >= group.scaling.minimum and any(map(self._is_steady, up)):
            group.failures, group.overran = 0, False

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
        ready = sum(environment.is_up for environment in group.standing)
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


def _use(environment: Environment) -> tuple[bool, bool, float]:
    """Those that are missed least come first: not up yet, then idle, then least recently used."""
    return environment.is_up, environment.is_busy, environment.last_used


def _is_given_up(group: Group) -> bool:
    """Has a start failed so often, or for as long as a start may take?"""
    return group.failures >= _GIVEN_UP_AFTER or (group.overran and group.failures > 0)


def _no_memory(group: Group) -> str:
    each, there, least = group.version.memory_mb, len(group.standing), group.scaling.minimum
    return (
        f"No memory is free for another environment of {each} MB: there are {there}, and {least} have to be kept up. "
        "Keep up fewer, make them smaller, or give the server a larger memory budget."
    )

"""The memory of the host as environments take and give it back."""

from collections.abc import Callable, Iterable

from torpor.engine.environment import Environment
from torpor.lifecycle import PhaseName
from torpor.scheduling import MemoryView, make_room

_MIB = 1024 * 1024


class MemoryBudget:
    """Charges environments; the sum of all charges never exceeds `total_mb`."""

    def __init__(
        self, total_mb: int, idle: Callable[[], Iterable[Environment]], end: Callable[[Environment], None]
    ) -> None:
        self._total_mb = total_mb
        self._idle = idle
        self._end = end
        self.charged_mb = 0

    def admit(self, environment: Environment | None, needed_mb: int) -> bool:
        """Is there room for all of an environment's memory (a new one if None)? Idle ones make room if need be."""
        missing = needed_mb - (environment.charged_mb if environment is not None else 0)
        return missing <= self._total_mb - self.charged_mb or self._make_room(missing, environment)

    def charge(self, environment: Environment, size_mb: int) -> None:
        """From now on the environment counts as `size_mb`."""
        self.charged_mb += size_mb - environment.charged_mb
        environment.charged_mb = size_mb

    def _make_room(self, needed_mb: int, sparing: Environment | None) -> bool:
        idle = {env.id: env for env in self._idle() if env is not sparing}
        for environment in idle.values():
            if environment.phase is PhaseName.IDLE:  # since a moment only: it counts in full until it is frozen
                environment.rest()
        views = (
            MemoryView(id=env.id, charged=env.charged_mb, used=_used_mb(env), last_used=env.last_used)
            for env in idle.values()
        )
        room = make_room(needed_mb, self._total_mb - self.charged_mb, views)
        if not room.enough:
            return False
        for identity in room.shrink:
            self.charge(idle[identity], _used_mb(idle[identity]))
        for identity in room.end:
            self.charge(idle[identity], 0)
            self._end(idle[identity])
        return True


def _used_mb(environment: Environment) -> int:
    """What an idle environment really occupies; all of its charge where the host cannot tell, or it may still grow."""
    used = environment.statistics().memory_bytes
    if used is None or environment.phase is PhaseName.IDLE:
        return environment.charged_mb
    return min(-(-used // _MIB), environment.charged_mb)

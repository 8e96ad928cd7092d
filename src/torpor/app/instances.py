"""The running environments as an API lists them."""

from collections.abc import Mapping
from typing import Any

from torpor.engine.pool import Pool
from torpor.lifecycle import PhaseName
from torpor.model.clock import Clock


class Instances:
    """Reads the pool."""

    def __init__(self, pool: Pool, clock: Clock) -> None:
        self._pool = pool
        self._clock = clock

    def of(self, function: str) -> list[Mapping[str, Any]]:
        """`id`, `version`, `revision` and `created` (seconds since the epoch) of each that serves the function."""
        behind = self._clock.wall() - self._clock.monotonic()
        return [
            {
                "id": environment.log_stream,
                "version": environment.version.version,
                "revision": environment.version.revision,
                "created": environment.created + behind,
            }
            for environment in self._pool.environments()
            if environment.version.function == function and environment.phase is not PhaseName.GONE
        ]

"""Handover: a version that is kept up goes on serving until the one that replaces it is up."""

from torpor.engine.pool import Pool
from torpor.engine.scaler import Scaler
from torpor.model.function import FunctionVersion, Key


class Handover:
    """Call `tick` a few times a second, after the scaler's. A successor that does not start changes nothing but what is
    told of it: it is tried again, as the scaler does, and takes over once it is up."""

    def __init__(self, pool: Pool, scaler: Scaler) -> None:
        self._pool = pool
        self._scaler = scaler
        self._serving: dict[Key, FunctionVersion] = {}
        """What still serves in the place of its successor, by the successor's key."""

    def in_force(self, version: FunctionVersion) -> FunctionVersion:
        """The version that serves what is asked of this one."""
        if not self._serving:
            return version
        old = self._serving.get(version.key)
        return version if old is None or self._takes_over(version.key) else old

    def replace(self, old: FunctionVersion, new: FunctionVersion) -> None:
        """The scaler keeps `new` up; what serves in the place of `old`, or `old` itself, goes on till then."""
        present = self.in_force(old)
        before = self._serving.pop(old.key, None)
        if before is not None:
            self._end(before if present is old else old)
        if self._is_up(present.key):
            self._serving[new.key] = present
        else:
            self._end(present)

    def forget(self, version: FunctionVersion) -> None:
        """It is deleted, and with it whatever serves in its place."""
        serving = self._serving.pop(version.key, None)
        for gone in (version, serving):
            if gone is not None:
                self._end(gone)

    def tick(self) -> None:
        """Let successors take over that are up, and those that have no memory as long as the other one has it."""
        for key, old in list(self._serving.items()):
            if self._takes_over(key):
                del self._serving[key]
                self._end(old)

    def _takes_over(self, key: Key) -> bool:
        group = self._pool.group(key)
        return group is None or group.starved or self._is_up(key)

    def _is_up(self, key: Key) -> bool:
        group = self._pool.group(key)
        return group is not None and any(environment.is_up for environment in group.active)

    def _end(self, version: FunctionVersion) -> None:
        self._pool.retire(version)
        self._scaler.forget(version)

"""Every environment of a server, by version: made within the memory budget, kept, ended, forgotten."""

import asyncio
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torpor.engine.budget import MemoryBudget
from torpor.engine.contract import Contract
from torpor.engine.environment import Environment, Owner
from torpor.engine.groups import Group
from torpor.engine.surroundings import Surroundings
from torpor.model.function import FunctionVersion, Key
from torpor.model.start import Start
from torpor.sandbox.images import ImageCatalog
from torpor.scheduling import IdleView, overdue

STEADY = 10.0
"""Seconds that an environment nobody has asked anything of must last, or its start counts as failed."""
_GONE_EARLY = "Its environments end by themselves soon after they have started."


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """The pool's slice of the settings. Times in seconds, sizes in MiB."""

    account_concurrency: int
    memory_budget_mb: int
    memory_wait: float
    idle_timeout: float
    max_age: float


class Fleet:
    """Knows the versions that have environments, or whose requests wait for one."""

    def __init__(
        self,
        around: Surroundings,
        contracts: Mapping[str, Contract],
        images: ImageCatalog,
        limits: PoolLimits,
        owner: Owner,
    ) -> None:
        self._around = around
        self._contracts = contracts
        self._images = images
        self._limits = limits
        self._owner = owner
        self._tasks: set[asyncio.Task[None]] = set()
        self.groups: dict[Key, Group] = {}
        self.memory = MemoryBudget(limits.memory_budget_mb, self._spare, self.end)

    def group(self, version: FunctionVersion) -> Group:
        """What is kept of a version; a fresh one is kept only once it is entered in `groups`."""
        return self.groups.get(version.key) or Group(version, self._contracts[version.contract].scaling(version))

    def keep(self, version: FunctionVersion) -> Group:
        """From now on environments of this version are kept up; the scaler says how many."""
        group = self.groups[version.key] = self.group(version)
        group.version = version
        group.scaling = self._contracts[version.contract].scaling(version)
        group.kept = True
        return group

    def release(self, version: FunctionVersion) -> None:
        """Nothing of this version is kept up any more, and its other bounds may be new. What was kept as a set of its
        own ends, once it is free."""
        group = self.groups.get(version.key)
        if group is None:
            return
        if group.is_apart:
            for environment in group.standing:
                self.dismiss(environment)
        group.version, group.kept = version, False
        group.scaling = self._contracts[version.contract].scaling(version)
        self.forget_group(group.key)

    def environments(self) -> list[Environment]:
        """Every living environment."""
        return [env for group in self.groups.values() for env in group.members.values()]

    def vacancy(self, group: Group) -> Environment | None:
        """An environment with room, and all of its memory; None if there is none."""
        environment = group.vacancy()
        if environment is None:
            return None
        needed = environment.version.memory_mb
        if environment.charged_mb < needed:
            if not self.memory.admit(environment, needed):
                return None
            self.memory.charge(environment, needed)
        return environment

    def start(self, group: Group, start: Start | None = None) -> Environment | None:
        """Start one; None if there is no memory. Raises RuntimeMissing."""
        version = group.version
        if not self.memory.admit(None, version.memory_mb):
            return None
        contract = self._contracts[version.contract]
        image = self._images.resolve(contract.image(version.runtime))
        environment = Environment(
            uuid.uuid4().hex, version, contract, image, self._around, self._owner, start or group.scaling.starts_as
        )
        self.memory.charge(environment, version.memory_mb)
        group.members[environment.id] = environment
        task = self._around.loop.create_task(environment.provision())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return environment

    def together(self, group: Group) -> int:
        """Environments of all versions under the group's contract; idle ones of others end if that makes room."""
        limit = group.scaling.together
        if limit is None:
            return 0
        others = [other for other in self.groups.values() if other.version.contract == group.version.contract]
        present = [env for other in others for env in other.members.values() if env.is_busy or not env.retired]
        excess = len(present) - limit + 1
        if excess > 0:
            idle = [env for other in others if other is not group for env in other.spare]
            for environment in sorted(idle, key=lambda env: env.last_used)[:excess]:
                self.end(environment)
                present.remove(environment)
        return len(present)

    def end(self, environment: Environment) -> None:
        """End an environment that is not needed."""
        environment.retired = True
        self.groups[environment.key].unlist(environment)
        environment.stop("spindown")

    def dismiss(self, environment: Environment) -> None:
        """As `end`, but what runs in it may finish."""
        if environment.is_busy:
            environment.retired = True
            self.groups[environment.key].unlist(environment)
        else:
            self.end(environment)

    def retire(self, group: Group) -> None:
        """Its version is replaced or deleted: idle environments end now, busy ones after their invocation."""
        group.kept, group.retired_at = False, self._around.clock.monotonic()
        for environment in list(group.members.values()):
            self.dismiss(environment)
        self.forget_group(group.key)

    def reclaim(self) -> None:
        """End environments that have idled or lived long enough, or are of no use. Call it about once a second.

        What is kept up goes by load instead."""
        now = self._around.clock.monotonic()
        for group in list(self.groups.values()):
            timeout = group.scaling.idle_timeout
            limit = self._limits.idle_timeout if timeout is None else timeout
            members = list(group.members.values())
            idle = {env.id: env for env in members if env.is_idle and not (group.keeps(env) and env.takes_work)}
            views = [IdleView(id=env.id, created=env.created, last_used=env.last_used) for env in idle.values()]
            for identity in overdue(views, now, idle_timeout=limit, max_age=self._limits.max_age):
                self.end(idle[identity])
            for environment in members:
                if not group.keeps(environment) and self.is_old(environment):
                    environment.retired = True
                if environment.retired and not environment.is_busy and not environment.is_leaving:
                    self.end(environment)
            if _has_outstayed(group, now):
                for environment in members:
                    environment.stop("spindown")

    def forget(self, environment: Environment) -> None:
        """It has ended."""
        group = self.groups.get(environment.key)
        if group is not None and group.members.pop(environment.id, None) is not None:
            if self._has_failed(environment):
                group.failed_starts += 1
                group.overran = environment.overran
                group.reason = environment.failure or _GONE_EARLY
            group.settling.discard(environment)
            group.unlist(environment)
            self.forget_group(environment.key)
        self.memory.charge(environment, 0)

    def forget_group(self, key: Key) -> None:
        """Unless something is left of it."""
        group = self.groups.get(key)
        if group is not None and group.is_empty:
            del self.groups[key]

    def is_old(self, environment: Environment) -> bool:
        """Has it lived for as long as an environment may?"""
        return self._around.clock.monotonic() - environment.created >= self._limits.max_age

    async def end_all(self, within: float) -> bool:
        """End every environment; False if some are left after so many seconds."""
        environments = self.environments()
        for environment in environments:
            environment.stop("spindown")
        ends = asyncio.gather(
            *(environment.ended() for environment in environments), *self._tasks, return_exceptions=True
        )
        try:
            await asyncio.wait_for(ends, within)
        except TimeoutError:
            return False
        return True

    def _has_failed(self, environment: Environment) -> bool:
        """Has it ended by itself before it was of any use?"""
        if environment.retired:
            return False
        lived = self._around.clock.monotonic() - environment.created
        return not environment.was_ready or (not environment.invocations and lived < STEADY)

    def _spare(self) -> Iterable[Environment]:
        """Those that may end for want of memory."""
        return (environment for group in self.groups.values() for environment in group.spare)


def _has_outstayed(group: Group, now: float) -> bool:
    """Was its version replaced so long ago that nothing of it may run any more?"""
    limit = group.scaling.leave_limit
    return limit is not None and group.retired_at is not None and now - group.retired_at >= limit

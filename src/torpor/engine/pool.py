"""All environments of a server: who gets which, within concurrency and memory.

The pool keeps counts and lists; every choice is made by a pure function of `torpor.scheduling`. One thread, no awaits
while choosing: an environment is never reclaimed and assigned at once.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torpor.engine.aside import SetAside, place_aside
from torpor.engine.contract import Contract
from torpor.engine.environment import Environment
from torpor.engine.fleet import Fleet, PoolLimits
from torpor.engine.groups import Done, Group, Request
from torpor.engine.lines import Lines
from torpor.engine.surroundings import Surroundings
from torpor.lifecycle import PhaseName
from torpor.model.errors import CallerGone, NoMemory, ShuttingDown, Throttled, TorporError
from torpor.model.function import CodeRef, FunctionVersion, Key
from torpor.model.invocation import Invocation, Outcome
from torpor.model.start import Start
from torpor.sandbox.images import ImageCatalog
from torpor.scheduling import Placement, ThrottleReason, overflow, place

__all__ = ["Pool", "PoolLimits", "PoolStatistics"]
log = logging.getLogger(__name__)
_REFUSALS = {
    Placement.REFUSE_ACCOUNT: ThrottleReason.ACCOUNT,
    Placement.REFUSE_RESERVED: ThrottleReason.RESERVED,
}
_ENDS_WITHIN = 30.0
"""Seconds for environments that were told to stop; their own time limits are far shorter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """A reading of the pool."""

    environments: int
    running: int
    waiting: int
    queued: int
    charged_mb: int


class Pool:
    """Places invocations, owns environments."""

    def __init__(
        self,
        around: Surroundings,
        contracts: Mapping[str, Contract],
        images: ImageCatalog,
        limits: PoolLimits,
        reservations: Callable[[], int],
    ) -> None:
        self._around = around
        self._account = limits.account_concurrency
        self._reservations = reservations
        self._fleet = Fleet(around, contracts, images, limits, self)
        self._groups = self._fleet.groups
        self._running: dict[str, int] = {}
        self._unreserved = 0
        self._aside = SetAside()
        self._lines = Lines(around.loop, limits.memory_wait, self._give_up, self._place_elsewhere)
        self._closing = False
        self._hurried = False

    # -- invocations --------------------------------------------------------------------------------------------------

    def submit(
        self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done
    ) -> Request | None:
        """Run an invocation; `done` is called once, with its outcome or with Throttled or ShuttingDown.

        The result is for `cancel`; None if it was refused at once."""
        if self._closing:
            done(ShuttingDown("The server is shutting down; send the request again in a moment."))
            return None
        key = version.key
        group = self._groups.get(key) or self._fleet.group(version)
        running = self._running.get(version.function, 0)
        decision = place_aside(group) if group.is_apart else None
        if decision is None:
            aside = self._aside
            decision = place(
                function_running=running - aside.running(version.function) if aside.numbers else running,
                unreserved_running=self._unreserved,
                reserved=aside.left(version.function, reserved) if aside.numbers else reserved,
                total_reserved=self._reservations() if group.scaling.counted else 0,
                account=self._account,
                free_environments=len(group.free),
                settling_slots=group.settling_slots if group.settling else 0,
                counted=group.scaling.counted,
            )
        if decision is Placement.REFUSE_ACCOUNT or decision is Placement.REFUSE_RESERVED:
            done(Throttled("Rate Exceeded.", reason=_REFUSALS[decision]))
            return None
        self._groups[key] = group
        self._running[version.function] = running + 1
        counted = reserved is None and group.scaling.counted
        self._unreserved += counted
        request = Request(version, invocation, not counted, done)
        if decision is Placement.REUSE and self._reuse(group, request):
            return request
        if decision is Placement.AWAIT:
            self._lines.for_room(group, request)
        else:
            self._place_elsewhere(group, request)
        return request

    def cancel(self, request: Request) -> None:
        """The caller has gone: whoever still waits for an environment waits no more, what runs is the contract's to
        end or to let go on."""
        if request.environment is not None:
            request.environment.cancel(request.invocation.id)
        elif request.line is not None:
            self._give_up(request, CallerGone("The caller went away before an environment was free."))

    def _place_elsewhere(self, group: Group, request: Request) -> None:
        """No environment has room: start one, wait for a turn, or be refused."""
        decision = self._overflow(group, patient=request.invocation.patient)
        if decision is Placement.START:
            if self._lines.memory or not self._start(group, request):
                self._await_memory(request)
        elif decision is Placement.QUEUE:
            self._lines.for_turn(group, request)
        else:
            group.refused = True
            message = "All environments are busy, and no more may be started; send the request again later."
            self._refuse(request, Throttled(message, reason=ThrottleReason.ACCOUNT))

    def _await_memory(self, request: Request) -> None:
        if request.invocation.is_kept:
            message = f"There is no memory for an environment of {request.version.memory_mb} MB now."
            self._refuse(request, NoMemory(message, reason=ThrottleReason.ACCOUNT))
        else:
            self._lines.for_memory(request)

    def _overflow(self, group: Group, *, patient: bool) -> Placement:
        return overflow(
            group.scaling, environments=len(group.active), together=self._fleet.together(group), patient=patient
        )

    def _reuse(self, group: Group, request: Request) -> bool:
        """Give the request an environment with room; False if there is none."""
        environment = self._fleet.vacancy(group)
        if environment is None:
            return False
        self._assign(group, environment, request)
        return True

    def _start(self, group: Group, request: Request) -> bool:
        """Give the request an environment with room or a new one; False if there is no memory for either."""
        if self._reuse(group, request):
            return True
        try:
            environment = self._fleet.start(group)
        except TorporError as error:  # the interpreter was here when the function was made
            self._refuse(request, error)
            return True
        if environment is None:
            return False
        environment.retired = request.outdated
        self._assign(group, environment, request)
        if environment.free_slots:
            self.settled(environment)
        return True

    def _assign(self, group: Group, environment: Environment, request: Request) -> None:
        if request.line is not None:  # out of it before it runs: an answer may come back through here at once
            self._lines.leave(request)
        if environment.listed and environment.free_slots == 1:
            group.unlist(environment)
        request.environment = environment
        if group.is_apart and self._aside.begin(group, environment, request):
            self._unreserved -= not request.reserved
            request.reserved = True
        environment.assign(request.invocation, partial(self._answered, environment, request))

    def _answered(self, environment: Environment, request: Request, outcome: Outcome) -> None:
        if environment.settles and environment.settling_slots:
            group = self._groups.get(environment.key)
            if group is not None:
                group.settling.add(environment)
        self._finished(request, outcome)

    def _finished(self, request: Request, outcome: Outcome | TorporError) -> None:
        function = request.version.function
        left = self._running[function] - 1
        if left:
            self._running[function] = left
        else:
            del self._running[function]
        self._unreserved -= not request.reserved
        if request.set_aside:
            self._aside.end(function)
        request.done(outcome)

    def _refuse(self, request: Request, error: TorporError) -> None:
        """End a request that no environment has taken."""
        self._lines.leave(request)
        self._finished(request, error)
        self._fleet.forget_group(request.version.key)

    def _give_up(self, request: Request, error: TorporError) -> None:
        """End a request that has waited; those behind it may have what it was waiting for."""
        held_up = request.line is self._lines.memory
        self._refuse(request, error)
        if held_up:
            self._serve_lines()

    # -- lines --------------------------------------------------------------------------------------------------------

    def _serve_lines(self) -> None:
        """An environment has ended, or who waited first has left: whoever waits may have what that leaves."""
        self._serve_memory()
        if not self._lines.memory and self._lines.queued:
            self._serve_queues()

    def _serve_memory(self) -> None:
        """In order; the first that still does not fit holds back the rest."""
        while self._lines.memory:
            request = self._lines.memory[0]
            group = self._groups[request.version.key] = self._fleet.group(request.version)
            if self._reuse(group, request):
                continue
            if self._overflow(group, patient=True) is not Placement.START:  # others have started enough meanwhile
                self._lines.leave(request)
                self._place_elsewhere(group, request)
            elif not self._start(group, request):
                return

    def _serve_queues(self) -> None:
        """Whoever waits for leave to start an environment may have it now, in order of arrival."""
        open_ones = [group for group in self._groups.values() if group.queue]
        while open_ones and not self._lines.memory:
            group = min(open_ones, key=lambda group: group.queue[0].turn or 0)
            request = group.queue[0]
            if self._overflow(group, patient=True) is not Placement.START:
                if not self._reuse(group, request):
                    open_ones.remove(group)
            elif not self._start(group, request):
                self._lines.leave(request)
                self._await_memory(request)
            open_ones = [group for group in open_ones if group.queue]

    def _use_room(self, group: Group) -> None:
        for line in (group.waiting, group.queue):
            while line and self._reuse(group, line[0]):
                pass
        if self._lines.memory:
            self._serve_memory()

    # -- environments ------------------------------------------------------------------------------------------------

    @property
    def is_awaited(self) -> bool:
        """Does a request wait for memory or for its turn?"""
        return bool(self._lines.queued or self._lines.memory)

    def settled(self, environment: Environment) -> None:
        """An environment has room, or has ended: give it work, keep it, or forget it."""
        group = self._groups.get(environment.key)
        if group is None or environment.phase is PhaseName.GONE:
            self._fleet.forget(environment)
            self._serve_lines()
            return
        if not environment.returning_slots:
            group.settling.discard(environment)
        if not group.keeps(environment) and self._fleet.is_old(environment):
            environment.retired = True
        if environment.retired:
            group.unlist(environment)
            if not environment.is_busy:
                self._fleet.end(environment)
            return
        group.list(environment)
        if group.waiting or group.queue or self._lines.memory:
            self._use_room(group)
        if self._lines.queued and not environment.is_busy:
            self._serve_queues()  # whoever waits for leave to start may have its place
        if environment.phase is PhaseName.IDLE and not environment.is_busy:
            self._around.attention.afterwards(partial(_rest, environment, environment.invocations))

    def retire(self, version: FunctionVersion) -> None:
        """A version is replaced or deleted: idle environments end now, busy ones after their invocation."""
        for request in self._lines.all(self._groups.values()):
            request.outdated = request.outdated or request.version.is_of(version)
        for group in self._groups_of(version):
            self._retire(group)

    def _groups_of(self, version: FunctionVersion) -> list[Group]:
        """Of one version, every tenant's."""
        if version.per_tenant:
            return [group for group in self._groups.values() if group.version.is_of(version)]
        group = self._groups.get(version.key)
        return [] if group is None else [group]

    def _retire(self, group: Group) -> None:
        if not group.scaling.on_demand:  # nothing is started for them any more
            for request in (*group.waiting, *group.queue):
                message = "The version was replaced or deleted; send the request again."
                self._refuse(request, Throttled(message, reason=ThrottleReason.ACCOUNT, retry_after=1.0))
        self._fleet.retire(group)
        self._aside.count(self._groups.values())

    def environments(self) -> list[Environment]:
        """Every living environment."""
        return self._fleet.environments()

    def code_in_use(self) -> list[CodeRef]:
        """The packages that living environments show, or that requests wait for."""
        waiting = self._lines.all(self._groups.values())
        kept = (group.version for group in self._groups.values() if group.kept)
        versions = [*(env.version for env in self.environments()), *(request.version for request in waiting), *kept]
        return [code for version in versions for code in (version.code, *version.layers)]

    @property
    def kept(self) -> list[Group]:
        """The groups of versions that are kept up; none any more once the server drains."""
        return [] if self._closing else [group for group in self._groups.values() if group.kept]

    def keep(self, version: FunctionVersion) -> Group:
        """From now on environments of this version are kept up; the scaler says how many."""
        group = self._fleet.keep(version)
        self._aside.count(self._groups.values())
        return group

    def release(self, version: FunctionVersion) -> None:
        """Nothing of this version is kept up any more; its other bounds may be new."""
        self._fleet.release(version)
        self._aside.count(self._groups.values())

    def start_ahead(self, version: FunctionVersion, number: int) -> None:
        """Start so many environments on demand before anything is asked of a version, as far as there is memory."""
        group = self._groups[version.key] = self._fleet.group(version)
        for _ in range(number):
            try:
                if self.start(group) is None:
                    break
            except TorporError as error:  # whoever invokes it is told
                log.warning("no environment of %s is made ahead: %s", version.function, error)
                break
        self._fleet.forget_group(version.key)

    def group(self, key: Key) -> Group | None:
        """What is known of a version; None if it has no environment and nobody waits for one."""
        return self._groups.get(key)

    @property
    def draining(self) -> bool:
        """Are new invocations refused because the server ends?"""
        return self._closing

    def start_saved(self, version: FunctionVersion) -> Environment | None:
        """Start an environment that is to be saved; None if there is no memory. Raises RuntimeMissing."""
        if self._closing:
            return None
        group = self._groups[version.key] = self._fleet.group(version)
        return self._fleet.start(group, Start.SAVED)

    def start(self, group: Group, start: Start = Start.ON_DEMAND) -> Environment | None:
        """Start an environment without a request; None if there is no memory. Raises RuntimeMissing."""
        environment = None if self._closing else self._fleet.start(group, start)
        if environment is not None and environment.free_slots:
            self.settled(environment)  # requests may wait in it rather than start more
        return environment

    def end(self, environment: Environment) -> None:
        """End an environment that is not needed."""
        self._fleet.end(environment)

    def dismiss(self, environment: Environment) -> None:
        """As `end`, but what runs in it may finish."""
        self._fleet.dismiss(environment)

    def is_old(self, environment: Environment) -> bool:
        """Has it lived for as long as an environment may?"""
        return self._fleet.is_old(environment)

    def reclaim(self) -> None:
        """See the fleet's."""
        self._fleet.reclaim()

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            environments=len(self.environments()),
            running=sum(self._running.values()),
            waiting=len(self._lines.memory),
            queued=self._lines.queued,
            charged_mb=self._fleet.memory.charged_mb,
        )

    # -- end ---------------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Refuse new invocations, let running ones finish for `timeout` seconds, then end every environment."""
        self._closing = True
        deadline = self._around.clock.monotonic() + timeout
        while self._is_working() and not self._hurried and self._around.clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._refuse_waiting()
        if not await self._fleet.end_all(_ENDS_WITHIN):
            log.error("%d environments did not end in time and are left to their keepers", len(self.environments()))

    def hurry(self) -> None:
        """Let `drain` wait for nothing more."""
        self._hurried = True

    def _refuse_waiting(self) -> None:
        for request in self._lines.all(self._groups.values()):
            self._refuse(request, ShuttingDown("The server shut down before the invocation could start."))

    def _is_working(self) -> bool:
        """Does an invocation wait or run, or does an extension still work on an answered one?"""
        return bool(self._running) or any(environment.is_busy for environment in self.environments())


def _rest(environment: Environment, invocations: int) -> None:
    """It became idle a moment ago, after so many invocations: if it has been so since, nothing is pending for it."""
    if environment.invocations == invocations and environment.phase is PhaseName.IDLE and not environment.is_busy:
        environment.rest()

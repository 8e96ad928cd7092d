"""All environments of a server: who gets which, within concurrency and memory.

The pool keeps counts and lists; every choice is made by a pure function of `torpor.scheduling`. One thread, no awaits
while choosing: an environment is never reclaimed and assigned at once.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

from torpor.engine.budget import MemoryBudget
from torpor.engine.contract import Contract
from torpor.engine.environment import Environment, Surroundings
from torpor.engine.groups import Done, Group, Key, Request
from torpor.lifecycle import PhaseName
from torpor.model.errors import CallerGone, ShuttingDown, Throttled, TorporError
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.sandbox.images import ImageCatalog
from torpor.scheduling import IdleView, Placement, ThrottleReason, overdue, overflow, place

log = logging.getLogger(__name__)
_SETTLING = 0.05
"""Seconds a request waits for an environment that has just answered, before it starts one of its own: about what a cold
start costs."""
_REFUSALS = {
    Placement.REFUSE_ACCOUNT: ThrottleReason.ACCOUNT,
    Placement.REFUSE_RESERVED: ThrottleReason.RESERVED,
}
_ENDS_WITHIN = 30.0
"""Seconds for environments that were told to stop; their own time limits are far shorter."""
_IDLE_PHASES = frozenset({PhaseName.IDLE, PhaseName.FROZEN, PhaseName.UNINITIALIZED})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """The pool's slice of the settings. Times in seconds, sizes in MiB."""

    account_concurrency: int
    memory_budget_mb: int
    memory_wait: float
    idle_timeout: float
    max_age: float


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
        self._contracts = contracts
        self._images = images
        self._limits = limits
        self._reservations = reservations
        self._groups: dict[Key, Group] = {}
        self._running: dict[str, int] = {}
        self._unreserved = 0
        self._memory = MemoryBudget(limits.memory_budget_mb, self._idle, lambda env: self._end(env, "spindown"))
        self._waiting: deque[Request] = deque()
        """Requests that wait for memory."""
        self._queued = 0
        """Requests in the queues of all groups."""
        self._tasks: set[asyncio.Task[None]] = set()
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
        group = self._groups.get(key) or self._new_group(version)
        running = self._running.get(version.function, 0)
        decision = place(
            function_running=running,
            unreserved_running=self._unreserved,
            reserved=reserved,
            total_reserved=self._reservations() if group.scaling.counted else 0,
            account=self._limits.account_concurrency,
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
            self._await_room(group, request)
        else:
            self._place_elsewhere(group, request)
        return request

    def cancel(self, request: Request) -> None:
        """The caller has gone: whoever still waits for an environment waits no more, what runs is the contract's to
        end or to let go on."""
        if request.environment is not None:
            request.environment.cancel(request.invocation.id)
        elif request.line is not None:
            self._unqueue(request)
            self._finished(request, CallerGone("The caller went away before an environment was free."))

    def _new_group(self, version: FunctionVersion) -> Group:
        return Group(version, self._contracts[version.contract].scaling(version))

    def _place_elsewhere(self, group: Group, request: Request) -> None:
        """No environment has room: start one, wait for a turn, or be refused."""
        decision = overflow(
            group.scaling,
            environments=len(group.active),
            together=self._together(group),
            patient=request.invocation.patient,
        )
        if decision is Placement.START:
            if self._waiting or not self._start(group, request):
                self._await_memory(request)
        elif decision is Placement.QUEUE:
            self._await_turn(group, request)
        else:
            group.refused = True
            message = "All environments are busy, and no more may be started; send the request again later."
            self._finished(request, Throttled(message, reason=ThrottleReason.ACCOUNT))

    def _together(self, group: Group) -> int:
        """Environments of all versions under the group's contract; idle ones of others end if that makes room."""
        limit = group.scaling.together
        if limit is None:
            return 0
        contract = group.version.contract
        active = [env for other in self._groups.values() if other.version.contract == contract for env in other.active]
        if len(active) >= limit:
            idle = [
                env for env in active if not env.is_busy and env.phase in _IDLE_PHASES and env.key != group.version.key
            ]
            for environment in sorted(idle, key=lambda env: env.last_used)[: len(active) - limit + 1]:
                self._end(environment, "spindown")
                active.remove(environment)
        return len(active)

    def _reuse(self, group: Group, request: Request) -> bool:
        """Give the request the most recently used environment with room; False if there is none, or no memory."""
        while group.free:
            environment = group.free[-1]
            slots = environment.free_slots
            if slots <= 0:
                group.free.pop().listed = False
                continue
            needed = request.version.memory_mb
            if environment.charged_mb < needed:
                if not self._memory.admit(environment, needed):
                    return False
                self._memory.charge(environment, needed)
            if slots == 1:
                group.free.pop().listed = False
            self._assign(environment, request)
            return True
        return False

    def _start(self, group: Group, request: Request) -> bool:
        """Give the request a free environment or a new one; False if there is no memory for either."""
        if self._reuse(group, request):
            return True
        try:
            environment = self._new_environment(group)
        except TorporError as error:  # the interpreter was here when the function was made
            self._finished(request, error)
            return True
        if environment is None:
            return False
        environment.retired = request.outdated
        self._assign(environment, request)
        if environment.free_slots:
            self.settled(environment)
        return True

    def _new_environment(self, group: Group) -> Environment | None:
        """Start one; None if there is no memory. Raises RuntimeMissing."""
        version = group.version
        if not self._memory.admit(None, version.memory_mb):
            return None
        contract = self._contracts[version.contract]
        image = self._images.resolve(contract.image(version.runtime))
        environment = Environment(uuid.uuid4().hex, version, contract, image, self._around, self)
        self._memory.charge(environment, version.memory_mb)
        group.members[environment.id] = environment
        self._spawn(environment.provision())
        return environment

    def _assign(self, environment: Environment, request: Request) -> None:
        if request.timer is not None:
            request.timer.cancel()
        request.environment = environment
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
        request.done(outcome)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _await_room(self, group: Group, request: Request) -> None:
        """An environment is about to have room: a moment's wait is cheaper than a start."""
        request.stand(group.waiting)
        request.timer = self._around.loop.call_later(_SETTLING, self._start_instead, group, request)

    def _start_instead(self, group: Group, request: Request) -> None:
        request.leave()
        self._groups.setdefault(request.version.key, group)
        self._place_elsewhere(group, request)

    def _await_turn(self, group: Group, request: Request) -> None:
        request.stand(group.queue)
        self._queued += 1
        if not request.invocation.patient:
            limit = group.scaling.queue_limit
            request.timer = self._around.loop.call_later(limit, self._turn_missed, group, request)

    def _turn_missed(self, group: Group, request: Request) -> None:
        self._unqueue(request)
        message = f"No environment was free within {group.scaling.queue_limit:g} s; send the request again later."
        self._finished(request, Throttled(message, reason=ThrottleReason.ACCOUNT, retry_after=1.0))

    def _unqueue(self, request: Request) -> None:
        group = self._groups.get(request.version.key)
        self._queued -= group is not None and request.line is group.queue
        request.leave()

    def _await_memory(self, request: Request) -> None:
        request.stand(self._waiting)
        if not request.invocation.patient:
            request.timer = self._around.loop.call_later(self._limits.memory_wait, self._give_up, request)

    def _give_up(self, request: Request) -> None:
        request.leave()
        message = "No memory was free for the function in time; send the request again later."
        refusal = Throttled(message, reason=ThrottleReason.ACCOUNT, retry_after=max(self._limits.memory_wait, 1.0))
        self._finished(request, refusal)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Requests that wait for memory go in order; the first that still does not fit holds back the rest."""
        while self._waiting:
            request = self._waiting.popleft()
            group = self._groups.get(request.version.key)
            if group is None:
                group = self._groups[request.version.key] = self._new_group(request.version)
            if not self._start(group, request):
                self._waiting.appendleft(request)
                return
            request.line = None

    def _serve_queues(self) -> None:
        """An environment has ended: whoever waits for leave to start one may have it now, in order of arrival."""
        for group in [group for group in self._groups.values() if group.queue]:
            while group.queue:
                counts = {"environments": len(group.active), "together": self._together(group)}
                if overflow(group.scaling, **counts, patient=True) is not Placement.START:
                    break
                request = group.queue[0]
                self._unqueue(request)
                if not self._start(group, request):
                    self._await_memory(request)

    # -- environments ------------------------------------------------------------------------------------------------

    @property
    def is_awaited(self) -> bool:
        """Does a request wait for memory or for its turn?"""
        return self._queued > 0 or bool(self._waiting)

    def settled(self, environment: Environment) -> None:
        """An environment has room, or has ended: give it work, keep it, or forget it."""
        group = self._groups.get(environment.key)
        if group is None or environment.phase is PhaseName.GONE:
            self._forget(environment)
            return
        if not environment.returning_slots:
            group.settling.discard(environment)
        if environment.retired or self._is_old(environment, group):
            if not environment.is_busy:
                self._end(environment, "spindown")
            return
        if not environment.listed:
            environment.listed = True
            group.free.append(environment)
        if group.waiting or group.queue or self._waiting:
            self._use_room(group)
        if environment.phase is PhaseName.IDLE and not environment.is_busy:
            self._around.attention.afterwards(partial(_rest, environment, environment.invocations))

    def _use_room(self, group: Group) -> None:
        for line in (group.waiting, group.queue):
            while line:
                request = line[0]  # out of it before it runs: an answer may come back through here at once
                self._unqueue(request)
                if not self._reuse(group, request):
                    self._return_to(line, request, group)
                    break
        if self._waiting:
            self._serve_waiting()

    def _return_to(self, line: deque[Request], request: Request, group: Group) -> None:
        """There was no room for it after all: it stands at the front again, with its whole patience."""
        request.line = line
        line.appendleft(request)
        late = self._around.loop.call_later
        if line is group.waiting:
            request.timer = late(_SETTLING, self._start_instead, group, request)
            return
        self._queued += 1
        if not request.invocation.patient:
            request.timer = late(group.scaling.queue_limit, self._turn_missed, group, request)

    def _is_old(self, environment: Environment, group: Group) -> bool:
        return not group.kept and self._around.clock.monotonic() - environment.created >= self._limits.max_age

    def _forget(self, environment: Environment) -> None:
        group = self._groups.get(environment.key)
        if group is not None and group.members.pop(environment.id, None) is not None:
            if not environment.was_ready and not environment.retired:
                group.failed_starts += 1
                group.reason = environment.failure
            group.settling.discard(environment)
            if environment in group.free:
                group.free.remove(environment)
            if group.is_empty:
                del self._groups[environment.key]
        self._memory.charge(environment, 0)
        if self._waiting:
            self._serve_waiting()
        if self._queued:
            self._serve_queues()

    def _end(self, environment: Environment, reason: str) -> None:
        group = self._groups[environment.key]
        if environment in group.free:
            group.free.remove(environment)
        environment.retired = True
        environment.stop(reason)

    def retire(self, version: FunctionVersion) -> None:
        """A version is replaced or deleted: idle environments end now, busy ones after their invocation."""
        group = self._groups.get(version.key)
        queued = (*group.waiting, *group.queue) if group is not None else ()
        for request in (*self._waiting, *queued):
            request.outdated = request.outdated or request.version.key == version.key
        if group is None:
            return
        group.kept = False
        for environment in list(group.members.values()):
            environment.retired = True
            if not environment.is_busy:
                self._end(environment, "spindown")

    def reclaim(self) -> None:
        """End environments that have idled or lived long enough. Call it about once a second."""
        now = self._around.clock.monotonic()
        for group in list(self._groups.values()):
            timeout = group.scaling.idle_timeout
            limit = self._limits.idle_timeout if timeout is None else timeout
            idle = {env.id: env for env in group.members.values() if _is_idle(env)}
            views = (IdleView(id=env.id, created=env.created, last_used=env.last_used) for env in idle.values())
            if group.kept:
                continue  # what is kept up goes by load
            for identity in overdue(views, now, idle_timeout=limit, max_age=self._limits.max_age):
                self._end(idle[identity], "spindown")

    def environments(self) -> list[Environment]:
        """Every living environment."""
        return [env for group in self._groups.values() for env in group.members.values()]

    def code_in_use(self) -> list[CodeRef]:
        """The packages that living environments show, or that requests wait for."""
        queued = (
            request for group in self._groups.values() for request in (*group.waiting, *group.queue, *self._waiting)
        )
        kept = (group.version for group in self._groups.values() if group.kept)
        versions = [*(env.version for env in self.environments()), *(request.version for request in queued), *kept]
        return [code for version in versions for code in (version.code, *version.layers)]

    def _idle(self) -> Iterable[Environment]:
        """Those that may end for want of memory."""
        return (
            env for group in self._groups.values() if not group.kept for env in group.members.values() if _is_idle(env)
        )

    # -- environments without requests -------------------------------------------------------------------------------

    def keep(self, version: FunctionVersion) -> Group:
        """From now on environments of this version are kept up; the scaler says how many."""
        group = self._groups.setdefault(version.key, self._new_group(version))
        group.version = version
        group.scaling = self._contracts[version.contract].scaling(version)
        group.kept = True
        return group

    @property
    def kept(self) -> list[Group]:
        """The groups of versions that are kept up."""
        return [group for group in self._groups.values() if group.kept]

    def group(self, key: Key) -> Group | None:
        """What is known of a version; None if it has no environment and nobody waits for one."""
        return self._groups.get(key)

    def start(self, group: Group) -> Environment | None:
        """Start an environment without a request; None if there is no memory. Raises RuntimeMissing."""
        return None if self._closing else self._new_environment(group)

    def end(self, environment: Environment) -> None:
        """End an environment that is not needed."""
        self._end(environment, "spindown")

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            environments=len(self.environments()),
            running=sum(self._running.values()),
            waiting=len(self._waiting),
            queued=self._queued,
            charged_mb=self._memory.charged_mb,
        )

    # -- end ---------------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Refuse new invocations, let running ones finish for `timeout` seconds, then end every environment."""
        self._closing = True
        deadline = self._around.clock.monotonic() + timeout
        while self._is_working() and not self._hurried and self._around.clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        self._refuse_waiting()
        remaining = self.environments()
        for environment in remaining:
            environment.stop("spindown")
        ends = asyncio.gather(*(environment.ended() for environment in remaining), *self._tasks, return_exceptions=True)
        try:
            await asyncio.wait_for(ends, _ENDS_WITHIN)
        except TimeoutError:
            log.error("%d environments did not end in time and are left to their keepers", len(self.environments()))

    def hurry(self) -> None:
        """Let `drain` wait for nothing more."""
        self._hurried = True

    def _refuse_waiting(self) -> None:
        lines = [self._waiting]
        for group in self._groups.values():
            lines += [group.waiting, group.queue]
        for request in [request for line in lines for request in line]:
            self._unqueue(request)
            self._finished(request, ShuttingDown("The server shut down before the invocation could start."))

    def _is_working(self) -> bool:
        """Does an invocation wait or run, or does an extension still work on an answered one?"""
        return bool(self._running) or any(environment.is_busy for environment in self.environments())

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._around.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _is_idle(environment: Environment) -> bool:
    return not environment.is_busy and environment.phase in _IDLE_PHASES


def _rest(environment: Environment, invocations: int) -> None:
    """It became idle a moment ago, after so many invocations: if it has been so since, nothing is pending for it."""
    if environment.invocations == invocations and environment.phase is PhaseName.IDLE and not environment.is_busy:
        environment.rest()

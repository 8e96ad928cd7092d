"""All environments of a server: who gets which, within concurrency and memory.

The pool keeps counts and lists; every choice is made by a pure function of `torpor.scheduling`. One thread, no awaits
while choosing: an environment is never reclaimed and assigned at once.
"""

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torpor.engine.budget import MemoryBudget
from torpor.engine.contract import Contract
from torpor.engine.environment import Environment, Surroundings
from torpor.lifecycle import PhaseName
from torpor.model.errors import ShuttingDown, Throttled, TorporError
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.sandbox.images import ImageCatalog
from torpor.scheduling import (
    IdleView,
    Placement,
    ThrottleReason,
    overdue,
    place,
)

log = logging.getLogger(__name__)
Key = tuple[str, str, str]
Done = Callable[[Outcome | TorporError], None]
_SETTLING = 0.05
"""Seconds a request waits for an environment that has just answered, before it starts one of its own: about what a cold
start costs."""
_REFUSALS = {
    Placement.REFUSE_ACCOUNT: ThrottleReason.ACCOUNT,
    Placement.REFUSE_RESERVED: ThrottleReason.RESERVED,
}
_SETTLING_PHASES = frozenset({PhaseName.SERVING, PhaseName.RESETTING})
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
    charged_mb: int


@dataclass(slots=True)
class _Request:
    """An invocation on its way to an environment."""

    version: FunctionVersion
    invocation: Invocation
    reserved: bool
    done: Done
    timer: asyncio.TimerHandle | None = None
    outdated: bool = False
    """Its version was replaced while it waited: what is started for it serves nothing else."""


@dataclass(slots=True)
class _Group:
    """The environments of one function version."""

    members: dict[str, Environment] = field(default_factory=dict)
    free: list[Environment] = field(default_factory=list)
    """Those with room, most recently used last."""
    settling: set[Environment] = field(default_factory=set)
    """Those whose invocation is answered and that will have room in a moment."""
    waiting: deque[_Request] = field(default_factory=deque)
    """Requests that wait that moment instead of starting an environment."""


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
        self._groups: dict[Key, _Group] = {}
        self._running: dict[str, int] = {}
        self._unreserved = 0
        self._memory = MemoryBudget(limits.memory_budget_mb, self._idle, lambda env: self._end(env, "spindown"))
        self._waiting: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._hurried = False

    # -- invocations --------------------------------------------------------------------------------------------------

    def submit(self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done) -> None:
        """Run an invocation; `done` is called once, with its outcome or with Throttled or ShuttingDown."""
        if self._closing:
            done(ShuttingDown("The server is shutting down; send the request again in a moment."))
            return
        group = self._groups.get(version.key) or _Group()
        running = self._running.get(version.function, 0)
        decision = place(
            function_running=running,
            unreserved_running=self._unreserved,
            reserved=reserved,
            total_reserved=self._reservations(),
            account=self._limits.account_concurrency,
            free_environments=len(group.free),
            settling_environments=len(group.settling) - len(group.waiting),
        )
        if decision is Placement.REFUSE_ACCOUNT or decision is Placement.REFUSE_RESERVED:
            done(Throttled("Rate Exceeded.", reason=_REFUSALS[decision]))
            return
        self._groups.setdefault(version.key, group)
        self._running[version.function] = running + 1
        self._unreserved += reserved is None
        request = _Request(version, invocation, reserved is not None, done)
        if decision is Placement.REUSE and self._reuse(group, request):
            return
        if decision is Placement.AWAIT:
            self._await_room(group, request)
        elif self._waiting or not self._start(group, request):
            self._await_memory(request)

    def _reuse(self, group: _Group, request: _Request) -> bool:
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

    def _start(self, group: _Group, request: _Request) -> bool:
        """Give the request a free environment or a new one; False if there is no memory for either."""
        if self._reuse(group, request):
            return True
        version = request.version
        if not self._memory.admit(None, version.memory_mb):
            return False
        try:
            image = self._images.resolve(version.runtime)
        except TorporError as error:  # the interpreter was here when the function was made
            self._finished(request, error)
            return True
        contract = self._contracts[version.contract]
        environment = Environment(uuid.uuid4().hex, version, contract, image, self._around, self)
        self._memory.charge(environment, version.memory_mb)
        group.members[environment.id] = environment
        self._spawn(environment.provision())
        self._assign(environment, request)
        environment.retired = request.outdated
        return True

    def _assign(self, environment: Environment, request: _Request) -> None:
        if request.timer is not None:
            request.timer.cancel()
        environment.assign(request.invocation, partial(self._answered, environment, request))

    def _answered(self, environment: Environment, request: _Request, outcome: Outcome) -> None:
        group = self._groups.get(environment.key)
        if group is not None and not environment.retired and environment.phase in _SETTLING_PHASES:
            group.settling.add(environment)
        self._finished(request, outcome)

    def _finished(self, request: _Request, outcome: Outcome | TorporError) -> None:
        function = request.version.function
        left = self._running[function] - 1
        if left:
            self._running[function] = left
        else:
            del self._running[function]
        self._unreserved -= not request.reserved
        request.done(outcome)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _await_room(self, group: _Group, request: _Request) -> None:
        """An environment is about to have room: a moment's wait is cheaper than a start."""
        group.waiting.append(request)
        request.timer = self._around.loop.call_later(_SETTLING, self._start_instead, group, request)

    def _start_instead(self, group: _Group, request: _Request) -> None:
        group.waiting.remove(request)
        self._groups.setdefault(request.version.key, group)
        if self._waiting or not self._start(group, request):
            self._await_memory(request)

    def _await_memory(self, request: _Request) -> None:
        self._waiting.append(request)
        request.timer = self._around.loop.call_later(self._limits.memory_wait, self._give_up, request)

    def _give_up(self, request: _Request) -> None:
        self._waiting.remove(request)
        message = "No memory was free for the function in time; send the request again later."
        refusal = Throttled(message, reason=ThrottleReason.ACCOUNT, retry_after=max(self._limits.memory_wait, 1.0))
        self._finished(request, refusal)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Requests that wait for memory go in order; the first that still does not fit holds back the rest."""
        while self._waiting:
            request = self._waiting.popleft()
            group = self._groups.setdefault(request.version.key, _Group())
            if not self._start(group, request):
                self._waiting.appendleft(request)
                return

    # -- environments ------------------------------------------------------------------------------------------------

    def settled(self, environment: Environment) -> None:
        """An environment has room, or has ended: give it work, keep it, or forget it."""
        group = self._groups.get(environment.key)
        if group is None or environment.phase is PhaseName.GONE:
            self._forget(environment)
            return
        group.settling.discard(environment)
        if environment.retired or self._is_old(environment):
            if not environment.is_busy:
                self._end(environment, "spindown")
            return
        if not environment.listed:
            environment.listed = True
            group.free.append(environment)
        if group.waiting or self._waiting:
            self._use_room(group)
        if environment.phase is PhaseName.IDLE and not environment.is_busy:
            self._around.attention.afterwards(partial(_rest, environment, environment.invocations))

    def _use_room(self, group: _Group) -> None:
        while group.waiting:
            request = group.waiting.popleft()  # before it runs: an answer may come back through here at once
            if not self._reuse(group, request):
                group.waiting.appendleft(request)
                break
        if self._waiting:
            self._serve_waiting()

    def _is_old(self, environment: Environment) -> bool:
        return self._around.clock.monotonic() - environment.created >= self._limits.max_age

    def _forget(self, environment: Environment) -> None:
        group = self._groups.get(environment.key)
        if group is not None and group.members.pop(environment.id, None) is not None:
            group.settling.discard(environment)
            if environment in group.free:
                group.free.remove(environment)
            if not group.members and not group.waiting:
                del self._groups[environment.key]
        self._memory.charge(environment, 0)
        if self._waiting:
            self._serve_waiting()

    def _end(self, environment: Environment, reason: str) -> None:
        group = self._groups[environment.key]
        if environment in group.free:
            group.free.remove(environment)
        environment.retired = True
        environment.stop(reason)

    def retire(self, version: FunctionVersion) -> None:
        """A version is replaced or deleted: idle environments end now, busy ones after their invocation."""
        group = self._groups.get(version.key)
        for request in (*self._waiting, *(group.waiting if group is not None else ())):
            request.outdated = request.outdated or request.version.key == version.key
        for environment in list(group.members.values()) if group is not None else ():
            environment.retired = True
            if not environment.is_busy:
                self._end(environment, "spindown")

    def reclaim(self) -> None:
        """End environments that have idled or lived long enough. Call it about once a second."""
        idle = {env.id: env for env in self._idle()}
        views = (IdleView(id=env.id, created=env.created, last_used=env.last_used) for env in idle.values())
        now = self._around.clock.monotonic()
        for identity in overdue(views, now, idle_timeout=self._limits.idle_timeout, max_age=self._limits.max_age):
            self._end(idle[identity], "spindown")

    def environments(self) -> list[Environment]:
        """Every living environment."""
        return [env for group in self._groups.values() for env in group.members.values()]

    def code_in_use(self) -> list[CodeRef]:
        """The packages that living environments show, or that requests wait for."""
        queued = (request for group in self._groups.values() for request in (*group.waiting, *self._waiting))
        versions = [*(env.version for env in self.environments()), *(request.version for request in queued)]
        return [code for version in versions for code in (version.code, *version.layers)]

    def _idle(self) -> Iterable[Environment]:
        return (env for env in self.environments() if not env.is_busy and env.phase in _IDLE_PHASES)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            environments=len(self.environments()),
            running=sum(self._running.values()),
            waiting=len(self._waiting),
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
        queues = [self._waiting, *(group.waiting for group in self._groups.values())]
        for request in [request for queue in queues for request in queue]:
            if request.timer is not None:
                request.timer.cancel()
            self._finished(request, ShuttingDown("The server shut down before the invocation could start."))
        for queue in queues:
            queue.clear()

    def _is_working(self) -> bool:
        """Does an invocation wait or run, or does an extension still work on an answered one?"""
        return bool(self._running) or any(environment.is_busy for environment in self.environments())

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._around.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _rest(environment: Environment, invocations: int) -> None:
    """It became idle a moment ago, after so many invocations: if it has been so since, nothing is pending for it."""
    if environment.invocations == invocations and environment.phase is PhaseName.IDLE and not environment.is_busy:
        environment.rest()

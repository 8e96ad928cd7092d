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

from torpor.engine.contract import Contract
from torpor.engine.environment import Environment, Surroundings
from torpor.lifecycle import PhaseName
from torpor.model.errors import ShuttingDown, Throttled, TorporError
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.sandbox.images import ImageCatalog
from torpor.scheduling import (
    ConcurrencyView,
    IdleView,
    MemoryView,
    Placement,
    ThrottleReason,
    make_room,
    overdue,
    place,
)

log = logging.getLogger(__name__)
Key = tuple[str, str, str]
Done = Callable[[Outcome | TorporError], None]
_MIB = 1024 * 1024
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


@dataclass(slots=True)
class _Group:
    """The environments of one function version, free ones most recently used last."""

    members: dict[str, Environment] = field(default_factory=dict)
    free: list[Environment] = field(default_factory=list)


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
        self._charged = 0
        self._waiting: deque[_Request] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    # -- invocations ------------------------------------------------------------------------------------------------------

    def submit(self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done) -> None:
        """Run an invocation; `done` is called once, with its outcome or with Throttled or ShuttingDown."""
        if self._closing:
            done(ShuttingDown("The server is shutting down; send the request again in a moment."))
            return
        group = self._groups.get(version.key)
        function = version.function
        decision = place(
            ConcurrencyView(
                function_running=self._running.get(function, 0),
                unreserved_running=self._unreserved,
                reserved=reserved,
                total_reserved=self._reservations(),
                account=self._limits.account_concurrency,
                free_environments=len(group.free) if group is not None else 0,
            )
        )
        if decision in (Placement.REFUSE_ACCOUNT, Placement.REFUSE_RESERVED):
            reason = ThrottleReason.RESERVED if decision is Placement.REFUSE_RESERVED else ThrottleReason.ACCOUNT
            done(Throttled("Rate Exceeded.", reason=reason))
            return
        self._running[function] = self._running.get(function, 0) + 1
        self._unreserved += reserved is None
        request = _Request(version, invocation, reserved is not None, done)
        try:
            if self._waiting or not self._start(request):
                self._wait(request)
        except TorporError as error:  # the runtime is not on this host any more
            self._finished(request, error)

    def _start(self, request: _Request) -> bool:
        """Give the request a free environment or a new one; False if there is no memory for either."""
        group = self._groups.setdefault(request.version.key, _Group())
        while group.free:
            environment = group.free[-1]
            if environment.free_slots <= 0:
                group.free.pop()
                continue
            if not self._charge(environment, request.version.memory_mb):
                return False
            if environment.free_slots == 1:
                group.free.pop()
            self._assign(environment, request)
            return True
        environment = self._new(request.version)
        if not self._charge(environment, request.version.memory_mb):
            return False
        self._provision(environment)
        self._assign(environment, request)
        return True

    def _new(self, version: FunctionVersion) -> Environment:
        image = self._images.resolve(version.runtime)
        return Environment(uuid.uuid4().hex, version, self._contracts[version.contract], image, self._around, self)

    def _provision(self, environment: Environment) -> None:
        self._groups[environment.version.key].members[environment.id] = environment
        self._spawn(environment.provision())

    def _assign(self, environment: Environment, request: _Request) -> None:
        if request.timer is not None:
            request.timer.cancel()
        environment.assign(request.invocation, lambda outcome: self._finished(request, outcome))

    def _finished(self, request: _Request, outcome: Outcome | TorporError) -> None:
        function = request.version.function
        left = self._running[function] - 1
        if left:
            self._running[function] = left
        else:
            del self._running[function]
        self._unreserved -= not request.reserved
        request.done(outcome)

    # -- memory -----------------------------------------------------------------------------------------------------------

    def _charge(self, environment: Environment, needed_mb: int) -> bool:
        """Admit an environment for all of its memory; False if even with every idle one gone there is not enough."""
        missing = needed_mb - environment.charged_mb
        if missing > self._limits.memory_budget_mb - self._charged and not self._make_room(missing, environment):
            return False
        self._charged += missing
        environment.charged_mb = needed_mb
        return True

    def _make_room(self, needed_mb: int, sparing: Environment) -> bool:
        idle = {env.id: env for env in self._idle() if env is not sparing}
        room = make_room(
            needed_mb,
            self._limits.memory_budget_mb - self._charged,
            (MemoryView(id=env.id, charged=env.charged_mb, used=_used_mb(env), last_used=env.last_used)
             for env in idle.values()),
        )
        if not room.enough:
            return False
        for identity in room.shrink:
            self._recharge(idle[identity], _used_mb(idle[identity]))
        for identity in room.end:
            self._recharge(idle[identity], 0)
            self._end(idle[identity], "spindown")
        return True

    def _recharge(self, environment: Environment, charge_mb: int) -> None:
        self._charged += charge_mb - environment.charged_mb
        environment.charged_mb = charge_mb

    def _wait(self, request: _Request) -> None:
        self._waiting.append(request)
        request.timer = self._around.loop.call_later(self._limits.memory_wait, self._give_up, request)

    def _give_up(self, request: _Request) -> None:
        self._waiting.remove(request)
        message = "No memory was free for the function in time; send the request again later."
        self._finished(request, Throttled(message, reason=ThrottleReason.ACCOUNT, retry_after=self._limits.memory_wait))
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Requests that wait for memory go in order; the first that still does not fit holds back the rest."""
        while self._waiting and self._start(self._waiting[0]):
            self._waiting.popleft()

    # -- environments -----------------------------------------------------------------------------------------------------

    def settled(self, environment: Environment) -> None:
        """An environment has room, or has ended: give it work, keep it, or forget it."""
        group = self._groups.get(environment.version.key)
        if environment.machine.is_gone:
            self._forget(environment)
        elif environment.retired or self._closing or self._is_old(environment):
            if not environment.is_busy:
                environment.stop("spindown")
        elif group is not None:
            if environment not in group.free[-1:]:
                group.free.append(environment)
            if self._waiting:
                self._serve_waiting()
            if not environment.is_busy and environment.phase is PhaseName.IDLE:
                environment.rest()

    def _is_old(self, environment: Environment) -> bool:
        return self._around.clock.monotonic() - environment.created >= self._limits.max_age

    def _forget(self, environment: Environment) -> None:
        group = self._groups.get(environment.version.key)
        if group is not None and group.members.pop(environment.id, None) is not None:
            if environment in group.free:
                group.free.remove(environment)
            if not group.members:
                del self._groups[environment.version.key]
        self._recharge(environment, 0)
        if self._waiting and not self._closing:
            self._serve_waiting()

    def _end(self, environment: Environment, reason: str) -> None:
        group = self._groups[environment.version.key]
        if environment in group.free:
            group.free.remove(environment)
        environment.retired = True
        environment.stop(reason)

    def retire(self, version: FunctionVersion) -> None:
        """A version is replaced or deleted: idle environments end now, busy ones after their invocation."""
        group = self._groups.get(version.key)
        for environment in list(group.members.values()) if group is not None else ():
            environment.retired = True
            if not environment.is_busy:
                self._end(environment, "spindown")

    def reclaim(self) -> None:
        """End environments that have idled or lived long enough. Call it about once a second."""
        idle = {env.id: env for env in self._idle()}
        views = (IdleView(id=env.id, created=env.created, last_used=env.last_used) for env in idle.values())
        now = self._around.clock.monotonic()
        for identity in overdue(
            views, now, idle_timeout=self._limits.idle_timeout, max_age=self._limits.max_age
        ):
            self._end(idle[identity], "spindown")

    def environments(self) -> list[Environment]:
        """Every living environment."""
        return [env for group in self._groups.values() for env in group.members.values()]

    def code_in_use(self) -> list[CodeRef]:
        """The packages that living environments show."""
        return [code for env in self.environments() for code in (env.version.code, *env.version.layers)]

    def _idle(self) -> Iterable[Environment]:
        return (env for env in self.environments() if not env.is_busy and env.phase in _IDLE_PHASES)

    def statistics(self) -> PoolStatistics:
        return PoolStatistics(
            environments=len(self.environments()),
            running=sum(self._running.values()),
            waiting=len(self._waiting),
            charged_mb=self._charged,
        )

    # -- end --------------------------------------------------------------------------------------------------------------

    async def drain(self, timeout: float) -> None:
        """Refuse new invocations, let running ones finish for `timeout` seconds, then end every environment."""
        self._closing = True
        deadline = self._around.clock.monotonic() + timeout
        while self._running and self._around.clock.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for request in list(self._waiting):
            self._waiting.remove(request)
            self._finished(request, ShuttingDown("The server shut down before the invocation could start."))
        remaining = self.environments()
        for environment in remaining:
            environment.stop("spindown")
        await asyncio.gather(*(environment.ended() for environment in remaining))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = self._around.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _used_mb(environment: Environment) -> int:
    """What an idle environment really occupies; all of its size where the host cannot tell."""
    used = environment.statistics().memory_bytes
    if used is None or environment.phase is PhaseName.IDLE:
        return environment.charged_mb
    return min(-(-used // _MIB), environment.charged_mb)

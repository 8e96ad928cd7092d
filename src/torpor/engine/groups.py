"""What the pool keeps of each function version, and of each invocation on its way to an environment."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from torpor.engine.environment import Environment
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion, Key
from torpor.model.invocation import Invocation, Outcome
from torpor.model.policy import ScalingPolicy
from torpor.model.start import Start

Done = Callable[[Outcome | TorporError], None]


@dataclass(slots=True, eq=False)
class Request:
    """An invocation on its way to an environment."""

    version: FunctionVersion
    invocation: Invocation
    reserved: bool
    done: Done
    timer: asyncio.TimerHandle | None = None
    outdated: bool = False
    """Its version was replaced while it waited: what is started for it serves nothing else."""
    environment: Environment | None = None
    """Where it runs."""
    set_aside: bool = False
    """It runs in an environment that is kept apart, and counts against those alone."""
    line: deque["Request"] | None = None
    """The one it stands in."""
    turn: int | None = None
    """Its place among all that wait for leave to start an environment."""

    def stand(self, line: deque["Request"]) -> None:
        """Wait at the end of this line."""
        self.line = line
        line.append(self)

    def leave(self) -> None:
        """Wait no more."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.line is not None:
            self.line.remove(self)
            self.line = None


@dataclass(slots=True)
class Group:
    """The environments of one function version."""

    version: FunctionVersion
    scaling: ScalingPolicy
    members: dict[str, Environment] = field(default_factory=dict)
    free: list[Environment] = field(default_factory=list)
    """Those with room, most recently used last."""
    settling: set[Environment] = field(default_factory=set)
    """Those that have answered and will have room in a moment."""
    waiting: deque[Request] = field(default_factory=deque)
    """Requests that wait that moment instead of starting an environment."""
    queue: deque[Request] = field(default_factory=deque)
    """Requests that wait their turn because no environment may be started."""
    refused: bool = False
    """A request found no room since this was last asked."""
    kept: bool = False
    """Environments are kept up without requests."""
    failed_starts: int = 0
    """Environments that ended before they were ready, since this was last asked."""
    failures: int = 0
    """Starts that failed in a row."""
    starved: bool = False
    """The last start without a request found no memory."""
    retry_at: float = 0.0
    """Before this monotonic time nothing is started without a request."""
    reason: str = ""
    """Why the last start failed."""
    overran: bool = False
    """An Init that failed last did so at its limit: it was given all the time there is."""
    served: int = 0
    """Invocations that environments kept apart have taken."""
    spilled: int = 0
    """Invocations that were started on demand beside those."""
    retired_at: float | None = None
    """When its version was replaced or deleted, as a monotonic time."""

    @property
    def key(self) -> Key:
        return self.version.key

    @property
    def is_empty(self) -> bool:
        return not (self.members or self.waiting or self.queue or self.kept)

    @property
    def settling_slots(self) -> int:
        """Slots that will be free in a moment and that no request waits for yet."""
        if not self.settling:
            return 0
        return sum(environment.settling_slots for environment in self.settling) - len(self.waiting)

    @property
    def active(self) -> list[Environment]:
        """Those that start or serve."""
        return [environment for environment in self.members.values() if environment.takes_work]

    @property
    def is_apart(self) -> bool:
        """Are what it keeps up a set of their own, beside those on demand?"""
        return self.kept and self.scaling.kept_as is not Start.ON_DEMAND

    @property
    def standing(self) -> list[Environment]:
        """Those that start or serve and count towards the minimum."""
        return [environment for environment in self.active if environment.start is self.scaling.kept_as]

    def keeps(self, environment: Environment) -> bool:
        """Is this one of those that are kept up, and so come and go by the scaler alone?"""
        return self.kept and environment.start is self.scaling.kept_as

    @property
    def spare(self) -> list[Environment]:
        """The idle ones that may end for want of memory: what is kept up stays."""
        idle = [env for env in self.members.values() if env.is_idle and not env.retired]
        if not self.kept:
            return idle
        more = max(len(self.standing) - self.scaling.minimum, 0)
        kept = [env for env in idle if self.keeps(env)]
        others = [env for env in idle if not self.keeps(env)]
        return [*others, *sorted(kept, key=lambda environment: environment.last_used)[:more]]

    def vacancy(self) -> Environment | None:
        """The most recently used environment with room; None if there is none."""
        while self.free:
            environment = self.free[-1]
            if environment.free_slots > 0:
                return environment
            self.free.pop().listed = False
        return None

    def list(self, environment: Environment) -> None:
        """It has room."""
        if environment.listed:
            return
        environment.listed = True
        if self.is_apart and not self.keeps(environment):  # those that are kept go first
            self.free.insert(sum(not self.keeps(other) for other in self.free), environment)
        else:
            self.free.append(environment)

    def unlist(self, environment: Environment) -> None:
        """It is given nothing more."""
        if environment.listed:
            environment.listed = False
            self.free.remove(environment)

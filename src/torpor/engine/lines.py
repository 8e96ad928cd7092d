"""Requests for which no environment has room yet: the lines they stand in, and how long they do."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, count

from torpor.engine.groups import Group, Request
from torpor.model.errors import NoMemory, Throttled, TorporError
from torpor.scheduling import ThrottleReason

log = logging.getLogger(__name__)

_TOLD_EVERY = 60.0
"""Seconds between two warnings for lack of memory."""
_SETTLING = 0.05
"""Seconds a request waits for an environment that has just answered, before it starts one of its own: about what a cold
start costs."""


class Lines:
    """Three kinds of waiting: a moment for room that is about to come and a turn because no environment may be started,
    both by version, and memory, all together. A request stands in one line at most."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        memory_wait: float,
        refuse: Callable[[Request, TorporError], None],
        place_elsewhere: Callable[[Group, Request], None],
    ) -> None:
        """`refuse` ends a request; `place_elsewhere` is told of one that waited for room in vain."""
        self._loop = loop
        self._memory_wait = memory_wait
        self._refuse = refuse
        self._place_elsewhere = place_elsewhere
        self._numbers = count()
        self._told_until = 0.0
        self.memory: deque[Request] = deque()
        self.queued = 0
        """Requests that wait for a turn, of all versions."""

    def for_room(self, group: Group, request: Request) -> None:
        """An environment is about to have room: a moment's wait is cheaper than a start."""
        request.stand(group.waiting)
        request.timer = self._loop.call_later(_SETTLING, self._room_missed, group, request)

    def for_turn(self, group: Group, request: Request) -> None:
        """Until an environment has room, or leave to start one is given."""
        request.stand(group.queue)
        request.turn = next(self._numbers)
        self.queued += 1
        if not request.invocation.patient:
            request.timer = self._loop.call_later(group.scaling.queue_limit, self._turn_missed, group, request)

    def for_memory(self, request: Request) -> None:
        """Until there is memory for its environment."""
        request.stand(self.memory)
        if not request.invocation.patient:
            request.timer = self._loop.call_later(self._memory_wait, self._memory_missed, request)

    def leave(self, request: Request) -> None:
        """Wait no more."""
        if request.turn is not None:
            request.turn = None
            self.queued -= 1
        request.leave()

    def all(self, groups: Iterable[Group]) -> list[Request]:
        """Everybody who waits."""
        lines = chain.from_iterable((group.waiting, group.queue) for group in groups)
        return [*self.memory, *chain.from_iterable(lines)]

    def _room_missed(self, group: Group, request: Request) -> None:
        self.leave(request)
        self._place_elsewhere(group, request)

    def _turn_missed(self, group: Group, request: Request) -> None:
        message = f"No environment was free within {group.scaling.queue_limit:g} s; send the request again later."
        self._refuse(request, Throttled(message, reason=ThrottleReason.ACCOUNT, retry_after=1.0))

    def _memory_missed(self, request: Request) -> None:
        size, function = request.version.memory_mb, request.version.function
        message = f"No memory was free for an environment of {size} MB within {self._memory_wait:g} s."
        if self._loop.time() >= self._told_until:
            self._told_until = self._loop.time() + _TOLD_EVERY
            log.warning("invocations of %s are refused: %s Give the server a larger memory budget.", function, message)
        retry_after = max(self._memory_wait, 1.0)
        self._refuse(request, NoMemory(message, reason=ThrottleReason.ACCOUNT, retry_after=retry_after))

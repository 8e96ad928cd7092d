"""Sockets that live in a sandbox's network, made by its keeper and held here, with a few ready ahead."""

import asyncio
import socket
from collections import deque
from collections.abc import Callable

from torpor.model.errors import SandboxUnavailable

READY = 4
"""Sockets asked for at once; from half of them on the next are asked for."""
ANSWER_SECONDS = 10.0


class SocketStock:
    """The sockets of one sandbox. Nothing is made before the first was asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ask: Callable[[int], None]) -> None:
        """`ask` has the keeper make that many, which arrive at `deliver` later."""
        self._loop = loop
        self._ask = ask
        self._ready: deque[socket.socket] = deque()
        self._waiting: deque[asyncio.Future[socket.socket]] = deque()
        self._coming = 0
        self._problem = ""

    async def take(self) -> socket.socket:
        """A fresh one, non-blocking and not connected. Raises SandboxUnavailable."""
        if self._problem:
            raise SandboxUnavailable(self._problem)
        if self._ready:
            taken = self._ready.popleft()
            self._refill()
            return taken
        return await self._next()

    async def _next(self) -> socket.socket:
        coming: asyncio.Future[socket.socket] = self._loop.create_future()
        self._waiting.append(coming)
        self._refill()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await coming
        except TimeoutError as error:
            raise SandboxUnavailable(f"The sandbox gave no socket in {ANSWER_SECONDS:g} s.") from error
        except asyncio.CancelledError:
            if coming.done() and not coming.cancelled() and coming.exception() is None:
                coming.result().close()
            raise

    def _refill(self) -> None:
        lacking = len(self._waiting) - self._coming
        if lacking > 0 or len(self._ready) + self._coming <= READY // 2:
            count = max(lacking, 0) + READY - len(self._ready)
            self._coming += count
            self._ask(count)

    def deliver(self, descriptors: list[int], lacking: int = 0) -> None:
        """Take over what the keeper made; `lacking` of those asked for it could not make."""
        self._coming = max(0, self._coming - len(descriptors) - lacking)
        for descriptor in descriptors:
            self._hand_out(socket.socket(fileno=descriptor))
        for _ in range(lacking):
            waiter = self._next_waiter()
            if waiter is None:
                return
            waiter.set_exception(SandboxUnavailable("The sandbox can open no more sockets."))

    def _hand_out(self, made: socket.socket) -> None:
        made.setblocking(False)
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(made)
        elif self._problem:
            made.close()
        else:
            self._ready.append(made)

    def _next_waiter(self) -> "asyncio.Future[socket.socket] | None":
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                return waiter
        return None

    def close(self, problem: str) -> None:
        """Refuse from now on, for this reason; idempotent."""
        self._problem = self._problem or problem
        while (waiter := self._next_waiter()) is not None:
            waiter.set_exception(SandboxUnavailable(self._problem))
        while self._ready:
            self._ready.popleft().close()

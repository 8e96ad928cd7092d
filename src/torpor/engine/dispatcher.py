"""The single way in: every invocation, from whatever face, passes here."""

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from torpor.engine.groups import Done, Request
from torpor.engine.pool import Pool
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome

InForce: TypeAlias = Callable[[FunctionVersion], FunctionVersion]


def _itself(version: FunctionVersion) -> FunctionVersion:
    return version


class Dispatcher:
    """Hands invocations to the pool."""

    def __init__(self, pool: Pool, in_force: InForce = _itself) -> None:
        """`in_force` names the version that serves what is asked of another, usually that itself."""
        self._pool = pool
        self._in_force = in_force

    def submit(
        self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done
    ) -> Request | None:
        """Run an invocation; `done` gets its Outcome, or Throttled or ShuttingDown. Never raises, never waits.

        The result is for `cancel`; None if it was refused at once."""
        return self._pool.submit(self._in_force(version), invocation, reserved, done)

    def cancel(self, request: Request) -> None:
        """The caller has gone away; `done` is called all the same."""
        self._pool.cancel(request)

    async def invoke(self, version: FunctionVersion, invocation: Invocation, reserved: int | None) -> Outcome:
        """As `submit`, awaited. Raises Throttled or ShuttingDown."""
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(result: Outcome | TorporError) -> None:
            if waiting.cancelled():
                return
            if isinstance(result, TorporError):
                waiting.set_exception(result)
            else:
                waiting.set_result(result)

        self.submit(version, invocation, reserved, done)
        return await waiting

"""The single way in: every invocation, from whatever face, passes here."""

import asyncio

from torpor.engine.groups import Done, Request
from torpor.engine.pool import Pool
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome


class Dispatcher:
    """Hands invocations to the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def submit(
        self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done
    ) -> Request | None:
        """Run an invocation; `done` gets its Outcome, or Throttled or ShuttingDown. Never raises, never waits.

        The result is for `cancel`; None if it was refused at once."""
        return self._pool.submit(version, invocation, reserved, done)

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

        self._pool.submit(version, invocation, reserved, done)
        return await waiting

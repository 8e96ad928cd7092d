"""The single way in: every invocation, from whatever face, passes here."""

import asyncio

from torpor.engine.pool import Done, Pool
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome


class Dispatcher:
    """Hands invocations to the pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def submit(self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done) -> None:
        """Run an invocation; `done` gets its Outcome, or Throttled or ShuttingDown. Never raises, never waits."""
        self._pool.submit(version, invocation, reserved, done)

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

"""What every bench of a pool stands on: clocks that can be moved on, and surroundings without a host."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torpor.engine.surroundings import Surroundings
from torpor.model.function import CodeRef
from torpor.sandbox.memory import MemoryProvider
from torpor.telemetry import History, Journal, Traces


class Clock:
    """The machine's clocks; the monotonic one can be moved on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def wall(self) -> float:
        return time.time()


def surroundings(provider: MemoryProvider, clock: Clock, code: Path) -> Surroundings:
    """Every package is the folder `code`. To be called with the event loop running."""
    journal = Journal()

    async def fetch(ref: CodeRef) -> tuple[str, bool]:
        return str(code), False

    return Surroundings(
        provider=provider,
        journal=journal,
        history=History(),
        traces=Traces(journal),
        clock=clock,
        loop=asyncio.get_running_loop(),
        fetch_code=fetch,
    )


async def until(what: Callable[[], Any], within: float = 5.0) -> None:
    """Let the loop go on until this is so."""
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 -- what is awaited has no event
            await asyncio.sleep(0.003)

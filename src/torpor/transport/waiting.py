"""Waiting with a limit."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def within(seconds: float | None, work: Awaitable[Result]) -> Result:
    """What `work` comes to; cancelled, with a TimeoutError, if that takes more than `seconds` (None: no limit).

    On its own because this file is never compiled: the compiler loses exceptions that pass through an asynchronous
    `with`.
    """
    async with asyncio.timeout(seconds):
        return await work

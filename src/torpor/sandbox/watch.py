"""Memory limits where no control group keeps them: by looking often, and ending what uses too much.

A function can run over its limit for one interval. That protects the host from leaks and runaway allocations; a real
limit takes a control group.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from torpor.sandbox.port import SandboxStatistics

EVERY = 0.05
"""Seconds between two looks."""


class MemoryWatch:
    """Watches one sandbox while its processes may run."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        look: Callable[[], SandboxStatistics],
        exceeded: Callable[[], None],
    ) -> None:
        """`limit` is in bytes; `exceeded` is called once for each time that `look` finds more."""
        self._loop = loop
        self._limit = limit
        self._look = look
        self._exceeded = exceeded
        self._wanted = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look from now on. Cheap if it looks already, so that every thaw may say so."""
        self._wanted = True
        if self._timer is None:
            self._timer = self._loop.call_later(EVERY, self._ring)

    def pause(self) -> None:
        """Nothing can grow now."""
        self._wanted = False

    def stop(self) -> None:
        """Look no more."""
        self.pause()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        if not self._wanted:
            return
        self._timer = self._loop.call_later(EVERY, self._ring)
        found = self._look()
        if (found.memory_bytes or 0) > self._limit and _proportional(found.processes) > self._limit:
            self._exceeded()


def _proportional(pids: Sequence[int]) -> int:
    """Bytes of these processes, pages that several share counted in parts; what cannot be read counts as too much."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            total += _of_one(pid)
    return total


def _of_one(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            line = next((line for line in file if line.startswith(b"Pss:")), b"Pss: 0 kB")
    except PermissionError:
        return 1 << 62
    return int(line.split()[1]) * 1024

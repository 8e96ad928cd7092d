"""Memory limits where no control group keeps them: by looking often, and ending what uses too much.

A function can run over its limit between two looks. That protects the host from leaks and runaway allocations; a real
limit takes a control group. What counts is what only swapping could give back: pages of mapped files do not.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from torpor.sandbox.port import SandboxStatistics

EVERY = 0.05
"""Seconds between two looks."""
SHARE = 0.05
"""Of the time at most that is spent looking."""
_OWN = (b"Pss_Anon:", b"Pss_Shmem:")


class MemoryWatch:
    """Watches one sandbox while its processes may run."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        limit: int,
        look: Callable[[], SandboxStatistics],
        exceeded: Callable[[int], None],
    ) -> None:
        """`limit` is in bytes; `exceeded` is told the process that uses most, whenever a look finds too much."""
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
        began = time.perf_counter()
        largest = self._largest_of_too_much()
        took = time.perf_counter() - began
        self._timer = self._loop.call_later(max(EVERY, took / SHARE), self._ring)
        if largest is not None:
            self._exceeded(largest)

    def _largest_of_too_much(self) -> int | None:
        found = self._look()
        if (found.memory_bytes or 0) <= self._limit:
            return None
        sizes = {pid: _own_bytes(pid) for pid in found.processes}
        return max(sizes, key=sizes.__getitem__) if sum(sizes.values()) > self._limit else None


def _own_bytes(pid: int) -> int:
    """Bytes of a process, shared pages counted in parts; what may not be read counts as too much."""
    total = whole = 0
    try:
        with (
            contextlib.suppress(FileNotFoundError, ProcessLookupError),
            open(f"/proc/{pid}/smaps_rollup", "rb") as file,
        ):
            for line in file:
                if line.startswith(_OWN):
                    total += int(line.split()[1])
                elif line.startswith(b"Pss:"):
                    whole = int(line.split()[1])
    except PermissionError:
        return 1 << 62
    return (total or whole) * 1024

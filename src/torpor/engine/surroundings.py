"""What every environment of a server shares."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from torpor.model.clock import Clock
from torpor.model.errors import SandboxUnavailable
from torpor.model.function import CodeRef, FunctionVersion
from torpor.sandbox.port import ProcessImage, SandboxProvider
from torpor.telemetry import History, Journal, Traces
from torpor.transport import Attention


class Snapshots(Protocol):
    """The snapshots of versions, as their environments use them."""

    async def take(self, version: FunctionVersion) -> ProcessImage:
        """The snapshot of a version, for the caller to close; made first if there is none. Raises TorporError."""
        ...

    async def keep(self, version: FunctionVersion, image: ProcessImage) -> None:
        """It has been made."""
        ...

    def doubt(self, version: FunctionVersion, reason: str) -> None:
        """A process could not go on from it."""
        ...


class NoSnapshots:
    """For servers whose environments are all initialised."""

    async def take(self, version: FunctionVersion) -> ProcessImage:
        raise SandboxUnavailable("This server keeps no snapshots.")

    async def keep(self, version: FunctionVersion, image: ProcessImage) -> None:
        image.close()

    def doubt(self, version: FunctionVersion, reason: str) -> None:
        """There are none."""


FetchCode = Callable[[CodeRef], Awaitable[tuple[str, bool]]]
"""Brings code to this host: its folder, and whether it was not here yet. Raises StoreUnavailable."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The sandboxes, the logs, the clocks, and where code comes from."""

    provider: SandboxProvider
    journal: Journal
    history: History
    traces: Traces
    clock: Clock
    loop: asyncio.AbstractEventLoop
    fetch_code: FetchCode
    limits_cpu: bool = True
    attention: Attention = field(default_factory=Attention)
    snapshots: Snapshots = field(default_factory=NoSnapshots)

"""What every environment of a server shares."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from torpor.model.clock import Clock
from torpor.model.function import CodeRef
from torpor.sandbox.port import SandboxProvider
from torpor.telemetry import History, Journal, Traces
from torpor.transport import Attention


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The sandboxes, the logs, the clocks, and where code comes from."""

    provider: SandboxProvider
    journal: Journal
    history: History
    traces: Traces
    clock: Clock
    loop: asyncio.AbstractEventLoop
    fetch_code: Callable[[CodeRef], Awaitable[tuple[str, bool]]]
    """Bring code to this host: its folder, and whether it was not here yet. Raises StoreUnavailable."""
    limits_cpu: bool = True
    attention: Attention = field(default_factory=Attention)

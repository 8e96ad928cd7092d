"""What the driver asks of the side that talks to the processes inside, be they pollers or a server."""

from collections.abc import Callable
from typing import Protocol

from torpor.model.invocation import Invocation
from torpor.sandbox.port import Sandbox


class Inside(Protocol):
    """One environment's processes, as the driver speaks with them. Everything they say becomes an event."""

    async def open(self, sandbox: Sandbox, external: tuple[str, ...]) -> None:
        """The sandbox is there; nothing runs in it yet. `external` are the extensions started as processes of their
        own, by agent name. Raises PlatformError."""
        ...

    def starting(self, agents: tuple[str, ...]) -> None:
        """These processes are about to start."""
        ...

    def started(self, agent: str) -> None:
        """This process was told to start."""
        ...

    def exited(self, agent: str) -> None:
        """This process is gone."""
        ...

    def deliver(self, invocation: Invocation, deadline: float) -> None:
        """Hand the runtime an invocation. `deadline` is a monotonic time."""
        ...

    def release(self, invocation_id: str) -> float:
        """The invocation is over for everybody outside; the result is as of `elapsed`."""
        ...

    def elapsed(self, invocation_id: str) -> float:
        """Seconds since its delivery; 0 where that is not kept."""
        ...

    def wake(self) -> None:
        """Tell the runtime, which waits for that, to go on from its snapshot."""
        ...

    def call_hook(self, hook: str) -> None:
        """`HookFinished` follows."""
        ...

    def notify_invoke(self, agent: str, invocation: Invocation, deadline: float) -> None: ...

    def notify_shutdown(self, agent: str, reason: str, deadline: float) -> None: ...

    def farewell(self, agent: str, end: Callable[[], None]) -> None:
        """This process is to be killed: call `end`, which does it, once it has got what is on its way to it."""
        ...

    def worker_log_opened(self) -> None:
        """A worker writes to a log of its own."""
        ...

    def worker_log_closed(self) -> None: ...

    def frozen(self) -> None:
        """The processes get no CPU from now on."""
        ...

    def thawed(self) -> None: ...

    @property
    def address(self) -> str:
        """`host:port` at which a server is expected; empty for pollers."""
        ...

    def close(self) -> None:
        """The environment ends."""
        ...

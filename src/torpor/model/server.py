"""How a runtime that is an HTTP server is started, reached and looked after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

INITIALIZE = "initialize"
PRE_FREEZE = "pre-freeze"
PRE_STOP = "pre-stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A call the platform makes at a turn of the environment's life; absent hooks are never called."""

    timeout_s: float
    handler: str = ""
    """What the function's configuration names; servers are only told that it is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """A path that is asked now and then while the server runs. Times in seconds."""

    path: str
    initial_delay_s: float = 0.0
    period_s: float = 3.0
    timeout_s: float = 1.0
    failures: int = 3
    """As many in a row make it unhealthy."""
    successes: int = 1
    """As many in a row make it healthy again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What a function or service says about its server."""

    command: tuple[str, ...] = ()
    """Program and arguments; empty for the contract's own default."""
    port: int
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    """By `INITIALIZE`, `PRE_FREEZE` and `PRE_STOP`."""
    health: HealthCheck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """How the platform finds out that a server is up. Times in seconds."""

    path: str = ""
    """Asked with GET; any complete answer counts. Empty: an accepted connection does."""
    fields: Sequence[tuple[str, str]] = ()
    period_s: float = 0.02
    timeout_s: float = 60.0
    """For one try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCall:
    """A request of the platform's own to a server inside."""

    method: str
    target: str
    fields: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    timeout_s: float = 0.0
    """For hooks; an invocation's limit is its deadline."""

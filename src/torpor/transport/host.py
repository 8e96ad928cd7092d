"""What a connection goes through, and what it needs of its server."""

from enum import Enum
from typing import TYPE_CHECKING, Protocol

from torpor.transport.attention import Attention
from torpor.transport.exchange import Application
from torpor.transport.limits import HttpLimits, Ticks
from torpor.transport.parser import Reading
from torpor.transport.response import ErrorFace
from torpor.transport.wheel import TimerWheel

if TYPE_CHECKING:
    from torpor.transport.connection import Connection


class Phase(Enum):
    """What the connection waits for; each has its own time-out."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    SERVING = "serving"
    BLOCKED = "blocked"
    LINGER = "linger"
    CLOSING = "closing"

    __hash__ = object.__hash__  # looked up on every request


ENDING = frozenset({Phase.LINGER, Phase.CLOSING})
STALLING = frozenset({Phase.SERVING, Phase.BLOCKED, Phase.LINGER, Phase.CLOSING})
"""Where a time-out is no reproach while the peer goes on reading."""
PHASE_OF: dict[Reading, Phase] = {Reading.BETWEEN: Phase.IDLE, Reading.HEAD: Phase.HEAD, Reading.BODY: Phase.BODY}
"""Of a connection that serves nothing."""


class Host(Protocol):
    """The server as its connections see it."""

    app: Application
    attention: Attention
    limits: HttpLimits
    on_error: ErrorFace
    ticks: Ticks
    wheel: TimerWheel
    draining: bool
    requests: int
    refusals: int
    timeouts: int

    def joined(self, connection: "Connection") -> bool:
        """Whether there is room for one more connection."""
        ...

    def left(self, connection: "Connection") -> None: ...

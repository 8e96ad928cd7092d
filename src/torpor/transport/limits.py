"""What a connection may ask of the server. Sizes in bytes, times in seconds."""

from collections.abc import Callable
from dataclasses import dataclass

from torpor.transport.wheel import ticks

BodyLimit = int | Callable[[str, str], int]
"""Largest request body in bytes, or a function of method and raw path that tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Bounds of one server. Times are kept coarsely: they may run over by about a tenth of a second, never short."""

    header_bytes: int = 64 * 1024
    """Request line and header fields together; more is answered 431 (414 if the target alone is too long)."""
    header_count: int = 200
    body_bytes: BodyLimit = 6 * 1024 * 1024 + 64 * 1024
    """Counted while reading; a larger body is answered 413, at once if its length was declared."""
    head_timeout: float = 15.0
    """From the first byte of a request (or the accepted connection) to the end of its header fields."""
    body_timeout: float = 30.0
    """Longest silence inside a body."""
    stream_timeout: float | None = None
    """The same for bodies that are served before they are complete; None for `body_timeout`."""
    body_rate: int = 1024
    """Bytes a second a body must average once `body_timeout` has passed."""
    idle_timeout: float = 75.0
    """Longest silence between two requests of a connection."""
    write_timeout: float = 30.0
    """Longest time a peer may read nothing of an answer that waits for it."""
    linger_timeout: float = 5.0
    """How long the rest of a refused request is read and thrown away, so that the refusal reaches the peer."""
    connections: int = 10_000
    """Open at once; a further one is answered 503 and closed."""
    output_bytes: int = 64 * 1024
    """Unread output of a connection above which its next request waits."""
    pipelined_bytes: int = 64 * 1024
    """Input read ahead while a request is being served; above it the connection is not read."""


class Ticks:
    """A server's time-outs on the timer wheel; shared by its connections."""

    __slots__ = ("body", "head", "idle", "linger", "stream", "write")

    def __init__(self, limits: HttpLimits) -> None:
        self.head = ticks(limits.head_timeout)
        self.body = ticks(limits.body_timeout)
        self.stream = ticks(limits.body_timeout if limits.stream_timeout is None else limits.stream_timeout)
        self.idle = ticks(limits.idle_timeout)
        self.linger = ticks(limits.linger_timeout)
        self.write = ticks(limits.write_timeout)

"""What an extension subscribes to: which events, where to, and how they are gathered."""

from enum import StrEnum

import msgspec


class Source(StrEnum):
    """Where an event comes from."""

    PLATFORM = "platform"
    FUNCTION = "function"
    EXTENSION = "extension"


class BufferLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When a batch is complete: at so many events, so many bytes, or `seconds` after its first event."""

    items: int
    size: int
    seconds: float


class Subscription(msgspec.Struct, frozen=True, kw_only=True):
    """One extension's. Its listener is a server inside the sandbox, on loopback."""

    api: str
    """The API by which it was made; one environment's subscriptions all come by the same."""
    schema: str
    """Which form of the events it wants."""
    sources: tuple[Source, ...]
    port: int
    buffering: BufferLimits
    method: str = ""
    """Of the HTTP requests that deliver batches; empty for lines over a plain TCP connection."""
    host: str = ""
    target: str = "/"
    """Path and query of those requests."""

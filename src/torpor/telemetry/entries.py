"""What telemetry keeps, as it is read back."""

import msgspec


class LogEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event: a number that grows within its group, milliseconds since the epoch, stream and text."""

    number: int
    time: float
    stream: str
    message: str
    received: float = 0.0
    """When it came in, in milliseconds, if it was sent with a time of its own; else 0: at that time."""


class StreamTimes(msgspec.Struct):
    """The times of the events of one stream, in milliseconds since the epoch."""

    first: float
    last: float
    received: float
    """When the newest one came in."""


class Summary(msgspec.Struct):
    """What one file of events holds: event numbers, times in milliseconds since the epoch, and the streams."""

    first: int
    last: int
    earliest: float
    latest: float
    streams: dict[str, StreamTimes] = {}


class GroupDocument(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What is known of a log group beside its events. Times in milliseconds since the epoch."""

    name: str
    created: float
    retention: int = 0
    """Days after which events expire; 0: never."""
    tags: dict[str, str] = {}
    streams: dict[str, float] = {}
    """When streams were made that nothing may have been written to yet."""
    deleted: dict[str, int] = {}
    """Deleted streams of which events may still lie in the files, with the last event number that went."""


class PhaseEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of one environment. `time` is seconds since the epoch at its end, `duration` in seconds."""

    function: str
    environment: str
    phase: str
    """`fetch` (the code), `start` (the sandbox), `init`, `invoke` or `shutdown`; `reinit` is an Init that ran inside
    the invocation listed after it."""
    status: str
    time: float
    duration: float
    exits: dict[str, str] = {}
    """How each process ended, by its name: of a shutdown."""
    cold: bool = False
    """Of an invocation: it is the first since an Init."""
    fetched: bool = False
    """Of a fetch: the code was not on this host yet."""

"""What telemetry keeps, as it is read back."""

import msgspec


class LogEvent(msgspec.Struct, frozen=True):
    """One event: a number that grows within its group, milliseconds since the epoch, stream and text."""

    number: int
    time: float
    stream: str
    message: str


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

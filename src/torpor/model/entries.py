"""Records as they are told to others: with whose they are, when, and what was known then."""

import msgspec

from torpor.model.function import FunctionVersion
from torpor.model.records import Record
from torpor.model.start import Start


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One record on its way into a log or into telemetry."""

    record: Record
    version: FunctionVersion
    wall: float
    """Seconds since the epoch."""
    memory_mb: int = 0
    """The most that the environment has used, where that is asked for."""
    trace: str = ""
    """The header of the invocation, if its trace is recorded."""
    start: Start = Start.ON_DEMAND
    stream: str = ""
    """The environment's log stream."""

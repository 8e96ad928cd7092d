"""The phases that environments went through, newest kept: what an operator asks for when a picture is wanted."""

from collections import deque

from torpor.model.records import CodeFetched, InitEnded, InvocationEnded, Record, SandboxMade, ShutdownEnded
from torpor.telemetry.entries import PhaseEntry

KEPT = 10_000
END_OF_PHASE = frozenset({CodeFetched, SandboxMade, InitEnded, InvocationEnded, ShutdownEnded})
"""The records that `History.note` is for."""


_Noted = tuple[str, str, Record, float]


class History:
    """The last phases of all environments of a server; nothing of what runtimes posted is kept."""

    def __init__(self) -> None:
        self._entries: deque[PhaseEntry | _Noted] = deque(maxlen=KEPT)

    def note(self, function: str, environment: str, record: Record, wall: float) -> None:
        """Keep the phase that this record ends."""
        noted = (function, environment, record, wall)
        # Most are never read, so they are worded when they are; an error's payload must not be kept that long.
        is_small = type(record) is InvocationEnded and record.failure is None and record.reported is None
        self._entries.append(noted if is_small else _entry(*noted))

    def read(self, function: str) -> list[PhaseEntry]:
        """The kept phases of a function's environments, oldest first."""
        entries = (entry if isinstance(entry, PhaseEntry) else _entry(*entry) for entry in self._entries)
        return [entry for entry in entries if entry.function == function]


def _entry(function: str, environment: str, record: Record, wall: float) -> PhaseEntry:
    phase, status, duration, exits = "invoke", "success", 0.0, dict[str, str]()
    if isinstance(record, ShutdownEnded):
        phase, duration, exits = "shutdown", record.duration, record.exits
    elif isinstance(record, CodeFetched | SandboxMade):
        phase, duration = "fetch" if isinstance(record, CodeFetched) else "start", record.duration
    elif isinstance(record, InitEnded | InvocationEnded):
        status, duration = str(record.status), record.duration
        if isinstance(record, InitEnded):
            phase = "reinit" if record.within_invocation else "init"
    return PhaseEntry(
        function=function,
        environment=environment,
        phase=phase,
        status=status,
        time=wall,
        duration=duration,
        exits=exits,
        cold=isinstance(record, InvocationEnded) and record.init_duration is not None,
        fetched=isinstance(record, CodeFetched) and record.fetched,
    )

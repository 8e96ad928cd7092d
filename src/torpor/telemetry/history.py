"""The phases that environments went through, newest kept: what an operator asks for when a picture is wanted."""

from collections import deque

import msgspec

from torpor.model.records import InitEnded, InvocationEnded, Record, ShutdownEnded

KEPT = 10_000


class PhaseEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One phase of one environment. `time` is seconds since the epoch at its end, `duration` in seconds."""

    function: str
    environment: str
    phase: str
    """`init`, `invoke` or `shutdown`; `reinit` is an Init that ran inside the invocation listed after it."""
    status: str
    time: float
    duration: float
    exits: dict[str, str] = {}
    """How each process ended, by its name: of a shutdown."""


class History:
    """The last phases of all environments of a server."""

    def __init__(self) -> None:
        self._entries: deque[PhaseEntry] = deque(maxlen=KEPT)

    def note(self, function: str, environment: str, record: Record, wall: float) -> None:
        """Keep the phase that this record ends, if it ends one."""
        phase, status, duration, exits = "", "success", 0.0, dict[str, str]()
        if isinstance(record, InvocationEnded):
            phase, status, duration = "invoke", str(record.status), record.duration
        elif isinstance(record, InitEnded):
            phase = "reinit" if record.within_invocation else "init"
            status, duration = str(record.status), record.duration
        elif isinstance(record, ShutdownEnded):
            phase, duration, exits = "shutdown", record.duration, record.exits
        else:
            return
        self._entries.append(
            PhaseEntry(
                function=function,
                environment=environment,
                phase=phase,
                status=status,
                time=wall,
                duration=duration,
                exits=exits,
            )
        )

    def read(self, function: str) -> list[PhaseEntry]:
        """The kept phases of a function's environments, oldest first."""
        return [entry for entry in self._entries if entry.function == function]

"""The phases that environments went through, newest kept: what an operator asks for when a picture is wanted."""

from collections import deque

import msgspec

from torpor.model.records import InitEnded, InvocationEnded, Record, ShutdownStarted

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


class History:
    """The last phases of all environments of a server."""

    def __init__(self) -> None:
        self._entries: deque[PhaseEntry] = deque(maxlen=KEPT)

    def note(self, function: str, environment: str, record: Record, wall: float) -> None:
        """Keep the phase that this record ends, if it ends one."""
        phase, status, duration = "", "success", 0.0
        if isinstance(record, InvocationEnded):
            phase, status, duration = "invoke", str(record.status), record.duration
        elif isinstance(record, InitEnded):
            phase = "reinit" if record.within_invocation else "init"
            status, duration = str(record.status), record.duration
        elif isinstance(record, ShutdownStarted):
            phase = "shutdown"
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
            )
        )

    def read(self, function: str) -> list[PhaseEntry]:
        """The kept phases of a function's environments, oldest first."""
        return [entry for entry in self._entries if entry.function == function]

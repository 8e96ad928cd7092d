"""What an environment writes: its processes' lines and the platform's own, in order, in one log stream."""

from collections.abc import Callable, Mapping

from torpor.engine.contract import Contract, Image
from torpor.model.function import FunctionVersion
from torpor.model.records import InvocationEnded, InvocationStarted, Record
from torpor.sandbox.port import Stream
from torpor.telemetry import Journal, OutputReader

TAIL_KEPT = 64 * 1024
"""Bytes of an invocation's log kept for its caller; the contract cuts it further."""


class Transcript:
    """The log stream of one environment, and the tail of the invocation that runs in it."""

    def __init__(
        self, journal: Journal, version: FunctionVersion, stream: str, contract: Contract, image: Image
    ) -> None:
        self._journal = journal
        self._image = image
        self._version = version
        self._group = version.log_group
        self._stream = stream
        self._contract = contract
        self._output = OutputReader()
        self._tail: list[str] = []
        self._tail_size = 0
        self._current = ""
        self._phases: dict[str, float] = {}
        self._last_wall = 0.0

    def output(self, stream: Stream, data: bytes, wall: float) -> None:
        """Bytes that processes wrote."""
        events = self._output.framed(data) if stream is Stream.FRAMED else self._output.plain(data)
        for stamp, text in events:
            self._append(wall if stamp is None else stamp, text)

    def process_ended(self) -> None:
        """A process has ended: what it left unfinished is a line now."""
        for _, text in self._output.flush():
            self._append(self._last_wall, text)

    def record(self, record: Record, wall: float, memory_mb: Callable[[], int]) -> None:
        """Something happened at wall-clock time `wall`: the platform's lines for it."""
        self._last_wall = wall
        if isinstance(record, InvocationStarted):
            self._current = record.id
            self._tail, self._tail_size = [], 0
        memory = memory_mb() if isinstance(record, InvocationEnded) else 0
        for line in self._contract.log_lines(self._version, self._image, record, wall=wall, memory_mb=memory):
            self._append(wall, line)
        if isinstance(record, InvocationEnded):
            self._phases = {"invoke": record.duration * 1000}
            if record.init_duration is not None:
                self._phases["init"] = record.init_duration * 1000

    def tail(self, invocation_id: str) -> bytes:
        """The lines of this invocation so far, as much of them as its caller may have."""
        return self._contract.log_tail("".join(self._tail).encode()) if invocation_id == self._current else b""

    def phases(self, invocation_id: str) -> Mapping[str, float]:
        """How long the invocation's phases took, in milliseconds, once it has ended."""
        return self._phases if invocation_id == self._current else {}

    def _append(self, wall: float, text: str) -> None:
        self._journal.append(self._group, self._stream, wall, text)
        if self._current:
            self._tail.append(text)
            self._tail_size += len(text)
            while self._tail_size > TAIL_KEPT and len(self._tail) > 1:
                self._tail_size -= len(self._tail.pop(0))

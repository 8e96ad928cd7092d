"""What an environment writes: its processes' lines and the platform's own, in order, in one log stream."""

from collections import deque
from collections.abc import Callable, Iterable

from torpor.engine.contract import Contract
from torpor.engine.subscriptions import Subscriptions
from torpor.engine.tracing import Tracer
from torpor.model.entries import Entry
from torpor.model.function import FunctionVersion
from torpor.model.records import InvocationEnded, InvocationStarted, Record
from torpor.model.start import Start
from torpor.model.telemetry import Source
from torpor.sandbox.port import Stream
from torpor.telemetry import Journal, OutputReader

RECENT_KEPT = 40
"""Lines of output kept to explain a failure with."""
TAIL_KEPT = 64 * 1024
"""Bytes of an invocation's log kept for its caller; the contract cuts it further."""


class Transcript:
    """The log stream of one environment, and the tail of the invocation that runs in it.

    Records become lines a moment after they are noted, several at once, so that no invocation waits for its log.
    Whoever could tell the difference has them written first: output that follows them, a caller that wants the log,
    a reader of the journal. `memory_mb` tells the environment's peak at the time of writing.
    """

    def __init__(
        self,
        journal: Journal,
        version: FunctionVersion,
        stream: str,
        contract: Contract,
        memory_mb: Callable[[], int],
        start: Start = Start.ON_DEMAND,
        tracer: Tracer | None = None,
    ) -> None:
        self._journal = journal
        self._version = version
        self._group = version.log_group
        self._stream = stream
        self._contract = contract
        self._memory_mb = memory_mb
        self._start = start
        self._tracer = tracer
        self._output = OutputReader()
        self._noted: list[tuple[Record, float]] = []
        self._tail: deque[str] = deque()
        self._tail_size = 0
        self._current = ""
        self._last_wall = 0.0
        self._comments = contract.comments(version)
        self._workers: dict[int, OutputReader] = {}
        self._own: dict[str, OutputReader] = {}
        """The outputs of processes that have one of their own, by name."""
        self._keeps = contract.line_filter(version)
        self._follower: Subscriptions | None = None
        self._recent: deque[tuple[float, str]] = deque(maxlen=RECENT_KEPT)

    def placed(self, version: FunctionVersion) -> None:
        """How the version runs in this sandbox, for what is written from now on."""
        self._version = version

    def follow(self, follower: Subscriptions) -> None:
        """Tell it everything too, in the same order and at once, for as long as it is needed."""
        self._follower = follower

    @property
    def is_followed(self) -> bool:
        return self._follower is not None

    def entry(self, record: Record, wall: float, memory_mb: int = 0, trace: str = "") -> Entry:
        """A record of this environment as it is told."""
        return Entry(
            record=record,
            version=self._version,
            wall=wall,
            memory_mb=memory_mb,
            trace=trace,
            start=self._start,
            stream=self._stream,
        )

    def note(self, record: Record, wall: float) -> None:
        """Something happened at wall-clock time `wall`."""
        if not self._noted:
            self._journal.defer(self.write)
        self._noted.append((record, wall))
        if self._follower is not None:
            self.write()

    def write(self) -> None:
        """Make lines of the records noted so far."""
        if not self._noted:
            return
        noted, self._noted = self._noted, []
        ends = any(type(record) is InvocationEnded for record, _ in noted)
        memory = self._memory_mb() if ends else 0
        for record, wall in noted:
            if type(record) is InvocationStarted:
                self._current = record.id
                self._tail, self._tail_size = deque(), 0
            self._write(record, wall, memory)
        self._last_wall = noted[-1][1]

    def _write(self, record: Record, wall: float, memory_mb: int) -> None:
        tracer = self._tracer
        trace = tracer.trace_of(record) if tracer is not None else ""
        entry = self.entry(record, wall, memory_mb, trace)
        lines = self._contract.log_lines(entry)
        if lines:
            self._append(wall, lines)
        follower = self._follower
        if follower is not None:
            follower.record(entry)
            if not follower.is_needed:
                self._follower = None
        if tracer is not None:
            tracer.note(record, wall)

    def output(self, stream: Stream, data: bytes, wall: float) -> None:
        """Bytes that processes wrote."""
        self.write()
        events = self._output.framed(data) if stream is Stream.FRAMED else self._output.plain(data)
        lines = []
        for stamp, text in events:
            if self._keeps is None or self._keeps(text):
                lines.append(text)
                self._add(Source.FUNCTION, wall if stamp is None else stamp, text)
        self._recent.extend((wall, text) for text in lines)
        if self._comments is not None and lines and (added := self._comments("".join(lines))):
            self._append(wall, added)

    def recent(self) -> tuple[tuple[float, str], ...]:
        """The last lines that processes wrote, with their wall times."""
        return tuple(self._recent)

    def worker_output(self, connection: int, data: bytes, wall: float) -> None:
        """Bytes that a worker wrote to its own connection: its lines do not mix with others'."""
        self.write()
        reader = self._workers.setdefault(connection, OutputReader())
        for _, text in reader.plain(data):
            self._add(Source.FUNCTION, wall, text)

    def worker_closed(self, connection: int, wall: float) -> None:
        """The connection has ended: what was left unfinished is a line now."""
        self.write()
        reader = self._workers.pop(connection, None)
        for _, text in reader.flush() if reader is not None else ():
            self._add(Source.FUNCTION, wall, text)

    def process_output(self, name: str, data: bytes, wall: float) -> None:
        """Bytes that a process with an output of its own wrote."""
        self.write()
        reader = self._own.setdefault(name, OutputReader())
        for _, text in reader.plain(data):
            self._add(Source.EXTENSION, wall, text)

    def process_ended(self, name: str) -> None:
        """A process has ended: what it left unfinished is a line now."""
        self.write()
        reader = self._own.get(name)
        source = Source.FUNCTION if reader is None else Source.EXTENSION
        for _, text in (reader or self._output).flush():
            self._add(source, self._last_wall, text)

    def all_ended(self) -> None:
        """As `process_ended`, for every process."""
        for name in ("", *self._own):
            self.process_ended(name)

    def tail(self, invocation_id: str) -> bytes:
        """The lines of this invocation so far, as much of them as its caller may have."""
        self.write()
        return self._contract.log_tail("".join(self._tail).encode()) if invocation_id == self._current else b""

    def _add(self, source: Source, wall: float, text: str) -> None:
        self._append(wall, (text,))
        if self._follower is not None:
            self._follower.line(source, wall, text)

    def _append(self, wall: float, lines: Iterable[str]) -> None:
        self._journal.append(self._group, self._stream, wall, lines)
        if self._current:
            for text in lines:
                self._tail.append(text)
                self._tail_size += len(text)
            while self._tail_size > TAIL_KEPT and len(self._tail) > 1:
                self._tail_size -= len(self._tail.popleft())

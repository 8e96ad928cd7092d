"""What an environment tells the outside: callers what came of their invocations, logs and history what happened."""

import logging

import msgspec

from torpor.engine.contract import Contract
from torpor.engine.subscriptions import Subscriptions
from torpor.engine.surroundings import Surroundings
from torpor.engine.tracing import Tracer
from torpor.engine.transcript import Transcript
from torpor.model.clock import Clock
from torpor.model.failure import Answer, Failure, FailureKind, as_text
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.model.records import (
    ExtensionStatus,
    InitEnded,
    InitRuntimeDone,
    InitStarted,
    InvocationEnded,
    Record,
    RestoreEnded,
    RestoreStarted,
    RuntimeDone,
)
from torpor.model.start import Start
from torpor.sandbox.port import Sandbox
from torpor.telemetry import END_OF_PHASE

log = logging.getLogger(__name__)
_MIB = 1024 * 1024
_BEGINS = frozenset({InitStarted, RestoreStarted})
_AFTER_OUTPUT = frozenset({InitRuntimeDone, ExtensionStatus, RestoreEnded})
"""Records that come behind all that was written until then."""
_FAILED = {
    FailureKind.TIMEOUT: OutcomeStatus.TIMEOUT,
    FailureKind.SANDBOX: OutcomeStatus.FAILURE,
    FailureKind.STOPPED: OutcomeStatus.FAILURE,
}


class Reports:
    """One environment's."""

    def __init__(
        self,
        identity: str,
        version: FunctionVersion,
        contract: Contract,
        around: Surroundings,
        start: Start,
        *,
        has_workers: bool,
    ) -> None:
        self._has_workers = has_workers
        self._identity = identity
        self._version = version
        self._contract = contract
        self._clock = around.clock
        self._history = around.history
        self._is_server = contract.server_wire is not None
        self.log_stream = contract.log_stream(version, identity, around.clock.wall())
        traced = contract.is_traced(version)
        self.tracer = Tracer(version, self.log_stream, contract, around.traces) if traced else None
        self.transcript = Transcript(
            around.journal, version, self.log_stream, contract, self._memory_mb, start, self.tracer
        )
        self.telemetry = self._subscriptions(around.clock)
        """Who has subscribed to it; None where nobody can."""
        self.logs_all = self.tracer is not None or contract.logs_every_invocation
        """Whether records of invocations that went well are more than history."""
        self.sandbox: Sandbox | None = None
        self.began = around.clock.monotonic()
        """When the runtime was last started."""
        self.address = ""
        """Where a server is expected."""

    def _subscriptions(self, clock: Clock) -> Subscriptions | None:
        wire = self._contract.telemetry_wire
        if wire is None:
            return None
        render, entry = self._contract.platform_events, self.transcript.entry
        return Subscriptions(wire, render, entry, self.note, clock, is_json=self._version.log_format == "JSON")

    def placed(self, sandbox: Sandbox, version: FunctionVersion) -> None:
        """It has a sandbox, in which the version runs like this."""
        self.sandbox = sandbox
        self._version = version
        self.transcript.placed(version)

    def outcome(self, invocation: Invocation, result: Answer | Failure, elapsed: float) -> Outcome:
        """What its caller is told; it ran for `elapsed` seconds."""
        tail = b""
        if invocation.wants_log:
            self.drain_output()
            tail = self.transcript.tail(invocation.id)
        memory = self._memory_mb() if invocation.wants_memory else 0  # reading it takes a moment
        if isinstance(result, Failure):
            return self._failed(invocation, result, elapsed, tail, memory)
        return Outcome(
            status=OutcomeStatus.ERROR if result.error_type else OutcomeStatus.SUCCESS,
            payload=result.payload,
            content_type=result.content_type,
            error_type=result.error_type,
            version=self._version.version,
            log_tail=tail,
            environment=self._identity,
            duration=elapsed,
            memory_mb=memory,
        )

    def _failed(self, invocation: Invocation, failure: Failure, elapsed: float, tail: bytes, memory_mb: int) -> Outcome:
        if failure.kind is FailureKind.SANDBOX:
            log.error("invocation %s of %s: %s", invocation.id, self._version.function, failure.detail)
        failure = self._explained(failure, elapsed)
        kind, payload = self._contract.failure(failure, self._version, invocation.id, self._clock.wall())
        status = _FAILED.get(failure.kind, OutcomeStatus.ERROR)
        return Outcome(
            status=status,
            payload=payload,
            error_type="" if status is OutcomeStatus.FAILURE else kind,
            version=self._version.version,
            log_tail=tail,
            environment=self._identity,
            duration=elapsed,
            memory_mb=memory_mb,
            failure=failure,
        )

    def runtime_done(self, record: RuntimeDone) -> None:
        """Keep the record; whoever follows has read before what the runtime wrote."""
        if record.failure is not None or self.transcript.is_followed:
            self.drain_output()
        self.note(record)

    def happened(self, record: Record) -> None:
        """Keep a record of what does not happen with every invocation."""
        if type(record) in _BEGINS and self.telemetry is not None:
            self.telemetry.begin()
            self.transcript.follow(self.telemetry)
        elif type(record) in _AFTER_OUTPUT:
            self.drain_output()
        self.note(record)

    def init_ended(self, record: InitEnded) -> str:
        """Keep the record; why Init failed, for people."""
        self.drain_output()
        failure = record.failure
        if failure is None:
            self.note(record)
            return ""
        failure = self._explained(failure, 0.0)
        self.note(msgspec.structs.replace(record, failure=failure))
        return as_text(self._contract.failure(failure, self._version, "", 0.0)[1])

    def concluded(self, record: InvocationEnded, elapsed: float) -> None:
        """Keep the record of an invocation, which ran for `elapsed` seconds if it failed."""
        failure = record.failure
        if failure is None and not self.logs_all:
            self.past(record)
            return
        if failure is not None or not self._has_workers:  # looking at every worker's streams costs more than the rest
            self.drain_output()
        if failure is not None:
            record = msgspec.structs.replace(record, failure=self._explained(failure, elapsed))
        self.note(record)

    def note(self, record: Record) -> None:
        """Keep a record in the log, and in the history if it tells of the end of a phase."""
        self.transcript.note(record, self._clock.wall())
        if type(record) in END_OF_PHASE:
            self.past(record)

    def past(self, record: Record) -> None:
        """Keep a record in the history only."""
        self._history.note(self._version.function, self._identity, record, self._clock.wall())

    def drain_output(self) -> None:
        """What comes now in the log comes after all that the processes have written."""
        if self.sandbox is not None:
            self.sandbox.drain_output()

    def _explained(self, failure: Failure, elapsed: float) -> Failure:
        """With what helps its reader, where the runtime is a server that people have to put right."""
        if not self._is_server:
            return failure
        return msgspec.structs.replace(
            failure,
            elapsed=self._clock.monotonic() - self.began if failure.starting or not elapsed else elapsed,
            address=self.address,
            memory_mb=self._memory_mb(),
            output=self.transcript.recent(),
        )

    def _memory_mb(self) -> int:
        return -(-self.sandbox.memory_peak() // _MIB) if self.sandbox is not None else 0

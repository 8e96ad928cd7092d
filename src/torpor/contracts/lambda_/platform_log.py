"""The platform's own log lines in text format, old and new style (contract 5.1, 5.2)."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from torpor.contracts.lambda_ import failures
from torpor.contracts.lambda_.environment import SNAPSHOT
from torpor.contracts.lambda_.log_facts import LogFacts
from torpor.contracts.lambda_.tracing import read_trace
from torpor.model.failure import Failure, FailureKind
from torpor.model.invocation import OutcomeStatus
from torpor.model.records import (
    ExtensionStatus,
    InitEnded,
    InitStarted,
    InvocationEnded,
    InvocationStarted,
    Record,
    RestoreEnded,
    RestoreStarted,
    Subscribed,
)


class LogStyle(StrEnum):
    NEW = "new"
    OLD = "old"


class Billing(StrEnum):
    STANDARD = "standard"
    """Init is billed with the cold invocation; rounded up to whole milliseconds."""
    SAMPLES = "samples"
    """As the vendor's older samples show: without Init; failures cut to whole milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformLog:
    """Renders records as log events; each returned string is one event and ends with a newline."""

    style: LogStyle = LogStyle.NEW
    billing: Billing = Billing.STANDARD

    def render(self, record: Record, facts: LogFacts, wall: float) -> list[str]:
        """The log events of one record, at the wall-clock time `wall`; most records have none."""
        if isinstance(record, InvocationStarted):
            return [f"START RequestId: {record.id} Version: {facts.version}\n"]
        if isinstance(record, InvocationEnded):
            return [*self._failure_lines(record, wall), f"END RequestId: {record.id}\n", self._report(record, facts)]
        if isinstance(record, ExtensionStatus):
            return [_extension_line(record)]
        if isinstance(record, Subscribed):
            sources = ", ".join(source.capitalize() for source in record.sources)
            return [f"{record.api.upper()}\tName: {record.name}\tState: Subscribed\tTypes: [{sources}]\n"]
        if isinstance(record, InitStarted) and not record.within_invocation and facts.runtime_version:
            return [
                f"INIT_START Runtime Version: {facts.runtime_version}\tRuntime Version ARN: {facts.runtime_resource}\n"
            ]
        if isinstance(record, InitEnded) and not record.within_invocation:
            return _init_report(record, always=facts.initialization == SNAPSHOT)
        if isinstance(record, RestoreStarted):
            return [
                f"RESTORE_START Runtime Version: {facts.runtime_version}\t"
                f"Runtime Version ARN: {facts.runtime_resource}\n"
            ]
        if isinstance(record, RestoreEnded):
            return [f"RESTORE_REPORT Restore Duration: {record.duration * 1000:.2f} ms{_end(record.failure)}\n"]
        return []

    def _failure_lines(self, record: InvocationEnded, wall: float) -> list[str]:
        failure = record.failure
        if self.style is LogStyle.NEW or failure is None:
            return []
        if failure.kind is FailureKind.TIMEOUT:
            return [f"{stamp(wall)} {record.id} {failures.error_text(failure)}\n"]
        if failure.kind in (FailureKind.EXIT, FailureKind.START):
            text = failures.error_text(failure)
            return [f"RequestId: {record.id} Error: {text}\n{failures.error_type(failure)}\n"]
        return []

    def _report(self, record: InvocationEnded, facts: LogFacts) -> str:
        fields = (
            f"REPORT RequestId: {record.id}\tDuration: {record.duration * 1000:.2f} ms\t"
            f"Billed Duration: {self.billed(record)} ms\tMemory Size: {facts.memory_mb} MB\t"
            f"Max Memory Used: {self.memory_used(record, facts)} MB\t"
        )
        if record.init_duration is not None:
            fields += f"Init Duration: {record.init_duration * 1000:.2f} ms\t"
        if record.restored is not None:
            fields += (
                f"Restore Duration: {record.restored.duration * 1000:.2f} ms\t"
                f"Billed Restore Duration: {billed_restore(record.restored)} ms\t"
            )
        return fields + self._status_fields(record) + "\n" + _trace_line(facts.trace)

    def _status_fields(self, record: InvocationEnded) -> str:
        failure = record.failure
        if self.style is LogStyle.OLD or failure is None:
            return ""
        if failure.kind is FailureKind.TIMEOUT:
            return "Status: timeout\t"
        return f"Status: error\tError Type: {failures.error_type(failure)}\t"

    def memory_used(self, record: InvocationEnded, facts: LogFacts) -> int:
        """Megabytes; all of its size for an environment that ran out of memory."""
        if record.failure is not None and record.failure.out_of_memory:
            return facts.memory_mb
        return min(facts.memory_used_mb, facts.memory_mb)

    def billed(self, record: InvocationEnded) -> int:
        """Whole milliseconds that this invocation is billed for."""
        timed_out = record.status is OutcomeStatus.TIMEOUT
        if timed_out and self.style is LogStyle.OLD:
            return round(record.limit * 1000)
        duration = round(record.duration * 1000, 2)
        if self.billing is Billing.SAMPLES:
            failed_new = record.failure is not None and self.style is LogStyle.NEW
            return math.floor(duration) if failed_new else math.ceil(duration)
        restored = billed_restore(record.restored) if record.restored is not None else 0
        return math.ceil(round(duration + (record.init_duration or 0.0) * 1000, 2)) + restored


def _trace_line(trace: str) -> str:
    if not trace:
        return ""
    header = read_trace(trace)
    return f"XRAY TraceId: {header.root}\tSegmentId: {header.parent}\tSampled: true\t\n"


def billed_restore(record: RestoreEnded) -> int:
    """Whole milliseconds that a restoration is billed for: those in which the runtime was at work."""
    return math.ceil(round(record.hooks * 1000, 2))


def _init_report(record: InitEnded, *, always: bool) -> list[str]:
    line = f"INIT_REPORT Init Duration: {record.duration * 1000:.2f} ms"
    if record.failure is not None:
        return [f"{line}\tPhase: init{_end(record.failure)}\t\n"]
    return [f"{line}\n"] if always else []


def _end(failure: Failure | None) -> str:
    """How a step ended that had not to do with an invocation."""
    if failure is None:
        return ""
    if failure.kind is FailureKind.TIMEOUT:
        return "\tStatus: timeout"
    return f"\tStatus: error\tError Type: {failures.error_type(failure)}"


def _extension_line(record: ExtensionStatus) -> str:
    state = failures.extension_state(record.state, record.failure)
    line = f"EXTENSION\tName: {record.name}\tState: {state}\tEvents: [{', '.join(record.events)}]"
    return line + (f"\tError Type: {failures.error_type(record.failure)}\n" if record.failure else "\n")


def stamp(wall: float) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"

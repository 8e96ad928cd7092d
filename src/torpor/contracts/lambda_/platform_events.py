"""What happened, as events: the one rendering of records from which JSON log lines and telemetry are made (4.3, 5.3).

An event is its type and its record. Some belong to one form of telemetry only; which is for whoever shows them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torpor.contracts.lambda_ import failures
from torpor.contracts.lambda_.log_facts import LogFacts
from torpor.contracts.lambda_.platform_log import PlatformLog, billed_restore, stamp
from torpor.model.failure import Failure, FailureKind
from torpor.model.records import (
    ExtensionStatus,
    InitEnded,
    InitRuntimeDone,
    InitStarted,
    InvocationEnded,
    InvocationStarted,
    Record,
    RestoreEnded,
    RestoreStarted,
    RuntimeDone,
    Subscribed,
    TelemetryDropped,
)

Body = dict[str, Any]
PlatformEvent = tuple[str, Body | str]

LOGS_API = "logs"
TELEMETRY_API = "telemetry"

_SUBSCRIPTIONS = {TELEMETRY_API: "platform.telemetrySubscription", LOGS_API: "platform.logsSubscription"}
_DROPPED = "Consumer seems to have fallen behind as it has not acknowledged receipt of logs."
_MANAGED_DROPPED = "Some logs were dropped because the downstream consumer is slower than the logs production rate"
_UNHANDLED = "Unhandled"
"""Stands for an error type that the runtime did not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRules:
    """How the events of one kind of environment differ from those of the other."""

    error_type: Callable[[Failure], str] = failures.error_type
    log: PlatformLog | None = None
    """The billing rule; None where nothing is billed by invocation: reports tell the duration alone, and no event says
    when the runtime was done."""

    @property
    def is_managed(self) -> bool:
        return self.log is None


def platform_events(record: Record, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    """The events of one record, in order; `wall` is its time in seconds since the epoch."""
    render = _RENDERINGS.get(type(record))
    return render(record, facts, wall, rules) if render is not None else []


def _init_started(record: InitStarted, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body: Body = _initialisation(facts, record.within_invocation)
    if facts.runtime_version:
        body |= {"runtimeVersion": facts.runtime_version, "runtimeVersionArn": facts.runtime_resource}
    body |= {"functionName": facts.function, "functionVersion": facts.version}
    if facts.instance:
        body |= {"instanceId": facts.instance, "instanceMaxMemory": facts.memory_mb * 1024 * 1024}
    return [("platform.initStart", body)]


def _init_runtime_done(record: InitRuntimeDone, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body = _initialisation(facts, record.within_invocation) | {"status": str(record.status)}
    if record.failure is not None:
        timed_out = record.failure.kind is FailureKind.TIMEOUT
        body["errorType"] = failures.UNKNOWN_ERROR if timed_out else rules.error_type(record.failure)
    return [("platform.initRuntimeDone", body)]


def _init_ended(record: InitEnded, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body = _initialisation(facts, record.within_invocation) | {"status": str(record.status)}
    body |= _error(record.failure, rules)
    return [("platform.initReport", body | {"metrics": {"durationMs": _ms(record.duration)}})]


def _restore_started(record: RestoreStarted, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body: Body = {"functionName": facts.function, "functionVersion": facts.version}
    if facts.runtime_version:
        body |= {"runtimeVersion": facts.runtime_version, "runtimeVersionArn": facts.runtime_resource}
    body |= {"instanceId": facts.instance, "instanceMaxMemory": str(facts.memory_mb * 1024 * 1024)}
    return [("platform.restoreStart", body)]


def _restore_ended(record: RestoreEnded, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body: Body = {"status": str(record.status)}
    done, report = body, body | _error(record.failure, rules)
    if record.failure is not None:
        timed_out = record.failure.kind is FailureKind.TIMEOUT
        done = body | {"errorType": failures.UNKNOWN_ERROR if timed_out else rules.error_type(record.failure)}
    return [
        ("platform.restoreRuntimeDone", done),
        ("platform.restoreReport", report | {"metrics": {"durationMs": _ms(record.duration)}}),
    ]


def _started(record: InvocationStarted, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body: Body = {"requestId": record.id, "version": facts.version, **_tracing(facts)}
    if rules.is_managed and facts.resource:
        body["functionArn"] = facts.resource
    return [("platform.start", body)]


def _runtime_done(record: RuntimeDone, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    if rules.is_managed:
        return []
    body: Body = {"requestId": record.id, "status": str(record.status), **_tracing(facts)}
    body |= _error(record.failure, rules)
    if record.failure is None and record.error_type:
        body["errorType"] = "Function.Unknown" if record.error_type == _UNHANDLED else record.error_type
    metrics: Body = {"durationMs": _ms(record.duration)}
    if record.answer_ended:
        metrics["producedBytes"] = record.produced
        body["spans"] = _answer_spans(record, wall)
    return [("platform.runtimeDone", body | {"metrics": metrics})]


def _answer_spans(record: RuntimeDone, wall: float) -> list[Body]:
    """From the start to the answer, the answer, and from there until the runtime was done."""
    moments = (record.at - record.duration, record.answer_began, record.answer_ended, record.at)
    names = ("responseLatency", "responseDuration", "runtimeOverhead")
    return [
        _span(name, wall - (record.at - begin), end - begin)
        for name, begin, end in zip(names, moments[:-1], moments[1:], strict=True)
    ]


def _ended(record: InvocationEnded, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body: Body = {"requestId": record.id, "status": str(record.status), **_tracing(facts)}
    body |= _error(record.failure, rules)
    metrics: Body = {"durationMs": _ms(record.duration)}
    if rules.log is None:
        return [("platform.report", body | {"metrics": metrics})]
    metrics |= {
        "billedDurationMs": rules.log.billed(record),
        "memorySizeMB": facts.memory_mb,
        "maxMemoryUsedMB": rules.log.memory_used(record, facts),
    }
    if record.init_duration is not None:
        metrics["initDurationMs"] = _ms(record.init_duration)
    if record.restored is not None:
        metrics["restoreDurationMs"] = _ms(record.restored.duration)
        metrics["billedRestoreDurationMs"] = billed_restore(record.restored)
    if record.runtime_done:
        overhead = record.at - record.runtime_done
        body["spans"] = [_span("extensionOverhead", wall - overhead, overhead)]
    end = ("platform.end", {"requestId": record.id})
    return [*_fault(record), end, ("platform.report", body | {"metrics": metrics})]


def _fault(record: InvocationEnded) -> list[PlatformEvent]:
    if record.failure is None or record.failure.kind is not FailureKind.EXIT:
        return []
    return [("platform.fault", f"RequestId: {record.id} Process exited before completing request")]


def _extension(record: ExtensionStatus, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    state = failures.extension_state(record.state, record.failure)
    body: Body = {"name": record.name, "state": state, "events": list(record.events)}
    if record.failure is not None:
        body["errorType"] = rules.error_type(record.failure)
    return [("platform.extension", body)]


def _subscribed(record: Subscribed, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    body: Body = {"name": record.name, "state": "Subscribed", "types": list(record.sources)}
    return [(_SUBSCRIPTIONS[record.api], body)]


def _dropped(record: TelemetryDropped, facts: LogFacts, wall: float, rules: EventRules) -> list[PlatformEvent]:
    reason = _MANAGED_DROPPED if rules.is_managed else _DROPPED
    return [("platform.logsDropped", {"reason": reason, "droppedRecords": record.count, "droppedBytes": record.size})]


_RENDERINGS: Mapping[type, Callable[[Any, LogFacts, float, EventRules], list[PlatformEvent]]] = {
    InitStarted: _init_started,
    InitRuntimeDone: _init_runtime_done,
    InitEnded: _init_ended,
    RestoreStarted: _restore_started,
    RestoreEnded: _restore_ended,
    InvocationStarted: _started,
    RuntimeDone: _runtime_done,
    InvocationEnded: _ended,
    ExtensionStatus: _extension,
    Subscribed: _subscribed,
    TelemetryDropped: _dropped,
}


def _initialisation(facts: LogFacts, within_invocation: bool) -> Body:
    return {"initializationType": facts.initialization, "phase": "invoke" if within_invocation else "init"}


def _error(failure: Failure | None, rules: EventRules) -> Body:
    """A time-out says all by its status."""
    if failure is None or failure.kind is FailureKind.TIMEOUT:
        return {}
    return {"errorType": rules.error_type(failure)}


def _tracing(facts: LogFacts) -> Body:
    """Of the invocation: its trace, and its tenant."""
    traced: Body = {"tracing": {"type": "X-Amzn-Trace-Id", "value": facts.trace}} if facts.trace else {}
    return traced | {"tenantId": facts.tenant} if facts.tenant else traced


def _span(name: str, start: float, duration: float) -> Body:
    return {"name": name, "start": stamp(start), "durationMs": _ms(max(duration, 0.0))}


def _ms(seconds: float) -> float:
    return int(seconds * 1_000_000) / 1000

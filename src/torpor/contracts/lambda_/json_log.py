"""The platform's own log lines in JSON format: one object a line, as in the event records (contract 4.3, 5.3).

Shown at the default system log level, INFO: successful steps that the contract places at DEBUG have no line.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from torpor.contracts.lambda_ import failures
from torpor.contracts.lambda_.environment import MANAGED, ON_DEMAND
from torpor.contracts.lambda_.log_facts import LogFacts
from torpor.contracts.lambda_.platform_log import PlatformLog, stamp
from torpor.model.failure import Failure
from torpor.model.records import ExtensionReady, InitEnded, InitStarted, InvocationEnded, InvocationStarted, Record


def render_json(record: Record, facts: LogFacts, wall: float, log: PlatformLog) -> list[str]:
    """The log events of one record; `log` supplies the billing rule, its style has no say here."""
    return [_line(wall, kind, body) for kind, body in _events(record, facts, log)]


def render_managed(record: Record, facts: LogFacts, wall: float, error_type: Callable[[Failure], str]) -> list[str]:
    """The log events of one record of a managed instance: Init is always reported, invocations by their duration
    alone, and no event says when the runtime was done (contract 1.6)."""
    return [_line(wall, kind, body) for kind, body in _managed_events(record, facts, error_type)]


def _managed_events(
    record: Record, facts: LogFacts, error_type: Callable[[Failure], str]
) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(record, InvocationStarted):
        resource = {"functionArn": facts.resource} if facts.resource else {}
        return [("platform.start", {"requestId": record.id, "version": facts.version, **_tracing(facts), **resource})]
    if isinstance(record, InvocationEnded):
        outcome: dict[str, Any] = {"requestId": record.id, "status": str(record.status), **_tracing(facts)}
        if record.failure is not None and record.status != "timeout":
            outcome["errorType"] = error_type(record.failure)
        return [("platform.report", outcome | {"metrics": {"durationMs": _ms(record.duration)}})]
    if isinstance(record, InitStarted):
        return [("platform.initStart", _init_start(record, facts, MANAGED))]
    if isinstance(record, InitEnded):
        return _init_ended(record, MANAGED, error_type)
    if isinstance(record, ExtensionReady):
        return [_extension(record)]
    return []


def _events(record: Record, facts: LogFacts, log: PlatformLog) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(record, InvocationStarted):
        return [("platform.start", {"requestId": record.id, "version": facts.version, **_tracing(facts)})]
    if isinstance(record, InvocationEnded):
        return _ended(record, facts, log)
    if isinstance(record, InitStarted):
        return [("platform.initStart", _init_start(record, facts, ON_DEMAND))]
    if isinstance(record, InitEnded) and record.failure is not None:
        return _init_ended(record, ON_DEMAND, failures.error_type)
    if isinstance(record, ExtensionReady):
        return [_extension(record)]
    return []


def _extension(record: ExtensionReady) -> tuple[str, dict[str, Any]]:
    return ("platform.extension", {"name": record.name, "state": "Ready", "events": list(record.events)})


def _init_start(record: InitStarted, facts: LogFacts, kind: str) -> dict[str, Any]:
    body = {"initializationType": kind, "phase": _phase(record.within_invocation)}
    if facts.runtime_version:
        body |= {"runtimeVersion": facts.runtime_version, "runtimeVersionArn": facts.runtime_resource}
    return body | {"functionName": facts.function, "functionVersion": facts.version}


def _init_ended(record: InitEnded, kind: str, error_type: Callable[[Failure], str]) -> list[tuple[str, dict[str, Any]]]:
    body: dict[str, Any] = {
        "initializationType": kind,
        "phase": _phase(record.within_invocation),
        "status": str(record.status),
    }
    if record.failure is not None:
        body["errorType"] = error_type(record.failure)
    report = ("platform.initReport", body | {"metrics": {"durationMs": _ms(record.duration)}})
    return [report] if record.failure is None else [("platform.initRuntimeDone", body), report]


def _ended(record: InvocationEnded, facts: LogFacts, log: PlatformLog) -> list[tuple[str, dict[str, Any]]]:
    outcome: dict[str, Any] = {"requestId": record.id, "status": str(record.status), **_tracing(facts)}
    if record.failure is not None and record.status != "timeout":
        outcome["errorType"] = failures.error_type(record.failure)
    metrics: dict[str, Any] = {
        "durationMs": _ms(record.duration),
        "billedDurationMs": log.billed(record),
        "memorySizeMB": facts.memory_mb,
        "maxMemoryUsedMB": log.memory_used(record, facts),
    }
    if record.init_duration is not None:
        metrics["initDurationMs"] = _ms(record.init_duration)
    report = ("platform.report", outcome | {"metrics": metrics})
    if record.failure is None:
        return [report]
    done = outcome | {"metrics": {"durationMs": _ms(record.duration)}}
    return [("platform.runtimeDone", done), report]


def _tracing(facts: LogFacts) -> dict[str, Any]:
    """Of the invocation: its trace, and its tenant."""
    traced = {"tracing": {"type": "X-Amzn-Trace-Id", "value": facts.trace}} if facts.trace else {}
    return {**traced, "tenantId": facts.tenant} if facts.tenant else traced


def _phase(within_invocation: bool) -> str:
    return "invoke" if within_invocation else "init"


def _ms(seconds: float) -> float:
    return int(seconds * 1_000_000) / 1000


def _line(wall: float, kind: str, body: dict[str, Any]) -> str:
    return msgspec.json.encode({"time": stamp(wall), "type": kind, "record": body}).decode() + "\n"

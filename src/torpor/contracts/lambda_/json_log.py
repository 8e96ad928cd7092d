"""The platform's own log lines in JSON format: one object a line, as in the event records (contract 4.3, 5.3).

Shown at the default system log level, INFO: successful steps that the contract places at DEBUG have no line.
"""

from typing import Any

import msgspec

from torpor.contracts.lambda_ import failures
from torpor.contracts.lambda_.platform_log import LogFacts, PlatformLog, stamp
from torpor.model.failure import Failure
from torpor.model.records import ExtensionReady, InitEnded, InitStarted, InvocationEnded, InvocationStarted, Record

_ON_DEMAND = "on-demand"


def render_json(record: Record, facts: LogFacts, wall: float, log: PlatformLog) -> list[str]:
    """The log events of one record; `log` supplies the billing rule, its style has no say here."""
    return [_line(wall, kind, body) for kind, body in _events(record, facts, log)]


def _events(record: Record, facts: LogFacts, log: PlatformLog) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(record, InvocationStarted):
        return [("platform.start", {"requestId": record.id, "version": facts.version, **_tracing(facts)})]
    if isinstance(record, InvocationEnded):
        return _ended(record, facts, log)
    if isinstance(record, InitStarted):
        return [("platform.initStart", _init_start(record, facts))]
    if isinstance(record, InitEnded) and record.failure is not None:
        return _init_failed(record, record.failure)
    if isinstance(record, ExtensionReady):
        body = {"name": record.name, "state": "Ready", "events": list(record.events)}
        return [("platform.extension", body)]
    return []


def _init_start(record: InitStarted, facts: LogFacts) -> dict[str, Any]:
    body = {"initializationType": _ON_DEMAND, "phase": _phase(record.within_invocation)}
    if facts.runtime_version:
        body |= {"runtimeVersion": facts.runtime_version, "runtimeVersionArn": facts.runtime_resource}
    return body | {"functionName": facts.function, "functionVersion": facts.version}


def _init_failed(record: InitEnded, failure: Failure) -> list[tuple[str, dict[str, Any]]]:
    body: dict[str, Any] = {
        "initializationType": _ON_DEMAND,
        "phase": _phase(record.within_invocation),
        "status": str(record.status),
        "errorType": failures.error_type(failure),
    }
    return [
        ("platform.initRuntimeDone", body),
        ("platform.initReport", body | {"metrics": {"durationMs": _ms(record.duration)}}),
    ]


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
    return {"tracing": {"type": "X-Amzn-Trace-Id", "value": facts.trace}} if facts.trace else {}


def _phase(within_invocation: bool) -> str:
    return "invoke" if within_invocation else "init"


def _ms(seconds: float) -> float:
    return int(seconds * 1_000_000) / 1000


def _line(wall: float, kind: str, body: dict[str, Any]) -> str:
    return msgspec.json.encode({"time": stamp(wall), "type": kind, "record": body}).decode() + "\n"

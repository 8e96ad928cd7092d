"""Records as events: their levels in JSON logs, and their forms for subscribers (contract 4.3, 5.3)."""

import json
from typing import Any

import pytest

from torpor.contracts.lambda_ import managed_telemetry, telemetry_api
from torpor.contracts.lambda_.json_log import json_lines
from torpor.contracts.lambda_.log_facts import LogFacts
from torpor.contracts.lambda_.log_levels import is_wanted
from torpor.contracts.lambda_.platform_events import EventRules, platform_events
from torpor.contracts.lambda_.platform_log import PlatformLog
from torpor.model.errors import InvalidRequest
from torpor.model.failure import Failure, FailureKind
from torpor.model.invocation import OutcomeStatus
from torpor.model.records import (
    CodeFetched,
    ExtensionStatus,
    InitEnded,
    InitRuntimeDone,
    InitStarted,
    InvocationEnded,
    InvocationStarted,
    Record,
    RuntimeDone,
    Subscribed,
    TelemetryDropped,
)
from torpor.model.telemetry import Source

ID = "3c14b8d4-7a01-4f27-9a0a-0f6c5a1e7b3d"
WALL = 1_665_532_815.064
SUCCESS, ERROR, TIMEOUT = OutcomeStatus.SUCCESS, OutcomeStatus.ERROR, OutcomeStatus.TIMEOUT
EXIT = Failure(kind=FailureKind.EXIT, code=1)
LATE = Failure(kind=FailureKind.TIMEOUT, limit=3.0)
FACTS = LogFacts(
    function="f", version="$LATEST", memory_mb=128, memory_used_mb=31, initialization="on-demand",
    runtime_version="python:3.12.v1", runtime_resource="arn", instance="stream",
)  # fmt: skip
RULES = EventRules(log=PlatformLog())
DONE = RuntimeDone(at=10.14, id=ID, status=SUCCESS, duration=0.14, answer_began=10.1, answer_ended=10.12, produced=16)
INIT_START = InitStarted(at=0.0)
INIT_DONE = InitRuntimeDone(at=0.0, status=SUCCESS)
INIT_DONE_LATE = InitRuntimeDone(at=0.0, status=TIMEOUT, failure=LATE)
INIT = InitEnded(at=0.0, duration=0.12533, status=SUCCESS)
INIT_FAILED = InitEnded(at=0.0, duration=0.1, status=ERROR, failure=EXIT)
START = InvocationStarted(at=0.0, id=ID)
ENDED = InvocationEnded(at=10.2, id=ID, status=SUCCESS, duration=0.2, limit=3.0, runtime_done=10.14)
CRASHED = InvocationEnded(at=10.2, id=ID, status=ERROR, duration=0.2, limit=3.0, failure=EXIT)
READY = ExtensionStatus(at=0.0, name="watch", events=("INVOKE", "SHUTDOWN"))
LOST = ExtensionStatus(
    at=0.0, name="watch", events=(), state="exited", failure=Failure(kind=FailureKind.EXIT, agent="extensions/watch")
)
SUBSCRIBED = Subscribed(at=0.0, name="watch", api="telemetry", sources=("platform", "function"))
DROPPED = TelemetryDropped(at=0.0, name="watch", count=123, size=12345)


def told(record: Record, schema: str = "2025-01-29", rules: EventRules = RULES) -> list[dict[str, Any]]:
    """What a subscriber gets."""
    events = platform_events(record, FACTS, WALL, rules)
    return [json.loads(event) for event in telemetry_api.encode_events(schema, events, WALL)]


def test_events_are_in_the_envelope_of_their_time_and_type() -> None:
    assert told(START) == [
        {
            "time": "2022-10-12T00:00:15.064Z",
            "type": "platform.start",
            "record": {"requestId": ID, "version": "$LATEST"},
        }
    ]
    assert told(CodeFetched(at=0.0, duration=1.0, fetched=True)) == []


def test_runtime_done_has_the_spans_of_its_answer() -> None:
    (event,) = told(DONE)
    assert event["record"] == {
        "requestId": ID,
        "status": "success",
        "metrics": {"durationMs": 140.0, "producedBytes": 16},
        "spans": [
            {
                "name": "responseLatency",
                "start": "2022-10-12T00:00:14.924Z",
                "durationMs": pytest.approx(100, abs=0.01),
            },
            {
                "name": "responseDuration",
                "start": "2022-10-12T00:00:15.024Z",
                "durationMs": pytest.approx(20, abs=0.01),
            },
            {"name": "runtimeOverhead", "start": "2022-10-12T00:00:15.044Z", "durationMs": pytest.approx(20, abs=0.01)},
        ],
    }


@pytest.mark.parametrize(
    ("record", "status", "kind"),
    [
        (RuntimeDone(at=1.0, id=ID, status=ERROR, duration=1.0, failure=EXIT), "error", "Runtime.ExitError"),
        (RuntimeDone(at=1.0, id=ID, status=TIMEOUT, duration=1.0, failure=LATE), "timeout", None),
        (RuntimeDone(at=1.0, id=ID, status=ERROR, duration=1.0, error_type="Function.Bad"), "error", "Function.Bad"),
        (RuntimeDone(at=1.0, id=ID, status=ERROR, duration=1.0, error_type="Unhandled"), "error", "Function.Unknown"),
    ],
)
def test_runtime_done_tells_what_went_wrong(record: Record, status: str, kind: str | None) -> None:
    body = told(record)[0]["record"]
    assert (body["status"], body.get("errorType")) == (status, kind) and "spans" not in body


def test_report_has_the_metrics_and_the_time_of_extensions() -> None:
    (event,) = told(ENDED)
    assert event["record"]["metrics"] == {
        "durationMs": 200.0,
        "billedDurationMs": 200,
        "memorySizeMB": 128,
        "maxMemoryUsedMB": 31,
    }
    (span,) = event["record"]["spans"]
    assert (span["name"], span["durationMs"]) == ("extensionOverhead", pytest.approx(60, abs=0.01))


def test_init_that_takes_too_long_is_unknown_for_the_runtime() -> None:
    assert told(INIT_DONE_LATE)[0]["record"] == {
        "initializationType": "on-demand",
        "phase": "init",
        "status": "timeout",
        "errorType": "Runtime.Unknown",
    }


def test_older_schemas_have_fewer_fields() -> None:
    assert "instanceId" in told(INIT_START)[0]["record"] and "status" in told(INIT)[0]["record"]
    assert "instanceId" not in told(INIT_START, "2022-07-01")[0]["record"]
    assert told(INIT, "2022-07-01")[0]["record"] == {
        "initializationType": "on-demand",
        "phase": "init",
        "metrics": {"durationMs": 125.33},
    }


def test_extension_that_ended_init_is_told_with_its_error() -> None:
    assert told(READY)[0]["record"] == {"name": "watch", "state": "Ready", "events": ["INVOKE", "SHUTDOWN"]}
    assert told(LOST)[0]["record"] == {
        "name": "watch", "state": "Exited", "events": [], "errorType": "Extension.Crash",
    }  # fmt: skip


def test_dropped_events_are_told_in_the_words_of_their_kind_of_environment() -> None:
    body = told(DROPPED)[0]["record"]
    assert body["reason"].startswith("Consumer seems") and (body["droppedRecords"], body["droppedBytes"]) == (
        123,
        12345,
    )
    managed = EventRules(error_type=RULES.error_type)
    assert told(DROPPED, rules=managed)[0]["record"]["reason"].startswith("Some logs were dropped")
    assert told(DONE, rules=managed) == []


def test_logs_api_has_its_own_events() -> None:
    assert [event["type"] for event in told(CRASHED, "2020-08-15")] == [
        "platform.fault", "platform.end", "platform.report",
    ]  # fmt: skip
    assert told(DONE, "2020-08-15") == told(INIT, "2020-08-15") == told(SUBSCRIBED, "2020-08-15") == []
    assert told(DONE, "2021-03-18")[0]["record"] == {"requestId": ID, "status": "success"}


@pytest.mark.parametrize(
    ("record", "level"),
    [
        (INIT_START, "INFO"), (INIT_DONE, "DEBUG"), (INIT_DONE_LATE, "WARN"), (INIT, "DEBUG"), (INIT_FAILED, "WARN"),
        (START, "INFO"), (DONE, "DEBUG"), (ENDED, "INFO"), (CRASHED, "WARN"), (READY, "INFO"), (LOST, "WARN"),
        (SUBSCRIBED, "DEBUG"), (DROPPED, "WARN"),
    ],
)  # fmt: skip
def test_each_event_has_its_level_in_a_json_log(record: Record, level: str) -> None:
    levels = ("DEBUG", "INFO", "WARN")
    events = platform_events(record, FACTS, WALL, RULES)
    shown = [name for name in levels if json_lines(events, WALL, name)]
    assert shown == list(levels[: levels.index(level) + 1])
    assert json_lines(events, WALL, "") == json_lines(events, WALL, "INFO")


STAMP = '"timestamp":"2024-01-01T00:00:00.123Z"'


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("plain", "INFO"),
        (f'{{"level":"trace",{STAMP}}}', "TRACE"),
        (f'{{"level":"Warning",{STAMP}}}', "WARN"),
        (f'{{"level":"FATAL",{STAMP}}}', "FATAL"),
        (f'{{"level":"loud",{STAMP}}}', "INFO"),
        (f'{{"level":3,{STAMP}}}', "INFO"),
        (f"{{{STAMP}}}", "INFO"),
        ('{"level":"ERROR"}', "INFO"),
        ('{"level":"ERROR","timestamp":"yesterday"}', "INFO"),
        ('{"level":"ERROR",', "INFO"),
        ("{" * 5000, "INFO"),
    ],
)
def test_a_functions_line_counts_by_the_level_that_it_names(line: str, level: str) -> None:
    levels = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    assert [name for name in levels if is_wanted(line + "\n", name)] == list(levels[: levels.index(level) + 1])


@pytest.mark.parametrize(
    ("schema", "source", "text", "record"),
    [
        ("2022-12-13", Source.FUNCTION, '{"a": 1}\n', {"a": 1}),
        ("2022-07-01", Source.FUNCTION, '{"a": 1}\n', '{"a": 1}'),
        ("2020-08-15", Source.FUNCTION, '{"a": 1}\n', '{"a": 1}'),
        ("2022-12-13", Source.EXTENSION, '{"a": 1}\n', '{"a": 1}'),
        ("2022-12-13", Source.FUNCTION, "[1]\n", "[1]"),
        ("2022-12-13", Source.FUNCTION, '{"a": 1\n', '{"a": 1'),
        ("2022-12-13", Source.FUNCTION, "{" * 100_000, "{" * 100_000),
        ("2022-12-13", Source.FUNCTION, '{"a":\n 1}\n', {"a": 1}),
    ],
)
def test_lines_are_text_or_objects(schema: str, source: Source, text: str, record: Any) -> None:
    event = telemetry_api.encode_line(schema, source, WALL, text, is_json=True)
    assert json.loads(event) == {"time": "2022-10-12T00:00:15.064Z", "type": str(source), "record": record}
    assert b"\n" not in event
    plain = telemetry_api.encode_line(schema, source, WALL, text, is_json=False)
    assert json.loads(plain)["record"] == text.removesuffix("\n")


def test_managed_instances_have_one_api_and_one_schema() -> None:
    assert managed_telemetry.api_of("PUT", "/2022-07-01/telemetry") == "telemetry"
    assert managed_telemetry.api_of("PUT", "/2020-08-15/logs") == ""
    destination = {"protocol": "HTTP", "URI": "http://sandbox:80"}
    body = {"schemaVersion": "2022-12-13", "types": ["platform"], "destination": destination}
    with pytest.raises(InvalidRequest, match=r"schemaVersion should be one of \[2025-01-29\]"):
        managed_telemetry.subscription("telemetry", json.dumps(body).encode())
    body["schemaVersion"] = "2025-01-29"
    made = managed_telemetry.subscription("telemetry", json.dumps(body).encode())
    assert (made.port, made.method, made.target, made.buffering.seconds) == (80, "POST", "/", 1.0)

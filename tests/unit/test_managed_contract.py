"""Managed instances: how their environments differ from the standard ones (contract 1.6, 2.6, 4.3, 5.3, 5.4)."""

import json
import signal
from dataclasses import replace
from typing import Any

import pytest

from torpor.contracts.lambda_ import managed_extensions
from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.managed import ManagedContract
from torpor.model.entries import Entry
from torpor.model.errors import InvalidRequest
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import OutcomeStatus
from torpor.model.policy import FailureScope, Freezing, InitFailure, RuntimeKind, WhenFull
from torpor.model.records import (
    ExtensionStatus,
    InitEnded,
    InitRuntimeDone,
    InitStarted,
    InvocationEnded,
    InvocationStarted,
    RuntimeDone,
)
from torpor.sandbox.images import RuntimeImage

ID = "3c14b8d4-7a01-4f27-9a0a-0f6c5a1e7b3d"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
STANDARD = LambdaContract(credentials=Credentials(access_key="a", secret_key="s", session_token="t"))
MANAGED = ManagedContract(standard=STANDARD)
IMAGE = RuntimeImage(
    runtime="python3.13", lang=None, executable=None, runtime_dir=None, clone_module=None, argv=("python",)
)
PATHS = {"task": "/var/task", "runtime": "/var/runtime"}


def version(**changes: Any) -> FunctionVersion:
    plain = FunctionVersion(
        function="f",
        version="1",
        resource=ARN,
        revision="r",
        contract="lambda_managed",
        runtime="python3.13",
        handler="app.handler",
        code=CodeRef(digest="0" * 64, packed_bytes=1, unpacked_bytes=1),
        memory_mb=4096,
        cpu=2.0,
        concurrency=32,
        minimum=3,
        log_format="JSON",
    )
    return replace(plain, **changes)


def lines(record: Any, **changes: Any) -> list[dict[str, Any]]:
    texts = MANAGED.log_lines(Entry(version=version(**changes), record=record, wall=0.0, memory_mb=99))
    return [json.loads(text) for text in texts]


@pytest.mark.parametrize(("timeout", "limit"), [(3.0, 130.0), (200.0, 200.0), (900.0, 900.0), (5400.0, 900.0)])
def test_init_may_take_at_least_130_seconds_and_at_most_15_minutes(timeout: float, limit: float) -> None:
    assert MANAGED.policy(version(timeout_s=timeout)).init_limit == limit


def test_environment_serves_several_at_once_never_rests_and_is_replaced_after_failures() -> None:
    policy = MANAGED.policy(version())
    assert (policy.runtime_kind, policy.slots, policy.freezing) == (RuntimeKind.PARALLEL_POLLER, 32, Freezing.NEVER)
    assert policy.init_failure is InitFailure.REPLACE and policy.timeout_scope is FailureScope.INVOCATION
    assert policy.runtime_exit_scope is policy.extension_exit_scope is FailureScope.REPLACE
    assert policy.shutdown.with_external_extension * policy.shutdown.runtime_share == pytest.approx(0.6)


def test_environments_come_by_load_alone_within_the_bounds_of_the_version() -> None:
    managed = MANAGED.scaling(version(minimum=2, maximum=5))
    assert (managed.on_demand, managed.when_full, managed.minimum, managed.maximum) == (False, WhenFull.REFUSE, 2, 5)
    standard = STANDARD.scaling(version(minimum=0))
    assert (standard.on_demand, standard.minimum, standard.maximum) == (True, 0, None)


def test_cpus_are_those_of_the_version() -> None:
    assert MANAGED.cpu_share(version()) == 2.0
    assert STANDARD.cpu_share(version(memory_mb=1769, cpu=None)) == 1.0


def test_runtime_is_told_its_concurrency_and_extensions_are_not() -> None:
    own = MANAGED.variables(version(), IMAGE, paths=PATHS, api_address="a:1", log_stream="s")
    assert own["AWS_LAMBDA_MAX_CONCURRENCY"] == "32"
    assert own["AWS_LAMBDA_INITIALIZATION_TYPE"] == "lambda-managed-instances"
    assert (own["AWS_LAMBDA_LOG_FORMAT"], own["AWS_LAMBDA_LOG_STREAM_NAME"]) == ("JSON", "s")
    given = MANAGED.extension_variables(version(), IMAGE, paths=PATHS, api_address="a:1")
    assert "AWS_LAMBDA_MAX_CONCURRENCY" not in given and "LAMBDA_TASK_ROOT" not in given
    assert given["AWS_LAMBDA_INITIALIZATION_TYPE"] == "lambda-managed-instances"
    assert given["AWS_LAMBDA_LOG_FORMAT"] == "JSON"


def test_customer_may_override_the_log_format_that_processes_see() -> None:
    own = version(environment={"AWS_LAMBDA_LOG_FORMAT": "Text"})
    assert (
        MANAGED.variables(own, IMAGE, paths=PATHS, api_address="a", log_stream="s")["AWS_LAMBDA_LOG_FORMAT"] == "Text"
    )


def test_standard_variables_are_as_before() -> None:
    own = STANDARD.variables(version(log_format="Text"), IMAGE, paths=PATHS, api_address="a", log_stream="s")
    assert own["AWS_LAMBDA_INITIALIZATION_TYPE"] == "on-demand"
    assert not {"AWS_LAMBDA_MAX_CONCURRENCY", "AWS_LAMBDA_LOG_FORMAT"} & own.keys()


def test_workers_of_managed_runtimes_open_their_own_logs() -> None:
    name = "_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET"
    assert (MANAGED.worker_log_variable(version()), MANAGED.framed_log_variable(version())) == (name, "")
    assert MANAGED.worker_log_variable(version(runtime="provided.al2023")) == ""
    assert STANDARD.worker_log_variable(version()) == ""


def test_invocation_is_reported_in_json_by_its_duration_alone() -> None:
    assert lines(InvocationStarted(at=0.0, id=ID)) == [
        {
            "time": "1970-01-01T00:00:00.000Z",
            "type": "platform.start",
            "record": {"requestId": ID, "version": "1", "functionArn": f"{ARN}:1"},
        }
    ]
    done = RuntimeDone(at=1.0, id=ID, status=OutcomeStatus.SUCCESS, duration=0.1)
    assert lines(done) == []
    ended = InvocationEnded(at=1.0, id=ID, status=OutcomeStatus.SUCCESS, duration=0.1234567, limit=3.0, init_duration=1)
    (report,) = lines(ended, log_format="Text")
    assert report["type"] == "platform.report"
    assert report["record"] == {"requestId": ID, "status": "success", "metrics": {"durationMs": 123.456}}


def test_failed_invocation_has_one_line_with_its_error_type() -> None:
    failure = Failure(kind=FailureKind.EXIT, signal=signal.SIGKILL, out_of_memory=True)
    ended = InvocationEnded(at=1.0, id=ID, status=OutcomeStatus.ERROR, duration=0.1, limit=3.0, failure=failure)
    (report,) = lines(ended)
    assert (report["record"]["status"], report["record"]["errorType"]) == ("error", "Runtime.OutOfMemory")


def test_init_is_reported_whether_it_succeeds_or_fails() -> None:
    (start,) = lines(InitStarted(at=0.0))
    assert (start["type"], start["record"]["initializationType"]) == ("platform.initStart", "lambda-managed-instances")
    (report,) = lines(InitEnded(at=1.0, duration=0.5, status=OutcomeStatus.SUCCESS))
    assert report["record"]["metrics"] == {"durationMs": 500.0} and report["record"]["status"] == "success"
    failed = InitEnded(at=1.0, duration=0.5, status=OutcomeStatus.ERROR, failure=Failure(kind=FailureKind.EXIT, code=3))
    assert [line["type"] for line in lines(failed)] == ["platform.initReport"]
    done = InitRuntimeDone(at=1.0, status=OutcomeStatus.ERROR, failure=failed.failure)
    assert [line["record"]["errorType"] for line in lines(done)] == ["Runtime.ExitError"]
    assert lines(InitRuntimeDone(at=1.0, status=OutcomeStatus.SUCCESS)) == []
    (ready,) = lines(ExtensionStatus(at=1.0, name="e", events=("SHUTDOWN",)))
    assert ready["record"] == {"name": "e", "state": "Ready", "events": ["SHUTDOWN"]}


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (
            Failure(kind=FailureKind.EXIT, signal=signal.SIGKILL, out_of_memory=True),
            "Runtime.OutOfMemory",
            f"RequestId: {ID} Error: runtime exited with error: signal: killed",
        ),
        (
            Failure(kind=FailureKind.EXIT, code=0),
            "Runtime.ExitError",
            f"RequestId: {ID} Error: runtime exited without providing a reason",
        ),
        (
            Failure(kind=FailureKind.TIMEOUT, limit=3.0),
            "Sandbox.Timedout",
            f"RequestId: {ID} Error: Task timed out after 3.00 seconds",
        ),
        (
            Failure(kind=FailureKind.EXIT, agent="extension", code=1),
            "Extension.Crash",
            f"RequestId: {ID} Error: exit status 1",
        ),
    ],
)
def test_failures_are_told_in_the_words_of_managed_instances(failure: Failure, kind: str, message: str) -> None:
    told, payload = MANAGED.failure(failure, version(), ID, 0.0)
    assert told == kind
    assert json.loads(payload) == {"errorType": kind, "errorMessage": message}


def test_what_the_runtime_posted_is_passed_on() -> None:
    failure = Failure(kind=FailureKind.INIT_ERROR, payload=b'{"errorMessage":"no"}', error_type="Runtime.X")
    assert MANAGED.failure(failure, version(), ID, 0.0) == ("Runtime.X", b'{"errorMessage":"no"}')


@pytest.mark.parametrize("body", [b"", b'{"events":["INVOKE"]}', b'{"events":["SHUTDOWN","OTHER"]}'])
def test_extension_may_not_ask_for_invocations(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        managed_extensions.wanted_events(body, internal=False)
    assert caught.value.what == ("Extension.InvalidEventType" if body else "InvalidRequestFormat")


def test_extension_may_ask_for_the_shutdown_if_it_is_external() -> None:
    assert managed_extensions.wanted_events(b'{"events":["SHUTDOWN"]}', internal=False) == (False, True)
    assert managed_extensions.wanted_events(b'{"events":[]}', internal=True) == (False, False)
    with pytest.raises(InvalidRequest, match="No events allowed for internal extensions"):
        managed_extensions.wanted_events(b'{"events":["SHUTDOWN"]}', internal=True)


def test_shutdown_is_never_by_time_out() -> None:
    for reason, told in (("spindown", "spindown"), ("failure", "failure"), ("timeout", "failure")):
        _, body = managed_extensions.shutdown_event(reason, 5)
        assert json.loads(body) == {"eventType": "SHUTDOWN", "deadlineMs": 5, "shutdownReason": told}


def test_late_result_is_answered_that_its_time_was_up() -> None:
    assert MANAGED.wire.LATE == b'{"errorMessage":"Invoke timeout","errorType":"InvokeTimeout"}\n'

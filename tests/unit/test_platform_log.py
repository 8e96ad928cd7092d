"""The platform's lines, letter by letter, and what failures say to callers (contract 5.1, 5.2, 5.4, 5.6)."""

import json
import re
import signal
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.lambda_ import environment, failures, limits
from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.platform_log import Billing, LogFacts, LogStyle, PlatformLog, stamp
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import OutcomeStatus
from torpor.model.records import ExtensionStatus, InitEnded, InitStarted, InvocationEnded, InvocationStarted

ID = "3c14b8d4-7a01-4f27-9a0a-0f6c5a1e7b3d"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
REPORT = re.compile(
    rf"REPORT RequestId: {UUID}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\tMemory Size: \d+ MB\t"
    r"Max Memory Used: \d+ MB\t(Init Duration: \d+\.\d\d ms\t)?"
    r"(Status: (timeout|error)\t(Error Type: [A-Za-z.]+\t)?)?\n"
)
WALL = 1_709_572_958.033
EXIT = Failure(kind=FailureKind.EXIT, code=0)
TIMEOUT = Failure(kind=FailureKind.TIMEOUT, limit=3.0)


def facts(**changes: Any) -> LogFacts:
    return LogFacts(**{"function": "f", "version": "$LATEST", "memory_mb": 128, "memory_used_mb": 31, **changes})


def ended(duration: float, failure: Failure | None = None, **changes: Any) -> InvocationEnded:
    status = OutcomeStatus.SUCCESS if failure is None else OutcomeStatus.ERROR
    if failure is not None and failure.kind is FailureKind.TIMEOUT:
        status = OutcomeStatus.TIMEOUT
    return InvocationEnded(at=1.0, id=ID, status=status, duration=duration, limit=3.0, failure=failure, **changes)


def text(log: PlatformLog, record: Any, **changes: Any) -> str:
    return "".join(log.render(record, facts(**changes), WALL))


NEW, OLD = PlatformLog(), PlatformLog(style=LogStyle.OLD)
NEW_SAMPLES = PlatformLog(billing=Billing.SAMPLES)


def test_start_end_and_report_of_a_cold_success() -> None:
    assert text(NEW, InvocationStarted(at=0.0, id=ID)) == f"START RequestId: {ID} Version: $LATEST\n"
    assert text(NEW, ended(0.00301, init_duration=0.1101)) == (
        f"END RequestId: {ID}\nREPORT RequestId: {ID}\tDuration: 3.01 ms\tBilled Duration: 114 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 31 MB\tInit Duration: 110.10 ms\t\n"
    )


def test_warm_success_has_no_init_duration_in_either_style() -> None:
    expected = (
        f"END RequestId: {ID}\nREPORT RequestId: {ID}\tDuration: 3.01 ms\tBilled Duration: 4 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 31 MB\t\n"
    )
    assert text(NEW, ended(0.00301)) == text(OLD, ended(0.00301)) == expected


def test_crash_in_the_new_style() -> None:
    assert text(NEW_SAMPLES, ended(0.13361, EXIT, init_duration=0.08)) == (
        f"END RequestId: {ID}\nREPORT RequestId: {ID}\tDuration: 133.61 ms\tBilled Duration: 133 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 31 MB\tInit Duration: 80.00 ms\tStatus: error\t"
        "Error Type: Runtime.ExitError\t\n"
    )


def test_time_out_in_the_new_style() -> None:
    assert text(NEW_SAMPLES, ended(3.01678, TIMEOUT, init_duration=0.084)) == (
        f"END RequestId: {ID}\nREPORT RequestId: {ID}\tDuration: 3016.78 ms\tBilled Duration: 3016 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 31 MB\tInit Duration: 84.00 ms\tStatus: timeout\t\n"
    )


def test_crash_in_the_old_style() -> None:
    assert text(OLD, ended(0.93359, EXIT)) == (
        f"RequestId: {ID} Error: Runtime exited without providing a reason\nRuntime.ExitError\n"
        f"END RequestId: {ID}\nREPORT RequestId: {ID}\tDuration: 933.59 ms\tBilled Duration: 934 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 31 MB\t\n"
    )


def test_time_out_in_the_old_style() -> None:
    assert text(OLD, ended(3.00492, TIMEOUT, init_duration=0.11123)) == (
        f"2024-03-04T17:22:38.033Z {ID} Task timed out after 3.00 seconds\n"
        f"END RequestId: {ID}\nREPORT RequestId: {ID}\tDuration: 3004.92 ms\tBilled Duration: 3000 ms\t"
        "Memory Size: 128 MB\tMax Memory Used: 31 MB\tInit Duration: 111.23 ms\t\n"
    )


def test_old_style_crash_text_is_one_event_of_two_lines() -> None:
    assert len(OLD.render(ended(1.0, EXIT), facts(), WALL)) == 3


@pytest.mark.parametrize(
    ("failure", "line"),
    [
        (Failure(kind=FailureKind.TIMEOUT), "Phase: init\tStatus: timeout\t\n"),
        (EXIT, "Phase: init\tStatus: error\tError Type: Runtime.ExitError\t\n"),
        (
            Failure(kind=FailureKind.EXIT, agent="extensions/x", code=1),
            "Phase: init\tStatus: error\tError Type: Extension.Crash\t\n",
        ),
    ],
)
def test_failed_init_has_an_init_report(failure: Failure, line: str) -> None:
    record = InitEnded(at=0.0, duration=1.23604, status=OutcomeStatus.ERROR, failure=failure)
    assert text(NEW, record) == text(OLD, record) == "INIT_REPORT Init Duration: 1236.04 ms\t" + line
    pattern = r"^INIT_REPORT Init Duration: \d+\.\d\d ms\s+Phase: init\s+Status: (timeout|error)"
    assert re.match(pattern, text(NEW, record))


def test_good_init_and_one_within_an_invocation_have_no_init_report() -> None:
    good = InitEnded(at=0.0, duration=1.0, status=OutcomeStatus.SUCCESS)
    within = InitEnded(at=0.0, duration=1.0, status=OutcomeStatus.ERROR, failure=EXIT, within_invocation=True)
    assert text(NEW, good) == text(NEW, within) == ""


def test_init_start_names_the_runtime_and_is_left_out_within_an_invocation() -> None:
    given_ = {"runtime_version": "python:3.10.v11", "runtime_resource": "arn:aws:lambda:us-east-1::runtime:abc"}
    assert text(NEW, InitStarted(at=0.0), **given_) == (
        "INIT_START Runtime Version: python:3.10.v11\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:abc\n"
    )
    assert text(NEW, InitStarted(at=0.0, within_invocation=True), **given_) == ""


def test_extension_line_lists_its_events() -> None:
    record = ExtensionStatus(at=0.0, name="my-ext", events=("INVOKE", "SHUTDOWN"))
    assert text(NEW, record) == "EXTENSION\tName: my-ext\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n"
    assert text(NEW, ExtensionStatus(at=0.0, name="x", events=())).endswith("Events: []\n")


def test_memory_used_is_at_most_its_size_and_all_of_it_after_running_out() -> None:
    assert "Max Memory Used: 128 MB" in text(NEW, ended(1.0), memory_used_mb=140)
    lost = Failure(kind=FailureKind.EXIT, signal=signal.SIGKILL, out_of_memory=True)
    assert "Max Memory Used: 128 MB" in text(NEW, ended(1.0, lost), memory_used_mb=90)


def test_cold_invocation_is_billed_with_its_init() -> None:
    assert NEW.billed(ended(1.04963, init_duration=1.29383)) == 2344
    assert NEW_SAMPLES.billed(ended(1.04963, init_duration=1.29383)) == 1050


seconds = st.integers(0, 90_000_000).map(lambda hundredths: hundredths / 100_000)


@given(seconds, st.none() | seconds, st.sampled_from([None, EXIT, TIMEOUT]), st.sampled_from(LogStyle))
def test_every_report_is_well_formed_and_billed_in_exact_arithmetic(
    duration: float, init: float | None, failure: Failure | None, style: LogStyle
) -> None:
    log = PlatformLog(style=style)
    record = ended(duration, failure, init_duration=init)
    report = log.render(record, facts(), WALL)[-1]
    assert REPORT.fullmatch(report), report
    hundredths = round(duration * 100_000) + round((init or 0) * 100_000)
    timed_out = failure is TIMEOUT and style is LogStyle.OLD
    assert log.billed(record) == (3000 if timed_out else -(-hundredths // 100))


@given(st.floats(0, 4e9))
def test_stamps_are_utc_with_milliseconds_and_never_run_ahead_of_their_second(wall: float) -> None:
    found = stamp(wall)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found)
    assert abs(parsed(found) - wall) < 0.0011


def parsed(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


# -- failures ---------------------------------------------------------------------------------------------------------


def body(failure: Failure) -> Any:
    return json.loads(failures.payload(failure, ID))


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (Failure(kind=FailureKind.TIMEOUT, limit=1.0), "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
        (EXIT, "Runtime.ExitError", "Runtime exited without providing a reason"),
        (
            Failure(kind=FailureKind.EXIT, code=127),
            "Runtime.ExitError",
            "Runtime exited with error: exit status 127",
        ),
        (
            Failure(kind=FailureKind.EXIT, signal=signal.SIGKILL, out_of_memory=True),
            "Runtime.ExitError",
            "Runtime exited with error: signal: killed",
        ),
        (
            Failure(kind=FailureKind.EXIT, signal=signal.SIGSEGV),
            "Runtime.ExitError",
            "Runtime exited with error: signal: segmentation fault",
        ),
        (Failure(kind=FailureKind.EXIT, agent="extensions/x", code=0), "Extension.Crash", "exit code 0"),
        (
            Failure(kind=FailureKind.START, detail=f"No such file or directory: {failures.NO_BOOTSTRAP}"),
            "Runtime.InvalidEntrypoint",
            "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]",
        ),
    ],
)
def test_failure_is_told_in_the_contract_s_words(failure: Failure, kind: str, message: str) -> None:
    assert body(failure) == {"errorType": kind, "errorMessage": f"RequestId: {ID} Error: {message}"}
    assert failures.error_type(failure) == kind


def test_answer_over_the_limit_is_told_without_a_request_id() -> None:
    assert body(Failure(kind=FailureKind.OVERSIZE, size=7_000_000)) == {
        "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        "errorType": "Function.ResponseSizeTooLarge",
    }


def test_init_error_of_the_runtime_is_passed_on_as_it_was_posted() -> None:
    posted = b'{"errorMessage":"no","errorType":"X","requestId":"","stackTrace":[]}'
    failure = Failure(kind=FailureKind.INIT_ERROR, error_type="Runtime.ImportModuleError", payload=posted)
    assert failures.payload(failure, ID) == posted
    assert failures.error_type(failure) == "Runtime.ImportModuleError"
    assert failures.error_type(Failure(kind=FailureKind.INIT_ERROR)) == "Runtime.Unknown"


def test_old_style_time_out_has_only_a_message() -> None:
    contract = LambdaContract(credentials=CREDENTIALS, log=OLD)
    kind, payload = contract.failure(TIMEOUT, version(), ID, WALL)
    assert json.loads(payload) == {"errorMessage": f"2024-03-04T17:22:38.033Z {ID} Task timed out after 3.00 seconds"}
    assert kind == "Sandbox.Timedout"


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("agent", ("runtime", "extensions/x"))
def test_every_kind_of_failure_has_a_type_and_a_payload(kind: FailureKind, agent: str) -> None:
    failure = Failure(kind=kind, agent=agent)
    assert re.fullmatch(r"(Runtime|Function|Extension|Sandbox)\.[A-Za-z]+", failures.error_type(failure))
    assert set(body(failure)) == {"errorType", "errorMessage"}


# -- variables --------------------------------------------------------------------------------------------------------

CREDENTIALS = Credentials(access_key="AK", secret_key="SK", session_token="ST")
PATHS = {"task": "/var/task", "runtime": "/var/runtime", "opt": "/opt", "lang": "/var/lang", "tmp": "/tmp"}


def version(**changes: Any) -> FunctionVersion:
    fixed: dict[str, Any] = {
        "function": "f",
        "version": "$LATEST",
        "resource": "arn:aws:lambda:eu-west-1:000000000000:function:f",
        "revision": "r",
        "contract": "lambda",
        "runtime": "python3.12",
        "handler": "app.handler",
        "code": CodeRef(digest="0" * 64, packed_bytes=1, unpacked_bytes=1),
        "memory_mb": 256,
        "log_group": "/aws/lambda/f",
        "region": "eu-west-1",
    }
    return FunctionVersion(**{**fixed, **changes})


def variables(made: FunctionVersion, image: dict[str, str] | None = None, endpoint: str = "") -> dict[str, str]:
    return environment.runtime_variables(
        made,
        image=image or {},
        paths=PATHS,
        api_address="169.254.100.1:9001",
        log_stream="2024/01/01/[$LATEST]abc",
        access=CREDENTIALS.variables,
        endpoint_url=endpoint,
    )


def test_variables_of_a_managed_runtime_are_those_of_the_table() -> None:
    assert variables(version()) == {
        "AWS_LAMBDA_RUNTIME_API": "169.254.100.1:9001",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_ACCESS_KEY_ID": "AK",
        "AWS_SECRET_ACCESS_KEY": "SK",
        "AWS_SESSION_TOKEN": "ST",
        "TZ": ":UTC",
        "_HANDLER": "app.handler",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2024/01/01/[$LATEST]abc",
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1:2000",
        "_AWS_XRAY_DAEMON_ADDRESS": "169.254.100.1",
        "_AWS_XRAY_DAEMON_PORT": "2000",
        "LANG": "en_US.UTF-8",
        "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
        "LD_LIBRARY_PATH": "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:"
        "/var/task:/var/task/lib:/opt/lib",
        "PWD": "/var/task",
        "SHLVL": "0",
    }


def test_provided_runtime_has_no_execution_environment_variable() -> None:
    assert "AWS_EXECUTION_ENV" not in variables(version(runtime="provided.al2023"))


def test_log_format_is_there_only_if_it_was_set_to_json() -> None:
    assert variables(version(log_format="JSON"))["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert "AWS_LAMBDA_LOG_FORMAT" not in variables(version())


@pytest.mark.parametrize("name", ("TZ", "LANG", "PATH", "LD_LIBRARY_PATH", "AWS_XRAY_CONTEXT_MISSING", "PYTHONPATH"))
def test_customer_may_override_what_the_table_says(name: str) -> None:
    made = version(environment={name: "mine"})
    assert variables(made, image={"PYTHONPATH": "/var/runtime"})[name] == "mine"


@pytest.mark.parametrize("name", sorted(environment.RESERVED - {"_X_AMZN_TRACE_ID", "AWS_LAMBDA_MAX_CONCURRENCY"}))
def test_customer_never_overrides_what_is_reserved(name: str) -> None:
    assert variables(version(environment={name: "mine"})).get(name) != "mine" or name == "AWS_ACCESS_KEY"


def test_endpoint_is_handed_out_unless_the_customer_has_one() -> None:
    assert variables(version(), endpoint="http://s3:1")["AWS_ENDPOINT_URL"] == "http://s3:1"
    own = version(environment={"AWS_ENDPOINT_URL": "http://own"})
    assert variables(own, endpoint="http://s3:1")["AWS_ENDPOINT_URL"] == "http://own"


def test_extension_gets_what_is_not_the_function_s_own() -> None:
    made = version(environment={"STAGE": "blue", "_PRIVATE": "x"})
    runtime = variables(made, image={"PYTHONPATH": "/var/runtime"})
    found = environment.extension_variables(made, runtime)
    documented = {
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_XRAY_CONTEXT_MISSING",
        "AWS_XRAY_DAEMON_ADDRESS",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
        "_AWS_XRAY_DAEMON_ADDRESS",
        "_AWS_XRAY_DAEMON_PORT",
        "_HANDLER",
    }
    assert documented <= set(runtime)
    assert set(runtime) - set(found) == documented | {"_PRIVATE", "PYTHONPATH", "PWD", "SHLVL"}
    assert found.items() <= runtime.items()
    assert found["STAGE"] == "blue"


def test_log_stream_has_date_version_and_environment() -> None:
    assert environment.log_stream(version(), "a" * 32, WALL) == "2024/03/04/[$LATEST]" + "a" * 32


@pytest.mark.parametrize(
    ("runtime", "name"),
    [("python3.12", "python:3.12.v1"), ("nodejs20.x", "nodejs:20.v1"), ("provided.al2023", "provided:al2023.v1")],
)
def test_runtime_version_is_named_after_the_runtime(runtime: str, name: str) -> None:
    found, resource = environment.runtime_version(version(runtime=runtime), "3.12.1")
    assert found == name
    assert re.fullmatch(r"arn:aws:lambda:eu-west-1::runtime:[0-9a-f]{64}", resource)


def test_log_tail_is_cut_to_its_last_bytes() -> None:
    contract = LambdaContract(credentials=CREDENTIALS)
    lines = b"".join(b"line %d\n" % number for number in range(2000))
    assert contract.log_tail(lines) == lines[-limits.TAIL_LOG :]
    assert len(contract.log_tail(lines)) == 4096

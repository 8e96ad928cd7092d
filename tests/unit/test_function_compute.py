"""Function Compute's policy values, variables, what servers inside are sent, and what failures say."""

import json
from dataclasses import replace

import pytest

from torpor.contracts.function_compute import checksum, failures, runtimes
from torpor.contracts.function_compute.api_failures import ApiFailure
from torpor.contracts.function_compute.contract import FunctionComputeContract
from torpor.contracts.function_compute.environment import Credentials
from torpor.contracts.function_compute.failures import Cost
from torpor.contracts.function_compute.server_wire import (
    FunctionComputeServerWire,
    answered_fields,
    forwarded_fields,
)
from torpor.model.entries import Entry
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, OutcomeStatus
from torpor.model.policy import FailureScope, Freezing, InitFailure, RuntimeKind, WhenFull
from torpor.model.records import InitEnded, InvocationEnded
from torpor.model.server import INITIALIZE, PRE_STOP, HealthCheck, Hook, ServerSettings

CREDENTIALS = Credentials(access_key="STS.key", secret_key="s", security_token="t")
CONTRACT = FunctionComputeContract(credentials=CREDENTIALS)


def version(name: str = "fc/hello", **fields: object) -> FunctionVersion:
    made = FunctionVersion(
        function=name,
        version="$LATEST",
        resource="r",
        revision="1",
        contract="function_compute",
        runtime="custom",
        handler="index.handler",
        code=CodeRef(digest="d", packed_bytes=1, unpacked_bytes=1),
        server=ServerSettings(port=9000),
        region="cn-hangzhou",
        account="1234567890123456",
        log_group="FCLogs:hello",
    )
    return replace(made, **fields)  # type: ignore[arg-type]


class FakeImage:
    argv = ("/guest",)
    environment = {"PATH": "/usr/bin"}  # noqa: RUF012
    version = "3.12"

    def wrapped(self, program: str) -> tuple[str, ...]:
        return (program,)


def test_an_instance_for_one_call_is_replaced_after_a_timeout_and_one_for_several_is_drained() -> None:
    alone, several = CONTRACT.policy(version()), CONTRACT.policy(version(concurrency=10))

    assert (alone.runtime_kind, alone.slots, alone.init_limit) == (RuntimeKind.SERVER, 1, 120.0)
    assert alone.init_failure is InitFailure.FAIL_WAITING
    assert (alone.timeout_scope, alone.cancel_scope) == (FailureScope.REPLACE, FailureScope.REPLACE)
    assert (several.timeout_scope, several.cancel_scope) == (FailureScope.DRAIN, FailureScope.INVOCATION)
    assert several.slots == 10
    assert alone.freezing is Freezing.WHEN_IDLE


def test_an_instance_with_a_health_check_is_never_frozen_and_not_replaced_when_a_caller_goes() -> None:
    checked = CONTRACT.policy(version(server=ServerSettings(port=9000, health=HealthCheck(path="/up", timeout_s=2))))

    assert checked.freezing is Freezing.NEVER
    assert checked.cancel_scope is FailureScope.INVOCATION
    assert checked.init_hook
    assert checked.init_hook_limit >= 2


def test_hooks_that_are_configured_are_called_with_their_limits() -> None:
    hooks = {INITIALIZE: Hook(timeout_s=20, handler="true"), PRE_STOP: Hook(timeout_s=7, handler="true")}
    hooked = version(server=ServerSettings(port=9000, hooks=hooks))
    policy, wire = CONTRACT.policy(hooked), CONTRACT.server_wire

    assert (policy.init_hook, policy.pre_freeze_hook, policy.pre_stop_hook) == (True, False, True)
    assert (policy.init_hook_limit, policy.pre_stop_limit) == (21.0, 7.0)
    call = wire.hook(hooked, INITIALIZE, "e")
    assert (call.method, call.target, call.body, call.timeout_s) == ("POST", "/initialize", b"", 20)
    assert dict(call.fields)["x-fc-control-path"] == "/initialize"
    assert len(dict(call.fields)["x-fc-request-id"]) == 36
    assert wire.hook(hooked, PRE_STOP, "e").method == "GET"


@pytest.mark.fact("F-019", "F-034")
def test_a_hundred_instances_are_kept_for_three_minutes_by_default() -> None:
    scaling = CONTRACT.scaling(version())

    assert scaling.together == 100
    assert scaling.when_full is WhenFull.REFUSE
    assert scaling.idle_timeout is not None
    assert 120 <= scaling.idle_timeout <= 300
    assert CONTRACT.scaling(version(idle_timeout_s=600.0, maximum=3)).idle_timeout == 600.0


@pytest.mark.fact("C-006", "C-007")
def test_the_program_is_the_command_or_the_packages_bootstrap() -> None:
    command = ("python", "-u", "server.py", "a b")

    assert CONTRACT.program(version(server=ServerSettings(port=9000, command=command)), FakeImage(), bool) == command
    assert CONTRACT.program(version(), FakeImage(), bool) == ("/code/bootstrap",)
    assert CONTRACT.program(version(runtime="python3.12"), FakeImage(), bool) == ("/guest",)


def test_images_and_layouts_follow_the_runtime() -> None:
    assert CONTRACT.image("custom") == "server"
    assert CONTRACT.image("python3") == "event-python3.6"
    assert CONTRACT.image("nodejs20") == "event-nodejs20"
    assert (CONTRACT.layout(version()).as_root, CONTRACT.layout(version()).writable) == (True, True)
    builtin = CONTRACT.layout(version(runtime="nodejs20"))
    assert (builtin.code_at, builtin.as_root, builtin.writable) == ("/code", False, False)
    with pytest.raises(ApiFailure):
        runtimes.image_of("cobol")


def variables(of: FunctionVersion) -> dict[str, str]:
    paths = {"task": "/code", "opt": "/opt"}
    return CONTRACT.variables(of, FakeImage(), paths=paths, api_address="", log_stream="c-1", port=8080)


def test_variables_name_the_function_its_port_and_its_instance() -> None:
    told = variables(version(environment={"A": "1", "TZ": "Asia/Shanghai"}))

    assert (told["FC_FUNC_CODE_PATH"], told["FC_FUNCTION_NAME"]) == ("/code", "hello")
    assert told["FC_SERVER_PORT"] == told["FC_CUSTOM_LISTEN_PORT"] == "8080"
    assert (told["FC_INSTANCE_ID"], told["A"], told["TZ"]) == ("c-1", "1", "Asia/Shanghai")
    assert told["PATH"] == "/usr/bin"


def test_credentials_are_given_to_functions_with_a_role_only() -> None:
    assert "ALIBABA_CLOUD_ACCESS_KEY_ID" not in variables(version())
    assert variables(version(role="acs:ram::1:role/r"))["ALIBABA_CLOUD_SECURITY_TOKEN"] == "t"


def event_fields(of: FunctionVersion) -> dict[str, str]:
    invocation = Invocation(id="1-2", payload=b"event", resource="r", qualifier="prod", attempt=2)
    call = CONTRACT.server_wire.call(of, invocation, "e")
    assert (call.method, call.target, call.body) == ("POST", "/invoke", b"event")
    return dict(call.fields)


def test_an_event_carries_the_platforms_fields_and_unset_ones_empty() -> None:
    told = event_fields(version())

    assert told["Content-Type"] == "application/octet-stream"
    assert told["x-fc-request-id"] == "1-2"
    assert (told["x-fc-qualifier"], told["x-fc-version-id"], told["x-fc-retry-count"]) == ("prod", "", "2")
    assert (told["x-fc-service-name"], told["x-fc-access-key-id"]) == ("", "")
    assert told["x-fc-control-path"] == "/invoke"
    assert event_fields(version("fc/shop/hello"))["x-fc-service-name"] == "shop"


def test_newer_images_get_their_credentials_by_variables_only() -> None:
    role = "acs:ram::1:role/r"

    assert event_fields(version(role=role))["x-fc-access-key-id"] == "STS.key"
    assert "x-fc-access-key-id" not in event_fields(version(role=role, runtime="custom.debian12"))


@pytest.mark.parametrize(
    ("name", "status", "expected"),
    [
        ("fc/hello", b"404", "InvocationError"),
        ("fc/shop/hello", b"404", "UnhandledInvocationError"),
        ("fc/hello", b"200", ""),
        ("fc/hello", b"", ""),
    ],
)
def test_only_its_own_field_tells_an_error_of_a_server(name: str, status: bytes, expected: str) -> None:
    invocation = Invocation(id="1", payload=b"", resource="r")
    fields = [(b"X-Fc-Status", status)] if status else []

    answer = CONTRACT.server_wire.answer(version(name), invocation, 500, fields, b"body")

    assert (answer.payload, answer.error_type) == (b"body", expected)


def test_fields_that_are_the_platforms_are_not_returned_and_too_many_are_a_bad_answer() -> None:
    wire = FunctionComputeServerWire()
    fields = [
        (b"X-Fc-A", b"1"),
        (b"Date", b"x"),
        (b"Server", b"y"),
        (b"Content-Disposition", b"attachment"),
        (b"A", b"b"),
    ]

    assert wire.returned(version(), 200, fields) == [("A", "b")]
    refused = wire.returned(version(), 200, [(b"A", b"x" * 9000)])
    assert isinstance(refused, Failure)
    assert refused.kind is FailureKind.MALFORMED


def test_fields_that_are_meant_for_one_connection_stay_behind() -> None:
    names = ("TE", "Trailer", "Upgrade", "Proxy-Authorization", "X-Secret", "Keep-Alive")
    given = [("Connection", "close, x-SECRET, Host"), ("Host", "h"), *((name, "1") for name in names), ("X-Kept", "2")]

    assert forwarded_fields(given) == [("Host", "h"), ("X-Kept", "2")]
    assert answered_fields(given) == [("Host", "h"), ("X-Kept", "2")]


def test_only_the_initialize_hook_can_fail() -> None:
    wire = FunctionComputeServerWire()

    assert wire.hook_failure(INITIALIZE, 204, (), b"") is None
    assert wire.hook_failure(PRE_STOP, 500, (), b"") is None
    failed = wire.hook_failure(INITIALIZE, 404, (), b"no db")
    assert failed is not None
    assert (failed.kind, failed.starting) == (FailureKind.INIT_ERROR, True)


def test_the_log_says_why_the_initializer_failed() -> None:
    def line(payload: bytes, kind: FailureKind = FailureKind.INIT_ERROR) -> str:
        failure = Failure(kind=kind, detail=INITIALIZE, code=404, payload=payload, limit=3, starting=True)
        record = InitEnded(at=0.0, status=OutcomeStatus.ERROR, duration=1.0, failure=failure)
        return CONTRACT.log_lines(Entry(version=version(), record=record, wall=0.0))[0]

    assert line(b'{"errorMessage": "no db"}') == "Function initialize failed: no db\n"
    assert line(b"none here") == "Function initialize failed with status code: 404. none here\n"
    assert line(b"", FailureKind.TIMEOUT) == "Function initialize timed out after 3 seconds\n"


def told(failure: Failure, of: FunctionVersion, cost: Cost = failures.NOTHING) -> tuple[str, dict[str, str]]:
    kind, payload = failures.told(failure, of, "1-r", cost)
    return kind, json.loads(payload)


def test_a_package_without_bootstrap_and_one_that_cannot_be_executed() -> None:
    missing = Failure(kind=FailureKind.START, detail="No such file or directory: /code/bootstrap", starting=True)
    denied = Failure(kind=FailureKind.START, detail="Permission denied: /code/bootstrap", starting=True)

    assert told(missing, version())[0] == "CAFileNotFound"
    assert told(missing, version())[1]["Message"] == (
        "The function cannot be started. Failed to start function instance. "
        "Error: the file /code/bootstrap is not exist"
    )
    assert told(denied, version())[0] == "CAFilePermission"
    assert told(denied, version())[1]["ErrorCode"] == "CAFilePermission"


def test_a_server_that_exits_before_it_listens() -> None:
    ended = Failure(
        kind=FailureKind.EXIT, code=2, starting=True, elapsed=0.5, address="10.0.0.2:9000", output=((0.0, "x"),)
    )
    named = version(server=ServerSettings(port=9000, command=("python", "server.py")))

    kind, body = told(ended, version())
    assert kind == body["Code"] == "CAExited"
    assert body["Message"] == (
        "Function instance exited unexpectedly(code 2, message:no such file or directory) with start command "
        "'/code/bootstrap '. Logs:1970-01-01T00:00:00.000000000Z x"
    )
    assert "'python server.py'" in told(ended, named)[1]["Message"]
    assert "message:errno 137" in told(Failure(kind=FailureKind.EXIT, signal=9, starting=True), version())[1]["Message"]
    classic = told(ended, version("fc/shop/hello"))[1]["ErrorMessage"]
    assert classic.startswith("The CA process either cannot be started or exited:ContainerStartDuration:500000000.")


def test_a_failed_health_check_at_the_start() -> None:
    kind, body = told(Failure(kind=FailureKind.HEALTH, code=500, starting=True), version())

    assert kind == "FunctionNotStarted"
    assert body["Message"].endswith("check function health failed with status code: 500 ")


def test_a_process_that_ends_during_a_call_and_a_dead_connection() -> None:
    cost = Cost(seconds=0.012, memory_mb=0)
    died = "Process exited unexpectedly before completing request"

    kind, body = told(Failure(kind=FailureKind.EXIT, code=1), version(), cost)
    assert (kind, body) == (
        "UnhandledInvocationError",
        {"errorMessage": f"{died} (duration: 12ms, maxMemoryUsage: 0MB)"},
    )
    kind, body = told(Failure(kind=FailureKind.NO_ANSWER), version(), cost)
    assert (kind, body["Message"], failures.status_of(kind)) == ("BadResponse", died, 502)


def test_the_platform_logs_only_what_no_runtime_can() -> None:
    def ended(failure: Failure | None) -> list[str]:
        record = InvocationEnded(
            at=0.0, id="1-r", status=OutcomeStatus.ERROR, duration=4.912, limit=60.0, failure=failure
        )
        return CONTRACT.log_lines(Entry(version=version(), record=record, wall=0.0))

    assert ended(None) == []
    assert ended(Failure(kind=FailureKind.CANCELLED)) == [
        "FC Invoke End RequestId: 1-r, Error: Invocation canceled by client "
        "(duration: 4912ms, maxMemoryUsage: 0.00MB)\n"
    ]


@pytest.mark.parametrize("data", [b"", b"123456789", bytes(range(256)) * 500])
def test_checksum_of_a_package_is_the_same_however_it_is_found(data: bytes) -> None:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ 0xC96C5795D7870F42 if value & 1 else value >> 1
        table.append(value)
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ (crc >> 8)

    crc ^= 0xFFFFFFFFFFFFFFFF
    by_library = checksum.from_library()
    assert checksum.checksum(data) == str(crc)
    assert checksum.from_container(data) == crc
    assert by_library is None or by_library(data) == crc

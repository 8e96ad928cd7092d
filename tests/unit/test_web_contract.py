"""The web contract's values and words."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.support.services import service_version

from torpor.contracts.web import failures
from torpor.contracts.web.contract import WebContract
from torpor.model.entries import Entry
from torpor.model.errors import NotFound, ShuttingDown, Throttled, TooLarge
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, OutcomeStatus
from torpor.model.policy import FailureScope, Freezing, InitFailure, RuntimeKind, WhenFull
from torpor.model.records import InitEnded, InitStarted, InvocationEnded, InvocationStarted, Record, ShutdownEnded
from torpor.sandbox.images import RuntimeImage

CONTRACT = WebContract()
IMAGE = RuntimeImage(
    runtime="server", lang=None, executable=None, runtime_dir=None, clone_module=None, argv=(),
    environment={"PATH": "/var/lang/bin:/usr/bin", "LD_LIBRARY_PATH": "/var/lang/lib", "NODE_PATH": "/opt/x"},
)  # fmt: skip
SERVICE = service_version("gunicorn -b :$PORT app:app")
PERSISTENT = service_version(persistent=True)
WIRE = CONTRACT.server_wire
INVOCATION = Invocation(id="the-id", payload=b"{}", resource="shop")
NOT_LISTENING = "Port Some(8080) is not being listened to by the service"


def variables(**fields: object) -> dict[str, str]:
    version = service_version(**fields)  # type: ignore[arg-type]
    return CONTRACT.variables(version, IMAGE, paths={"task": "/app"}, api_address="", log_stream="s", port=5000)


def told(failure: Failure, version: FunctionVersion = SERVICE) -> tuple[int, str]:
    """Status and text for the caller."""
    code, body = CONTRACT.failure(failure, version, "the-id", 0.0)
    return failures.status_of(code), body.decode()


def starting(kind: FailureKind, output: str = "", **fields: Any) -> Failure:
    lines = tuple((0.0, line) for line in output.splitlines(keepends=True))
    return Failure(kind=kind, starting=True, output=lines, **fields)


def lines(record: Record, version: object = SERVICE) -> list[str]:
    return CONTRACT.log_lines(Entry(version=version, record=record, wall=0.0, memory_mb=1))  # type: ignore[arg-type]


# Policy


def test_a_serverless_service_rests_and_is_not_trusted_after_a_request_that_took_too_long() -> None:
    policy = CONTRACT.policy(SERVICE)

    assert policy.runtime_kind is RuntimeKind.SERVER
    assert policy.slots == 80
    assert policy.init_limit == 60
    assert policy.init_failure is InitFailure.FAIL_WAITING
    assert policy.freezing is Freezing.WHEN_IDLE
    assert policy.timeout_scope is FailureScope.DRAIN
    assert policy.runtime_exit_scope is FailureScope.REPLACE
    assert policy.shutdown.runtime_only == 10


def test_a_persistent_service_always_runs_and_only_the_request_fails() -> None:
    policy = CONTRACT.policy(PERSISTENT)

    assert policy.freezing is Freezing.NEVER
    assert policy.timeout_scope is FailureScope.INVOCATION


def test_the_limit_of_the_start_is_a_setting() -> None:
    contract = WebContract(start_limit=5.0)

    assert contract.policy(SERVICE).init_limit == 5
    assert contract.server_wire.probe(SERVICE).timeout_s == 5


def test_a_serverless_service_scales_from_none_and_lets_requests_wait() -> None:
    scaling = CONTRACT.scaling(SERVICE)

    assert (scaling.minimum, scaling.maximum, scaling.idle_timeout) == (0, None, 1800)
    assert (scaling.when_full, scaling.queue_limit) == (WhenFull.QUEUE, 10)
    assert CONTRACT.scaling(service_version(idle_timeout_s=300.0)).idle_timeout == 300


def test_a_persistent_service_is_one_environment_that_is_there_without_requests() -> None:
    scaling = CONTRACT.scaling(PERSISTENT)

    assert (scaling.minimum, scaling.maximum) == (1, 1)
    assert scaling.leave_limit == 900


def test_only_tmp_is_writable_but_in_persistent_services() -> None:
    assert CONTRACT.layout(SERVICE).code_at == "/app"
    assert not CONTRACT.layout(SERVICE).writable
    assert CONTRACT.layout(PERSISTENT).writable
    assert not CONTRACT.layout(PERSISTENT).as_root


def test_answers_of_serverless_services_are_limited_to_six_mebibytes() -> None:
    assert WIRE.response_max(SERVICE, relayed=True) == 6_291_456
    assert WIRE.response_max(PERSISTENT, relayed=True) is None


def test_memory_stands_for_processors() -> None:
    assert CONTRACT.cpu_share(service_version(memory_mb=1769)) == 1.0
    assert CONTRACT.cpu_share(service_version(memory_mb=192)) == pytest.approx(0.108, abs=0.001)


def test_the_probe_asks_the_configured_port_for_the_health_path() -> None:
    probe = WIRE.probe(service_version(port=5000))

    assert probe.path == "/kaithhealth"
    assert dict(probe.fields) == {"Host": "127.0.0.1:5000", "User-Agent": "torpor-probe/1", "Accept": "*/*"}
    assert (probe.period_s, probe.timeout_s) == (0.02, 60)


def test_an_invocation_without_a_request_becomes_one() -> None:
    call = WIRE.call(SERVICE, INVOCATION, "e")

    assert (call.method, call.target, call.body) == ("POST", "/", b"{}")
    assert ("X-Request-Id", "the-id") in call.fields
    assert WIRE.call(SERVICE, msgspec.structs.replace(INVOCATION, payload=b""), "e").method == "GET"


def test_an_answer_of_any_status_is_no_failure() -> None:
    answer = WIRE.answer(SERVICE, INVOCATION, 500, [(b"Content-Type", b"text/plain")], b"oh")

    assert (answer.error_type, answer.content_type, answer.payload) == ("", "text/plain", b"oh")


def test_changes_of_the_build_to_the_system_stand_beside_the_application(tmp_path: Path) -> None:
    assert CONTRACT.system(SERVICE, str(tmp_path)) == ""

    (tmp_path / ".torpor-system").mkdir()

    assert CONTRACT.system(SERVICE, str(tmp_path)) == f"{tmp_path}/.torpor-system"


# Program and variables


def test_the_start_command_is_run_by_bash() -> None:
    assert CONTRACT.program(SERVICE, IMAGE, lambda path: True) == ("/bin/bash", "-c", "gunicorn -b :$PORT app:app")


def test_the_server_is_told_its_port_and_finds_what_the_build_made() -> None:
    found = variables()

    assert found["PORT"] == "5000"
    assert found["HOME"] == "/tmp"
    assert found["PATH"].split(":")[:2] == ["/app/.python/bin", "/app/bin"]
    assert "/app/node_modules/.bin" in found["PATH"].split(":")
    assert found["PATH"].endswith("/var/lang/bin:/usr/bin")
    assert found["PYTHONPATH"] == "/app:/app/.python"
    assert found["LD_LIBRARY_PATH"] == "/var/lang/lib"
    assert {"LANG", "TZ"} <= set(found)
    assert "NODE_PATH" not in found


def test_the_users_variables_win_but_for_the_port() -> None:
    found = variables(environment={"LANG": "de_DE", "PATH": "/mine", "PYTHONPATH": "src", "HOME": "/h", "A": "1"})

    assert (found["LANG"], found["HOME"], found["A"]) == ("de_DE", "/h", "1")
    assert found["PATH"].startswith("/mine:/app/.python/bin:")
    assert found["PYTHONPATH"] == "src:/app:/app/.python"
    assert variables(environment={"PORT": "1"})["PORT"] == "5000"


# Failures of the start


def test_a_server_on_another_port_is_named_with_the_configured_one() -> None:
    status, text = told(starting(FailureKind.TIMEOUT, limit=60.0), service_version(port=8123))

    assert text.splitlines()[0] == "Port Some(8123) is not being listened to by the service"
    assert "60 s" in text and "--port" in text
    assert status == 502


def test_a_failed_start_command_tells_status_last_output_and_the_build_command() -> None:
    output = "".join(f"line {number}\n" for number in range(40)) + "bash: line 1: gunicorn: command not found\n"
    status, text = told(starting(FailureKind.EXIT, output, code=127))

    assert text.startswith(NOT_LISTENING)
    assert "`gunicorn -b :$PORT app:app` ended with exit status 127" in text
    assert "look at the build command" in text
    assert text.endswith("gunicorn: command not found\n")
    assert "line 39" in text and "line 1\n" not in text
    assert status == 502


def test_endless_lines_are_cut() -> None:
    assert len(told(starting(FailureKind.EXIT, "x" * 100_000, code=1))[1]) < 6_000


def test_a_start_that_failed_on_the_file_system_says_so_instead_of_the_build() -> None:
    text = told(starting(FailureKind.EXIT, "OSError: [Errno 30] Read-only file system: 'data.db'\n", code=1))[1]

    assert "only /tmp can be written" in text
    assert "build command" not in text


def test_signals_memory_and_programs_that_do_not_start_are_named() -> None:
    assert "signal SIGSEGV" in told(starting(FailureKind.EXIT, signal=11))[1]
    assert "512 MB of memory" in told(starting(FailureKind.EXIT, signal=9, out_of_memory=True))[1]
    assert "(no such file: /bin/bash)" in told(starting(FailureKind.START, detail="no such file: /bin/bash"))[1]


# Failures of requests


@pytest.mark.parametrize(
    ("failure", "status", "text"),
    [
        (Failure(kind=FailureKind.TIMEOUT, limit=900.0), 504, "after 900 s"),
        (Failure(kind=FailureKind.OVERSIZE), 502, "Response is bigger than the maximum allowed size\n"),
        (Failure(kind=FailureKind.EXIT, code=3), 502, "exit status 3"),
        (Failure(kind=FailureKind.NO_ANSWER), 502, "without an answer"),
        (Failure(kind=FailureKind.MALFORMED, detail="bad status line"), 502, "bad status line"),
        (Failure(kind=FailureKind.STOPPED), 503, "stopped"),
        (Failure(kind=FailureKind.SANDBOX, detail="no room"), 500, "no room"),
    ],
)
def test_each_failure_of_a_request_has_its_status_and_words(failure: Failure, status: int, text: str) -> None:
    assert told(failure)[0] == status
    assert text in told(failure)[1]


def test_a_request_that_takes_too_long_is_pointed_to_the_persistent_kind() -> None:
    assert "--persistent" in told(Failure(kind=FailureKind.TIMEOUT, limit=900.0))[1]


def test_a_websocket_is_refused_with_the_kind_that_serves_it() -> None:
    error = failures.upgrade_refused("shop")

    assert failures.status_of(error.code) == 426
    assert "persistent" in error.body.decode()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Throttled("", reason="x"), 429),
        (ShuttingDown("Going."), 503),
        (NotFound("There is no service a."), 404),
        (TooLarge("Big."), 413),
    ],
)
def test_requests_that_reach_no_server_have_their_status(error: Exception, status: int) -> None:
    assert failures.status_of(failures.refusal(error).code) == status  # type: ignore[arg-type]


# Log


def test_starts_and_failures_are_logged_and_requests_that_went_well_are_not() -> None:
    good = InvocationEnded(at=1.0, id="i", status=OutcomeStatus.SUCCESS, duration=1.0, limit=900.0)
    bad = InvocationEnded(
        at=1.0, id="the-id", status=OutcomeStatus.ERROR, duration=1.0, limit=900.0,
        failure=Failure(kind=FailureKind.OVERSIZE),
    )  # fmt: skip

    assert lines(InitStarted(at=0.0)) == ["Starting `gunicorn -b :$PORT app:app` with PORT=8080\n"]
    assert lines(InitEnded(at=1.0, duration=0.8, status=OutcomeStatus.SUCCESS)) == ["Port 8080 answers after 800 ms\n"]
    assert lines(InvocationStarted(at=1.0, id="i")) == lines(good) == []
    assert lines(bad)[0].startswith("Request the-id: Response is bigger than the maximum allowed size")
    assert lines(ShutdownEnded(at=2.0, reason="idle", duration=0.1, exits={"runtime": "exit 0"})) == [
        "Stopped (idle): exit 0\n"
    ]


def test_a_failed_start_is_one_line_of_the_log_with_the_vendors_text() -> None:
    failure = Failure(kind=FailureKind.EXIT, code=127)
    (line,) = lines(InitEnded(at=1.0, duration=1.0, status=OutcomeStatus.ERROR, failure=failure))

    assert line.startswith(NOT_LISTENING)
    assert "127" in line and "build command" in line
    assert line.count("\n") == 1


def test_requests_that_waited_for_a_failed_start_do_not_tell_of_it_again() -> None:
    failure = starting(FailureKind.EXIT, code=127)
    ended = InvocationEnded(at=1.0, id="i", status=OutcomeStatus.ERROR, duration=1.0, limit=900.0, failure=failure)

    assert lines(ended) == []


# Hints

SEMAPHORE = """  File "/usr/lib/python3.11/multiprocessing/synchronize.py", line 57, in __init__
    sl = self._semlock = _multiprocessing.SemLock(
                         ^^^^^^^^^^^^^^^^^^^^^^^^^
PermissionError: [Errno 13] Permission denied
"""


@pytest.mark.parametrize(
    ("output", "start"),
    [
        ("OSError: [Errno 30] Read-only file system: '/app/a'\n", "Read-only file system: only /tmp"),
        ("PermissionError: [Errno 13] Permission denied: '/app/secret'\n", "Permission denied: only /tmp"),
        ("bash: /dev/shm/x: Permission denied\n", "Shared Memory: /dev/shm Permission Denied"),
        (SEMAPHORE, "Shared Memory: /dev/shm Permission Denied"),
        ("Error: EACCES: permission denied, open '/app/x'\n", "Permission denied: only /tmp"),
    ],
)
def test_errors_with_their_cause_in_the_platform_get_a_hint_once(output: str, start: str) -> None:
    read = CONTRACT.comments(SERVICE)
    (line,) = read(output)

    assert line.startswith(start)
    assert line.endswith("\n")
    assert read(output) == []


def test_other_output_and_persistent_services_get_no_hint() -> None:
    assert CONTRACT.comments(SERVICE)("GET / 200\n") == []
    assert CONTRACT.comments(PERSISTENT)(SEMAPHORE) == []

"""InvokeFunction in every generation, through the clients that users have."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fc2
import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_fc_open20210406 import models as v2
from tests.contracts.fc_support import Server, encoded, fc_warnings, new_classic, new_v3, serving

from torpor.model.errors import Throttled
from torpor.model.failure import Failure, FailureKind
from torpor.model.invocation import Outcome, OutcomeStatus

pytestmark = fc_warnings
ENVIRONMENT = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path / "code") as running:
        yield running


def invoke(server: Server, body: bytes = b"event", **headers: str) -> Any:
    wanted = v3.InvokeFunctionHeaders(common_headers={k.replace("_", "-"): v for k, v in headers.items()})
    from darabonba.runtime import RuntimeOptions

    request = v3.InvokeFunctionRequest(body=body)
    return server.v3().invoke_function_with_options("hello", request, wanted, RuntimeOptions())


@pytest.mark.fact("F-002", "F-004", "F-007")
@pytest.mark.parametrize("event", [b'{"a": 1}', "text äöü".encode(), bytes(range(256))])
def test_the_function_gets_the_events_bytes_and_the_caller_the_result(server: Server, event: bytes) -> None:
    new_v3(server.v3(), "hello")

    answer = server.v3().invoke_function("hello", v3.InvokeFunctionRequest(body=event))

    assert server.dispatcher.seen[0][1].payload == event
    assert answer.body.read() == event
    assert answer.status_code == 200


def test_all_three_generations_invoke(server: Server, tmp_path: Path) -> None:
    classic, open_client = server.classic(), server.open()
    new_classic(classic, "shop", "hello", tmp_path)

    told = classic.invoke_function("shop", "hello", payload=b"classic")
    generated = open_client.invoke_function("shop", "hello", v2.InvokeFunctionRequest(body=b"open"))

    assert told.data == b"classic"
    assert generated.body == b"open"
    assert told.headers["X-Fc-Invocation-Service-Version"] == "LATEST"
    assert int(told.headers["X-Fc-Code-Checksum"]) > 0


def test_request_ids_have_the_platforms_form(server: Server) -> None:
    new_v3(server.v3(), "hello")
    answer = server.v3().invoke_function("hello", v3.InvokeFunctionRequest(body=b"x"))

    parts = answer.headers["x-fc-request-id"].split("-")

    assert [len(part) for part in parts] == [1, 8, 8, 12]
    assert server.dispatcher.seen[0][1].id == answer.headers["x-fc-request-id"]


@pytest.mark.fact("F-003", "F-008")
def test_an_asynchronous_call_is_accepted_with_an_id_and_no_result(server: Server) -> None:
    new_v3(server.v3(), "hello")
    server.dispatcher.held = []

    answer = invoke(server, x_fc_invocation_type="Async")

    assert answer.status_code == 202
    assert answer.body.read() == b""
    assert answer.headers["x-fc-request-id"] == server.invocations(1)[0].id
    assert server.invocations(1)[0].patient


@pytest.mark.fact("F-020")
def test_asynchronous_calls_are_handed_on_in_the_order_in_which_they_came(server: Server) -> None:
    new_v3(server.v3(), "hello")
    server.dispatcher.held = []
    for number in range(20):
        server.request("POST", "/2023-03-30/functions/hello/invocations", str(number).encode())
        if not number:
            break
    server.dispatcher.seen.clear()
    for number in range(20):
        invoke(server, str(number).encode(), x_fc_invocation_type="Async")

    assert [invocation.payload for invocation in server.invocations(20)] == [str(n).encode() for n in range(20)]


def test_a_task_id_is_taken_once(server: Server) -> None:
    new_v3(server.v3(), "hello")
    invoke(server, x_fc_invocation_type="Async", x_fc_async_task_id="order-1")

    with pytest.raises(Exception) as refused:
        invoke(server, x_fc_invocation_type="Async", x_fc_async_task_id="order-1")

    assert refused.value.status_code == 409
    assert len(server.invocations(1)) == 1


def test_a_delayed_call_runs_the_code_of_the_time_at_which_it_runs(server: Server) -> None:
    new_v3(server.v3(), "hello")
    invoke(server, x_fc_invocation_type="Async", x_fc_async_delay="1")
    server.v3().update_function(
        "hello", v3.UpdateFunctionRequest(body=v3.UpdateFunctionInput(environment_variables={"A": "b"}))
    )
    assert server.dispatcher.seen == []

    deadline = time.monotonic() + 5
    while not server.dispatcher.seen and time.monotonic() < deadline:
        time.sleep(0.05)

    ((version, invocation),) = server.dispatcher.seen
    assert dict(version.environment) == {"A": "b"} and invocation.patient


def test_a_synchronous_call_is_refused_at_once_where_there_is_no_room(server: Server) -> None:
    new_v3(server.v3(), "hello")
    server.dispatcher.error = Throttled("Too many instances run already.", reason="together")

    status, _, body = _signed_less(server)

    assert status == 429
    assert json.loads(body)["Code"] == "ResourceExhausted"


def _signed_less(server: Server) -> tuple[int, Any, bytes]:
    """A call whose answer the client would take apart."""
    import requests
    from fc2.auth import Auth

    path = "/2023-03-30/functions/hello/invocations"
    headers = {"date": _now(), "content-type": "application/octet-stream"}
    headers["authorization"] = Auth("LTAItest", "secret-of-the-test").sign_request("POST", path, headers)
    with requests.post(server.url + path, headers=headers, data=b"x", timeout=10) as answer:
        return answer.status_code, answer.headers, answer.content


def _now() -> str:
    from email.utils import formatdate

    return formatdate(usegmt=True)


def test_an_event_that_is_too_large_is_refused_by_kind_of_call(server: Server) -> None:
    new_v3(server.v3(), "hello")

    with pytest.raises(Exception) as refused:
        invoke(server, b"x" * (128 * 1024 + 1), x_fc_invocation_type="Async")

    assert refused.value.code == "EntityTooLarge"
    assert invoke(server, b"x" * (1024 * 1024)).status_code == 200


def test_an_error_of_the_function_is_marked_and_carries_its_body(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    server.dispatcher.outcome = Outcome(
        status=OutcomeStatus.ERROR, payload=b'{"errorMessage":"no"}', error_type="UnhandledInvocationError"
    )

    with pytest.raises(fc2.FcError) as raised:
        client.invoke_function("shop", "hello", payload=b"x")

    assert raised.value.status_code == 200
    assert "no" in raised.value.message


@pytest.mark.fact("C-017", "C-018", "C-019")
def test_a_server_that_never_listens_is_told_to_the_classic_generation_in_its_words(
    server: Server, tmp_path: Path
) -> None:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    failure = Failure(
        kind=FailureKind.TIMEOUT,
        limit=120.0,
        starting=True,
        elapsed=25.000000001,
        address="21.0.1.2:9000",
        output=((1_575_021_210.859837462, "Listening on port 9000\n"),),
    )
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.TIMEOUT, payload=b"", failure=failure)

    with pytest.raises(fc2.FcError) as raised:
        client.invoke_function("shop", "hello", payload=b"x")
    told = json.loads(raised.value.message)

    assert raised.value.status_code == 412
    assert told["ErrorCode"] == told["Code"] == "FunctionNotStarted"
    assert told["ErrorMessage"].startswith(
        "The CA's http server cannot be started:ContainerStartDuration:25000000001. "
        "Ping CA failed due to: dial tcp 21.0.1.2:9000: getsockopt: connection refused Logs : 2019-11-29T09:53:30.85"
    )
    assert told["ErrorMessage"].endswith("Z Listening on port 9000")


def test_a_server_that_never_listens_is_told_to_the_current_generation_in_its_words(server: Server) -> None:
    new_v3(server.v3(), "hello")
    failure = Failure(kind=FailureKind.TIMEOUT, limit=120.0, starting=True, elapsed=120.1, output=((0.0, "up"),))
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.TIMEOUT, payload=b"", failure=failure)

    with pytest.raises(Exception) as raised:
        invoke(server)

    assert (raised.value.status_code, raised.value.code) == (412, "FunctionNotStarted")
    expected = (
        "Function instance health check failed on port 9000 in 120 seconds.\nLogs:1970-01-01T00:00:00.000000000Z up"
    )
    assert expected in raised.value.data["Message"]


def test_a_timeout_says_how_long_and_how_much_memory(server: Server) -> None:
    new_v3(server.v3(), "hello")
    failure = Failure(kind=FailureKind.TIMEOUT, limit=60.0)
    server.dispatcher.outcome = Outcome(
        status=OutcomeStatus.TIMEOUT, payload=b"", failure=failure, duration=60.01, memory_mb=8
    )

    answer = invoke(server)

    assert answer.status_code == 200
    assert answer.headers["x-fc-error-type"] == "UnhandledInvocationError"
    assert json.loads(answer.body.read()) == {
        "errorMessage": "Function timed out after 60 seconds (maxMemoryUsage: 8MB)"
    }


def test_a_failed_initializer_answers_two_hundred_with_its_error_type(server: Server) -> None:
    new_v3(server.v3(), "hello")
    failure = Failure(kind=FailureKind.INIT_ERROR, detail="initialize", code=404, payload=b"no db", starting=True)
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.ERROR, payload=b"", failure=failure)

    answer = invoke(server)

    assert answer.status_code == 200
    assert answer.headers["x-fc-error-type"] == "InitializationError"
    assert "no db" in json.loads(answer.body.read())["errorMessage"]


def test_a_platform_failure_is_told_without_its_reason(server: Server) -> None:
    new_v3(server.v3(), "hello")
    failure = Failure(kind=FailureKind.SANDBOX, detail="/var/lib/secret")
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.FAILURE, payload=b"", failure=failure)

    status, _, body = _signed_less(server)

    assert status == 500
    assert json.loads(body)["Code"] == "InternalServerError"
    assert b"secret" not in body


def test_the_log_tail_ends_with_what_the_call_cost(server: Server) -> None:
    new_v3(server.v3(), "hello")
    server.dispatcher.outcome = Outcome(
        status=OutcomeStatus.SUCCESS, payload=b"x", duration=0.01745, memory_mb=30, log_tail=b"earlier\nhello\n",
        environment=ENVIRONMENT,
    )  # fmt: skip

    answer = invoke(server, x_fc_log_type="Tail")
    tail = base64.b64decode(answer.headers["x-fc-log-result"]).decode()

    assert tail == (
        "earlier\nhello\n\nDuration: 17.45 ms, Billed Duration: 18 ms, Memory Size: 128 MB, Max Memory Used: 30.00 MB"
    )
    assert answer.headers["x-fc-instance-id"] == "c-01234567-89abcdef-0123456789ab"


def test_no_log_comes_with_several_calls_in_one_instance(server: Server) -> None:
    new_v3(server.v3(), "hello", instance_concurrency=2)

    assert "x-fc-log-result" not in invoke(server, x_fc_log_type="Tail").headers


def test_a_caller_that_goes_away_cancels_its_call(server: Server) -> None:
    new_v3(server.v3(), "hello")
    server.dispatcher.held = []
    gone = threading.Thread(target=_give_up, args=(server,))
    gone.start()
    gone.join(10)

    for _ in range(200):
        if server.dispatcher.cancelled:
            break
        threading.Event().wait(0.02)

    assert server.dispatcher.cancelled == [server.dispatcher.seen[0][1].id]


def _give_up(server: Server) -> None:
    import requests

    with pytest.raises(requests.exceptions.ReadTimeout):
        _impatient(server)


def _impatient(server: Server) -> None:
    import requests
    from fc2.auth import Auth

    path = "/2023-03-30/functions/hello/invocations"
    headers = {"date": _now(), "content-type": "application/octet-stream"}
    headers["authorization"] = Auth("LTAItest", "secret-of-the-test").sign_request("POST", path, headers)
    requests.post(server.url + path, headers=headers, data=b"x", timeout=0.5)


@pytest.mark.parametrize(("qualifier", "code"), [("7", "VersionNotFound"), ("prod", "AliasNotFound")])
def test_a_version_or_alias_that_there_is_not_is_told(server: Server, qualifier: str, code: str) -> None:
    new_v3(server.v3(), "hello")

    with pytest.raises(Exception) as refused:
        server.v3().invoke_function("hello", v3.InvokeFunctionRequest(body=b"x", qualifier=qualifier))

    assert (refused.value.status_code, refused.value.code) == (404, code)


def test_a_function_that_there_is_not_is_told_in_the_words_of_each_generation(server: Server) -> None:
    with pytest.raises(Exception) as current:
        invoke(server)
    with pytest.raises(fc2.FcError) as classic:
        server.classic().invoke_function("shop", "hello", payload=b"x")

    assert current.value.data["Message"] == "function 'hello' does not exist."
    assert json.loads(classic.value.message)["ErrorMessage"] == "service 'shop' does not exist"


def test_a_builtin_runtime_is_created_and_invoked_like_any_other(server: Server) -> None:
    new_v3(server.v3(), "hello", runtime="python3.12", handler="index.handler", custom_runtime_config=None,
           code=v3.InputCodeLocation(zip_file=encoded({"index.py": ""})))  # fmt: skip
    invoke(server)

    version = server.dispatcher.seen[0][0]
    assert (version.runtime, version.handler, version.server is not None) == ("python3.12", "index.handler", True)

"""Invoke through the official client, with a dispatcher that answers what the test says."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.async_support import event_bench
from tests.contracts.aws_support import KEYS, Server, new_function, refusal, serving, signed_post, unchecked

from torpor.api.aws import AwsSettings
from torpor.model.errors import ShuttingDown, Throttled
from torpor.model.invocation import Outcome, OutcomeStatus

ARN = "arn:aws:lambda:us-east-1:000000000000:function:echo"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS)) as server:
        new_function(server.client(), "echo")
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.dispatcher.outcome = running.dispatcher.error = None
    running.dispatcher.seen.clear()
    return running


@pytest.fixture
def client(server: Server) -> Any:
    return server.client()


def headers_of(reply: Any) -> dict[str, str]:
    headers: dict[str, str] = reply["ResponseMetadata"]["HTTPHeaders"]
    return headers


def test_payload_reaches_the_function_and_comes_back_verbatim(client: Any, server: Server) -> None:
    payload = '{"a": [1, 2.50], "ü": "\\u00fc"}'.encode()
    reply = client.invoke(FunctionName="echo", Payload=payload)
    assert reply["Payload"].read() == payload
    assert (reply["StatusCode"], reply["ExecutedVersion"]) == (200, "$LATEST")
    assert "FunctionError" not in reply and "LogResult" not in reply
    version, invocation, reserved = server.dispatcher.seen[0]
    assert (version.function, invocation.payload, reserved) == ("echo", payload, None)
    assert invocation.resource == ARN
    assert invocation.id == reply["ResponseMetadata"]["RequestId"]
    assert re.fullmatch(UUID, invocation.id)


def test_no_payload_counts_as_an_empty_object(client: Any, server: Server) -> None:
    assert client.invoke(FunctionName="echo")["Payload"].read() == b"{}"


@pytest.mark.parametrize("name", ["echo", "000000000000:function:echo", ARN, "echo:$LATEST", ARN + ":$LATEST"])
def test_every_form_of_a_name_invokes_the_function(client: Any, server: Server, name: str) -> None:
    assert client.invoke(FunctionName=name)["StatusCode"] == 200
    assert server.dispatcher.seen[0][1].resource == ARN + (":$LATEST" if "$LATEST" in name else "")


def test_qualifier_latest_is_part_of_the_invoked_name(client: Any, server: Server) -> None:
    client.invoke(FunctionName="echo", Qualifier="$LATEST")
    assert server.dispatcher.seen[0][1].resource == ARN + ":$LATEST"


def test_other_qualifier_is_not_found(client: Any) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.invoke(FunctionName="echo", Qualifier="live")
    assert refusal(error.value)[1] == f"Function not found: {ARN}:live"


def test_unknown_function_is_not_found(client: Any) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.invoke(FunctionName="nobody")
    assert refusal(error.value)[1] == "Function not found: arn:aws:lambda:us-east-1:000000000000:function:nobody"


def test_function_error_is_told_in_a_header(client: Any, server: Server) -> None:
    body = b'{"errorMessage":"no","errorType":"ValueError"}'
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.ERROR, payload=body, error_type="ValueError")
    reply = client.invoke(FunctionName="echo")
    assert (reply["StatusCode"], reply["FunctionError"], reply["Payload"].read()) == (200, "Unhandled", body)


def test_tail_returns_the_last_four_kilobytes_of_the_log(client: Any, server: Server) -> None:
    log = b"x" * 5000 + b"END RequestId: 1\n"
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.SUCCESS, payload=b"null", log_tail=log)
    reply = client.invoke(FunctionName="echo", LogType="Tail")
    assert base64.b64decode(reply["LogResult"]) == log[-4096:]
    assert server.dispatcher.seen[0][1].wants_log
    assert "LogResult" not in client.invoke(FunctionName="echo", LogType="None")


def test_client_context_reaches_the_function_as_json(client: Any, server: Server) -> None:
    context = json.dumps({"custom": {"k": "ü"}})
    client.invoke(FunctionName="echo", ClientContext=base64.b64encode(context.encode()).decode())
    assert server.dispatcher.seen[0][1].client_context == context


@pytest.mark.parametrize(
    "context", ["%%%", base64.b64encode(b"[1]").decode(), base64.b64encode(b"{").decode(), "A" * 3584]
)
def test_bad_client_context_is_refused(client: Any, context: str) -> None:
    with pytest.raises(client.exceptions.InvalidRequestContentException, match="Client context must be"):
        client.invoke(FunctionName="echo", ClientContext=context)


def test_trace_is_made_when_absent_and_passed_on_when_given(client: Any, server: Server) -> None:
    made = headers_of(client.invoke(FunctionName="echo"))["x-amzn-trace-id"]
    assert re.fullmatch(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=0", made)
    assert server.dispatcher.seen[0][1].trace == made
    given = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1;Lineage=a:0"

    def add(request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = given

    client.meta.events.register("before-send.lambda.Invoke", add)
    counted = headers_of(client.invoke(FunctionName="echo"))["x-amzn-trace-id"]
    assert re.fullmatch(re.escape(given.replace("=a:0", "=1:a:0")) + r"\|[0-9a-f]{8}:1", counted)
    assert server.dispatcher.seen[1][1].trace == counted


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"{nope", "Could not parse request body into json: Could not parse payload into json: "),
        (b"NaN", "Could not parse payload into json: "),
        (b"   ", "Could not parse payload into json: "),
        (b'{"a":"\x87"}', "Could not parse payload into json: Invalid UTF-8 start byte 0x87"),
        (b"[" * 100_000, "Could not parse payload into json: "),
    ],
)
def test_payload_that_is_no_json_is_refused(client: Any, server: Server, payload: bytes, reason: str) -> None:
    with pytest.raises(client.exceptions.InvalidRequestContentException) as error:
        client.invoke(FunctionName="echo", Payload=payload)
    assert reason in refusal(error.value)[1]
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert not server.dispatcher.seen


def test_half_of_a_surrogate_pair_is_json(client: Any) -> None:
    assert client.invoke(FunctionName="echo", Payload=b'"\\ud800"')["Payload"].read() == b'"\\ud800"'


def test_payload_just_under_the_limit_passes_and_over_it_is_refused(client: Any) -> None:
    largest = b'"' + b"x" * (6 * 1024 * 1024 - 2) + b'"'
    assert len(client.invoke(FunctionName="echo", Payload=largest)["Payload"].read()) == len(largest)
    for too_large in (largest + b" ", largest + b" " * len(largest) + b" "):
        with pytest.raises(client.exceptions.RequestTooLargeException) as error:
            client.invoke(FunctionName="echo", Payload=too_large)
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_unknown_types_are_told_together(server: Server) -> None:
    client = server.client(**unchecked())
    with pytest.raises(ClientError) as error:
        client.invoke(FunctionName="echo", InvocationType="Later", LogType="Some")
    assert refusal(error.value) == (
        "ValidationException",
        "2 validation errors detected: Value 'Later' at 'invocationType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [Event, RequestResponse, DryRun]; "
        "Value 'Some' at 'logType' failed to satisfy constraint: Member must satisfy enum value set: [None, Tail]",
    )


def test_dry_run_checks_existence_only(client: Any, server: Server) -> None:
    reply = client.invoke(FunctionName="echo", InvocationType="DryRun")
    assert (reply["StatusCode"], reply["Payload"].read()) == (204, b"")
    assert not server.dispatcher.seen
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName="nobody", InvocationType="DryRun")


def test_an_event_is_answered_with_202_and_no_executed_version(tmp_path: Path) -> None:
    with event_bench(tmp_path) as bench:
        reply = bench.client.invoke(FunctionName=bench.function(), InvocationType="Event")
        assert (reply["StatusCode"], reply["Payload"].read()) == (202, b"")
        assert "x-amz-executed-version" not in headers_of(reply)
        assert re.fullmatch(UUID, headers_of(reply)["x-amzn-requestid"])


def test_a_server_without_a_queue_says_that_it_takes_no_events(client: Any) -> None:
    with pytest.raises(ClientError, match="Asynchronous invocation is not available") as error:
        client.invoke(FunctionName="echo", InvocationType="Event")
    assert refusal(error.value)[0] == "NotImplementedException"


def test_throttled_call_is_told_reason_and_when_to_retry(client: Any, server: Server) -> None:
    reason = "ReservedFunctionConcurrentInvocationLimitExceeded"
    server.dispatcher.error = Throttled("Busy.", reason=reason, retry_after=3.0)
    with pytest.raises(client.exceptions.TooManyRequestsException) as error:
        client.invoke(FunctionName="echo")
    response = error.value.response
    assert (response["Reason"], response["Type"], response["message"]) == (reason, "User", "Rate Exceeded.")
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 429
    assert headers_of(response)["retry-after"] == "3"


def test_draining_server_refuses_with_a_time_to_retry(client: Any, server: Server) -> None:
    server.dispatcher.error = ShuttingDown("The server is draining.")
    with pytest.raises(client.exceptions.ServiceException) as error:
        client.invoke(FunctionName="echo")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    assert headers_of(error.value.response)["retry-after"] == "1"


def test_failure_of_the_platform_is_a_service_error(client: Any, server: Server) -> None:
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.FAILURE, payload=b"")
    with pytest.raises(client.exceptions.ServiceException) as error:
        client.invoke(FunctionName="echo")
    assert error.value.response["Type"] == "Service"


def test_unexpected_error_is_logged_and_told_without_detail(
    client: Any, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.dispatcher.error = ZeroDivisionError("inner secret")
    with pytest.raises(client.exceptions.ServiceException) as error:
        client.invoke(FunctionName="echo")
    response = error.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert "secret" not in str(response) and "Traceback" not in str(response)
    assert response["ResponseMetadata"]["RequestId"] in caplog.text
    assert "inner secret" in caplog.text


def test_reserved_concurrency_is_handed_to_the_dispatcher(client: Any, server: Server) -> None:
    client.put_function_concurrency(FunctionName="echo", ReservedConcurrentExecutions=0)
    client.invoke(FunctionName="echo")
    client.delete_function_concurrency(FunctionName="echo")
    assert server.dispatcher.seen[0][2] == 0


def test_every_error_names_its_code_and_request(server: Server) -> None:
    status, headers, body = signed_post(server, "/2015-03-31/functions/nobody/invocations", b"{}")
    assert (status, headers["x-amzn-ErrorType"]) == (404, "ResourceNotFoundException")
    assert re.fullmatch(UUID, headers["x-amzn-RequestId"])
    assert set(json.loads(body)) == {"Type", "Message"}


def test_command_line_tool_invokes_the_function(server: Server, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    done = server.command("invoke", "--function-name", "echo", "--payload", '{"a":1}', str(answer))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert answer.read_bytes() == b'{"a":1}'

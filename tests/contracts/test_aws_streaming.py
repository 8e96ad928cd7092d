"""InvokeWithResponseStream through the official client, with a dispatcher that streams what the test says."""

import asyncio
import base64
import json
import re
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import KEYS, Server, new_function, refusal, serving, signed_post, unchecked

from torpor.api.aws import AwsSettings
from torpor.model.errors import ShuttingDown, Throttled
from torpor.model.invocation import AnswerSink, Invocation, Outcome, OutcomeStatus

PATH = "/2021-11-15/functions/echo/response-streaming-invocations"
ARN = "arn:aws:lambda:us-east-1:000000000000:function:echo"
WHOLE = Outcome(status=OutcomeStatus.SUCCESS, payload=b"")
Done = Callable[[Any], None]
MIB = 1 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS)) as server:
        new_function(server.client(), "echo")
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    dispatcher = running.dispatcher
    dispatcher.outcome = dispatcher.error = dispatcher.run = None
    dispatcher.seen.clear()
    return running


@pytest.fixture
def client(server: Server) -> Any:
    return server.client()


def streaming(*pieces: bytes, outcome: Outcome = WHOLE) -> Callable[[Invocation, Done], None]:
    def run(invocation: Invocation, done: Done) -> None:
        sink = sink_of(invocation)
        sink.begin("text/plain")
        for piece in pieces:
            sink.data(piece)
        done(outcome)

    return run


def sink_of(invocation: Invocation) -> AnswerSink:
    assert invocation.sink is not None
    return invocation.sink


def events(reply: Any) -> tuple[list[bytes], dict[str, str]]:
    """The chunks, and what the last event says."""
    *chunks, last = list(reply["EventStream"])
    return [chunk["PayloadChunk"]["Payload"] for chunk in chunks], last["InvokeComplete"]


def called(client: Any, **more: Any) -> tuple[list[bytes], dict[str, str]]:
    return events(client.invoke_with_response_stream(FunctionName="echo", **more))


def test_pieces_are_events_and_the_last_one_says_that_it_ended_well(client: Any, server: Server) -> None:
    server.dispatcher.run = streaming(b"one", bytes(range(256)), b"x" * MIB)
    reply = client.invoke_with_response_stream(FunctionName="echo", Payload=b'{"a":1}')
    headers = reply["ResponseMetadata"]["HTTPHeaders"]
    assert (reply["StatusCode"], reply["ExecutedVersion"]) == (200, "$LATEST")
    assert reply["ResponseStreamContentType"] == headers["content-type"] == "application/vnd.amazon.eventstream"
    assert headers["transfer-encoding"] == "chunked" and "Root=1-" in headers["x-amzn-trace-id"]
    assert events(reply) == ([b"one", bytes(range(256)), b"x" * MIB], {})
    version, invocation, reserved = server.dispatcher.seen[0]
    assert (version.function, invocation.payload, reserved) == ("echo", b'{"a":1}', None)
    assert invocation.id == reply["ResponseMetadata"]["RequestId"] and invocation.resource == ARN


def test_a_piece_arrives_while_the_function_still_works_on_the_next(client: Any, server: Server) -> None:
    go_on = threading.Event()

    def run(invocation: Invocation, done: Done) -> None:
        sink, loop = sink_of(invocation), asyncio.get_running_loop()
        sink.begin("text/plain")
        sink.data(b"first")

        def end() -> None:
            sink.data(b"second")
            done(WHOLE)

        def wait() -> None:
            go_on.wait(10)
            loop.call_soon_threadsafe(end)

        threading.Thread(target=wait, daemon=True).start()

    server.dispatcher.run = run
    stream = iter(client.invoke_with_response_stream(FunctionName="echo")["EventStream"])
    assert next(stream)["PayloadChunk"]["Payload"] == b"first"
    go_on.set()
    assert next(stream)["PayloadChunk"]["Payload"] == b"second"
    assert next(stream) == {"InvokeComplete": {}}


def test_answer_that_came_whole_is_one_piece(client: Any, server: Server) -> None:
    assert called(client, Payload=b'{"a":1}') == ([b'{"a":1}'], {})
    server.dispatcher.outcome = WHOLE
    assert called(client) == ([], {})


def test_error_before_any_byte_is_a_piece_and_a_code(client: Any, server: Server) -> None:
    body = b'{"errorMessage":"no","errorType":"ValueError"}'
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.ERROR, payload=body, error_type="Unhandled")
    assert called(client) == ([body], {"ErrorCode": "Unhandled", "ErrorDetails": body.decode()})


def test_error_behind_the_bytes_is_told_by_the_last_event_alone(client: Any, server: Server) -> None:
    outcome = Outcome(status=OutcomeStatus.ERROR, payload=b'{"errorType":"T"} \xff', error_type="T")
    server.dispatcher.run = streaming(b"part", outcome=outcome)
    assert called(client) == ([b"part"], {"ErrorCode": "T", "ErrorDetails": '{"errorType":"T"} \ufffd'})


def test_platform_that_fails_within_a_stream_says_so_in_the_last_event(client: Any, server: Server) -> None:
    server.dispatcher.run = streaming(b"part", outcome=Outcome(status=OutcomeStatus.FAILURE, payload=b""))
    assert called(client) == ([b"part"], {"ErrorCode": "Sandbox.Failure", "ErrorDetails": ""})


def test_tail_comes_with_the_last_event(client: Any, server: Server) -> None:
    outcome = Outcome(status=OutcomeStatus.SUCCESS, payload=b"", log_tail=b"x" * 5000 + b"END\n")
    server.dispatcher.run = streaming(b"part", outcome=outcome)
    told = called(client, LogType="Tail")[1]
    assert base64.b64decode(told["LogResult"]) == (b"x" * 5000 + b"END\n")[-4096:]
    assert server.dispatcher.seen[0][1].wants_log
    assert called(client, LogType="None")[1] == {}


def test_client_context_and_qualifier_reach_the_function(client: Any, server: Server) -> None:
    context = json.dumps({"custom": {"k": "ü"}})
    called(client, ClientContext=base64.b64encode(context.encode()).decode(), Qualifier="$LATEST")
    invocation = server.dispatcher.seen[0][1]
    assert (invocation.client_context, invocation.resource) == (context, ARN + ":$LATEST")


@pytest.mark.parametrize(
    ("given", "code", "status"),
    [
        ({"FunctionName": "nobody"}, "ResourceNotFoundException", 404),
        ({"Payload": b"{nope"}, "InvalidRequestContentException", 400),
        ({"Payload": b'"' + b"x" * 6 * MIB + b'"'}, "RequestTooLargeException", 413),
        ({"ClientContext": "%%%"}, "InvalidRequestContentException", 400),
        ({"TenantId": "one"}, "InvalidParameterValueException", 400),
        ({"InvocationType": "Event"}, "ValidationException", 400),
        ({"LogType": "Some"}, "ValidationException", 400),
    ],
)
def test_call_out_of_order_is_an_error_like_any_other(
    server: Server, given: dict[str, Any], code: str, status: int
) -> None:
    client = server.client(**unchecked())
    with pytest.raises(ClientError) as error:
        client.invoke_with_response_stream(**{"FunctionName": "echo", **given})
    assert refusal(error.value)[0] == code
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert not server.dispatcher.seen


@pytest.mark.parametrize(
    ("error", "status"),
    [(Throttled("Busy.", reason="ConcurrentInvocationLimitExceeded"), 429), (ShuttingDown("Draining."), 503)],
)
def test_call_that_no_environment_takes_is_an_error_like_any_other(
    client: Any, server: Server, error: Any, status: int
) -> None:
    server.dispatcher.error = error
    with pytest.raises(ClientError) as raised:
        called(client)
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_platform_that_fails_before_the_first_byte_is_a_service_error(client: Any, server: Server) -> None:
    server.dispatcher.outcome = Outcome(status=OutcomeStatus.FAILURE, payload=b"")
    with pytest.raises(client.exceptions.ServiceException):
        called(client)


def test_dry_run_runs_nothing(client: Any, server: Server) -> None:
    reply = client.invoke_with_response_stream(FunctionName="echo", InvocationType="DryRun")
    assert reply["StatusCode"] == 204 and not server.dispatcher.seen
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke_with_response_stream(FunctionName="nobody", InvocationType="DryRun")


def test_signature_is_checked_and_other_methods_are_no_operation(server: Server) -> None:
    with pytest.raises(ClientError) as error:
        called(server.client(secret_key="wrong"))
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
    status, headers, _ = signed_post(server, PATH.replace("/2021-11-15/", "/2015-03-31/"), b"{}")
    assert (status, headers["x-amzn-ErrorType"]) == (404, "UnknownOperationException")
    assert not server.dispatcher.seen


def test_large_event_is_taken_too(client: Any, server: Server) -> None:
    payload = b'"' + b"x" * (5 * MIB) + b'"'
    assert called(client, Payload=payload) == ([payload], {})


def test_unexpected_error_is_told_without_detail(client: Any, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def run(invocation: Invocation, done: Done) -> None:
        raise ZeroDivisionError("inner secret")

    server.dispatcher.run = run
    with pytest.raises(client.exceptions.ServiceException) as error:
        called(client)
    assert "secret" not in str(error.value.response) and "inner secret" in caplog.text


def test_caller_that_goes_away_or_reads_nothing_holds_nobody_up(server: Server, tmp_path: Path) -> None:
    told: list[str] = []
    more = threading.Event()

    def run(invocation: Invocation, done: Done) -> None:
        sink = sink_of(invocation)
        sink.begin("text/plain")
        while sink.data(b"x" * 65536):
            pass
        told.append("slow")

        def go_on() -> None:
            told.append("free")
            assert sink.data(b"dropped") and sink.data(b"dropped")
            done(WHOLE)
            more.set()

        sink.on_writable = go_on

    with serving(tmp_path, AwsSettings()) as open_server:
        new_function(open_server.client(), "echo")
        open_server.dispatcher.run = run
        where = urllib.parse.urlsplit(open_server.url)
        with socket.create_connection((where.hostname or "", where.port or 0)) as peer:
            peer.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            deadline = time.monotonic() + 5
            while told != ["slow"]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        assert more.wait(5) and told == ["slow", "free"]


def test_frames_are_what_the_contract_says(server: Server) -> None:
    server.dispatcher.run = streaming(b"abc")
    status, headers, body = signed_post(server, PATH, b"{}")
    assert (status, headers["Content-Type"]) == (200, "application/vnd.amazon.eventstream")
    assert re.search(rb":event-type\x07\x00\x0cPayloadChunk", body) and body.count(b":message-type") == 2
    assert int.from_bytes(body[:4]) < len(body) and b"abc" in body

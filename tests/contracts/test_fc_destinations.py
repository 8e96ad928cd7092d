"""Where results of asynchronous calls go: functions, files, queues, topics, web addresses; and where they may not."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from alibabacloud_fc20230330 import models as v3
from tests.contracts.fc_events_support import (
    BROKEN,
    FAILED,
    FULL,
    GOOD,
    PLACE,
    aliased,
    answer,
    configure,
    go_off,
    send,
)
from tests.contracts.fc_support import Server, fc_warnings, new_classic, new_v3, serving
from tests.support.emulator import free_port
from tests.support.objects import PLAIN, object_store
from tests.support.queues import result_queue

from torpor.model.errors import NotFound
from torpor.model.invocation import Outcome, OutcomeStatus
from torpor.targets.web import signature

pytestmark = fc_warnings
SINK = f"{PLACE}:functions/sink"
EVENT = '{"a" :  1,\t"ü": "\\u00fc"}'
"""An event that would look otherwise if anybody wrote it anew."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture
def server(tmp_path: Path, cloud: str) -> Iterator[Server]:
    with serving(tmp_path / "code", endpoint=cloud) as running:
        new_v3(running.v3(), "hello")
        yield running


@dataclass
class Listener:
    """A web address that answers with the statuses a test gives it, the last one for good."""

    url: str = ""
    statuses: list[int] = field(default_factory=lambda: [200])
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def listening() -> Iterator[Listener]:
    told = Listener()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(told.statuses.pop(0) if len(told.statuses) > 1 else told.statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        told.url = f"http://127.0.0.1:{listener.server_port}/results"
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield told
        finally:
            listener.shutdown()
            thread.join()


def task(server: Server, identity: str) -> Any:
    return server.v3().get_async_task("hello", identity, v3.GetAsyncTaskRequest()).body


def delivered(server: Server, identity: str) -> str:
    """What became of a task's result, once something has."""

    def settled() -> str:
        status = task(server, identity).destination_status
        return status if status in ("Succeeded", "Failed") else ""

    found: str = server.until(settled)
    return found


# -- the record -------------------------------------------------------------------------------------------------------


def test_another_function_gets_the_record_of_a_success_as_its_event(server: Server) -> None:
    new_v3(server.v3(), "sink")
    configure(server, success=SINK)
    answer(server, GOOD)
    before = time.time()
    identity = send(server, EVENT.encode())
    _, run = server.invocations(2)
    after = time.time()

    record = json.loads(run.payload)
    assert before - 0.001 <= record.pop("timestamp") / 1000 <= after + 0.001
    assert record == {
        "requestContext": {
            "requestId": identity,
            "functionArn": f"{PLACE}:functions/hello",
            "condition": "",
            "approximateInvokeCount": 1,
        },
        "requestPayload": EVENT,
        "responseContext": {"statusCode": 200, "functionError": ""},
        "responsePayload": '{"sum": 3}',
    }
    assert run.id != identity
    assert server.dispatcher.seen[1][0].function == "fc/sink"


def test_another_function_gets_the_record_of_a_failure_after_the_last_retry(server: Server) -> None:
    new_v3(server.v3(), "sink")
    configure(server, success="file:good", failure=SINK, max_async_retry_attempts=1)
    answer(server, FAILED, FAILED, GOOD)
    identity = send(server, EVENT.encode())
    record = json.loads(server.invocations(3)[2].payload)

    assert isinstance(record.pop("timestamp"), int)
    assert record == {
        "requestContext": {
            "requestId": identity,
            "functionArn": f"{PLACE}:functions/hello",
            "condition": "InvocationError",
            "approximateInvokeCount": 2,
        },
        "requestPayload": EVENT,
        "responseContext": {"statusCode": 200, "functionError": "UnhandledInvocationError"},
        "responsePayload": FAILED.payload.decode(),
    }
    assert not (server.results / "good").exists()


def test_a_record_is_written_without_blanks_and_with_letters_as_they_are(server: Server) -> None:
    configure(server, success="file:ends")
    answer(server, Outcome(status=OutcomeStatus.SUCCESS, payload="größer".encode()))
    send(server, "ähnlich".encode())
    server.records("ends")

    (line,) = (server.results / "ends").read_text().splitlines()
    assert line.endswith(
        '"requestPayload":"ähnlich","responseContext":{"statusCode":200,"functionError":""},"responsePayload":"größer"}'
    )


def test_an_event_and_a_result_that_are_no_text_still_make_a_record(server: Server) -> None:
    configure(server, success="file:ends")
    answer(server, Outcome(status=OutcomeStatus.SUCCESS, payload=b"\xff\0"))
    send(server, bytes(range(256)))
    (record,) = server.records("ends")

    assert record["requestPayload"].startswith("\0\1\2")
    assert record["responsePayload"] == "�\0"


def test_the_record_of_a_function_of_a_service_names_the_service_and_how_it_was_called(
    server: Server, tmp_path: Path
) -> None:
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    client.publish_version("shop")
    client.create_alias("shop", "prod", "1")
    to_file = {"destinationConfig": {"onSuccess": {"destination": "file:ends"}}}
    for qualifier in ("LATEST", "prod"):
        client.put_function_async_invoke_config("shop", qualifier, "hello", to_file)
        headers = {"x-fc-invocation-type": "Async"}
        client.invoke_function("shop", "hello", payload=b"x", qualifier=qualifier, headers=headers)
    arns = [record["requestContext"]["functionArn"] for record in server.records("ends", 2)]

    assert sorted(arns) == [f"{PLACE}:services/shop.{name}/functions/hello" for name in ("LATEST", "prod")]


def test_the_record_of_an_event_that_never_had_an_instance_tells_so(server: Server) -> None:
    configure(server, max_async_event_age_in_seconds=1, failure="file:ends")
    answer(server, FULL)
    send(server)
    (record,) = server.records("ends")

    assert record["requestContext"]["condition"] == "FunctionResourceExhausted"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert record["responseContext"] == {"statusCode": 429, "functionError": ""}
    assert record["responsePayload"] == ""


def test_the_record_of_an_event_that_the_platform_failed_at_has_another_status(server: Server) -> None:
    configure(server, max_async_event_age_in_seconds=1, failure="file:ends")
    answer(server, BROKEN)
    send(server)
    (record,) = server.records("ends")

    assert record["responseContext"]["statusCode"] == 500


def test_the_record_of_a_timer_holds_what_the_timer_sent(server: Server) -> None:
    configure(server, max_async_retry_attempts=0, failure="file:ends")
    answer(server, FAILED)
    planned = go_off(server)
    (record,) = server.records("ends")

    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(planned))
    assert json.loads(record["requestPayload"]) == {"triggerTime": moment, "triggerName": "tick", "payload": "p"}
    assert record["requestContext"]["condition"] == "InvocationError"


def test_a_timer_of_an_alias_has_the_alias_s_destination(server: Server) -> None:
    aliased(server, "prod")
    configure(server, success="file:newest")
    configure(server, qualifier="prod", success="file:prod")
    answer(server, GOOD)
    go_off(server, qualifier="prod")
    (record,) = server.records("prod")

    assert json.loads(record["requestPayload"])["triggerName"] == "tick"
    assert [run.qualifier for run in server.invocations(1)] == ["prod"]
    assert not (server.results / "newest").exists()


# -- each kind --------------------------------------------------------------------------------------------------------


def test_each_result_goes_where_results_of_its_kind_go(server: Server) -> None:
    configure(server, success="file:good", failure="file:bad", max_async_retry_attempts=0)
    server.dispatcher.answer = lambda run: FAILED if run.payload == b"bad" else GOOD
    good, bad = send(server, b"good"), send(server, b"bad")

    assert [record["requestContext"]["requestId"] for record in server.records("good")] == [good]
    assert [record["requestContext"]["requestId"] for record in server.records("bad")] == [bad]


def test_a_destination_may_be_an_alias_or_version_of_a_function(server: Server) -> None:
    new_v3(server.v3(), "sink")
    version = aliased(server, "prod", "sink")
    assert called_by(server, f"{SINK}/prod", f"{SINK}/{version}", f"{SINK}/LATEST") == ["prod", version, ""]


def test_a_destination_may_be_a_function_of_a_service_by_its_alias_too(server: Server, tmp_path: Path) -> None:
    client = server.classic()
    new_classic(client, "shop", "sink", tmp_path)
    client.publish_version("shop")
    client.create_alias("shop", "prod", "1")
    targets = [
        f"{PLACE}:services/{service}/functions/sink" for service in ("shop", "shop.LATEST", "shop.prod", "shop.1")
    ]

    assert called_by(server, *targets) == ["", "", "prod", "1"]
    assert {version.function for version, _ in server.dispatcher.seen[1::2]} == {"fc/shop/sink"}


def called_by(server: Server, *targets: str) -> list[str]:
    """The qualifiers by which results are handed to functions, for each of these destinations."""
    answer(server, GOOD)
    for number, target in enumerate(targets):
        configure(server, success=target)
        send(server)
        server.invocations(2 * number + 2)
    return [run.qualifier for run in server.invocations(0)[1::2]]


def test_the_destination_s_own_results_go_on_to_its_destination(server: Server) -> None:
    new_v3(server.v3(), "sink")
    configure(server, success=SINK)
    configure(server, "sink", success="file:ends")
    answer(server, GOOD)
    identity = send(server)
    (record,) = server.records("ends")

    assert record["requestContext"]["functionArn"] == SINK
    assert json.loads(record["requestPayload"])["requestContext"]["requestId"] == identity


def test_a_destination_that_fails_is_retried_as_any_function(server: Server) -> None:
    new_v3(server.v3(), "sink")
    configure(server, success=SINK)
    server.dispatcher.answer = lambda run: FAILED if b"requestContext" in run.payload else GOOD
    send(server)
    runs = server.invocations(5)

    assert len({run.id for run in runs[1:]}) == 1
    assert [run.attempt for run in runs] == [0, 0, 1, 2, 3]


def test_a_queue_gets_one_message_for_each_event(server: Server, cloud: str) -> None:
    server.dispatcher.answer = lambda run: FAILED if run.payload == b"bad" else GOOD
    with result_queue(cloud, "results") as queue:
        configure(server, success=queue.arn, failure=queue.arn, max_async_retry_attempts=0)
        good, bad = send(server, b"good"), send(server, b"bad")
        records = {record["requestContext"]["requestId"]: record for record in queue.records(2)}

    assert records.keys() == {good, bad}
    assert (records[good]["requestContext"]["condition"], records[good]["responsePayload"]) == ("", '{"sum": 3}')
    assert records[bad]["requestContext"]["condition"] == "InvocationError"
    assert records[bad]["responsePayload"] == FAILED.payload.decode()


def test_a_topic_gets_the_record(server: Server, cloud: str) -> None:
    sns = boto3.client("sns", endpoint_url=cloud, **PLAIN)
    topic = sns.create_topic(Name="results")["TopicArn"]
    answer(server, GOOD)
    with result_queue(cloud, "subscribed") as queue:
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue.arn)
        sns.close()
        configure(server, success=topic)
        identity = send(server)
        (told,) = queue.records()

    assert json.loads(told["Message"])["requestContext"]["requestId"] == identity


def test_a_web_address_gets_a_signed_request(server: Server) -> None:
    with listening() as told:
        configure(server, success=told.url, async_task=True)
        answer(server, GOOD)
        identity = send(server)
        assert delivered(server, identity) == "Succeeded"

    ((fields, body),) = told.got
    assert json.loads(body)["requestContext"]["requestId"] == identity
    assert fields["content-type"] == "application/json"
    moment = int(fields["webhook-timestamp"])
    assert abs(moment - time.time()) < 60
    assert fields["webhook-signature"] == signature(b"k" * 32, fields["webhook-id"], moment, body)


def test_a_web_address_that_fails_is_tried_again_with_the_same_request(server: Server) -> None:
    with listening() as told:
        told.statuses = [500, 503, 429, 200]
        configure(server, success=told.url, async_task=True)
        answer(server, GOOD)
        assert delivered(server, send(server)) == "Succeeded"

    assert len(told.got) == 4
    assert len({body for _, body in told.got}) == len({fields["webhook-id"] for fields, _ in told.got}) == 1
    assert len(server.dispatcher.seen) == 1


def test_a_web_address_that_refuses_is_not_tried_again(server: Server) -> None:
    with listening() as told:
        told.statuses = [400]
        configure(server, success=told.url, async_task=True)
        answer(server, GOOD)
        identity = send(server)
        assert delivered(server, identity) == "Failed"

    assert len(told.got) == 1
    assert task(server, identity).status == "Succeeded"


def test_a_result_that_a_destination_is_too_small_for_is_not_delivered(server: Server, cloud: str) -> None:
    new_v3(server.v3(), "sink")
    with result_queue(cloud, "small") as queue:
        small = queue.arn
    for target, size in ((SINK, 128 * 1024), (small, 64 * 1024)):
        configure(server, success=target, async_task=True)
        answer(server, GOOD)
        identity = send(server, b"x" * size)
        assert delivered(server, identity) == "Failed"
        assert task(server, identity).status == "Succeeded"

    assert {version.function for version, _ in server.dispatcher.seen} == {"fc/hello"}


def test_a_destination_that_is_gone_leaves_the_result_undelivered_and_holds_up_nothing(server: Server) -> None:
    new_v3(server.v3(), "sink")
    configure(server, success=SINK, async_task=True)
    answer(server, GOOD)
    server.v3().delete_function("sink")
    first = send(server)
    assert delivered(server, first) == "Failed"
    configure(server, success="file:ends", async_task=True)
    second = send(server)

    assert delivered(server, second) == "Succeeded"
    assert [record["requestContext"]["requestId"] for record in server.records("ends")] == [second]


def test_a_service_that_is_down_holds_up_neither_the_function_nor_other_destinations(tmp_path: Path) -> None:
    with serving(tmp_path / "code", endpoint=f"http://127.0.0.1:{free_port()}") as server:
        new_v3(server.v3(), "hello")
        new_v3(server.v3(), "other")
        configure(server, success="arn:aws:sqs:us-east-1:000000000000:down", async_task=True)
        configure(server, "other", success="file:ends")
        answer(server, GOOD)
        stuck = [send(server) for _ in range(10)]
        for _ in range(3):
            send(server, name="other")
        server.invocations(13)

        assert len(server.records("ends", 3)) == 3
        assert {task(server, identity).destination_status for identity in stuck} == {"Running"}


# -- of what nothing is told ------------------------------------------------------------------------------------------


def test_a_call_that_its_caller_waits_for_has_no_destination(server: Server) -> None:
    configure(server, success="file:ends", failure="file:ends")
    answer(server, GOOD)
    server.v3().invoke_function("hello", v3.InvokeFunctionRequest(body=b"waited"))
    identity = send(server, b"left")

    assert [record["requestContext"]["requestId"] for record in server.records("ends")] == [identity]


def test_an_event_that_was_stopped_is_told_to_nobody(server: Server) -> None:
    configure(server, success="file:ends", failure="file:ends", async_task=True)
    server.dispatcher.answer = lambda run: None if run.payload == b"stop" else GOOD
    stopped = send(server, b"stop")
    server.invocations(1)
    server.v3().stop_async_task("hello", stopped, v3.StopAsyncTaskRequest())
    identity = send(server)

    assert [record["requestContext"]["requestId"] for record in server.records("ends")] == [identity]
    assert task(server, stopped).status == "Stopped"
    assert len(server.records("ends")) == 1


def test_an_event_whose_version_is_gone_is_told_to_nobody(server: Server) -> None:
    aliased(server, "prod")
    configure(server, qualifier="prod", success="file:ends", failure="file:ends", async_task=True)
    answer(server, NotFound("There is no such version any more.", what="version"))
    lost = send(server, qualifier="prod")
    server.until(lambda: task(server, lost).status == "Invalid")

    assert not (server.results / "ends").exists()


# -- what is none -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        (f"{PLACE}:functions/nobody", 404, "FunctionNotFound"),
        (f"{PLACE}:functions/hello/nobody", 400, "InvalidArgument"),
        (f"{PLACE}:functions/other/nobody", 404, "AliasNotFound"),
        (f"{PLACE}:functions/other/7", 404, "VersionNotFound"),
        (f"{PLACE}:services/nowhere.LATEST/functions/other", 404, "ServiceNotFound"),
        (f"{PLACE}:functions/hello", 400, "InvalidArgument"),
        (f"{PLACE}:functions/hello/LATEST", 400, "InvalidArgument"),
        ("nonsense", 400, "InvalidArgument"),
        ("file:", 400, "InvalidArgument"),
        ("file:../outside", 400, "InvalidArgument"),
        ("file:a/b", 400, "InvalidArgument"),
        ("file:.hidden", 400, "InvalidArgument"),
        ("ftp://127.0.0.1/results", 400, "InvalidArgument"),
        ("http://", 400, "InvalidArgument"),
        ("http://user@127.0.0.1/", 400, "InvalidArgument"),
        ("arn:aws:sqs:us-east-1:000000000000:ordered.fifo", 400, "InvalidArgument"),
        ("arn:aws:s3:::bucket", 400, "InvalidArgument"),
        ("arn:aws:lambda:us-east-1:000000000000:function:other", 400, "InvalidArgument"),
        (f"{PLACE}:triggers/hello", 400, "InvalidArgument"),
    ],
)
def test_what_is_no_destination_is_refused_and_changes_nothing(
    server: Server, target: str, status: int, code: str
) -> None:
    new_v3(server.v3(), "other")
    configure(server, max_async_retry_attempts=1)
    for which in ("success", "failure"):
        with pytest.raises(Exception) as refused:
            configure(server, **{which: target})
        assert (refused.value.status_code, refused.value.code) == (status, code)

    kept = server.v3().get_async_invoke_config("hello", v3.GetAsyncInvokeConfigRequest()).body
    assert (kept.max_async_retry_attempts, kept.destination_config) == (1, None)


@pytest.mark.parametrize(
    "target",
    [
        "acs:mns:cn-hangzhou:0000000000000000:/queues/results/messages",
        "acs:mns:cn-hangzhou:0000000000000000:/topics/results/messages",
        "acs:mq:cn-hangzhou:0000000000000000:/instances/i/topics/results",
        "acs:eventbridge:cn-hangzhou:0000000000000000:eventbus/results",
    ],
)
def test_services_that_are_not_here_are_refused_with_what_to_use_instead(server: Server, target: str) -> None:
    with pytest.raises(Exception) as refused:
        configure(server, success=target)

    assert (refused.value.status_code, refused.value.code) == (501, "NotImplemented")
    message = refused.value.data["Message"]
    assert "not available in this version of Torpor" in message
    assert "SQS" in message and "web address" in message

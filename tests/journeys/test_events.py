"""Asynchronous invocations on a real server: tried again, told of, in order, and none lost when the server ends."""

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import Package, python
from tests.support.lives import Lives, lives
from tests.support.server import ROLE, Function, TorporServer, eventually

SCALE = 0.01
"""Of the waits before further attempts: the contract's minute is 0.6 s."""

FLAKY = python("""
TRIES = {}

def handler(event, context):
    number = TRIES[context.aws_request_id] = TRIES.get(context.aws_request_id, 0) + 1
    print(f"attempt {number} of {context.aws_request_id}")
    if number <= event["failures"]:
        raise ValueError(f"attempt {number}")
    return {"attempt": number, "boot": BOOT}
""")
BROKEN = python("""
def handler(event, context):
    print(f"attempt of {context.aws_request_id}")
    if event == "sleep":
        time.sleep(30)
    if event == "exit":
        os._exit(3)
    raise ValueError("this is what went wrong")
""")
HOLDING = python("""
def handler(event, context):
    print(f"begun {event['number']}")
    time.sleep(event.get("hold", 0))
    print(f"ended {event['number']}")
    return event["number"]
""")


@pytest.fixture
def server(make_server: MakeServer) -> TorporServer:
    """Waits a hundredth of what it should between attempts."""
    return make_server(event_wait_scale=SCALE)


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Lives]:
    with lives(tmp_path) as made:
        yield made


def to_file(function: Function, **settings: Any) -> str:
    """Have its results added to a file of the server; the file's name."""
    name = f"results-{uuid.uuid4().hex[:8]}"
    both = {which: {"Destination": f"file:{name}"} for which in ("OnSuccess", "OnFailure")}
    function.server.client.put_function_event_invoke_config(
        FunctionName=function.name, DestinationConfig=both, **settings
    )
    return name


def send(client: Any, function: Function, event: Any) -> str:
    """Invoke it asynchronously; the request id that the caller is told."""
    reply = client.invoke(FunctionName=function.name, InvocationType="Event", Payload=json.dumps(event))
    assert (reply["StatusCode"], reply["Payload"].read()) == (202, b"")
    identity: str = reply["ResponseMetadata"]["RequestId"]
    return identity


def records(data: Path, name: str, number: int, *, within: float = 30.0) -> list[dict[str, Any]]:
    """The results in a file, once there are so many."""
    path = data / "results" / name

    def found() -> list[dict[str, Any]]:
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    eventually(lambda: len(found()) >= number, within=within, what=f"the arrival of {number} results")
    return found()


def identities(found: Sequence[dict[str, Any]]) -> list[str]:
    return [record["requestContext"]["requestId"] for record in found]


def logged(function: Function) -> list[str]:
    """Its log, as the vendor's client for logs reads it."""
    client = boto3.session.Session().client(
        "logs",
        endpoint_url=function.server.url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}, inject_host_prefix=False),
    )
    pages = client.get_paginator("filter_log_events").paginate(logGroupName=f"/aws/lambda/{function.name}")
    lines = [event["message"].rstrip("\n") for page in pages for event in page["events"]]
    client.close()
    return lines


# -- attempts ---------------------------------------------------------------------------------------------------------


def test_function_that_fails_twice_is_tried_again_with_the_same_request_id_until_it_succeeds(
    server: TorporServer, deploy: Deploy
) -> None:
    function = deploy(FLAKY, on=server)
    file = to_file(function)
    identity = send(server.client, function, {"failures": 2})
    (record,) = records(server.data, file, 1)

    assert record["requestContext"]["requestId"] == identity
    assert record["requestContext"]["condition"] == "Success"
    assert record["requestContext"]["approximateInvokeCount"] == 3
    assert record["responsePayload"]["attempt"] == 3
    lines = logged(function)
    attempts = [line for line in lines if line.startswith("attempt ")]
    assert attempts == [f"attempt {number} of {identity}" for number in (1, 2, 3)]
    assert [line.split()[2] for line in lines if line.startswith("START ")] == [identity] * 3


def test_waits_between_attempts_are_as_long_as_they_are_scaled(server: TorporServer, deploy: Deploy) -> None:
    function = deploy(FLAKY, on=server)
    file = to_file(function)
    send(server.client, function, {"failures": 2})
    records(server.data, file, 1)

    first, second, third = (event.time for event in function.logs() if event.message.startswith("START "))
    assert 60 * SCALE - 0.05 <= second - first < 60 * SCALE + 2
    assert 120 * SCALE - 0.05 <= third - second < 120 * SCALE + 2


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("raise", "this is what went wrong"),
        ("sleep", "Task timed out after 1.00 seconds"),
        ("exit", "exit"),
    ],
)
def test_function_that_always_fails_is_given_up_after_three_attempts_and_its_failure_told(
    server: TorporServer, deploy: Deploy, event: str, message: str
) -> None:
    function = deploy(BROKEN, on=server, Timeout=1)
    file = to_file(function)
    identity = send(server.client, function, event)
    (record,) = records(server.data, file, 1)

    assert record["requestContext"] == {
        "requestId": identity,
        "functionArn": f"arn:aws:lambda:us-east-1:000000000000:function:{function.name}:$LATEST",
        "condition": "RetriesExhausted",
        "approximateInvokeCount": 3,
    }
    assert record["responseContext"] == {
        "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
    }  # fmt: skip
    assert message in record["responsePayload"]["errorMessage"]
    assert [line for line in logged(function) if line.startswith("attempt ")] == [f"attempt of {identity}"] * 3


def test_function_that_is_a_destination_gets_the_record(server: TorporServer, deploy: Deploy) -> None:
    target, source = (
        deploy(python("def handler(event, context):\n    return event\n"), on=server),
        deploy(FLAKY, on=server),
    )
    file = to_file(target)
    arn = target.configuration()["FunctionArn"]
    server.client.put_function_event_invoke_config(
        FunctionName=source.name, DestinationConfig={"OnSuccess": {"Destination": arn}}
    )
    identity = send(server.client, source, {"failures": 0})
    (record,) = records(server.data, file, 1)

    assert record["responsePayload"] == record["requestPayload"]
    assert record["requestPayload"]["requestContext"]["requestId"] == identity
    assert record["requestPayload"]["responsePayload"]["attempt"] == 1


# -- order and number -------------------------------------------------------------------------------------------------


def test_events_of_a_function_that_runs_one_at_a_time_run_in_the_order_of_their_arrival(
    server: TorporServer, deploy: Deploy
) -> None:
    function = deploy(HOLDING, on=server)
    server.client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
    file = to_file(function)
    sent = [send(server.client, function, {"number": number, "hold": 0.02}) for number in range(40)]
    found = records(server.data, file, 40)

    printed = [line for line in logged(function) if line.startswith(("begun ", "ended "))]
    assert printed == [f"{what} {number}" for number in range(40) for what in ("begun", "ended")]
    assert identities(found) == sent
    assert {record["requestContext"]["approximateInvokeCount"] for record in found} == {1}


@pytest.mark.timeout(300)
def test_burst_of_a_thousand_events_all_run_and_each_once(server: TorporServer, deploy: Deploy) -> None:
    function = deploy(HOLDING, on=server, MemorySize=128)
    file = to_file(function)
    clients = [server.new_client() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        sent = list(threads.map(lambda number: send(clients[number % 8], function, {"number": number}), range(1000)))
    found = records(server.data, file, 1000, within=200)
    for client in clients:
        client.close()

    assert sorted(identities(found)) == sorted(sent)
    assert {record["requestContext"]["approximateInvokeCount"] for record in found} == {1}
    assert sorted(record["responsePayload"] for record in found) == list(range(1000))
    begun = Counter(line for line in logged(function) if line.startswith("begun "))
    assert begun == Counter(f"begun {number}" for number in range(1000))


# -- ends of a server -------------------------------------------------------------------------------------------------


def kept(server: TorporServer, package: Package) -> Function:
    """A function that outlives its server."""
    name = f"kept-{uuid.uuid4().hex[:8]}"
    server.client.create_function(
        FunctionName=name,
        Role=ROLE,
        Runtime=package.runtime,
        Handler=package.handler,
        Code={"ZipFile": package.archive},
        Timeout=20,
        MemorySize=128,
    )
    function = Function(server, name)
    eventually(lambda: function.configuration()["State"] == "Active", what=f"{name} becoming active")
    return function


def begun(server: TorporServer, function: Function) -> int:
    return sum(event.message.startswith("begun ") for event in server.logs(function.name))


@pytest.mark.timeout(240)
def test_events_that_were_accepted_before_the_server_was_killed_all_run_in_its_next_life(life: Lives) -> None:
    server = life.start(event_wait_scale=SCALE)
    function = kept(server, HOLDING)
    file = to_file(function)
    sent = [send(server.client, function, {"number": number, "hold": 0.3}) for number in range(60)]
    life.kill(server)
    before = life.data / "results" / file
    told = len(before.read_text().splitlines()) if before.exists() else 0
    assert told < 60, "the server was to be killed in the middle"

    server = life.start(event_wait_scale=SCALE)
    # One that was told of at that very moment may be told of again.
    eventually(lambda: set(identities(records(life.data, file, 1))) >= set(sent), within=60, what="every event's end")
    assert set(identities(records(life.data, file, 60))) == set(sent)
    assert life.terminate(server) == 0


@pytest.mark.timeout(240)
def test_event_that_waits_for_its_next_attempt_waits_on_over_a_kill(life: Lives) -> None:
    server = life.start(event_wait_scale=0.05)
    function = kept(server, BROKEN)
    file = to_file(function, MaximumRetryAttempts=1)
    identity = send(server.client, function, "raise")
    eventually(lambda: any(event.message.startswith("REPORT ") for event in server.logs(function.name)))
    ended = time.time()
    eventually(lambda: server._admin("events")["functions"][0]["queued"], what="its waiting being on the disk")
    life.kill(server)

    server = life.start(event_wait_scale=0.05)
    (record,) = records(life.data, file, 1)
    assert time.time() - ended >= 60 * 0.05 - 0.1
    assert identities([record]) == [identity]
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert life.terminate(server) == 0


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("hold", "drain"), [(1.0, 20), (5.0, 1)], ids=["they end in time", "they are stopped"])
def test_no_event_is_lost_when_the_server_is_told_to_stop_while_twenty_run(
    life: Lives, hold: float, drain: int
) -> None:
    server = life.start(event_wait_scale=SCALE, drain_timeout=drain)
    function = kept(server, HOLDING)
    file = to_file(function)
    sent = [send(server.client, function, {"number": number, "hold": hold}) for number in range(20)]
    eventually(lambda: begun(server, function) == 20, within=hold + 10, what="all twenty having begun")
    assert life.terminate(server) == 0
    assert "Traceback" not in life.errors_of(server)

    server = life.start(event_wait_scale=SCALE)
    found = records(life.data, file, 20, within=60)
    assert sorted(identities(found)) == sorted(sent)
    assert {record["requestContext"]["condition"] for record in found} == {"Success"}
    runs = {record["requestContext"]["approximateInvokeCount"] for record in found}
    assert runs == {1}, "being stopped with the server was to use up no attempt"
    assert life.terminate(server) == 0


def test_events_that_wait_when_the_server_is_told_to_stop_run_in_its_next_life(life: Lives) -> None:
    server = life.start(event_wait_scale=SCALE)
    function = kept(server, HOLDING)
    server.client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=1)
    file = to_file(function)
    sent = [send(server.client, function, {"number": number, "hold": 0.2}) for number in range(10)]
    eventually(lambda: begun(server, function), what="the first having begun")
    assert life.terminate(server) == 0

    server = life.start(event_wait_scale=SCALE)
    found = records(life.data, file, 10)
    assert identities(found) == sent
    assert life.terminate(server) == 0

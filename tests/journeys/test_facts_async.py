"""Asynchronous calls of Function Compute from outside: retries, destinations, timers, and waiting for instances."""

import base64
import json
import time
from calendar import timegm
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_fc20230330 import models as v3
from tests.journeys.conftest import MakeServer
from tests.support.fc import PYTHON, ComputeFunction, Files, clients, deployed, fc_warnings, python
from tests.support.functions import archive
from tests.support.lives import Lives, lives
from tests.support.objects import object_store
from tests.support.queues import ResultQueue, result_queue
from tests.support.server import TorporServer, eventually

pytestmark = [
    fc_warnings,
    pytest.mark.skipif(not PYTHON, reason="this host has no Python that event functions can use"),
]

HANDLER = python("""
def handler(event, context):
    began = time.time()
    given = json.loads(event)
    planned = given.get("triggerTime")
    given = json.loads(given["payload"]) if planned else given
    print("began", json.dumps([context.request_id, given.get("number"), planned, began]), flush=True)
    time.sleep(given.get("sleep", 0))
    print("ended", json.dumps([context.request_id, given.get("number"), planned, time.time()]), flush=True)
    if given.get("fail"):
        raise ValueError("this is what went wrong")
    return json.dumps({"number": given.get("number"), "planned": planned, "began": began})
""")
"""Does what its event, or a timer's payload, tells it, and prints when it began and ended by its own clock."""
SINK = python("""
def handler(event, context):
    print("result", event.decode(), flush=True)
""")
CONFIGURATION = {"runtime": PYTHON, "handler": "index.handler", "memorySize": 128}
ARN = "acs:fc:cn-hangzhou:000000000000:functions/"
SCALE = 0.01
"""Of the waits before further attempts."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture(scope="module")
def quick(make_server: MakeServer, cloud: str) -> TorporServer:
    """Waits a hundredth of what it should between attempts; its queues are those of the tests."""
    return make_server(event_wait_scale=SCALE, aws_endpoint_url=cloud)


@pytest.fixture
def queue(cloud: str, request: pytest.FixtureRequest) -> Iterator[ResultQueue]:
    with result_queue(cloud, request.node.name[-70:]) as made:
        yield made


@pytest.fixture
def function(quick: TorporServer) -> Iterator[ComputeFunction]:
    with deployed(quick, HANDLER, **CONFIGURATION) as made:
        yield made


def configure(function: ComputeFunction, *, success: str = "", failure: str = "", **values: Any) -> None:
    """Set what applies to its asynchronous calls."""
    to = v3.DestinationConfig(
        on_success=v3.Destination(destination=success) if success else None,
        on_failure=v3.Destination(destination=failure) if failure else None,
    )
    body = v3.PutAsyncInvokeConfigInput(destination_config=to, **values)
    function.current.put_async_invoke_config(function.name, v3.PutAsyncInvokeConfigRequest(body=body))


def leave(function: ComputeFunction, event: Mapping[str, Any], **headers: str) -> str:
    """Call it asynchronously by the client; the request id that the caller is told."""
    result = function.invoke(event, x_fc_invocation_type="Async", **headers)
    assert (result.status, result.body, result.error) == (202, b"", "")
    return result.request_id


def printed(function: ComputeFunction, what: str) -> list[Any]:
    return [json.loads(line.removeprefix(what)) for line in function.printed(f"{what} ")]


def results(sink: ComputeFunction, number: int) -> list[Any]:
    """The records that a function was called with, once there are so many."""
    return eventually(lambda: found if len(found := printed(sink, "result")) >= number else [], within=20)


def moment(text: str) -> float:
    """Seconds since the epoch of a trigger time."""
    return float(timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ")))


# -- calls and their retries ------------------------------------------------------------------------------------------


@pytest.mark.fact("F-008")
def test_asynchronous_call_is_acknowledged_while_its_run_goes_on(function: ComputeFunction) -> None:
    function.invoke({})
    result = function.invoke({"sleep": 3, "number": 1}, x_fc_invocation_type="Async")

    assert result.elapsed < 0.5
    assert (result.status, result.body, result.error) == (202, b"", "")
    assert "x-fc-log-result" not in result.headers
    began = eventually(lambda: [each for each in printed(function, "began") if each[0] == result.request_id])
    assert not [each for each in printed(function, "ended") if each[0] == result.request_id]
    (ended,) = eventually(lambda: [each for each in printed(function, "ended") if each[0] == result.request_id])
    assert ended[3] - began[0][3] >= 3
    assert ended[3] > result.received + 2


@pytest.mark.fact("F-010")
def test_run_that_always_fails_is_made_four_times_and_no_more(function: ComputeFunction, queue: ResultQueue) -> None:
    configure(function, failure=queue.arn)
    identity = leave(function, {"fail": True})
    (record,) = queue.records()
    other = leave(function, {"number": 2})
    eventually(lambda: [each for each in printed(function, "ended") if each[0] == other])

    runs = [each[0] for each in printed(function, "began")]
    assert runs == [identity] * 4 + [other]
    assert record["requestContext"]["approximateInvokeCount"] == 4


@pytest.mark.fact("F-010")
def test_how_often_a_failing_run_is_made_can_be_set(function: ComputeFunction, queue: ResultQueue) -> None:
    configure(function, failure=queue.arn, max_async_retry_attempts=1)
    identity = leave(function, {"fail": True})
    (record,) = queue.records()

    assert [each[0] for each in printed(function, "began")] == [identity] * 2
    assert record["requestContext"]["approximateInvokeCount"] == 2


# -- destinations -----------------------------------------------------------------------------------------------------


@pytest.mark.fact("F-011")
def test_queue_gets_one_record_for_each_event(function: ComputeFunction, queue: ResultQueue) -> None:
    configure(function, success=queue.arn)
    sent = [leave(function, {"number": number}) for number in range(5)]
    records = queue.records(5)

    assert sorted(record["requestContext"]["requestId"] for record in records) == sorted(sent)
    assert len(printed(function, "ended")) == 5


@pytest.mark.fact("F-011")
def test_another_function_gets_one_record_for_each_event(quick: TorporServer, function: ComputeFunction) -> None:
    with deployed(quick, SINK, **CONFIGURATION) as sink:
        configure(function, success=f"acs:fc:::functions/{sink.name}")
        sent = [leave(function, {"number": number}) for number in range(5)]
        records = results(sink, 5)
        eventually(lambda: len(sink.runs()) >= 5)

        assert sorted(record["requestContext"]["requestId"] for record in records) == sorted(sent)
        assert len(sink.runs()) == 5


@pytest.mark.fact("F-012")
def test_consumer_of_the_records_knows_what_became_of_each_event(function: ComputeFunction, queue: ResultQueue) -> None:
    configure(function, success=queue.arn, failure=queue.arn, max_async_retry_attempts=1)
    good, bad = {"number": 1}, {"number": 2, "fail": True}
    sent = {"good": leave(function, good), "bad": leave(function, bad)}
    records = {record["requestContext"]["requestId"]: record for record in queue.records(2)}
    well, ill = records[sent["good"]], records[sent["bad"]]

    assert records.keys() == set(sent.values())
    assert (well["requestContext"]["condition"], ill["requestContext"]["condition"]) == ("", "InvocationError")
    assert well["responseContext"] == {"statusCode": 200, "functionError": ""}
    assert ill["responseContext"] == {"statusCode": 200, "functionError": "UnhandledInvocationError"}
    assert (json.loads(well["requestPayload"]), json.loads(ill["requestPayload"])) == (good, bad)
    assert json.loads(well["responsePayload"])["number"] == 1
    assert json.loads(ill["responsePayload"])["errorMessage"] == "this is what went wrong"


# -- timers -----------------------------------------------------------------------------------------------------------


@pytest.mark.fact("F-013")
def test_run_of_a_timer_is_retried_and_told_as_that_of_any_asynchronous_call(
    function: ComputeFunction, queue: ResultQueue
) -> None:
    configure(function, failure=queue.arn, max_async_retry_attempts=2)
    with function.triggered("timer", cronExpression="@every 1s", enable=True, payload='{"fail": true}'):
        records = queue.records(2)
    runs = [each[0] for each in printed(function, "began")]

    assert len({record["requestContext"]["requestId"] for record in records}) == 2
    for record in records:
        assert record["requestContext"]["approximateInvokeCount"] == 3
        assert runs.count(record["requestContext"]["requestId"]) == 3


@pytest.mark.fact("F-023")
def test_failed_run_of_a_timer_is_found_at_its_destination(function: ComputeFunction, queue: ResultQueue) -> None:
    configure(function, failure=queue.arn, max_async_retry_attempts=0)
    before = time.time()
    with function.triggered("timer", cronExpression="@every 1s", enable=True, payload='{"fail": true}'):
        record = queue.records()[0]

    event = json.loads(record["requestPayload"])
    assert (event["payload"], event["triggerName"][:8]) == ('{"fail": true}', "trigger-")
    assert before - 1 < moment(event["triggerTime"]) <= time.time()
    assert record["requestContext"]["condition"] == "InvocationError"
    assert record["responseContext"]["functionError"] == "UnhandledInvocationError"
    assert json.loads(record["responsePayload"])["errorMessage"] == "this is what went wrong"


@pytest.mark.fact("F-024")
def test_below_the_cap_a_timers_run_begins_within_a_second_of_its_trigger_time(function: ComputeFunction) -> None:
    function.invoke({})
    _wait_for_a_full_second()
    with function.triggered("timer", cronExpression="@every 1s", enable=True, payload="{}"):
        runs = eventually(lambda: found if len(found := _of_timers(function)) >= 3 else [])

    assert all(0 <= began - moment(planned) < 1 for _, _, planned, began in runs), runs


@pytest.mark.fact("F-024")
def test_wait_of_each_event_in_the_queue_is_shown(make_server: MakeServer) -> None:
    """As a task: when it was planned, when it was enqueued, and when it began."""
    server = make_server(fc_instances=1, event_wait_scale=SCALE)
    with deployed(server, HANDLER, **CONFIGURATION) as function:
        function.invoke({})
        configure(function, async_task=True)
        _wait_for_a_full_second()
        with function.triggered("timer", cronExpression="@every 1s", enable=True, payload="{}"):
            eventually(lambda: len(_of_timers(function)) >= 2)
            leave(function, {"sleep": 2.5}, x_fc_async_task_id="long")
            eventually(lambda: len(_of_timers(function)) >= 4)
        waits = {task.request_id: _wait_shown(task) for task in _tasks(function)}
        began = {identity: (planned, at) for identity, _, planned, at in _of_timers(function)}

    assert min(waits.values()) < 1 < 1.5 < max(waits.values())
    for identity, wait in waits.items():
        planned, at = began[identity]
        assert abs(at - moment(planned) - wait) < 0.5


def _wait_for_a_full_second() -> None:
    """Trigger times are told in whole seconds; a timer that begins with one is told exactly."""
    eventually(lambda: time.time() % 1 < 0.1)


def _of_timers(function: ComputeFunction) -> list[Any]:
    return [each for each in printed(function, "began") if each[2] is not None]


def _tasks(function: ComputeFunction) -> list[Any]:
    request = v3.ListAsyncTasksRequest(limit=100, include_payload=True, status="Succeeded")
    found = [task for task in function.current.list_async_tasks(function.name, request).body.tasks if _is_timers(task)]
    assert found, "no run of the timer is shown as a task"
    return found


def _is_timers(task: Any) -> bool:
    return "triggerTime" in json.loads(task.task_payload)


def _wait_shown(task: Any) -> float:
    """Seconds from a task's trigger time until it began."""
    assert [event.status for event in task.events] == ["Enqueued", "Running", "Succeeded"]
    assert task.events[1].timestamp == task.started_time
    return float(task.started_time / 1000 - moment(json.loads(task.task_payload)["triggerTime"]))


# -- more events than instances ---------------------------------------------------------------------------------------


@pytest.mark.fact("F-020")
def test_above_the_cap_events_begin_in_order_as_earlier_ones_end_and_none_is_lost(make_server: MakeServer) -> None:
    server = make_server(fc_instances=5)
    with deployed(server, HANDLER, **CONFIGURATION) as function:
        configure(function, success="file:twelve", failure="file:twelve")
        sent = [function.send({"number": number, "sleep": 1}) for number in range(12)]
        most = 0
        while len(printed(function, "ended")) < 12:
            most = max(most, len(function.environments()))
            assert time.time() < sent[-1].received + 20
        began = {number: at for _, number, _, at in printed(function, "began")}
        ended = {number: at for _, number, _, at in printed(function, "ended")}
        records = _records(server.data, "twelve", 12)

    assert {result.status for result in sent} == {202}
    assert most == 5
    for number, at in began.items():
        others = [other for other in began if other != number]
        assert sum(began[other] <= at < ended[other] for other in others) < 5
        assert sum(ended[other] <= at for other in others if other < number) >= number - 4
    assert [record["requestContext"]["approximateInvokeCount"] for record in records] == [1] * 12
    assert {record["requestContext"]["requestId"] for record in records} == {result.request_id for result in sent}
    assert sorted(began) == list(range(12))


@pytest.mark.fact("F-020")
def test_with_one_instance_events_run_one_after_the_other_in_the_order_of_their_arrival(
    make_server: MakeServer,
) -> None:
    server = make_server(fc_instances=1, event_wait_scale=SCALE)
    with deployed(server, HANDLER, **CONFIGURATION) as function:
        for number in range(10):
            function.send({"number": number, "sleep": 0.1})
        eventually(lambda: len(printed(function, "ended")) == 10)

        assert [each[1] for each in printed(function, "began")] == list(range(10))


@pytest.mark.fact("F-020")
def test_event_that_waits_for_another_functions_instance_begins_once_that_is_done(make_server: MakeServer) -> None:
    server = make_server(fc_instances=1, event_wait_scale=SCALE)
    with deployed(server, HANDLER, **CONFIGURATION) as first, deployed(server, HANDLER, **CONFIGURATION) as second:
        first.send({"sleep": 1})
        eventually(lambda: printed(first, "began"))
        second.send({"number": 0})
        (ended,) = eventually(lambda: printed(first, "ended"))
        (began,) = eventually(lambda: printed(second, "began"), what="the other function's run")

    assert 0 <= began[3] - ended[3] < 2


@pytest.mark.fact("F-021", "F-022")
def test_run_that_a_full_platform_delays_knows_its_planned_time_by_its_event_only(make_server: MakeServer) -> None:
    server = make_server(fc_instances=1, event_wait_scale=SCALE)
    with deployed(server, HANDLER, **CONFIGURATION) as function:
        function.send({"sleep": 4})
        eventually(lambda: printed(function, "began"))
        before = time.time()
        with function.triggered("timer", cronExpression="@every 1s", enable=True, payload="{}"):
            after = time.time()
            runs = eventually(lambda: found if len(found := _of_timers(function)) >= 2 else [])
        held_until = printed(function, "ended")[0][3]

    for number, (_, _, planned, began) in enumerate(runs[:2], start=1):
        assert int(before + number) <= moment(planned) <= int(after + number)
        assert began >= held_until
        assert began - moment(planned) >= held_until - (after + number)
    assert runs[0][3] - moment(runs[0][2]) > 2


# -- over the end of a server -----------------------------------------------------------------------------------------


def test_timer_goes_on_after_a_kill_without_going_off_twice_and_makes_up_for_the_last_missed_time(
    tmp_path: Path,
) -> None:
    with lives(tmp_path) as server_lives:
        server = server_lives.start()
        function = ComputeFunction(server, "ticking")
        _create(function, HANDLER)
        configure(function, success="file:ticks")
        trigger = v3.CreateTriggerInput(
            trigger_name="tick", trigger_type="timer", trigger_config='{"cronExpression": "@every 1s", "payload": "{}"}'
        )
        function.current.create_trigger(function.name, v3.CreateTriggerRequest(body=trigger))
        _records(server_lives.data, "ticks", 2)
        server_lives.kill(server)
        killed = time.time()
        eventually(lambda: time.time() > killed + 2.5)
        starting = time.time()
        server_lives.start()
        started = time.time()
        eventually(lambda: max(_planned(server_lives)) > started + 1)
        planned = _planned(server_lives)

    assert all(len(ids) == 1 for ids in planned.values()), planned
    earlier, later = [sorted(each for each in planned if (each > killed) is late) for late in (False, True)]
    assert earlier == [earlier[0] + number for number in range(len(earlier))]
    assert starting - 2 < later[0] <= started
    assert later[:3] == [later[0], later[0] + 1, later[0] + 2]


def _create(function: ComputeFunction, files: Files) -> None:
    code = {"zipFile": base64.b64encode(archive(files)).decode()}
    given = {"functionName": function.name, "code": code, "timeout": 20, **CONFIGURATION}
    body = v3.CreateFunctionInput().from_map(given)
    clients(function.server)[0].create_function(v3.CreateFunctionRequest(body=body))


def _records(data: Path, name: str, number: int) -> list[Any]:
    """The records in a file of results, once there are so many."""
    return eventually(lambda: found if len(found := _lines(data, name)) >= number else [], within=20)


def _lines(data: Path, name: str) -> list[Any]:
    path = data / "results" / name
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _planned(server_lives: Lives) -> dict[float, set[str]]:
    """The planned times that are through by now, with the request ids of their runs."""
    found: dict[float, set[str]] = {}
    for record in _lines(server_lives.data, "ticks"):
        planned = moment(json.loads(record["requestPayload"])["triggerTime"])
        found.setdefault(planned, set()).add(record["requestContext"]["requestId"])
    return found

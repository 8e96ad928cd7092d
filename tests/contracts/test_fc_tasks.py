"""Asynchronous calls whose history is kept: their states, how they are found, and how they are stopped."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_fc_open20210406 import models as v2
from alibabacloud_tea_util.models import RuntimeOptions
from tests.contracts.async_support import Clock
from tests.contracts.fc_events_support import (
    ENVIRONMENT,
    FAILED,
    FULL,
    GOOD,
    PLACE,
    aliased,
    answer,
    configure,
    go_off,
    reserve,
    send,
)
from tests.contracts.fc_support import Server, fc_warnings, new_classic, new_v3, serving

from torpor.api.fc import FcSettings
from torpor.contracts.function_compute.names import instance_id
from torpor.model.errors import NotFound

pytestmark = fc_warnings


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Every asynchronous call of the function `hello` is a task."""
    with serving(tmp_path / "code") as running:
        new_v3(running.v3(), "hello")
        configure(running, async_task=True)
        yield running


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Server]:
    """Waits for more than a minute before a second attempt."""
    with serving(tmp_path / "code", FcSettings(event_wait_scale=100.0)) as running:
        new_v3(running.v3(), "hello")
        configure(running, async_task=True)
        yield running


def get(server: Server, task_id: str, name: str = "hello") -> Any:
    return server.v3().get_async_task(name, task_id, v3.GetAsyncTaskRequest()).body


def becomes(server: Server, task_id: str, status: str) -> Any:
    """The task, once it has this state."""

    def found() -> Any:
        task = get(server, task_id)
        return task if task.status == status else None

    return server.until(found)


def listed(server: Server, **query: Any) -> list[Any]:
    body = server.v3().list_async_tasks("hello", v3.ListAsyncTasksRequest(**query)).body
    assert body.next_token is None
    return list(body.tasks)


def stop(server: Server, task_id: str) -> Any:
    return server.v3().stop_async_task("hello", task_id, v3.StopAsyncTaskRequest())


def states(task: Any) -> list[str]:
    assert [event.event_id for event in task.events] == list(range(len(task.events)))
    moments = [event.timestamp for event in task.events]
    assert moments == sorted(moments)
    return [event.status for event in task.events]


# -- states -----------------------------------------------------------------------------------------------------------


def test_a_task_is_enqueued_runs_and_has_succeeded(server: Server) -> None:
    answer(server, None)
    reserve(server, 0)
    before = time.time() * 1000 - 1
    identity = send(server, b'{"n": 1}', x_fc_async_task_id="order-1")
    waiting = get(server, "order-1")
    reserve(server, 10)
    running = becomes(server, "order-1", "Running")
    server.end(identity, GOOD)
    ended = becomes(server, "order-1", "Succeeded")
    after = time.time() * 1000 + 1

    assert (waiting.status, states(waiting)) == ("Enqueued", ["Enqueued"])
    assert (waiting.started_time, waiting.end_time) == (0, 0)
    assert (running.task_id, running.request_id) == ("order-1", identity)
    assert states(ended) == ["Enqueued", "Running", "Succeeded"]
    assert ended.function_arn == f"{PLACE}:functions/hello"
    assert (ended.task_payload, ended.return_payload) == ('{"n": 1}', '{"sum": 3}')
    assert (ended.qualifier, ended.already_retried_times) == ("LATEST", 0)
    assert ended.instance_id == instance_id(ENVIRONMENT, classic=False)
    assert before <= ended.started_time <= ended.end_time <= after
    assert ended.duration_ms == ended.end_time - ended.started_time
    assert (ended.task_error_message, ended.destination_status) == (None, "")


def test_a_running_task_tells_when_it_began(server: Server) -> None:
    answer(server, None)
    before = time.time() * 1000 - 1
    identity = send(server)
    running = becomes(server, identity, "Running")

    assert before <= running.started_time <= time.time() * 1000 + 1
    assert states(running) == ["Enqueued", "Running"]
    server.end(identity)


def test_a_task_that_has_run_is_never_enqueued_again(server: Server) -> None:
    answer(server, None)
    for _ in range(10):
        identity = send(server)
        becomes(server, identity, "Running")
        server.end(identity, GOOD)
        seen = {"Running"}
        server.until(lambda identity=identity, seen=seen: seen.add(get(server, identity).status) or "Succeeded" in seen)
        assert seen == {"Running", "Succeeded"}


def test_a_task_without_a_name_has_the_request_id_for_one(server: Server) -> None:
    answer(server, GOOD)
    identity = send(server)

    assert becomes(server, identity, "Succeeded").task_id == identity


def test_a_task_that_waits_for_an_instance_is_dequeued(server: Server) -> None:
    answer(server, None)
    identity = send(server)
    run = server.until(lambda: server.dispatcher.running.get(identity))
    run.environment = None
    waiting = get(server, identity)
    run.environment = ENVIRONMENT

    assert (waiting.status, get(server, identity).status) == ("Dequeued", "Running")
    server.end(identity)


def test_a_task_that_fails_is_retried_and_has_failed(server: Server) -> None:
    configure(server, async_task=True, max_async_retry_attempts=2)
    answer(server, FAILED)
    task = becomes(server, send(server), "Failed")

    assert states(task) == ["Enqueued", "Running", "Retrying", "Running", "Retrying", "Running", "Failed"]
    assert [json.loads(event.event_detail) for event in task.events if event.status == "Running"] == [
        {"Error": "UnhandledInvocationError"}
    ] * 3
    assert task.already_retried_times == 2
    assert task.task_error_message == task.return_payload == FAILED.payload.decode()


def test_a_task_between_two_attempts_is_retrying(patient: Server) -> None:
    answer(patient, FAILED)
    identity = send(patient)
    task = becomes(patient, identity, "Retrying")

    assert states(task) == ["Enqueued", "Running", "Retrying"]
    assert (task.end_time, task.already_retried_times) == (0, 0)
    assert task.started_time > 0


def test_a_task_that_was_put_off_is_still_enqueued(patient: Server) -> None:
    answer(patient, FULL)
    identity = send(patient)
    patient.invocations(1)

    assert get(patient, identity).status == "Enqueued"


def test_a_task_that_has_waited_too_long_has_expired(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path / "code", FcSettings(), clock=clock) as server:
        new_v3(server.v3(), "hello")
        configure(server, async_task=True, max_async_event_age_in_seconds=60)
        answer(server, GOOD)
        identity = send(server, x_fc_async_delay="50")
        clock.skipped += 61
        task = becomes(server, identity, "Expired")

    assert states(task) == ["Enqueued", "Expired"]
    assert (task.started_time, server.dispatcher.seen) == (0, [])


def test_a_task_whose_alias_is_gone_is_invalid(patient: Server) -> None:
    aliased(patient, "prod")
    configure(patient, qualifier="prod", async_task=True)
    answer(patient, FULL, NotFound("There is no such alias any more.", what="alias"))
    send(patient, qualifier="prod", x_fc_async_task_id="late", x_fc_async_delay="1")
    patient.v3().delete_alias("hello", "prod")
    task = becomes(patient, "late", "Invalid")

    assert (states(task), task.qualifier) == (["Enqueued", "Invalid"], "prod")
    assert patient.dispatcher.seen == []


def test_a_task_tells_what_became_of_its_result(server: Server) -> None:
    configure(server, async_task=True, success="file:ends")
    answer(server, GOOD)
    task = becomes(server, send(server), "Succeeded")
    server.records("ends")

    server.until(lambda: get(server, task.task_id).destination_status == "Succeeded")


def test_a_timer_s_runs_of_a_function_with_tasks_are_tasks(server: Server) -> None:
    answer(server, GOOD)
    go_off(server)
    (run,) = server.invocations(1)

    (task,) = listed(server)
    assert task.request_id == run.id


def test_events_of_a_function_with_tasks_that_are_results_of_others_are_tasks(server: Server) -> None:
    new_v3(server.v3(), "first")
    configure(server, "first", success=f"{PLACE}:functions/hello")
    answer(server, GOOD)
    send(server, name="first")
    _, run = server.invocations(2)

    (task,) = listed(server)
    assert task.request_id == run.id


def test_calls_of_a_function_without_tasks_are_none(server: Server) -> None:
    new_v3(server.v3(), "plain")
    answer(server, GOOD)
    identity = send(server, name="plain")
    server.invocations(1)

    assert server.v3().list_async_tasks("plain", v3.ListAsyncTasksRequest()).body.tasks == []
    with pytest.raises(Exception) as missing:
        get(server, identity, "plain")
    assert (missing.value.status_code, missing.value.code) == (404, "StatefulAsyncInvocationNotFound")


def test_a_function_with_tasks_can_be_called_by_those_who_wait(server: Server) -> None:
    answer(server, GOOD)
    reply = server.v3().invoke_function("hello", v3.InvokeFunctionRequest(body=b"x"))

    assert reply.body.read() == GOOD.payload
    assert listed(server) == []


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_name_is_taken_once_even_after_its_task_has_ended(server: Server) -> None:
    answer(server, None)
    first = send(server, b"first", x_fc_async_task_id="order-1")
    for again in (b"while it runs", b"after it has ended"):
        with pytest.raises(Exception) as refused:
            send(server, again, x_fc_async_task_id="order-1")
        assert (refused.value.status_code, refused.value.code) == (409, "StatefulAsyncInvocationAlreadyExists")
        server.end(first)
        becomes(server, "order-1", "Succeeded")

    send(server, x_fc_async_task_id="order-2")
    assert [run.payload for run in server.invocations(2)] == [b"first", b"event"]
    assert get(server, "order-1").request_id == first


def test_functions_have_names_of_their_own(server: Server) -> None:
    new_v3(server.v3(), "other")
    configure(server, "other", async_task=True)
    answer(server, GOOD)
    mine, others = (send(server, name=name, x_fc_async_task_id="order-1") for name in ("hello", "other"))

    assert (get(server, "order-1").request_id, get(server, "order-1", "other").request_id) == (mine, others)


def test_a_name_is_taken_once_without_tasks_too(server: Server) -> None:
    new_v3(server.v3(), "plain")
    answer(server, GOOD)
    send(server, name="plain", x_fc_async_task_id="order-1")
    with pytest.raises(Exception) as refused:
        send(server, name="plain", x_fc_async_task_id="order-1")

    assert refused.value.status_code == 409


@pytest.mark.parametrize("name", ["1order", "-order", "an order", "order/1", "x" * 129])
def test_a_name_that_may_not_be_is_refused(server: Server, name: str) -> None:
    with pytest.raises(Exception) as refused:
        send(server, x_fc_async_task_id=name)

    assert (refused.value.status_code, refused.value.code) == (400, "InvalidArgument")
    assert server.dispatcher.seen == []


def test_the_longest_name_is_taken(server: Server) -> None:
    answer(server, GOOD)
    name = "_" + "x-1" * 42 + "x"
    send(server, x_fc_async_task_id=name)

    assert (len(name), becomes(server, name, "Succeeded").task_id) == (128, name)


# -- lists ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(server: Server) -> Server:
    """With five tasks: `a-1` has succeeded, `a-2` and `b-1` have failed, `b-2` runs, and `c-1` waits."""
    configure(server, async_task=True, max_async_retry_attempts=0)
    results = {b"good": GOOD, b"bad": FAILED, b"long": None}
    server.dispatcher.answer = lambda run: results[run.payload]
    for body, name, status in (
        (b"good", "a-1", "Succeeded"),
        (b"bad", "a-2", "Failed"),
        (b"bad", "b-1", "Failed"),
        (b"long", "b-2", "Running"),
    ):
        send(server, body, x_fc_async_task_id=name)
        seen = becomes(server, name, status)
        server.until(lambda seen=seen: time.time() * 1000 > seen.started_time + 2)  # they are told in milliseconds
    send(server, b"good", x_fc_async_task_id="c-1", x_fc_async_delay="600")
    return server


def names(server: Server, **query: Any) -> list[str]:
    return [task.task_id for task in listed(server, **query)]


def test_tasks_are_listed_newest_first_unless_told_otherwise(five: Server) -> None:
    assert names(five) == names(five, sort_order_by_time="desc") == ["c-1", "b-2", "b-1", "a-2", "a-1"]
    assert names(five, sort_order_by_time="asc") == ["a-1", "a-2", "b-1", "b-2", "c-1"]


def test_tasks_are_found_by_state_and_by_how_their_names_begin(five: Server) -> None:
    assert names(five, status="Failed") == ["b-1", "a-2"]
    assert names(five, status="Running") == ["b-2"]
    assert names(five, status="Enqueued") == ["c-1"]
    assert names(five, status="Stopped") == []
    assert names(five, prefix="a-") == ["a-2", "a-1"]
    assert names(five, prefix="a-", status="Failed") == ["a-2"]
    with pytest.raises(Exception) as refused:
        names(five, status="Sleeping")
    assert (refused.value.status_code, refused.value.code) == (400, "InvalidArgument")


def test_tasks_are_found_by_when_they_began(five: Server) -> None:
    began = {task.task_id: task.started_time for task in listed(five)}

    assert names(five, started_time_begin=began["a-2"], started_time_end=began["b-1"]) == ["b-1", "a-2"]
    assert names(five, started_time_begin=began["b-1"] + 3_600_000) == []


def test_what_was_given_and_returned_is_listed_only_when_it_is_wanted(five: Server) -> None:
    plain = {task.task_id: (task.task_payload, task.return_payload) for task in listed(five)}
    full = {task.task_id: (task.task_payload, task.return_payload) for task in listed(five, include_payload=True)}

    assert set(plain.values()) == {(None, None)}
    assert full["a-1"] == ("good", '{"sum": 3}')
    assert full["b-1"] == ("bad", FAILED.payload.decode())
    assert full["b-2"] == ("long", "")


def test_tasks_come_in_pages(five: Server) -> None:
    found, token, pages = list[str](), None, 0
    while pages == 0 or token:
        request = v3.ListAsyncTasksRequest(limit=2, next_token=token)
        body = five.v3().list_async_tasks("hello", request).body
        found += [task.task_id for task in body.tasks]
        token, pages = body.next_token, pages + 1

    assert (found, pages) == (["c-1", "b-2", "b-1", "a-2", "a-1"], 3)
    with pytest.raises(Exception) as refused:
        five.v3().list_async_tasks("hello", v3.ListAsyncTasksRequest(next_token="nonsense"))
    assert refused.value.code == "InvalidArgument"


def test_a_page_that_was_begun_goes_on_though_new_tasks_came_meanwhile(five: Server) -> None:
    request = v3.ListAsyncTasksRequest(limit=2)
    first = five.v3().list_async_tasks("hello", request).body
    send(five, b"good", x_fc_async_task_id="d-1")
    becomes(five, "d-1", "Succeeded")
    request = v3.ListAsyncTasksRequest(limit=100, next_token=first.next_token)
    rest = five.v3().list_async_tasks("hello", request).body

    assert [task.task_id for task in (*first.tasks, *rest.tasks)] == ["c-1", "b-2", "b-1", "a-2", "a-1"]


def test_tasks_are_found_by_alias(server: Server) -> None:
    aliased(server, "prod")
    configure(server, qualifier="prod", async_task=True)
    answer(server, GOOD)
    send(server, x_fc_async_task_id="newest")
    send(server, qualifier="prod", x_fc_async_task_id="aliased")

    assert names(server, qualifier="prod") == ["aliased"]
    assert names(server, qualifier="LATEST") == ["newest"]
    assert names(server) == ["aliased", "newest"]


# -- stopped ----------------------------------------------------------------------------------------------------------


def test_a_running_task_that_is_stopped_is_cancelled_and_not_retried(server: Server) -> None:
    answer(server, None)
    identity = send(server)
    becomes(server, identity, "Running")
    assert stop(server, identity).status_code == 204
    task = becomes(server, identity, "Stopped")

    assert server.dispatcher.cancelled == [server.dispatcher.running[identity]]
    assert states(task) == ["Enqueued", "Running", "Stopped"]
    assert len(server.dispatcher.seen) == 1


def test_a_task_that_was_told_to_stop_is_stopping_until_it_has_ended(server: Server) -> None:
    answer(server, None)
    identity = send(server)
    server.until(lambda: server.dispatcher.running.get(identity)).ends_when_told = False
    stop(server, identity)
    stopping = get(server, identity)
    server.end(identity, FAILED)

    assert stopping.status == "Stopping"
    becomes(server, identity, "Stopped")


def test_a_task_that_succeeds_all_the_same_has_succeeded(server: Server) -> None:
    answer(server, None)
    identity = send(server)
    server.until(lambda: server.dispatcher.running.get(identity)).ends_when_told = False
    stop(server, identity)
    server.end(identity, GOOD)

    becomes(server, identity, "Succeeded")


def test_a_waiting_task_that_is_stopped_never_runs(server: Server) -> None:
    answer(server, GOOD)
    reserve(server, 0)
    first, second = send(server), send(server)
    stop(server, first)
    task = becomes(server, first, "Stopped")
    reserve(server, 10)

    assert [run.id for run in server.invocations(1)] == [second]
    assert states(task) == ["Enqueued", "Stopped"]


def test_a_delayed_task_that_is_stopped_never_runs(server: Server) -> None:
    answer(server, GOOD)
    identity = send(server, x_fc_async_delay="0.5")
    stop(server, identity)
    becomes(server, identity, "Stopped")
    later = send(server, x_fc_async_delay="1")

    assert [run.id for run in server.invocations(1)] == [later]


def test_a_task_between_two_attempts_that_is_stopped_is_not_retried(patient: Server) -> None:
    answer(patient, FAILED)
    identity = send(patient)
    becomes(patient, identity, "Retrying")
    stop(patient, identity)

    assert states(becomes(patient, identity, "Stopped")) == ["Enqueued", "Running", "Retrying", "Stopped"]


def test_what_has_ended_or_never_was_cannot_be_stopped(server: Server) -> None:
    answer(server, GOOD)
    identity = send(server)
    becomes(server, identity, "Succeeded")
    with pytest.raises(Exception) as ended:
        stop(server, identity)
    with pytest.raises(Exception) as unknown:
        stop(server, "nobody")

    assert (ended.value.status_code, ended.value.code) == (400, "InvalidArgument")
    assert (unknown.value.status_code, unknown.value.code) == (404, "StatefulAsyncInvocationNotFound")
    assert get(server, identity).status == "Succeeded"


# -- the generation of 2021 -------------------------------------------------------------------------------------------


@pytest.fixture
def shop(server: Server, tmp_path: Path) -> Server:
    """With a function of its own in the service `shop`."""
    new_classic(server.classic(), "shop", "hello", tmp_path)
    return server


def call(server: Server, body: bytes, **headers: str) -> Any:
    fields = v2.InvokeFunctionHeaders(x_fc_invocation_type="Async", **headers)
    request = v2.InvokeFunctionRequest(body=body)
    return server.open().invoke_function_with_options("shop", "hello", request, fields, RuntimeOptions())


def get_open(server: Server, name: str) -> Any:
    request = v2.GetStatefulAsyncInvocationRequest()
    return server.open().get_stateful_async_invocation("shop", "hello", name, request).body


def test_tasks_of_2021_are_read_listed_and_stopped_by_the_names_of_their_generation(shop: Server) -> None:
    client, where = shop.open(), ("shop", "hello")
    request = v2.PutFunctionAsyncInvokeConfigRequest(stateful_invocation=True, max_async_retry_attempts=0)
    client.put_function_async_invoke_config(*where, request)
    results = {b"bad": FAILED, b"long": None}
    shop.dispatcher.answer = lambda run: results[run.payload]
    reply = call(shop, b"bad", x_fc_stateful_async_invocation_id="order-1")
    failed = shop.until(lambda: (task := get_open(shop, "order-1")).status == "Failed" and task)
    call(shop, b"long", x_fc_stateful_async_invocation_id="order-2")
    shop.until(lambda: get_open(shop, "order-2").status == "Running")
    listing = v2.ListStatefulAsyncInvocationsRequest(invocation_id_prefix="order-", include_payload=True, limit=10)
    found = client.list_stateful_async_invocations(*where, listing).body.invocations
    by_state = v2.ListStatefulAsyncInvocationsRequest(status="Failed")
    only = client.list_stateful_async_invocations(*where, by_state).body.invocations
    client.stop_stateful_async_invocation(*where, "order-2", v2.StopStatefulAsyncInvocationRequest())
    shop.until(lambda: get_open(shop, "order-2").status == "Stopped")

    assert (failed.invocation_id, failed.request_id) == ("order-1", reply.headers["x-fc-request-id"])
    assert (failed.service_name, failed.function_name, failed.qualifier) == ("shop", "hello", "LATEST")
    assert (failed.invocation_payload, failed.return_payload) == ("bad", FAILED.payload.decode())
    assert failed.invocation_error_message == FAILED.payload.decode()
    assert failed.instance_id == instance_id(ENVIRONMENT, classic=True)
    assert states(failed) == ["Enqueued", "Running", "Failed"]
    assert [(task.invocation_id, task.invocation_payload) for task in found] == [
        ("order-2", "long"),
        ("order-1", "bad"),
    ]
    assert [task.invocation_id for task in only] == ["order-1"]


def test_one_call_of_2021_is_a_task_if_it_says_so(shop: Server) -> None:
    answer(shop, GOOD)
    reply = call(shop, b"x", x_fc_stateful_async_invocation_enable="true")
    call(shop, b"x")
    shop.invocations(2)
    request = v2.ListStatefulAsyncInvocationsRequest()
    found = shop.open().list_stateful_async_invocations("shop", "hello", request).body.invocations

    assert [task.invocation_id for task in found] == [reply.headers["x-fc-request-id"]]


def test_a_name_of_2021_is_taken_once(shop: Server) -> None:
    answer(shop, GOOD)
    call(shop, b"x", x_fc_stateful_async_invocation_id="order-1")
    with pytest.raises(Exception) as refused:
        call(shop, b"x", x_fc_stateful_async_invocation_id="order-1")

    assert refused.value.code == "StatefulAsyncInvocationAlreadyExists"
    assert len(shop.invocations(1)) == 1


def test_functions_with_tasks_are_listed(shop: Server) -> None:
    client, kind = shop.open(), v2.ListStatefulAsyncInvocationFunctionsRequest
    assert client.list_stateful_async_invocation_functions(kind()).body.data == []
    request = v2.PutFunctionAsyncInvokeConfigRequest(stateful_invocation=True)
    client.put_function_async_invoke_config("shop", "hello", request)
    (found,) = client.list_stateful_async_invocation_functions(kind()).body.data

    assert (found.service_name, found.function_name, found.qualifier) == ("shop", "hello", "LATEST")
    client.put_function_async_invoke_config("shop", "hello", v2.PutFunctionAsyncInvokeConfigRequest())
    assert client.list_stateful_async_invocation_functions(kind()).body.data == []


def test_a_request_to_an_http_trigger_is_a_task_too(server: Server) -> None:
    config = '{"authType": "anonymous", "methods": ["POST"]}'
    body = v3.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config=config)
    made = server.v3().create_trigger("hello", v3.CreateTriggerRequest(body=body)).body
    host = made.http_trigger.url_internet.partition("://")[2].partition("/")[0]
    answer(server, GOOD)
    headers = {"X-Fc-Invocation-Type": "Async", "X-Fc-Async-Task-Id": "order-1"}
    accepted = server.request("POST", "/", b"x", headers, host)
    refused = server.request("POST", "/", b"x", headers, host)

    assert (accepted[0], refused[0]) == (202, 409)
    assert becomes(server, "order-1", "Succeeded").request_id == accepted[1]["x-fc-request-id"]

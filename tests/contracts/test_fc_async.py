"""Asynchronous calls through the clients that users have: taken, retried, put off, and what is set for them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fc2
import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_fc_open20210406 import models as v2
from alibabacloud_tea_util.models import RuntimeOptions
from tests.contracts.async_support import Clock
from tests.contracts.fc_events_support import (
    BROKEN,
    FAILED,
    FULL,
    GOOD,
    PLACE,
    aliased,
    answer,
    call,
    configure,
    reserve,
    send,
)
from tests.contracts.fc_support import Server, encoded, fc_warnings, new_classic, new_v3, serving

from torpor.api.fc import FcSettings
from torpor.contracts.function_compute.server_wire import FunctionComputeServerWire

pytestmark = fc_warnings
EVENT_MAX = 128 * 1024
ASYNC = {"x-fc-invocation-type": "Async"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Waits a hundredth of what it should between attempts."""
    with serving(tmp_path / "code") as running:
        new_v3(running.v3(), "hello")
        yield running


@pytest.fixture
def classic(server: Server, tmp_path: Path) -> Any:
    """The client of the generation with services; the function `hello` is in the service `shop`."""
    client = server.classic()
    new_classic(client, "shop", "hello", tmp_path)
    return client


def open_call(server: Server, body: bytes, **headers: str) -> Any:
    """Call the function of the service through the client of 2021."""
    fields = v2.InvokeFunctionHeaders(x_fc_invocation_type="Async", **headers)
    request = v2.InvokeFunctionRequest(body=body)
    return server.open().invoke_function_with_options("shop", "hello", request, fields, RuntimeOptions())


# -- taken ------------------------------------------------------------------------------------------------------------


def test_every_generation_is_answered_with_202_an_id_and_nothing_else(server: Server, classic: Any) -> None:
    current = call(server, b"current", "hello", None, {"x_fc_invocation_type": "Async"})
    told = classic.invoke_function("shop", "hello", payload=b"classic", headers=dict(ASYNC))
    generated = open_call(server, b"open")

    assert (current.status_code, current.body.read()) == (202, b"")
    assert told.data == b""
    assert (generated.status_code, generated.body) == (202, b"")
    identities = [
        current.headers["x-fc-request-id"],
        told.headers["X-Fc-Request-Id"],
        generated.headers["x-fc-request-id"],
    ]
    runs = server.invocations(3)
    assert [run.id for run in runs] == identities
    assert [run.payload for run in runs] == [b"current", b"classic", b"open"]
    assert "x-fc-error-type" not in current.headers


def test_an_event_of_128_kilobytes_is_taken_and_a_larger_one_is_not(server: Server, classic: Any) -> None:
    largest, larger = b"x" * EVENT_MAX, b"x" * (EVENT_MAX + 1)

    send(server, largest)
    classic.invoke_function("shop", "hello", payload=largest, headers=dict(ASYNC))
    open_call(server, largest)
    with pytest.raises(Exception) as current:
        send(server, larger)
    with pytest.raises(fc2.FcError) as old:
        classic.invoke_function("shop", "hello", payload=larger, headers=dict(ASYNC))
    with pytest.raises(Exception) as generated:
        open_call(server, larger)

    assert (current.value.status_code, current.value.code) == (400, "EntityTooLarge")
    assert (old.value.status_code, old.value.err_code) == (400, "EntityTooLarge")
    assert generated.value.code == "EntityTooLarge"
    assert [len(run.payload) for run in server.invocations(3)] == [EVENT_MAX] * 3


def test_a_call_to_an_alias_runs_the_version_behind_it(server: Server) -> None:
    version = aliased(server, "prod")
    send(server, qualifier="prod")
    send(server, qualifier=version)
    send(server, qualifier="LATEST")
    server.invocations(3)

    called = [(kept.version, run.qualifier) for kept, run in server.dispatcher.seen]
    assert called == [(version, "prod"), (version, version), ("$LATEST", "")]


@pytest.mark.parametrize("delay", ["0", "3600", "-1", "soon", "nan"])
def test_a_delay_that_there_is_not_is_refused(server: Server, delay: str) -> None:
    with pytest.raises(Exception) as refused:
        send(server, x_fc_async_delay=delay)

    assert (refused.value.status_code, refused.value.code) == (400, "InvalidArgument")
    assert server.dispatcher.seen == []


def test_a_delayed_call_runs_after_its_delay_and_holds_up_no_other(server: Server) -> None:
    runs, sent = answer(server, GOOD), time.monotonic()
    late = send(server, b"late", x_fc_async_delay="1")
    early = send(server, b"early")

    assert [run.id for run in server.invocations(2)] == [early, late]
    assert runs.times[1] - sent >= 1


# -- retried ----------------------------------------------------------------------------------------------------------


def test_a_failing_call_runs_four_times_under_one_id_with_a_rising_count(server: Server) -> None:
    configure(server, failure="file:ends")
    answer(server, FAILED)
    identity = send(server)
    (record,) = server.records("ends")

    wire = FunctionComputeServerWire()
    told = [dict(wire.call(version, run, "e").fields) for version, run in server.dispatcher.seen]
    assert [fields["x-fc-retry-count"] for fields in told] == ["0", "1", "2", "3"]
    assert {fields["x-fc-request-id"] for fields in told} == {identity}
    assert [run.attempt for run in server.invocations(4)] == [0, 1, 2, 3]
    assert {run.payload for run in server.invocations(4)} == {b"event"}
    assert record["requestContext"]["approximateInvokeCount"] == 4


def test_a_call_is_not_retried_once_it_has_succeeded(server: Server) -> None:
    configure(server, success="file:ends", failure="file:ends")
    answer(server, FAILED, GOOD)
    send(server)
    (record,) = server.records("ends")

    assert (record["requestContext"]["condition"], record["requestContext"]["approximateInvokeCount"]) == ("", 2)
    assert len(server.dispatcher.seen) == 2


def test_a_call_that_its_caller_waits_for_is_never_retried(server: Server) -> None:
    answer(server, FAILED)
    failing = call(server, b"event", "hello", None, {})

    assert failing.headers["x-fc-error-type"] == "UnhandledInvocationError"
    send(server)
    assert [run.attempt for run in server.invocations(5)] == [0, 0, 1, 2, 3]


def test_the_waits_between_attempts_double(tmp_path: Path) -> None:
    with serving(tmp_path / "code", FcSettings(event_wait_scale=0.05)) as server:
        new_v3(server.v3(), "hello")
        runs = answer(server, FAILED)
        send(server)
        server.invocations(4)

    assert all(gap >= wait for gap, wait in zip(runs.gaps, (0.05, 0.1, 0.2), strict=True)), runs.gaps


@pytest.mark.parametrize("retries", [0, 1, 8])
def test_a_function_may_be_retried_up_to_eight_times_or_not_at_all(server: Server, retries: int) -> None:
    configure(server, max_async_retry_attempts=retries, failure="file:ends")
    answer(server, FAILED)
    send(server)
    (record,) = server.records("ends")

    assert record["requestContext"]["approximateInvokeCount"] == retries + 1
    assert len(server.dispatcher.seen) == retries + 1


@pytest.mark.parametrize(
    "values",
    [
        {"max_async_retry_attempts": -1},
        {"max_async_retry_attempts": 9},
        {"max_async_event_age_in_seconds": 0},
        {"max_async_event_age_in_seconds": 604_801},
        {"max_async_retry_attempts": "3"},
        {"async_task": "yes"},
    ],
)
def test_settings_out_of_range_are_refused_and_change_nothing(server: Server, values: dict[str, Any]) -> None:
    configure(server, max_async_retry_attempts=2)
    with pytest.raises(Exception) as refused:
        configure(server, **values)

    assert (refused.value.status_code, refused.value.code) == (400, "InvalidArgument")
    kept = server.v3().get_async_invoke_config("hello", v3.GetAsyncInvokeConfigRequest()).body
    assert kept.max_async_retry_attempts == 2


def test_what_is_set_anew_holds_for_events_that_are_under_way(server: Server) -> None:
    configure(server, max_async_retry_attempts=0, failure="file:old")
    answer(server, None)
    identity = send(server)
    server.invocations(1)
    configure(server, max_async_retry_attempts=1, failure="file:new")
    server.dispatcher.answer = lambda _: FAILED
    server.end(identity, FAILED)
    (record,) = server.records("new")

    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert not (server.results / "old").exists()


# -- put off ----------------------------------------------------------------------------------------------------------


def test_a_call_over_the_limit_is_tried_again_after_half_a_second_doubled_each_time(tmp_path: Path) -> None:
    with serving(tmp_path / "code", FcSettings(event_wait_scale=0.1)) as server:
        new_v3(server.v3(), "hello")
        configure(server, max_async_retry_attempts=0, success="file:ends")
        runs = answer(server, FULL, FULL, FULL, FULL, GOOD)
        send(server)
        (record,) = server.records("ends")

    assert all(gap >= wait for gap, wait in zip(runs.gaps, (0.05, 0.1, 0.2, 0.4), strict=True)), runs.gaps
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert {run.attempt for _, run in server.dispatcher.seen} == {0}


def test_a_failure_of_the_platform_is_tried_again_in_the_same_way_and_uses_no_retry(server: Server) -> None:
    configure(server, max_async_retry_attempts=0, success="file:ends")
    runs = answer(server, BROKEN, BROKEN, BROKEN, GOOD)
    send(server)
    (record,) = server.records("ends")

    assert record["requestContext"]["condition"] == ""
    assert all(gap >= wait for gap, wait in zip(runs.gaps, (0.005, 0.01, 0.02), strict=True)), runs.gaps
    assert {run.attempt for _, run in server.dispatcher.seen} == {0}


def test_calls_that_were_put_off_run_in_the_order_in_which_they_came(server: Server) -> None:
    answer(server, *[FULL] * 6, GOOD)
    identities = [send(server) for _ in range(8)]
    server.until(lambda: len({run.id for _, run in server.dispatcher.seen}) == 8)

    first = list(dict.fromkeys(run.id for _, run in server.dispatcher.seen))
    assert first == identities


def test_without_any_instance_events_wait_and_run_once_there_may_be_one(server: Server) -> None:
    configure(server, success="file:ends", async_task=True)
    reserve(server, 0)
    identities = [send(server, str(number).encode()) for number in range(3)]
    waiting = server.v3().list_async_tasks("hello", v3.ListAsyncTasksRequest()).body.tasks
    assert [task.status for task in waiting] == ["Enqueued"] * 3
    assert server.dispatcher.seen == []
    reserve(server, 1)

    assert [run.id for run in server.invocations(3)] == identities
    assert [version.maximum for version, _ in server.dispatcher.seen] == [1, 1, 1]
    counts = [record["requestContext"]["approximateInvokeCount"] for record in server.records("ends", 3)]
    assert counts == [1, 1, 1]


def test_a_function_without_instances_holds_up_no_other(server: Server) -> None:
    new_v3(server.v3(), "other")
    reserve(server, 0)
    send(server)
    identity = send(server, name="other")

    assert [run.id for run in server.invocations(1)] == [identity]


def test_an_event_that_has_waited_longer_than_it_may_is_not_run(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path / "code", FcSettings(event_wait_scale=0.01), clock=clock) as server:
        new_v3(server.v3(), "hello")
        configure(server, max_async_event_age_in_seconds=60, failure="file:ends")
        answer(server, GOOD)
        send(server, b"old", x_fc_async_delay="50")
        clock.skipped += 61
        young = send(server, b"young")
        (record,) = server.records("ends")

    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert (record["requestContext"]["approximateInvokeCount"], record["requestPayload"]) == (0, "old")
    assert [run.id for _, run in server.dispatcher.seen] == [young]


def test_events_are_kept_for_a_day_unless_told_otherwise(tmp_path: Path) -> None:
    clock = Clock()
    with serving(tmp_path / "code", FcSettings(event_wait_scale=0.01), clock=clock) as server:
        new_v3(server.v3(), "hello")
        configure(server, success="file:good", failure="file:bad")
        answer(server, GOOD)
        early = send(server, x_fc_async_delay="3599")
        clock.skipped += 24 * 3600 - 60
        (within,) = server.records("good")
        late = send(server, x_fc_async_delay="3599")
        clock.skipped += 24 * 3600 + 1
        (without,) = server.records("bad")

    assert within["requestContext"]["requestId"] == early
    assert (without["requestContext"]["requestId"], without["requestContext"]["condition"]) == (
        late,
        "EventAgeExceeded",
    )


def test_a_retry_that_would_come_too_late_is_not_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path / "code", FcSettings(event_wait_scale=5.0)) as server:
        new_v3(server.v3(), "hello")
        configure(server, max_async_event_age_in_seconds=1, failure="file:ends")
        answer(server, FAILED)
        send(server)
        (record,) = server.records("ends")

    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["responseContext"] == {"statusCode": 200, "functionError": "UnhandledInvocationError"}
    assert len(server.dispatcher.seen) == 1


# -- requests to HTTP triggers ----------------------------------------------------------------------------------------


def trigger(server: Server, function: str) -> str:
    """A new HTTP trigger's host."""
    config = '{"authType": "anonymous", "methods": ["GET", "POST", "PUT"]}'
    body = v3.CreateTriggerInput(trigger_name="web", trigger_type="http", trigger_config=config)
    made = server.v3().create_trigger(function, v3.CreateTriggerRequest(body=body)).body
    return str(made.http_trigger.url_internet).partition("://")[2].partition("/")[0]


def test_an_asynchronous_request_reaches_the_server_as_the_same_request_at_every_attempt(server: Server) -> None:
    host = trigger(server, "hello")
    answer(server, FAILED, GOOD)
    fields = {"X-Own": "ä".encode().decode("latin-1"), "Content-Type": "text/x", "X-Fc-Invocation-Type": "Async"}
    status, told, body = server.request("PUT", "/a%20b/c?x=1&x=2", b"\0\xffdata", fields, host)

    runs = server.invocations(2)
    assert (status, body) == (202, b"")
    assert {run.id for run in runs} == {told["x-fc-request-id"]}
    for run in runs:
        assert run.http is not None
        seen = {name.lower(): value for name, value in run.http.fields}
        assert (run.http.method, run.http.target, run.payload) == ("PUT", "/a%20b/c?x=1&x=2", b"\0\xffdata")
        assert (seen["x-own"], seen["content-type"], run.http.peer) == (fields["X-Own"], "text/x", "127.0.0.1")
        assert run.http.length == 6
        assert not any(name.startswith("x-fc-invocation") for name in seen)
    assert [run.attempt for run in runs] == [0, 1]


def test_an_asynchronous_request_by_the_path_of_its_function_keeps_the_path_below_it(
    server: Server, classic: Any
) -> None:
    config = {"authType": "anonymous", "methods": ["GET"]}
    classic.create_trigger("shop", "hello", "web", "http", config, None, None)
    answer(server, GOOD)
    status, _, body = server.request("GET", "/2016-08-15/proxy/shop/hello/x?q=1", headers=dict(ASYNC))

    (run,) = server.invocations(1)
    assert (status, body) == (202, b"")
    assert run.http is not None and (run.http.method, run.http.target) == ("GET", "/x?q=1")


def test_an_asynchronous_request_to_a_builtin_runtime_becomes_the_same_event_as_any(server: Server) -> None:
    new_v3(server.v3(), "event", runtime="python3.12", custom_runtime_config=None,
           code=v3.InputCodeLocation(zip_file=encoded({"index.py": ""})))  # fmt: skip
    host = trigger(server, "event")
    answer(server, GOOD)
    server.request("POST", "/page?a=b", b"{}", {**ASYNC, "Content-Type": "application/json"}, host)

    (run,) = server.invocations(1)
    event = json.loads(run.payload)
    assert run.http is None
    assert (event["rawPath"], event["queryParameters"], event["body"]) == ("/page", {"a": "b"}, "{}")
    assert event["requestContext"]["requestId"] == run.id


# -- what is set for them ---------------------------------------------------------------------------------------------


def test_settings_are_put_read_listed_and_deleted_in_the_current_generation(server: Server) -> None:
    client = server.v3()
    made = configure(server, max_async_retry_attempts=2, max_async_event_age_in_seconds=60, failure="file:ends")
    read = client.get_async_invoke_config("hello", v3.GetAsyncInvokeConfigRequest()).body
    new_v3(client, "other")
    configure(server, "other", max_async_retry_attempts=0)
    listed = client.list_async_invoke_configs(v3.ListAsyncInvokeConfigsRequest(function_name="hello")).body.configs
    every = client.list_async_invoke_configs(v3.ListAsyncInvokeConfigsRequest()).body.configs

    for shown in (made, read, *listed):
        assert shown.function_arn == f"{PLACE}:functions/hello"
        assert (shown.max_async_retry_attempts, shown.max_async_event_age_in_seconds) == (2, 60)
        assert shown.destination_config.on_failure.destination == "file:ends"
        assert shown.destination_config.on_success is None
        assert shown.async_task is False
        assert shown.created_time.endswith("Z") and shown.last_modified_time.endswith("Z")
    assert [shown.function_arn for shown in every] == [f"{PLACE}:functions/hello", f"{PLACE}:functions/other"]
    assert client.delete_async_invoke_config("hello", v3.DeleteAsyncInvokeConfigRequest()).status_code == 204
    for work in (client.get_async_invoke_config, client.delete_async_invoke_config):
        kind = v3.GetAsyncInvokeConfigRequest if "get" in work.__name__ else v3.DeleteAsyncInvokeConfigRequest
        with pytest.raises(Exception) as gone:
            work("hello", kind())
        assert (gone.value.status_code, gone.value.code) == (404, "AsyncConfigNotExists")


def test_settings_that_are_put_anew_replace_all_earlier_ones(server: Server) -> None:
    first = configure(server, max_async_retry_attempts=2, failure="file:ends", async_task=True)
    second = configure(server, max_async_event_age_in_seconds=60)

    assert (second.max_async_retry_attempts, second.destination_config, second.async_task) == (None, None, False)
    assert second.created_time == first.created_time
    answer(server, FAILED)
    send(server)
    server.invocations(4)
    assert not (server.results / "ends").exists()


def test_lists_of_settings_come_in_pages(server: Server) -> None:
    for name in ("a", "b", "c"):
        new_v3(server.v3(), name)
        configure(server, name, max_async_retry_attempts=0)
    list_configs, found, token = server.v3().list_async_invoke_configs, list[str](), None
    for _ in range(3):
        body = list_configs(v3.ListAsyncInvokeConfigsRequest(limit=1, next_token=token)).body
        found += [shown.function_arn.rpartition("/")[2] for shown in body.configs]
        token = body.next_token

    assert (found, token) == (["a", "b", "c"], None)


def test_a_version_or_alias_has_settings_of_its_own(server: Server) -> None:
    version = aliased(server, "prod")
    configure(server, max_async_retry_attempts=3)
    configure(server, qualifier="prod", max_async_retry_attempts=1, failure="file:prod")
    configure(server, qualifier=version, max_async_retry_attempts=0, failure="file:version")
    answer(server, FAILED)

    by_alias, by_version, newest = send(server, qualifier="prod"), send(server, qualifier=version), send(server)
    for name, identity in (("prod", by_alias), ("version", by_version)):
        assert [record["requestContext"]["requestId"] for record in server.records(name)] == [identity]
    ids = [run.id for run in server.invocations(7)]
    assert [ids.count(each) for each in (by_alias, by_version, newest)] == [2, 1, 4]
    read = server.v3().get_async_invoke_config("hello", v3.GetAsyncInvokeConfigRequest(qualifier="prod")).body
    assert read.max_async_retry_attempts == 1
    listed = server.v3().list_async_invoke_configs(v3.ListAsyncInvokeConfigsRequest(function_name="hello")).body
    assert sorted(shown.max_async_retry_attempts for shown in listed.configs) == [0, 1, 3]


def test_settings_for_what_there_is_not_are_refused(server: Server) -> None:
    for name, qualifier, code in (
        ("nobody", None, "FunctionNotFound"),
        ("hello", "prod", "AliasNotFound"),
        ("hello", "7", "VersionNotFound"),
    ):
        with pytest.raises(Exception) as refused:
            configure(server, name, qualifier=qualifier, max_async_retry_attempts=1)
        assert (refused.value.status_code, refused.value.code) == (404, code)


def test_settings_go_with_their_function(server: Server) -> None:
    configure(server, max_async_retry_attempts=0, failure="file:ends")
    server.v3().delete_function("hello")
    assert not server.v3().list_async_invoke_configs(v3.ListAsyncInvokeConfigsRequest()).body.configs
    new_v3(server.v3(), "hello")
    answer(server, FAILED)
    send(server)

    assert len(server.invocations(4)) == 4


def test_settings_are_put_read_listed_and_deleted_in_the_classic_generation(server: Server, classic: Any) -> None:
    given = {"maxAsyncRetryAttempts": 1, "destinationConfig": {"onFailure": {"destination": "file:ends"}}}
    classic.publish_version("shop")
    classic.create_alias("shop", "prod", "1")
    made = classic.put_function_async_invoke_config("shop", "LATEST", "hello", given).data
    classic.put_function_async_invoke_config("shop", "prod", "hello", {"maxAsyncRetryAttempts": 0})
    read = classic.get_function_async_invoke_config("shop", "LATEST", "hello").data
    listed = classic.list_function_async_invoke_configs("shop", "hello").data["configs"]

    assert made == read
    assert (read["service"], read["function"], read["qualifier"]) == ("shop", "hello", "LATEST")
    assert (read["maxAsyncRetryAttempts"], read["destinationConfig"]) == (1, given["destinationConfig"])
    assert [(shown["qualifier"], shown["maxAsyncRetryAttempts"]) for shown in listed] == [("LATEST", 1), ("prod", 0)]
    answer(server, FAILED)
    told = classic.invoke_function("shop", "hello", payload=b"x", headers=dict(ASYNC))
    classic.invoke_function("shop", "hello", payload=b"x", qualifier="prod", headers=dict(ASYNC))
    (record,) = server.records("ends")
    assert record["requestContext"]["requestId"] == told.headers["X-Fc-Request-Id"]
    assert len(server.invocations(3)) == 3
    classic.delete_function_async_invoke_config("shop", "LATEST", "hello")
    with pytest.raises(fc2.FcError) as gone:
        classic.get_function_async_invoke_config("shop", "LATEST", "hello")
    assert (gone.value.status_code, gone.value.err_code) == (404, "AsyncConfigNotExists")


def test_settings_are_put_read_listed_and_deleted_in_the_generation_of_2021(server: Server, classic: Any) -> None:
    client, where = server.open(), ("shop", "hello")
    to_file = v2.DestinationConfig(on_success=v2.Destination(destination="file:ends"))
    request = v2.PutFunctionAsyncInvokeConfigRequest(
        max_async_retry_attempts=0, destination_config=to_file, stateful_invocation=True
    )
    made = client.put_function_async_invoke_config(*where, request).body
    read = client.get_function_async_invoke_config(*where, v2.GetFunctionAsyncInvokeConfigRequest()).body
    listed = client.list_function_async_invoke_configs(*where, v2.ListFunctionAsyncInvokeConfigsRequest()).body
    by_the_other = classic.get_function_async_invoke_config("shop", "LATEST", "hello").data

    assert len(listed.configs) == 1
    for shown in (made, read, *listed.configs):
        assert (shown.service, shown.function, shown.qualifier) == ("shop", "hello", "LATEST")
        assert (shown.max_async_retry_attempts, shown.stateful_invocation) == (0, True)
        assert shown.destination_config.on_success.destination == "file:ends"
    assert (by_the_other["maxAsyncRetryAttempts"], by_the_other["statefulInvocation"]) == (0, True)
    assert server.v3().list_async_invoke_configs(v3.ListAsyncInvokeConfigsRequest()).body.configs == []
    client.delete_function_async_invoke_config(*where, v2.DeleteFunctionAsyncInvokeConfigRequest())
    with pytest.raises(Exception) as gone:
        client.get_function_async_invoke_config(*where, v2.GetFunctionAsyncInvokeConfigRequest())
    assert gone.value.code == "AsyncConfigNotExists"

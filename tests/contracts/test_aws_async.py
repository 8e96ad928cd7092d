"""Asynchronous invocations through the official client: accepted, retried, given up, and what is told of them."""

import json
import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.async_support import (
    ARN,
    FAILED,
    NOTHING,
    SCALE,
    EventBench,
    event_bench,
    eventually,
    is_queued,
    step_words,
    to_file,
    waits,
)
from tests.contracts.aws_support import refusal, signed_post

from torpor.model.errors import PlatformError, Throttled
from torpor.model.event import EventState
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.scheduling import ThrottleReason
from torpor.service.events.lanes import QueueLimits

MIB = 1024 * 1024
FULL = Throttled("Busy.", reason=ThrottleReason.RESERVED)
GOOD = Outcome(status=OutcomeStatus.SUCCESS, payload=b'{"sum":3}', version="$LATEST")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventBench]:
    with event_bench(tmp_path_factory.mktemp("events")) as bench:
        yield bench


@pytest.fixture
def bench(running: EventBench) -> Iterator[EventBench]:
    """Waits a thousandth of the contract's; every event of the test is through at its end."""
    running.clear()
    yield running
    running.rests()


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[EventBench]:
    """With the contract's own waits, and a clock that the test sets forward."""
    with event_bench(tmp_path, scale=1.0) as bench:
        yield bench


# -- taken ------------------------------------------------------------------------------------------------------------


def test_an_event_is_answered_with_202_and_nothing_else(bench: EventBench) -> None:
    name = bench.function(GOOD)
    reply = bench.client.invoke(FunctionName=name, InvocationType="Event", Payload=b'{"a": [1, 2.50]}')

    assert (reply["StatusCode"], reply["Payload"].read()) == (202, b"")
    assert not {"ExecutedVersion", "FunctionError", "LogResult"} & reply.keys()
    assert "x-amz-executed-version" not in reply["ResponseMetadata"]["HTTPHeaders"]
    bench.ended(reply["ResponseMetadata"]["RequestId"])
    assert [run.payload for run in bench.runs] == [b'{"a": [1, 2.50]}']


def test_no_payload_counts_as_an_empty_object(bench: EventBench) -> None:
    name = bench.function()
    bench.ended(bench.send(name, b""))
    assert bench.runs[0].payload == b"{}"


def test_every_attempt_has_the_request_id_that_the_caller_was_told(bench: EventBench) -> None:
    name = bench.function(FAILED)
    first, second = bench.send(name), bench.send(name)
    bench.ended(first), bench.ended(second)

    assert first != second
    assert sorted(run.id for run in bench.runs) == sorted([first, second] * 3)
    assert [run.attempt for run in bench.runs if run.id == first] == [0, 1, 2]


def test_a_trace_is_the_same_at_every_attempt_and_the_caller_is_told(bench: EventBench) -> None:
    name = bench.function(FAILED)
    reply = bench.client.invoke(FunctionName=name, InvocationType="Event")
    bench.ended(reply["ResponseMetadata"]["RequestId"])

    assert {run.trace for run in bench.runs} == {reply["ResponseMetadata"]["HTTPHeaders"]["x-amzn-trace-id"]}


@pytest.mark.parametrize("size", [MIB, MIB - 1, 256 * 1024])
def test_an_event_up_to_the_limit_is_taken(bench: EventBench, size: int) -> None:
    name = bench.function()
    bench.ended(bench.send(name, b'"' + b"x" * (size - 2) + b'"'))
    assert [len(run.payload) for run in bench.runs] == [size]


@pytest.mark.parametrize("size", [MIB + 1, 3 * MIB, 7 * MIB])
def test_an_event_over_the_limit_is_refused(bench: EventBench, size: int) -> None:
    name = bench.function()
    with pytest.raises(bench.client.exceptions.RequestTooLargeException) as error:
        bench.send(name, b'"' + b"x" * (size - 2) + b'"')

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert bench.events_of(name) == []


def test_a_synchronous_call_may_still_be_larger(bench: EventBench) -> None:
    name = bench.function()
    payload = b'"' + b"x" * MIB + b'"'
    assert bench.client.invoke(FunctionName=name, Payload=payload)["StatusCode"] == 200


@pytest.mark.parametrize("payload", [b"{nope", b"NaN", b'{"a":"\x87"}', b"[" * 300_000])
def test_a_payload_that_is_no_json_is_refused(bench: EventBench, payload: bytes) -> None:
    name = bench.function()
    with pytest.raises(bench.client.exceptions.InvalidRequestContentException, match="Could not parse") as error:
        bench.send(name, payload)

    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert bench.events_of(name) == []


@pytest.mark.parametrize("qualifier", ["", "live", "7"])
def test_what_is_not_there_is_not_found(bench: EventBench, qualifier: str) -> None:
    name = bench.function() if qualifier else "nobody"
    with pytest.raises(bench.client.exceptions.ResourceNotFoundException) as error:
        bench.send(name, **({"Qualifier": qualifier} if qualifier else {}))

    assert refusal(error.value)[1] == f"Function not found: {ARN}{name}" + (f":{qualifier}" if qualifier else "")
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert bench.events_of(name) == []


def test_events_beyond_what_can_wait_to_be_kept_are_refused_for_a_while(tmp_path: Path) -> None:
    with event_bench(tmp_path, limits=QueueLimits(unwritten=100)) as bench:
        name = bench.function()
        for call in (
            bench.send,
            lambda name, payload: bench.client.invoke_async(FunctionName=name, InvokeArgs=payload),
        ):
            with pytest.raises(ClientError) as error:
                call(name, b'"' + b"x" * 200 + b'"')
            assert refusal(error.value)[0] == "TooManyRequestsException"
            assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        bench.ended(bench.send(name))


# -- the older operation ----------------------------------------------------------------------------------------------


def invoke_async(bench: EventBench, name: str, payload: bytes = b"{}") -> Any:
    return bench.client.invoke_async(FunctionName=name, InvokeArgs=payload)


def test_the_older_operation_takes_an_event_and_says_so_by_its_status(bench: EventBench) -> None:
    name = bench.function()
    reply = invoke_async(bench, name, b'{"a":1}')

    assert reply["Status"] == reply["ResponseMetadata"]["HTTPStatusCode"] == 202
    eventually(lambda: bench.runs, lambda: bench.runs)
    assert bench.runs[0].payload == b'{"a":1}'


def test_the_older_operation_tells_the_request_id_of_the_invocation(bench: EventBench) -> None:
    name = bench.function()
    told = invoke_async(bench, name)["ResponseMetadata"]["RequestId"]
    eventually(lambda: bench.runs, lambda: bench.runs)
    assert bench.runs[0].id == told


def test_the_older_operation_passes_no_trace_on(bench: EventBench) -> None:
    name, client = bench.function(), bench.server.client()

    def add(request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"

    client.meta.events.register("before-send.lambda.InvokeAsync", add)
    client.invoke_async(FunctionName=name, InvokeArgs=b"{}")
    eventually(lambda: bench.runs, lambda: bench.runs)
    assert re.match(r"Root=1-[0-9a-f]{8}-", bench.runs[0].trace)
    assert "5759e988" not in bench.runs[0].trace


def test_the_older_operation_is_reached_without_its_trailing_stroke_too(bench: EventBench) -> None:
    name = bench.function()
    for end in ("", "/"):
        status, _, body = signed_post(bench.server, f"/2014-11-13/functions/{name}/invoke-async{end}", b"{}")
        assert (status, body) == (202, b"")


def test_the_older_operation_takes_a_quarter_of_a_megabyte_and_no_more(bench: EventBench) -> None:
    name, largest = bench.function(), b'"' + b"x" * (256 * 1024 - 2) + b'"'
    assert invoke_async(bench, name, largest)["Status"] == 202
    with pytest.raises(ClientError) as error:
        invoke_async(bench, name, largest + b" ")

    assert refusal(error.value)[0] == "RequestTooLargeException"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    bench.rests()
    assert [len(run.payload) for run in bench.runs] == [256 * 1024]


def test_the_older_operation_refuses_what_the_newer_one_refuses(bench: EventBench) -> None:
    with pytest.raises(bench.client.exceptions.ResourceNotFoundException):
        invoke_async(bench, "nobody")
    name = bench.function()
    with pytest.raises(bench.client.exceptions.InvalidRequestContentException):
        invoke_async(bench, name, b"{nope")
    assert bench.events_of(name) == []


# -- attempts ---------------------------------------------------------------------------------------------------------


def test_a_failing_function_is_tried_three_times_with_a_minute_and_two_in_between(bench: EventBench) -> None:
    name = bench.function(FAILED)
    identity = bench.send(name)
    row = bench.ended(identity)

    first, second, third = bench.begun[identity]
    assert second - first >= 60 * SCALE
    assert third - second >= 120 * SCALE
    assert third - first < 60 * SCALE * 100, "waits were to be scaled down"
    assert waits(row) == [60 * SCALE, 120 * SCALE]
    assert (row.state, row.progress.runs) == (EventState.FAILED, 3)


def test_waits_are_a_minute_and_two_unless_they_are_scaled(patient: EventBench) -> None:
    identity = patient.send(patient.function(FAILED))
    for attempts in (1, 2):
        eventually(lambda: is_queued(patient.row(identity)), lambda: patient.row(identity))
        assert patient.attempts(identity) == attempts
        patient.skip(60.0 * attempts)
        eventually(lambda attempts=attempts: patient.attempts(identity) > attempts, lambda: patient.row(identity))

    assert waits(patient.ended(identity)) == [60.0, 120.0]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_attempts_are_as_many_as_is_set(bench: EventBench, retries: int) -> None:
    name = bench.function(FAILED, settings={"MaximumRetryAttempts": retries})
    identity = bench.send(name)
    row = bench.ended(identity)

    assert (bench.attempts(identity), row.progress.condition) == (retries + 1, "exhausted")


@pytest.mark.parametrize(
    "failure",
    [
        FAILED,
        Outcome(
            status=OutcomeStatus.TIMEOUT, payload=b'{"errorType":"Sandbox.Timedout"}', error_type="Sandbox.Timedout"
        ),
        Outcome(status=OutcomeStatus.FAILURE, payload=b"{}", error_type="Runtime.ExitError"),
    ],
)
def test_an_event_is_through_with_the_first_attempt_that_succeeds(bench: EventBench, failure: Outcome) -> None:
    answers = iter([failure, failure])
    name = bench.function(lambda _: next(answers, NOTHING))
    identity = bench.send(name)
    row = bench.ended(identity)

    assert (row.state, bench.attempts(identity)) == (EventState.SUCCEEDED, 3)


def test_versions_and_aliases_are_tried_by_settings_of_their_own(bench: EventBench) -> None:
    name = bench.function(FAILED, Publish=True)
    bench.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    for qualifier, retries in (("live", 0), ("1", 1)):
        bench.client.put_function_event_invoke_config(
            FunctionName=name, Qualifier=qualifier, MaximumRetryAttempts=retries
        )
    qualified = {qualifier: bench.send(name, Qualifier=qualifier) for qualifier in ("live", "1", "$LATEST")}
    named = {qualifier: bench.send(f"{ARN}{name}:{qualifier}") for qualifier in ("live", "1", "$LATEST")}
    bare = bench.send(name)
    for identity in (*qualified.values(), *named.values(), bare):
        bench.ended(identity)

    for sent in (qualified, named):
        assert {qualifier: bench.attempts(identity) for qualifier, identity in sent.items()} == {
            "live": 1, "1": 2, "$LATEST": 3,
        }  # fmt: skip
    assert bench.attempts(bare) == 3
    assert {run.qualifier for run in bench.runs} == {"live", "1", "$LATEST", ""}


def test_settings_of_the_newest_version_are_none_of_its_published_ones(bench: EventBench) -> None:
    name = bench.function(FAILED, Publish=True, settings={"MaximumRetryAttempts": 0})
    bare, latest, published = bench.send(name), bench.send(name, Qualifier="$LATEST"), bench.send(name, Qualifier="1")
    bench.rests()
    assert [bench.attempts(identity) for identity in (bare, latest, published)] == [1, 1, 3]


def test_an_alias_that_moves_takes_its_events_along(bench: EventBench) -> None:
    name = bench.function(FAILED, Publish=True)
    bench.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    bench.client.update_function_configuration(FunctionName=name, MemorySize=256)
    bench.client.publish_version(FunctionName=name)
    moved = []

    def move(_: Invocation) -> Outcome:
        moved.append(bench.server.dispatcher.seen[-1][0].version)
        return FAILED if len(moved) == 1 else NOTHING

    bench.answers[name] = move
    identity = bench.send(name, Qualifier="live")
    eventually(lambda: moved, lambda: bench.row(identity))
    bench.client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    bench.ended(identity)
    assert moved == ["1", "2"]


def test_a_throttled_event_is_tried_again_and_that_uses_none_of_its_attempts(bench: EventBench) -> None:
    answers = iter([FULL, FULL, FULL, FAILED, FULL, FULL])
    name = bench.function(
        lambda _: next(answers, NOTHING), settings={"MaximumRetryAttempts": 1, **to_file("throttled")}
    )
    identity = bench.send(name)
    (record,) = bench.records("throttled")

    assert bench.attempts(identity) == 7
    assert record["requestContext"]["condition"] == "Success"
    assert record["requestContext"]["approximateInvokeCount"] == 2


def test_a_failure_of_the_platform_is_tried_again_and_that_uses_no_attempt(bench: EventBench) -> None:
    broken = Outcome(status=OutcomeStatus.FAILURE, payload=b"")
    answers = iter([PlatformError("no sandbox"), broken, PlatformError("no sandbox")])
    name = bench.function(lambda _: next(answers, NOTHING), settings={"MaximumRetryAttempts": 0})
    identity = bench.send(name)

    assert bench.ended(identity).state is EventState.SUCCEEDED
    assert bench.attempts(identity) == 4


def test_back_off_begins_at_a_second_and_doubles_to_five_minutes(patient: EventBench) -> None:
    identity = patient.send(patient.function(lambda _: PlatformError("no sandbox")))
    for attempts in range(1, 12):
        eventually(
            lambda attempts=attempts: len(waits(patient.row(identity))) == attempts,  # type: ignore[arg-type]
            lambda: patient.row(identity),
        )
        patient.skip(300.0)

    assert waits(patient.row(identity))[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]  # type: ignore[arg-type]


@pytest.mark.parametrize("part", ["function", "version", "alias"])
def test_an_event_whose_function_version_or_alias_was_deleted_is_given_up(bench: EventBench, part: str) -> None:
    name = bench.function(FAILED, Publish=True)
    bench.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    qualifier = {"function": "$LATEST", "version": "1", "alias": "live"}[part]
    bench.answers[name] = lambda _: FULL
    identity = bench.send(name, Qualifier=qualifier)
    eventually(lambda: bench.attempts(identity), lambda: bench.row(identity))
    if part != "function":
        bench.client.delete_alias(FunctionName=name, Name="live")
    if part == "version":
        bench.client.delete_function(FunctionName=name, Qualifier="1")
    if part == "function":
        bench.client.delete_function(FunctionName=name)

    row = bench.ended(identity)
    assert (row.state, row.progress.condition) == (EventState.FAILED, "gone")


# -- records ----------------------------------------------------------------------------------------------------------


def moment(text: str) -> float:
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", text)
    return datetime.fromisoformat(text).timestamp()


def test_the_record_of_a_success(bench: EventBench) -> None:
    name = bench.function(GOOD, settings=to_file("good"))
    identity = bench.send(name, b'{"a": 1}')
    (record,) = bench.records("good")

    assert abs(moment(record.pop("timestamp")) - time.time()) < 5
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": identity,
            "functionArn": f"{ARN}{name}:$LATEST",
            "condition": "Success",
            "approximateInvokeCount": 1,
        },
        "requestPayload": {"a": 1},
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST"},
        "responsePayload": {"sum": 3},
    }


def test_the_record_of_a_failure(bench: EventBench) -> None:
    name = bench.function(FAILED, settings=to_file("bad"))
    identity = bench.send(name, b"[1]")
    (record,) = bench.records("bad")

    assert abs(moment(record.pop("timestamp")) - time.time()) < 5
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": identity,
            "functionArn": f"{ARN}{name}:$LATEST",
            "condition": "RetriesExhausted",
            "approximateInvokeCount": 3,
        },
        "requestPayload": [1],
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": {"errorMessage": "no", "errorType": "ValueError"},
    }


def test_the_record_names_the_version_that_ran_and_what_the_caller_had_named(bench: EventBench) -> None:
    name = bench.function(Outcome(status=OutcomeStatus.SUCCESS, payload=b"null", version="1"), Publish=True)
    bench.client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    bench.client.put_function_event_invoke_config(FunctionName=name, Qualifier="live", **to_file("versions"))
    bench.send(name, Qualifier="live")
    (record,) = bench.records("versions")

    assert record["requestContext"]["functionArn"] == f"{ARN}{name}:live"
    assert record["responseContext"]["executedVersion"] == "1"
    assert record["responsePayload"] is None


def test_each_end_goes_to_its_own_destination(bench: EventBench) -> None:
    destinations = {"OnSuccess": {"Destination": "file:well"}, "OnFailure": {"Destination": "file:ill"}}
    name = bench.function(
        lambda run: FAILED if run.payload == b"1" else NOTHING,
        settings={"MaximumRetryAttempts": 0, "DestinationConfig": destinations},
    )
    bad, good = bench.send(name, b"1"), bench.send(name, b"2")

    assert [each["requestContext"]["requestId"] for each in bench.records("well")] == [good]
    assert [each["requestContext"]["requestId"] for each in bench.records("ill")] == [bad]


def test_an_end_without_a_destination_is_told_nobody(bench: EventBench) -> None:
    name = bench.function(GOOD, settings=to_file("only-bad", on=("OnFailure",)))
    row = bench.ended(bench.send(name))
    assert step_words(row) == ["run", "ended"]
    assert not (bench.results / "only-bad").exists()


def test_a_payload_is_recorded_as_it_was_sent(bench: EventBench) -> None:
    name = bench.function(GOOD, settings=to_file("verbatim"))
    payload = '{"ü": "\\u00fc", "n": 12345678901234567890, "f": 2.50, "e": 1e400}'
    bench.send(name, payload.encode())
    bench.records("verbatim")
    assert f'"requestPayload":{payload},' in (bench.results / "verbatim").read_text()


def test_half_of_a_surrogate_pair_in_a_payload_reaches_the_record(bench: EventBench) -> None:
    name = bench.function(GOOD, settings=to_file("half"))
    bench.send(name, b'{"a":"\\ud800"}')
    (record,) = bench.records("half")
    assert record["requestPayload"] == {"a": "\ud800"}


def test_an_event_whose_next_wait_would_end_after_its_time_is_given_up_at_once(patient: EventBench) -> None:
    name = patient.function(FAILED, settings={"MaximumEventAgeInSeconds": 60, **to_file("aged")})
    identity = patient.send(name)
    (record,) = patient.records("aged")

    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 1
    assert record["responseContext"] == {
        "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled",
    }  # fmt: skip
    assert record["responsePayload"] == {"errorMessage": "no", "errorType": "ValueError"}
    assert patient.attempts(identity) == 1


def test_an_event_whose_next_wait_ends_within_its_time_waits(patient: EventBench) -> None:
    name = patient.function(FAILED, settings={"MaximumEventAgeInSeconds": 90, **to_file("aged")})
    identity = patient.send(name)
    eventually(lambda: is_queued(patient.row(identity)), lambda: patient.row(identity))
    patient.skip(60.0)
    (record,) = patient.records("aged")

    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 2
    assert waits(patient.ended(identity)) == [60.0]


def test_an_event_that_was_throttled_for_its_whole_time_is_given_up_without_a_response(patient: EventBench) -> None:
    name = patient.function(lambda _: FULL, settings={"MaximumEventAgeInSeconds": 60, **to_file("throttled")})
    identity = patient.send(name, b'{"a":1}')
    eventually(lambda: patient.attempts(identity), lambda: patient.row(identity))
    patient.skip(61.0)
    (record,) = patient.records("throttled")

    assert record["requestContext"]["condition"] == "EventAgeExceeded"
    assert record["requestContext"]["approximateInvokeCount"] == 0
    assert not {"responseContext", "responsePayload"} & record.keys()
    assert record["requestPayload"] == {"a": 1}


def test_events_are_six_hours_old_at_most_unless_it_is_set(patient: EventBench) -> None:
    name = patient.function(FAILED, settings=to_file("six-hours"))
    patient.answers[name] = lambda _: FULL
    identity = patient.send(name)
    eventually(lambda: patient.attempts(identity), lambda: patient.row(identity))
    patient.skip(6 * 3600 - 400.0)
    eventually(lambda: patient.attempts(identity) > 1, lambda: patient.row(identity))
    assert not (patient.results / "six-hours").exists()
    patient.skip(500.0)
    (record,) = patient.records("six-hours")
    assert record["requestContext"]["condition"] == "EventAgeExceeded"


def test_a_function_that_may_not_run_at_all_is_not_tried(bench: EventBench) -> None:
    name = bench.function(GOOD, settings=to_file("zero"))
    bench.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    identity = bench.send(name, b'{"a":1}')
    (record,) = bench.records("zero")

    record.pop("timestamp")
    assert record == {
        "version": "1.0",
        "requestContext": {
            "requestId": identity,
            "functionArn": f"{ARN}{name}:$LATEST",
            "condition": "ZeroReservedConcurrency",
            "approximateInvokeCount": 0,
        },
        "requestPayload": {"a": 1},
    }
    assert bench.runs == []


def test_a_function_that_may_run_no_more_while_its_event_waits_gives_it_up(patient: EventBench) -> None:
    name = patient.function(FAILED, settings=to_file("late-zero"))
    identity = patient.send(name)
    eventually(lambda: is_queued(patient.row(identity)), lambda: patient.row(identity))
    patient.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    patient.skip(60.0)
    (record,) = patient.records("late-zero")

    assert record["requestContext"]["condition"] == "ZeroReservedConcurrency"
    assert patient.attempts(identity) == 1


# -- functions as destinations ----------------------------------------------------------------------------------------


def test_a_function_that_is_a_destination_is_invoked_asynchronously_with_the_record(bench: EventBench) -> None:
    target = bench.function(FAILED, settings=to_file("of-target"))
    name = bench.function(
        GOOD, settings={"DestinationConfig": {"OnSuccess": {"Destination": ARN + target}}}, Publish=True
    )
    identity = bench.send(name, b'{"a":1}')
    (record,) = bench.records("of-target")

    told = record["requestPayload"]
    assert told["requestContext"]["requestId"] == identity
    assert (told["requestPayload"], told["responsePayload"]) == ({"a": 1}, {"sum": 3})
    assert record["requestContext"]["requestId"] != identity
    assert record["requestContext"]["approximateInvokeCount"] == 3
    (row,) = bench.events_of(target)
    assert row.event.source == f"destination:{identity}"
    assert step_words(bench.ended(identity)) == ["run", "ended", "delivered"]


def test_an_alias_that_is_a_destination_is_what_is_invoked(bench: EventBench) -> None:
    target = bench.function(NOTHING, Publish=True)
    bench.client.create_alias(FunctionName=target, Name="live", FunctionVersion="1")
    name = bench.function(settings={"DestinationConfig": {"OnSuccess": {"Destination": f"{ARN}{target}:live"}}})
    bench.send(name)
    eventually(lambda: len(bench.runs) == 2, lambda: bench.runs)
    assert bench.runs[1].resource == f"{ARN}{target}:live"


def test_a_destination_that_was_deleted_meanwhile_leaves_a_dead_event_that_says_so(bench: EventBench) -> None:
    target = bench.function()
    name = bench.function(settings={"DestinationConfig": {"OnSuccess": {"Destination": ARN + target}}})
    bench.client.delete_function(FunctionName=target)
    row = bench.ended(bench.send(name))

    assert (row.state, row.progress.condition) == (EventState.DEAD, "success")
    assert row.progress.steps[-1].what == "undelivered"
    assert row.progress.steps[-1].detail == f"destination {ARN}{target}: There is no function {ARN}{target}."


def test_a_record_that_is_too_large_for_a_function_leaves_a_dead_event(bench: EventBench) -> None:
    target = bench.function()
    name = bench.function(settings={"DestinationConfig": {"OnSuccess": {"Destination": ARN + target}}})
    row = bench.ended(bench.send(name, b'"' + b"x" * (MIB - 2) + b'"'))

    assert row.state is EventState.DEAD
    assert re.search(r"The record has \d{7} bytes, more than the 1048576 ", row.progress.steps[-1].detail)
    assert bench.events_of(target) == []


@pytest.mark.parametrize(
    ("destination", "code"),
    [
        (ARN + "nowhere", "InvalidParameterValueException"),
        (ARN + "nowhere:live", "InvalidParameterValueException"),
        ("arn:aws:lambda:eu-west-1:000000000000:function:{target}", "InvalidParameterValueException"),
        ("arn:aws:lambda:us-east-1:111111111111:function:{target}", "InvalidParameterValueException"),
        (ARN + "{name}", "InvalidParameterValueException"),
        (ARN + "{name}:1", "InvalidParameterValueException"),
        (ARN, "InvalidParameterValueException"),
        (ARN + "a b", "InvalidParameterValueException"),
        ("arn:aws:dynamodb:us-east-1:000000000000:table/t", "InvalidParameterValueException"),
        ("arn:aws:sqs", "ValidationException"),
        ("results", "ValidationException"),
        ("file:", "ValidationException"),
        ("file:../escape", "ValidationException"),
        ("file:/etc/passwd", "ValidationException"),
        ("file:.hidden", "ValidationException"),
        ("file:" + "x" * 200, "InvalidParameterValueException"),
        ("http://", "ValidationException"),
        ("http://user:password@example.org/", "InvalidParameterValueException"),
        ("https://[", "InvalidParameterValueException"),
        ("ftp://example.org/", "ValidationException"),
    ],
)
def test_a_destination_that_cannot_be_one_is_refused(bench: EventBench, destination: str, code: str) -> None:
    target, name = bench.function(), bench.function(Publish=True)
    where = {"Destination": destination.replace("{target}", target).replace("{name}", name)}
    for which in ("OnSuccess", "OnFailure"):
        with pytest.raises(ClientError) as error:
            bench.client.put_function_event_invoke_config(FunctionName=name, DestinationConfig={which: where})
        assert refusal(error.value)[0] == code
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    listed = bench.client.list_function_event_invoke_configs(FunctionName=name)
    assert json.dumps(listed["FunctionEventInvokeConfigs"]) == "[]"

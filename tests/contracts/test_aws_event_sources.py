"""Event source mappings through the official client, in front of a real server of queues."""

import asyncio
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import Server, new_function, refusal, unchecked
from tests.contracts.queue_support import QUICK, Queue, Scene, queues, scene

FUNCTION = "arn:aws:lambda:us-east-1:000000000000:function:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NOWHERE = "http://127.0.0.1:9"
UNKNOWN = "4f1e1a8c-5b0a-4f57-9a57-0a9b0d6f2b11"
ABSENT = ("ResourceNotFoundException", "The resource you requested does not exist.")
IN_USE = ("ResourceInUseException", "Cannot update the event source mapping because it is in use.")
BATCHES_FOR_WINDOW = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"


class Silent:
    """Never answers."""

    async def call(self, _parcel: Any) -> Any:
        await asyncio.Event().wait()


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with queues() as endpoint, scene(tmp_path_factory.mktemp("code"), endpoint) as running:
        new_function(running.client, "other")
        running.client.publish_version(FunctionName="greet")
        yield running


@pytest.fixture
def queue(bench: Scene) -> Queue:
    return bench.queue()


def refused(call: Callable[..., Any], **values: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**values)
    return refusal(error.value)


def status(answer: Any) -> int:
    code: int = answer["ResponseMetadata"]["HTTPStatusCode"]
    return code


def test_a_mapping_is_being_created_and_then_enabled(bench: Scene, queue: Queue) -> None:
    made = bench.client.create_event_source_mapping(EventSourceArn=queue.arn, FunctionName="greet")
    uuid = made["UUID"]
    assert status(made) == 202 and UUID.fullmatch(uuid)
    shown = {name: value for name, value in made.items() if name not in ("ResponseMetadata", "LastModified")}
    assert shown == {
        "UUID": uuid,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": queue.arn,
        "EventSourceMappingArn": f"arn:aws:lambda:us-east-1:000000000000:event-source-mapping:{uuid}",
        "FunctionArn": FUNCTION + "greet",
        "FunctionResponseTypes": [],
        "LastProcessingResult": "No records processed",
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
    }
    assert bench.settled(uuid) == "Enabled"
    found = bench.shown(uuid)
    assert status(found) == 200
    assert (found["LastModified"], found["EventSourceArn"]) == (made["LastModified"], queue.arn)


def test_a_mapping_keeps_what_it_was_given(bench: Scene, queue: Queue) -> None:
    given: dict[str, Any] = {
        "BatchSize": 200,
        "MaximumBatchingWindowInSeconds": 5,
        "FilterCriteria": {"Filters": [{"Pattern": '{"body":{"kind":["order"]}}'}]},
        "ScalingConfig": {"MaximumConcurrency": 7},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    uuid = bench.map(queue, f"{FUNCTION}greet:1", **given)
    shown = bench.shown(uuid)
    assert {name: shown[name] for name in given} == given
    assert shown["FunctionArn"] == FUNCTION + "greet:1"


def test_every_change_passes_through_a_state_in_which_no_other_is_taken(bench: Scene, queue: Queue) -> None:
    client, uuid = bench.client, bench.map(queue, Enabled=False)
    assert bench.shown(uuid)["State"] == "Disabled"
    for values, passing, settled in (
        ({"Enabled": True}, "Enabling", "Enabled"),
        ({"BatchSize": 3}, "Updating", "Enabled"),
        ({"Enabled": False}, "Disabling", "Disabled"),
        ({"BatchSize": 4}, "Updating", "Disabled"),
    ):
        changed = client.update_event_source_mapping(UUID=uuid, **values)
        assert (status(changed), changed["State"]) == (202, passing)
        assert bench.settled(uuid) == settled
    assert bench.shown(uuid)["BatchSize"] == 4
    gone = client.delete_event_source_mapping(UUID=uuid)
    assert (status(gone), gone["State"]) == (202, "Deleting")
    assert refused(client.get_event_source_mapping, UUID=uuid) == ABSENT


def test_a_mapping_in_transition_is_neither_changed_nor_deleted(tmp_path: Path) -> None:
    with scene(tmp_path, NOWHERE, replace(QUICK, settle=1.0), cloud=Silent()) as silent:
        uuid = silent.map(QUEUE + "jobs", settled=False)
        assert silent.shown(uuid)["State"] == "Creating"
        assert refused(silent.client.update_event_source_mapping, UUID=uuid, BatchSize=1) == IN_USE
        assert refused(silent.client.delete_event_source_mapping, UUID=uuid) == IN_USE
        assert silent.settled(uuid) == "Enabled"
        silent.client.delete_event_source_mapping(UUID=uuid)


def test_an_unreachable_queue_is_told(tmp_path: Path) -> None:
    with scene(tmp_path, NOWHERE) as nowhere:
        uuid = nowhere.map(QUEUE + "jobs")
        assert nowhere.shown(uuid)["State"] == "Enabled"
        assert "Could not connect" in nowhere.says(uuid, "PROBLEM: The queue does not work as it should: ")


def test_mappings_are_listed_by_queue_and_by_function(bench: Scene, queue: Queue) -> None:
    other = bench.queue()
    one, two = bench.map(queue, Enabled=False), bench.map(queue, "other", Enabled=False)
    three = bench.map(other, "other", Enabled=False)

    def listed(**values: Any) -> set[str]:
        pages = bench.client.get_paginator("list_event_source_mappings").paginate(
            PaginationConfig={"PageSize": 1}, **values
        )
        return {each["UUID"] for page in pages for each in page["EventSourceMappings"]}

    assert listed(EventSourceArn=queue.arn) == {one, two}
    assert listed(FunctionName="other", EventSourceArn=other.arn) == {three}
    assert {two, three} <= listed(FunctionName=FUNCTION + "other")
    assert one not in listed(FunctionName="other")
    assert {one, two, three} <= listed()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/s"}, "Unrecognized event source."),
        ({"FunctionName": "nobody"}, "Function does not exist"),
        ({"FunctionName": "greet:7"}, "Function does not exist"),
        ({"BatchSize": 11}, BATCHES_FOR_WINDOW),
        (
            {"EventSourceArn": QUEUE + "q.fifo", "MaximumBatchingWindowInSeconds": 1},
            "Batching window is not supported for FIFO queues",
        ),
        (
            {"EventSourceArn": QUEUE + "q.fifo", "BatchSize": 11},
            "The BatchSize of a FIFO queue must not be greater than 10",
        ),
        ({"StartingPosition": "LATEST"}, "StartingPosition cannot be set for a queue of Amazon SQS."),
    ],
)
def test_what_no_queue_can_have_is_refused(bench: Scene, values: dict[str, Any], error: str) -> None:
    given = {"EventSourceArn": QUEUE + "none", "FunctionName": "greet"} | values
    refusal_given = refused(bench.client.create_event_source_mapping, **given)
    assert refusal_given == ("InvalidParameterValueException", error)
    found = bench.client.list_event_source_mappings(EventSourceArn=given["EventSourceArn"])
    assert found["EventSourceMappings"] == []


@pytest.mark.parametrize(
    "values",
    [
        {"BatchSize": 0},
        {"BatchSize": 10_001, "MaximumBatchingWindowInSeconds": 1},
        {"MaximumBatchingWindowInSeconds": 301},
        {"ScalingConfig": {"MaximumConcurrency": 1}},
        {"ScalingConfig": {"MaximumConcurrency": 1001}},
        {"FunctionResponseTypes": ["Whatever"]},
        {"FilterCriteria": {"Filters": [{"Pattern": "x" * 4097}]}},
    ],
)
def test_values_out_of_range_are_refused(bench: Scene, values: dict[str, Any]) -> None:
    client = bench.server.client(**unchecked())
    given = {"EventSourceArn": QUEUE + "none", "FunctionName": "greet"} | values
    code, _ = refused(client.create_event_source_mapping, **given)
    assert code == "ValidationException"


def test_a_filter_that_is_no_pattern_is_refused(bench: Scene, queue: Queue) -> None:
    wrong = {"Filters": [{"Pattern": '{"body":"order"}'}]}
    code, message = refused(
        bench.client.create_event_source_mapping, EventSourceArn=queue.arn, FunctionName="greet", FilterCriteria=wrong
    )
    assert code == "InvalidParameterValueException" and "body" in message


def test_a_queue_and_a_function_have_one_mapping(bench: Scene, queue: Queue) -> None:
    uuid = bench.map(queue)
    code, message = refused(
        bench.client.create_event_source_mapping, EventSourceArn=queue.arn, FunctionName=FUNCTION + "greet"
    )
    assert code == "ResourceConflictException" and message.endswith(f"existing mapping with UUID {uuid}")


@pytest.mark.parametrize("operation", ["get", "update", "delete"])
def test_an_unknown_mapping_is_not_found(bench: Scene, operation: str) -> None:
    assert refused(getattr(bench.client, f"{operation}_event_source_mapping"), UUID=UNKNOWN) == ABSENT


def test_a_mapping_has_tags(bench: Scene, queue: Queue) -> None:
    client, uuid = bench.client, bench.map(queue, Tags={"team": "blue"})
    arn = bench.shown(uuid)["EventSourceMappingArn"]
    assert client.list_tags(Resource=arn)["Tags"] == {"team": "blue"}
    client.tag_resource(Resource=arn, Tags={"team": "red", "cost": "1"})
    client.untag_resource(Resource=arn, TagKeys=["cost"])
    assert client.list_tags(Resource=arn)["Tags"] == {"team": "red"}
    assert refused(client.list_tags, Resource=arn.replace(uuid, UNKNOWN)) == ABSENT


def test_a_mapping_outlives_its_function(bench: Scene, queue: Queue) -> None:
    new_function(bench.client, "brief")
    uuid = bench.map(queue, "brief")
    bench.client.delete_function(FunctionName="brief")
    bench.says(uuid, "PROBLEM: Function not found")
    assert bench.shown(uuid)["State"] == "Enabled"
    bench.client.delete_event_source_mapping(UUID=uuid)
    assert refused(bench.client.get_event_source_mapping, UUID=uuid) == ABSENT


def test_a_server_that_reads_no_queues_says_so(server: Server, client: Any) -> None:
    new_function(client, "alone")
    code, message = refused(client.create_event_source_mapping, EventSourceArn=QUEUE + "q", FunctionName="alone")
    assert code == "NotImplementedException" and "CreateEventSourceMapping" in message

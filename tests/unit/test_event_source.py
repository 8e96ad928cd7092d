"""What is kept of event source mappings, and how they are shown."""

import json
from typing import Any

import pytest
from botocore.session import Session

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.lambda_.event_source import (
    changed_mapping,
    concurrency_of,
    function_of,
    is_for,
    mapping_id,
    new_mapping,
    queue_of,
    reports_failures,
    shown_mapping,
)
from torpor.contracts.lambda_.names import FunctionName, Place

PLACE = Place(account="123456789012", region="eu-west-1")
UUID = "4f1e1a8c-5b0a-4f57-9a57-0a9b0d6f2b11"
MAPPING_ARN = f"arn:aws:lambda:eu-west-1:123456789012:event-source-mapping:{UUID}"
FUNCTION_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:greet"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:jobs"
FIFO = QUEUE + ".fifo"
FILTERS = {"Filters": [{"Pattern": '{"body": {"kind": ["Order"]}}'}]}


def mapping(**values: Any) -> dict[str, Any]:
    return new_mapping({"EventSourceArn": QUEUE, "FunctionName": "greet", **values}, PLACE, UUID, 100.1234)


def changed(document: dict[str, Any], **values: Any) -> dict[str, Any]:
    return changed_mapping(document, {"UUID": UUID, **values}, 200.0)


def test_a_new_mapping_has_the_defaults_of_queues() -> None:
    document = mapping()
    assert document["Enabled"] is True
    assert shown_mapping(document, "Creating") == {
        "UUID": UUID,
        "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0,
        "EventSourceArn": QUEUE,
        "EventSourceMappingArn": MAPPING_ARN,
        "FunctionArn": FUNCTION_ARN,
        "FunctionResponseTypes": [],
        "LastModified": 100.123,
        "State": "Creating",
        "StateTransitionReason": "USER_INITIATED",
    }
    assert (reports_failures(document), concurrency_of(document)) == (False, None)


def test_a_mapping_is_shown_with_everything_that_was_set() -> None:
    given = {
        "BatchSize": 10_000,
        "MaximumBatchingWindowInSeconds": 300,
        "FilterCriteria": FILTERS,
        "ScalingConfig": {"MaximumConcurrency": 2},
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "KMSKeyArn": "arn:aws:kms:eu-west-1:123456789012:key/a",
    }
    document = mapping(**given, Enabled=False, Tags={"team": "blue"})
    shown = shown_mapping(document, "Disabled", "No records processed")
    assert {name: shown[name] for name in given} == given
    assert (shown["State"], shown["LastProcessingResult"]) == ("Disabled", "No records processed")
    assert (document["Enabled"], document["Tags"]) == (False, {"team": "blue"})
    assert (reports_failures(document), concurrency_of(document)) == (True, 2)
    assert json.loads(json.dumps(document)) == document


def test_what_is_shown_are_members_of_the_apis_model() -> None:
    model = Session().get_service_model("lambda").shape_for("EventSourceMappingConfiguration")
    shown = shown_mapping(mapping(FilterCriteria=FILTERS, ScalingConfig={"MaximumConcurrency": 2}), "Enabled", "OK")
    assert set(shown) <= set(model.members)


@pytest.mark.parametrize(
    ("name", "qualifier", "arn"),
    [
        ("greet", "", FUNCTION_ARN),
        ("greet:live", "live", f"{FUNCTION_ARN}:live"),
        ("123456789012:function:greet", "", FUNCTION_ARN),
        (FUNCTION_ARN, "", FUNCTION_ARN),
        (f"{FUNCTION_ARN}:3", "3", f"{FUNCTION_ARN}:3"),
        (f"{FUNCTION_ARN}:$LATEST", "$LATEST", f"{FUNCTION_ARN}:$LATEST"),
    ],
)
def test_a_function_is_kept_and_shown_as_it_was_named(name: str, qualifier: str, arn: str) -> None:
    document = mapping(FunctionName=name)
    assert function_of(document) == FunctionName(name="greet", qualifier=qualifier)
    assert shown_mapping(document, "Enabled")["FunctionArn"] == arn


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("greet", "greet", True),
        ("greet", "greet:$LATEST", True),
        ("greet:$LATEST", FUNCTION_ARN, True),
        ("greet:live", f"{FUNCTION_ARN}:live", True),
        ("greet", "greet:live", False),
        ("greet:live", "greet:1", False),
        ("greet", "meet", False),
    ],
)
def test_the_newest_version_is_the_function_itself(one: str, other: str, same: bool) -> None:
    assert is_for(mapping(FunctionName=one), function_of(mapping(FunctionName=other))) is same


@pytest.mark.parametrize(
    ("arn", "name", "fifo"),
    [
        (QUEUE, "jobs", False),
        (FIFO, "jobs.fifo", True),
        ("arn:aws-cn:sqs:cn-north-1:123456789012:A_b-9", "A_b-9", False),
        (f"arn:aws:sqs:eu-west-1:123456789012:{'q' * 80}", "q" * 80, False),
        (f"arn:aws:sqs:eu-west-1:123456789012:{'q' * 75}.fifo", f"{'q' * 75}.fifo", True),
    ],
)
def test_a_queue_is_read_out_of_its_arn(arn: str, name: str, fifo: bool) -> None:
    queue = queue_of(arn)
    assert (queue.account, queue.name, queue.is_fifo) == ("123456789012", name, fifo)
    assert queue.region == arn.split(":")[3]


def test_a_changed_mapping_keeps_what_is_not_given() -> None:
    document = mapping(BatchSize=5, FilterCriteria=FILTERS, Tags={"a": "b"})
    after = changed(document, Enabled=False, MaximumBatchingWindowInSeconds=2)
    assert after == {**document, "Enabled": False, "MaximumBatchingWindowInSeconds": 2, "LastModified": 200.0}
    assert (document["Enabled"], document["LastModified"]) == (True, 100.123)


def test_empty_values_take_settings_away() -> None:
    document = mapping(
        FilterCriteria=FILTERS,
        ScalingConfig={"MaximumConcurrency": 5},
        FunctionResponseTypes=["ReportBatchItemFailures"],
        KMSKeyArn="arn:aws:kms:eu-west-1:123456789012:key/a",
    )
    after = changed(document, FilterCriteria={}, ScalingConfig={}, FunctionResponseTypes=[], KMSKeyArn="")
    shown = shown_mapping(after, "Updating")
    assert {"FilterCriteria", "ScalingConfig", "KMSKeyArn"} & set(shown) == set()
    assert (shown["FunctionResponseTypes"], concurrency_of(after), reports_failures(after)) == ([], None, False)


def test_a_changed_mapping_may_lead_to_another_function() -> None:
    after = changed(mapping(), FunctionName="meet:live")
    assert function_of(after) == FunctionName(name="meet", qualifier="live")
    assert after["FunctionArn"] == "arn:aws:lambda:eu-west-1:123456789012:function:meet:live"


def test_a_mapping_is_read_out_of_its_arn() -> None:
    assert mapping_id(MAPPING_ARN, PLACE) == UUID
    elsewhere = Place(account="000000000000", region="eu-west-1")
    for arn, place in ((MAPPING_ARN, elsewhere), (MAPPING_ARN + "0", PLACE), (FUNCTION_ARN, PLACE)):
        with pytest.raises(ApiFailure, match=r"The resource you requested does not exist\."):
            mapping_id(arn, place)

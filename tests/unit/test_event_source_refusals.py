"""What is refused of event source mappings."""

from typing import Any

import pytest
from botocore.session import Session

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.lambda_.event_source import (
    FILTERS_MAX,
    already_mapped,
    changed_mapping,
    check_settled,
    new_mapping,
)
from torpor.contracts.lambda_.names import Place

PLACE = Place(account="123456789012", region="eu-west-1")
UUID = "4f1e1a8c-5b0a-4f57-9a57-0a9b0d6f2b11"
QUEUE = "arn:aws:sqs:eu-west-1:123456789012:jobs"
FIFO = QUEUE + ".fifo"
FILTERS = {"Filters": [{"Pattern": '{"body": {"kind": ["Order"]}}'}]}


def mapping(**values: Any) -> dict[str, Any]:
    return new_mapping({"EventSourceArn": QUEUE, "FunctionName": "greet", **values}, PLACE, UUID, 100.0)


def changed(document: dict[str, Any], **values: Any) -> dict[str, Any]:
    return changed_mapping(document, {"UUID": UUID, **values}, 200.0)


def refused(**values: Any) -> tuple[str, str]:
    with pytest.raises(ApiFailure) as error:
        mapping(**values)
    return error.value.code, str(error.value)


def test_tags_are_checked() -> None:
    assert "aws:" in refused(Tags={"aws:a": "b"})[1]


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "jobs",
        "https://sqs.eu-west-1.amazonaws.com/123456789012/jobs",
        "arn:aws:kinesis:eu-west-1:123456789012:stream/jobs",
        "arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/2020",
        "arn:aws:sqs:eu-west-1:123456789012:",
        "arn:aws:sqs:eu-west-1:123456789012:jobs.dead",
        "arn:aws:sqs:eu-west-1:123456789012:.fifo",
        "arn:aws:sqs:eu-west-1:12345:jobs",
        "arn:aws:sqs:eu-west-1:123456789012:jobs\n",
        f"arn:aws:sqs:eu-west-1:123456789012:{'q' * 81}",
        f"arn:aws:sqs:eu-west-1:123456789012:{'q' * 76}.fifo",
    ],
)
def test_everything_else_is_no_event_source(arn: str) -> None:
    assert refused(EventSourceArn=arn) == ("InvalidParameterValueException", "Unrecognized event source.")


def test_a_mapping_needs_a_source() -> None:
    with pytest.raises(ApiFailure, match=r"Unrecognized event source\."):
        new_mapping({"FunctionName": "greet", "Topics": ["t"]}, PLACE, UUID, 0.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"BatchSize": 11},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {"BatchSize": 11, "MaximumBatchingWindowInSeconds": 0},
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10",
        ),
        (
            {"EventSourceArn": FIFO, "MaximumBatchingWindowInSeconds": 1},
            "Batching window is not supported for FIFO queues",
        ),
        (
            {"EventSourceArn": FIFO, "BatchSize": 11, "MaximumBatchingWindowInSeconds": 1},
            "Batching window is not supported for FIFO queues",
        ),
        ({"EventSourceArn": FIFO, "BatchSize": 11}, "The BatchSize of a FIFO queue must not be greater than 10"),
    ],
)
def test_batches_that_a_queue_cannot_have_are_refused(values: dict[str, Any], message: str) -> None:
    assert refused(**values) == ("InvalidParameterValueException", message)


@pytest.mark.parametrize(
    "values",
    [
        {"BatchSize": 11, "MaximumBatchingWindowInSeconds": 1},
        {"BatchSize": 10, "MaximumBatchingWindowInSeconds": 0},
        {"BatchSize": 1, "MaximumBatchingWindowInSeconds": 300},
        {"EventSourceArn": FIFO, "BatchSize": 10},
        {"EventSourceArn": FIFO, "MaximumBatchingWindowInSeconds": 0},
    ],
)
def test_batches_that_a_queue_can_have_are_kept(values: dict[str, Any]) -> None:
    document = mapping(**values)
    assert {name: document[name] for name in values} == values


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StartingPosition", "LATEST"),
        ("StartingPositionTimestamp", 1.0),
        ("ParallelizationFactor", 1),
        ("TumblingWindowInSeconds", 0),
        ("BisectBatchOnFunctionError", False),
        ("MaximumRecordAgeInSeconds", -1),
        ("MaximumRetryAttempts", -1),
        ("DestinationConfig", {}),
        ("Topics", ["t"]),
        ("Queues", ["q"]),
        ("SourceAccessConfigurations", []),
        ("SelfManagedEventSource", {}),
        ("AmazonManagedKafkaEventSourceConfig", {}),
        ("SelfManagedKafkaEventSourceConfig", {}),
        ("DocumentDBEventSourceConfig", {}),
    ],
)
def test_settings_of_other_sources_are_refused(name: str, value: Any) -> None:
    message = f"{name} cannot be set for a queue of Amazon SQS."
    assert refused(**{name: value}) == ("InvalidParameterValueException", message)
    with pytest.raises(ApiFailure, match=name):
        changed(mapping(), **{name: value})


@pytest.mark.parametrize("name", ["MetricsConfig", "LoggingConfig", "ProvisionedPollerConfig"])
def test_settings_without_effect_here_are_refused(name: str) -> None:
    assert refused(**{name: {"a": 1}})[0] == "NotImplementedException"
    assert name not in mapping(**{name: {}})


def test_every_member_of_the_model_is_kept_shown_or_refused() -> None:
    model = Session().get_service_model("lambda")
    handled = {"EventSourceArn", "FunctionName", "Tags", "UUID"}
    for operation in ("CreateEventSourceMapping", "UpdateEventSourceMapping"):
        for name, shape in model.operation_model(operation).input_shape.members.items():
            if name in handled:
                continue
            value: Any = {"structure": {"a": 1}, "list": ["a"], "boolean": True, "integer": 5}.get(shape.type_name, "a")
            try:
                assert mapping(**{name: {} if name == "FilterCriteria" else value})[name] is not None
            except ApiFailure as error:
                assert name in str(error)


def test_filters_are_checked_and_counted() -> None:
    assert refused(FilterCriteria={"Filters": [{"Pattern": '{"body": []}'}]})[1] == (
        "Invalid filter pattern definition. The array of 'body' is empty."
    )
    assert refused(FilterCriteria={"Filters": [{}]})[0] == "InvalidParameterValueException"
    assert mapping(FilterCriteria={"Filters": FILTERS["Filters"] * FILTERS_MAX})
    assert "at most" in refused(FilterCriteria={"Filters": FILTERS["Filters"] * (FILTERS_MAX + 1)})[1]


@pytest.mark.parametrize(
    ("before", "values"),
    [
        ({"BatchSize": 100, "MaximumBatchingWindowInSeconds": 1}, {"MaximumBatchingWindowInSeconds": 0}),
        ({}, {"BatchSize": 100}),
        ({"EventSourceArn": FIFO}, {"MaximumBatchingWindowInSeconds": 1}),
        ({}, {"FilterCriteria": {"Filters": [{"Pattern": "{}"}]}}),
    ],
)
def test_a_change_is_checked_together_with_what_stays(before: dict[str, Any], values: dict[str, Any]) -> None:
    with pytest.raises(ApiFailure):
        changed(mapping(**before), **values)


def test_only_a_settled_mapping_can_be_changed() -> None:
    for state in ("Enabled", "Disabled"):
        check_settled(state)
    for state in ("Creating", "Enabling", "Disabling", "Updating", "Deleting"):
        with pytest.raises(ApiFailure, match="because it is in use") as error:
            check_settled(state)
        assert error.value.code == "ResourceInUseException"


def test_a_second_mapping_is_told_of_the_first() -> None:
    error = already_mapped(mapping(), "the-first")
    assert error.code == "ResourceConflictException"
    assert str(error) == (
        f'The event source arn (" {QUEUE} ") and function (" greet ") provided mapping already exists. '
        "Please update or delete the existing mapping with UUID the-first"
    )

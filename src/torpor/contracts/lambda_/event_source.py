"""Event source mappings: what is kept of one, how it is shown, and what refuses a call about it (9.11).

Queues are the only sources. Ranges of single values are those of the API's model and are checked before; here stands
what depends on the source, or on two values.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torpor.contracts.arns import partition_of
from torpor.contracts.lambda_.configuration import check_tags
from torpor.contracts.lambda_.event_filter import Filters
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter, not_built
from torpor.contracts.lambda_.names import FunctionName, Place, function_name
from torpor.model.function import LATEST

BATCH_DEFAULT = 10
"""Messages in one event."""
BATCH_MAX_AT_ONCE = 10
"""Largest batch that is not waited for: of a FIFO queue, and of any queue without a window."""
FILTERS_MAX = 10
"""Filters of one mapping; the cloud starts with a quota of 5 and goes up to this."""

CREATING, ENABLING, ENABLED = "Creating", "Enabling", "Enabled"
UPDATING, DISABLING, DISABLED, DELETING = "Updating", "Disabling", "Disabled", "Deleting"
REPORT_FAILURES = "ReportBatchItemFailures"
_SETTLED = (ENABLED, DISABLED)
_REASON = "USER_INITIATED"
_WINDOW = "MaximumBatchingWindowInSeconds"
_SETTINGS = (
    "Enabled", "BatchSize", _WINDOW, "FilterCriteria", "ScalingConfig", "FunctionResponseTypes", "KMSKeyArn",
)  # fmt: skip
_ALWAYS_SHOWN = (
    "UUID", "BatchSize", _WINDOW, "EventSourceArn", "EventSourceMappingArn", "FunctionArn", "FunctionResponseTypes",
    "LastModified",
)  # fmt: skip
_SHOWN_IF_SET = ("FilterCriteria", "ScalingConfig", "KMSKeyArn")
_OF_OTHER_SOURCES = (
    "StartingPosition", "StartingPositionTimestamp", "ParallelizationFactor", "TumblingWindowInSeconds",
    "BisectBatchOnFunctionError", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "DestinationConfig", "Topics",
    "Queues", "SourceAccessConfigurations", "SelfManagedEventSource", "AmazonManagedKafkaEventSourceConfig",
    "SelfManagedKafkaEventSourceConfig", "DocumentDBEventSourceConfig",
)  # fmt: skip
_NOT_BUILT = ("MetricsConfig", "LoggingConfig", "ProvisionedPollerConfig")

_QUEUE = re.compile(
    r"arn:aws[a-zA-Z0-9-]*:sqs:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):"
    r"(?P<name>[a-zA-Z0-9_-]{1,80}|[a-zA-Z0-9_-]{1,75}\.fifo)"
)
_MAPPING = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):event-source-mapping:(?P<uuid>[0-9a-f-]{36})"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A queue by the parts of its ARN."""

    region: str
    account: str
    name: str

    @property
    def is_fifo(self) -> bool:
        """Whether it keeps the order of messages within a group."""
        return self.name.endswith(".fifo")


def queue_of(arn: str) -> Queue:
    """The queue that an ARN names. Raises ApiFailure for every other source."""
    found = _QUEUE.fullmatch(arn)
    if found is None:
        raise invalid_parameter("Unrecognized event source.")
    return Queue(**found.groupdict())


def new_mapping(values: Mapping[str, Any], place: Place, uuid: str, now: float) -> dict[str, Any]:
    """What is kept of a mapping that CreateEventSourceMapping asks for; `now` is in seconds since the epoch.

    Raises ApiFailure. Whether the function is there is the caller's to check.
    """
    arn = values.get("EventSourceArn", "")
    queue_of(arn)
    _check_fields(values)
    check_tags(values.get("Tags", {}))
    document = {
        "UUID": uuid,
        "EventSourceArn": arn,
        "EventSourceMappingArn": _mapping_arn(place, uuid),
        **_function(values["FunctionName"], place),
        "Enabled": True,
        "BatchSize": BATCH_DEFAULT,
        _WINDOW: 0,
        "FunctionResponseTypes": [],
        "Tags": dict(values.get("Tags", {})),
    }
    return _settings_of(document, values, now)


def changed_mapping(document: Mapping[str, Any], values: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The mapping as UpdateEventSourceMapping wants it: what is not given stays, an empty value takes a setting away.

    `now` is in seconds since the epoch. Raises ApiFailure. Whether the function is there is the caller's to check.
    """
    _check_fields(values)
    changed = dict(document)
    if "FunctionName" in values:
        changed |= _function(values["FunctionName"], place_of(document))
    return _settings_of(changed, values, now)


def shown_mapping(document: Mapping[str, Any], state: str, result: str = "") -> dict[str, Any]:
    """A mapping as the API shows it; `result` is that of the last batch, empty if there was none."""
    shown = {name: document[name] for name in _ALWAYS_SHOWN}
    shown |= {name: document[name] for name in _SHOWN_IF_SET if document.get(name)}
    if result:
        shown["LastProcessingResult"] = result
    return shown | {"State": state, "StateTransitionReason": _REASON}


def function_of(document: Mapping[str, Any]) -> FunctionName:
    """The function of a mapping, as its caller named it."""
    return FunctionName(name=document["FunctionName"], qualifier=document["Qualifier"])


def place_of(document: Mapping[str, Any]) -> Place:
    """Where a mapping and its function are."""
    _, _, _, region, account, *_ = document["EventSourceMappingArn"].split(":")
    return Place(account=account, region=region)


def is_for(document: Mapping[str, Any], named: FunctionName) -> bool:
    """Whether a mapping invokes exactly this: a function as it is, one of its versions, or one of its aliases."""
    return _target(function_of(document)) == _target(named)


def reports_failures(document: Mapping[str, Any]) -> bool:
    """Whether the function says in its reply which messages of a batch have failed."""
    return REPORT_FAILURES in document["FunctionResponseTypes"]


def concurrency_of(document: Mapping[str, Any]) -> int | None:
    """How many invocations a mapping may have at once; None if it says nothing."""
    number: int | None = document.get("ScalingConfig", {}).get("MaximumConcurrency")
    return number


def mapping_id(arn: str, place: Place) -> str:
    """The UUID in a mapping's ARN. Raises ApiFailure for an ARN that is none of this place."""
    found = _MAPPING.fullmatch(arn)
    if found is None or (found["region"], found["account"]) != (place.region, place.account):
        raise no_mapping()
    return found["uuid"]


def check_settled(state: str) -> None:
    """Refuse a change while another one is under way. Raises ApiFailure."""
    if state not in _SETTLED:
        message = "Cannot update the event source mapping because it is in use."
        raise ApiFailure("ResourceInUseException", message)


def no_mapping() -> ApiFailure:
    """There is no such mapping."""
    return ApiFailure("ResourceNotFoundException", "The resource you requested does not exist.")


def no_function() -> ApiFailure:
    """Nothing to send messages to."""
    return invalid_parameter("Function does not exist")


def already_mapped(document: Mapping[str, Any], uuid: str) -> ApiFailure:
    """The mapping `uuid` leads from the same source to the same function."""
    return ApiFailure(
        "ResourceConflictException",
        f'The event source arn (" {document["EventSourceArn"]} ") and function (" {document["FunctionName"]} ") '
        f"provided mapping already exists. Please update or delete the existing mapping with UUID {uuid}",
    )


def _settings_of(document: Mapping[str, Any], values: Mapping[str, Any], now: float) -> dict[str, Any]:
    given = {name: values[name] for name in _SETTINGS if name in values}
    changed = {**document, **given, "LastModified": round(now, 3)}
    _check_batches(changed["BatchSize"], changed[_WINDOW], queue_of(changed["EventSourceArn"]))
    _check_filters(changed.get("FilterCriteria", {}))
    return changed


def _check_fields(values: Mapping[str, Any]) -> None:
    wrong = [name for name in _OF_OTHER_SOURCES if name in values]
    if wrong:
        raise invalid_parameter(f"{', '.join(wrong)} cannot be set for a queue of Amazon SQS.")
    for name in _NOT_BUILT:
        if values.get(name):
            raise not_built(f"{name} of an event source mapping")


def _check_batches(size: int, window: int, queue: Queue) -> None:
    if queue.is_fifo and window:
        raise invalid_parameter("Batching window is not supported for FIFO queues")
    if queue.is_fifo and size > BATCH_MAX_AT_ONCE:
        raise invalid_parameter(f"The BatchSize of a FIFO queue must not be greater than {BATCH_MAX_AT_ONCE}")
    if size > BATCH_MAX_AT_ONCE and not window:
        raise invalid_parameter(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than "
            f"{BATCH_MAX_AT_ONCE}"
        )


def _check_filters(criteria: Mapping[str, Any]) -> None:
    if len(criteria.get("Filters", ())) > FILTERS_MAX:
        raise invalid_parameter(f"An event source mapping has at most {FILTERS_MAX} filters.")
    Filters(criteria)


def _function(text: str, place: Place) -> dict[str, str]:
    named = function_name(text, "", place)
    arn = place.function_arn(named.name, named.qualifier)
    return {"FunctionName": named.name, "Qualifier": named.qualifier, "FunctionArn": arn}


def _target(named: FunctionName) -> tuple[str, str]:
    return named.name, "" if named.qualifier == LATEST else named.qualifier


def _mapping_arn(place: Place, uuid: str) -> str:
    return f"arn:{partition_of(place.region)}:lambda:{place.region}:{place.account}:event-source-mapping:{uuid}"

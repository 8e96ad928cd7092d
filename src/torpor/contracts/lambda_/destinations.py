"""Where results of asynchronous invocations go, and in which call (9.6, 10)."""

from datetime import UTC, datetime
from typing import Any

from torpor.contracts import event_targets
from torpor.contracts.event_targets import is_queue_or_topic, named, unknown
from torpor.contracts.event_targets import queue_url as queue_url
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.event_rules import DEAD_LETTER, dead_letter_attributes, is_success
from torpor.contracts.lambda_.failures_api import invalid_parameter
from torpor.model.errors import TargetRefused
from torpor.model.event import Event, Owed, Progress
from torpor.model.parcel import Parcel, ToService

_SOURCE, _DETAIL = "lambda", "Lambda Function Invocation Result - "


def check_dead_letters(target: str) -> None:
    """Refuse what cannot take events that were given up. Raises ApiFailure."""
    if target and not is_queue_or_topic(target):
        raise invalid_parameter(f"The dead-letter target {target} is neither a standard SQS queue nor an SNS topic.")


def parcel(event: Event, progress: Progress, owed: Owed, body: bytes, function_arn: str, region: str) -> Parcel:
    """What goes to a target that is no function; `body` is the record, `region` the one that requests are signed for
    where the target names none. Raises TargetRefused for a target that there is no way to."""
    if owed.role == DEAD_LETTER:
        attributes = dead_letter_attributes(event, progress)
        text = event.payload.decode(errors="replace")
        return event_targets.message(owed.target, text, limits.TARGET_MAX, attributes)
    identity = f"{event.request_id}:{progress.condition}"
    common = event_targets.parcel(owed.target, body, identity, largest=limits.TARGET_MAX)
    return common or _call(event, progress, owed.target, body, function_arn, region)


def _call(event: Event, progress: Progress, target: str, body: bytes, function_arn: str, region: str) -> ToService:
    found = named(target)
    place = found["region"] or region
    if found["service"] == "events":
        if len(body) > limits.TARGET_MAX:
            raise TargetRefused(f"The record has {len(body)} bytes, more than the {limits.TARGET_MAX} of a bus.")
        values: dict[str, Any] = {"Entries": [_entry(target, progress, body.decode(), function_arn)]}
        return ToService(service="events", operation="put_events", values=values, region=place)
    if found["service"] == "s3":
        values = {"Bucket": found["name"], "Key": _key(event, progress, function_arn), "Body": body}
        return ToService(service="s3", operation="put_object", values=values, region=place)
    raise unknown(target)


def _entry(bus: str, progress: Progress, text: str, function_arn: str) -> dict[str, Any]:
    kind = "Success" if is_success(progress) else "Failure"
    resources = [bus, function_arn]
    return {
        "Source": _SOURCE, "DetailType": _DETAIL + kind, "Detail": text, "Resources": resources, "EventBusName": bus,
    }  # fmt: skip


def _key(event: Event, progress: Progress, function_arn: str) -> str:
    """The object's name is not published."""
    moment, name = datetime.fromtimestamp(progress.ended, UTC), function_arn.split(":")[6]
    return f"aws/lambda/async/{name}/{moment:%Y/%m/%d}/{moment:%Y-%m-%dT%H.%M.%S}-{event.request_id}"

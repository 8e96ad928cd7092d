"""Where results of asynchronous invocations go, and in which call (9.6, 10).

Beside the cloud's own targets this server takes a web address, to which a signed request is sent, and `file:NAME`, a
file of the server's own folder for that, which development needs and nothing else.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.event_rules import DEAD_LETTER, dead_letter_attributes, is_success
from torpor.contracts.lambda_.failures_api import invalid_parameter
from torpor.model.errors import TargetRefused
from torpor.model.event import Event, Owed, Progress
from torpor.model.parcel import Parcel, ToFile, ToService, ToWeb

ARN = re.compile(
    r"arn:(?P<partition>aws[a-zA-Z0-9-]*):(?P<service>[a-zA-Z0-9-]+):(?P<region>[a-z0-9-]*):(?P<account>[0-9]*):"
    r"(?P<name>.+)"
)
FILE = re.compile(r"file:(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]{0,99})")
_SOURCE, _DETAIL = "lambda", "Lambda Function Invocation Result - "


def check_dead_letters(target: str) -> None:
    """Refuse what cannot take events that were given up. Raises ApiFailure."""
    named = ARN.fullmatch(target) if target else None
    if target and (named is None or named["service"] not in ("sqs", "sns") or named["name"].endswith(".fifo")):
        raise invalid_parameter(
            f"The provided dead-letter target {target} is neither a standard SQS queue nor an SNS topic."
        )


def is_own(target: str) -> bool:
    """Is it one of those that only this server has?"""
    if FILE.fullmatch(target):
        return True
    parts = urlsplit(target) if target.startswith(("http://", "https://")) else None
    return parts is not None and bool(parts.hostname) and "@" not in parts.netloc


def parcel(event: Event, progress: Progress, owed: Owed, body: bytes, function_arn: str, region: str) -> Parcel:
    """What goes to a target that is no function; `body` is the record, `region` the one that requests are signed for
    where the target names none. Raises TargetRefused for a target that there is no way to."""
    if owed.role == DEAD_LETTER:
        return _dead_letter(event, progress, owed.target)
    if file := FILE.fullmatch(owed.target):
        return ToFile(name=file["name"], line=body)
    if is_own(owed.target):
        return ToWeb(url=owed.target, identity=f"{event.request_id}:{progress.condition}", body=body)
    return _call(event, progress, owed.target, body, function_arn, region)


def queue_url(arn: str) -> str:
    """The address of a queue, by which its service's client knows it."""
    named = _named(arn)
    return f"https://sqs.{named['region']}.amazonaws.com/{named['account']}/{named['name']}"


def _named(arn: str) -> re.Match[str]:
    found = ARN.fullmatch(arn)
    if found is None:
        raise TargetRefused(f"{arn} is no target that this server knows.")
    return found


def _call(event: Event, progress: Progress, target: str, body: bytes, function_arn: str, region: str) -> ToService:
    named = _named(target)
    text, place = body.decode(), named["region"] or region
    match named["service"]:
        case "sqs":
            return _service("sqs", "send_message", place, {"QueueUrl": queue_url(target), "MessageBody": text})
        case "sns":
            return _service("sns", "publish", place, {"TopicArn": target, "Message": text})
        case "events":
            return _service("events", "put_events", place, {"Entries": [_entry(target, progress, text, function_arn)]})
        case "s3":
            values = {"Bucket": named["name"], "Key": _key(event, progress, function_arn), "Body": body}
            return _service("s3", "put_object", place, values)
    raise TargetRefused(f"{target} is no target that this server knows.")


def _dead_letter(event: Event, progress: Progress, target: str) -> ToService:
    named, attributes = _named(target), dead_letter_attributes(event, progress)
    text = event.payload.decode(errors="replace")
    if named["service"] == "sqs":
        values = {"QueueUrl": queue_url(target), "MessageBody": text, "MessageAttributes": attributes}
        return _service("sqs", "send_message", named["region"], values)
    values = {"TopicArn": target, "Message": text, "MessageAttributes": attributes}
    return _service("sns", "publish", named["region"], values)


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


def _service(service: str, operation: str, region: str, values: Mapping[str, Any]) -> ToService:
    size = sum(len(value) for value in values.values() if isinstance(value, str | bytes))
    if service != "s3" and size > limits.TARGET_MAX:
        raise TargetRefused(f"The record has {size} bytes, more than the {limits.TARGET_MAX} that {service} takes.")
    return ToService(service=service, operation=operation, values=values, region=region)

"""Messages of a queue as the records of an event, and what a function answers about them (9.11)."""

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.json_text import read_json
from torpor.contracts.lambda_.tracing import read_trace

SOURCE = "aws:sqs"
_GROUP = "MessageGroupId"
_NEEDED = ("MessageId", "ReceiptHandle", "Body")
_TRACE = re.compile(r"[ -~]*")
_DIGESTS = {"MD5OfMessageAttributes": "md5OfMessageAttributes", "MD5OfBody": "md5OfBody"}


def record_of(message: Mapping[str, Any], arn: str) -> dict[str, Any]:
    """The record of a message as the queue's client returns it, with all attributes asked for; `arn` is the queue's."""
    attributes = message.get("MessageAttributes", {})
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes", {})),
        "messageAttributes": {name: _attribute(value) for name, value in attributes.items()},
        **{shown: message[name] for name, shown in _DIGESTS.items() if name in message},
        "eventSource": SOURCE,
        "eventSourceARN": arn,
        "awsRegion": arn.split(":")[3],
    }


def measured(message: Any, arn: str) -> tuple[dict[str, Any], int] | None:
    """As `record_of`, with the bytes that it takes in an event; None for what is no message."""
    if not isinstance(message, Mapping) or not all(isinstance(message.get(name), str) for name in _NEEDED):
        return None
    try:
        record = record_of(message, arn)
        size = len(event_of([record]))
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    is_plain = all(isinstance(value, str) for value in record["attributes"].values())
    return (record, size) if is_plain and record["receiptHandle"] else None


def trace_of(record: Mapping[str, Any]) -> str:
    """The trace header that a message came with; empty if there is none that can be handed on."""
    trace: str = record["attributes"].get("AWSTraceHeader", "")
    is_usable = len(trace) <= limits.TRACE_MAX and _TRACE.fullmatch(trace) and read_trace(trace).root
    return trace if is_usable else ""


def event_of(records: Sequence[Mapping[str, Any]]) -> bytes:
    """The event of a batch, as JSON."""
    text = json.dumps({"Records": records}, ensure_ascii=False, separators=(",", ":"))
    # Half of a surrogate pair has no bytes in UTF-8; what this writes instead is the same in JSON.
    return text.encode(errors="backslashreplace")


def failed_items(payload: bytes, ids: Collection[str]) -> frozenset[str] | None:
    """Which messages a function's reply reports as failed, out of the `ids` of its batch.

    None if all of them count as failed: the reply cannot be read, or names what was not in the batch.
    """
    if not payload.strip():
        return frozenset()
    try:
        reply = read_json(payload)
    except ValueError:
        return None
    if not isinstance(reply, dict):
        return frozenset() if reply is None else None
    items = reply.get("batchItemFailures")
    if items is None:
        return frozenset()
    return _identifiers(items, frozenset(ids)) if isinstance(items, list) else None


def failed_in_order(records: Iterable[Mapping[str, Any]], failed: Collection[str]) -> frozenset[str]:
    """The failed messages of a batch whose order counts: with each one those that follow it in its group.

    `records` are in the order in which they were received.
    """
    found: set[str] = set()
    groups: set[str] = set()
    for record in records:
        identity, group = record["messageId"], record["attributes"].get(_GROUP)
        if identity in failed or group in groups:
            found.add(identity)
            groups |= {group} if group else set()
    return frozenset(found)


def groups_of(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """The groups that these messages were sent in; those without one are a group too."""
    return {record["attributes"].get(_GROUP, "") for record in records}


def _attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if "StringValue" in value:
        shown["stringValue"] = value["StringValue"]
    if "BinaryValue" in value:
        shown["binaryValue"] = base64.b64encode(value["BinaryValue"]).decode()
    return shown | {"stringListValues": [], "binaryListValues": [], "dataType": value["DataType"]}


def _identifiers(items: Sequence[Any], ids: Collection[str]) -> frozenset[str] | None:
    found: set[str] = set()
    for item in items:
        identity = item.get("itemIdentifier") if isinstance(item, dict) else None
        if not isinstance(identity, str) or identity not in ids:
            return None
        found.add(identity)
    return frozenset(found)

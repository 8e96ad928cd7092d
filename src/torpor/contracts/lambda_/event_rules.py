"""How asynchronous invocations are retried, and what is told of them when they are through (contract 10)."""

import json
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.platform_log import stamp
from torpor.model.event import Event, Progress
from torpor.model.function import LATEST
from torpor.scheduling.retries import Condition, RetryPolicy

DESTINATION, DEAD_LETTER = "destination", "dead letter"
_CONDITIONS: Mapping[str, str] = {
    Condition.SUCCESS: "Success",
    Condition.EXHAUSTED: "RetriesExhausted",
    Condition.AGED: "EventAgeExceeded",
    Condition.BLOCKED: "ZeroReservedConcurrency",
    Condition.RECURSION: "RecursiveInvocation",
}
"""The last one's text is not published."""
_NOT_IN_MESSAGES = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
TOLD = frozenset(_CONDITIONS)
"""Conditions of which destinations hear."""


def retry_policy(settings: Mapping[str, Any], scale: float) -> RetryPolicy:
    """Of a function with these event-invoke settings; every wait is multiplied by `scale`."""
    return RetryPolicy(
        retries=settings.get("MaximumRetryAttempts", limits.EVENT_RETRIES),
        waits=tuple(wait * scale for wait in limits.EVENT_WAITS),
        max_age=settings.get("MaximumEventAgeInSeconds", limits.EVENT_AGE),
        first_back_off=limits.EVENT_BACK_OFF_MIN * scale,
        longest_back_off=limits.EVENT_BACK_OFF_MAX * scale,
    )


def delivery_policy(scale: float) -> RetryPolicy:
    """How long a result is sent to a destination that is down; not published."""
    return RetryPolicy(
        retries=0,
        waits=(),
        max_age=limits.EVENT_AGE,
        first_back_off=limits.EVENT_BACK_OFF_MIN * scale,
        longest_back_off=limits.EVENT_BACK_OFF_MAX * scale,
        refused_for=limits.EVENT_AGE,
    )


def record(event: Event, progress: Progress, function_arn: str) -> bytes:
    """The record that destinations get; `function_arn` is qualified."""
    result = progress.result
    context = {
        "requestId": event.request_id,
        "functionArn": function_arn,
        "condition": _CONDITIONS[progress.condition],
        "approximateInvokeCount": progress.runs,
    }
    document: dict[str, Any] = {
        "version": "1.0",
        "timestamp": stamp(progress.ended),
        "requestContext": context,
        "requestPayload": _json(event.payload),
    }
    if result is not None and progress.runs:
        failed = {"functionError": "Unhandled"} if result.error_type else {}
        executed = {"statusCode": 200, "executedVersion": result.version or LATEST}
        document["responseContext"] = executed | failed
        document["responsePayload"] = _json(result.payload)
    return msgspec.json.encode(document)


def is_success(progress: Progress) -> bool:
    """Is it the destination for successes that hears of it?"""
    return progress.condition == Condition.SUCCESS


def dead_letter_attributes(event: Event, progress: Progress) -> dict[str, dict[str, str]]:
    """What stands beside the event in a dead-letter queue."""
    result = progress.result
    status = 200 if progress.runs else 429
    message = (
        _error_message(result.payload) if result is not None and progress.runs else _CONDITIONS[progress.condition]
    )
    return {
        "RequestID": {"DataType": "String", "StringValue": event.request_id},
        "ErrorCode": {"DataType": "Number", "StringValue": str(status)},
        "ErrorMessage": {"DataType": "String", "StringValue": _cut(message) or "Unknown"},
    }


def _cut(text: str) -> str:
    """What a message may hold of it: certain characters, and so many bytes."""
    clean = _NOT_IN_MESSAGES.sub("", text)
    return clean.encode()[: limits.DEAD_LETTER_MESSAGE].decode(errors="ignore")


def _error_message(payload: bytes) -> str:
    try:
        told = json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")
    return str(told.get("errorMessage", "")) if isinstance(told, dict) else str(told)


def _json(payload: bytes) -> Any:
    """As it is if it is JSON, else as a text."""
    if not payload:
        return None
    try:
        payload.decode()
        json.loads(payload)
    except (ValueError, RecursionError):
        return payload.decode(errors="replace")
    return msgspec.Raw(payload)

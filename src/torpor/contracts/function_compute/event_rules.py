"""How asynchronous calls are retried, and what is told of them when they are through (5)."""

import json
import re
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta

from torpor.contracts.event_targets import is_own, is_queue_or_topic
from torpor.contracts.function_compute import limits, names
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid
from torpor.contracts.function_compute.names import Place
from torpor.model.event import Event, Progress, Result
from torpor.scheduling.retries import Condition, RetryPolicy, Verdict

_FUNCTION = re.compile(
    r"acs:fc:(?P<region>[^:]*):(?P<account>[^:]*):"
    r"(?:services/(?P<service>[^/.]+)(?:\.(?P<qualifier>[^/]+))?/)?functions/(?P<function>[^/]+)(?:/(?P<alias>[^/]+))?"
)
_CONDITIONS: Mapping[str, str] = {
    Condition.SUCCESS: "",
    Condition.EXHAUSTED: "InvocationError",
    Condition.AGED: "EventAgeExceeded",
}
"""The last one's text is not published."""
EXHAUSTED_RESOURCES = "FunctionResourceExhausted"
_NO_MESSAGES = (
    "destinations in MNS, RocketMQ and EventBridge are not available in this version of Torpor; name an SQS queue or "
    "SNS topic by its ARN, or a web address"
)
TOLD = frozenset(_CONDITIONS)
"""Conditions of which destinations hear."""


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """Where results go."""

    destination: str | None = None


class Destinations(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """By how a call ended."""

    on_success: Destination | None = None
    on_failure: Destination | None = None

    def target(self, *, success: bool) -> str:
        """Empty if there is none."""
        chosen = self.on_success if success else self.on_failure
        return (chosen.destination or "") if chosen is not None else ""


class AsyncConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is set for the asynchronous calls of a version or alias; the generations name tasks differently."""

    max_async_retry_attempts: Annotated[int, Meta(ge=0, le=limits.ASYNC_RETRIES_MAX)] | None = None
    max_async_event_age_in_seconds: Annotated[int, Meta(ge=1, le=limits.ASYNC_AGE_MAX)] | None = None
    async_task: bool | None = None
    stateful_invocation: bool | None = None
    destination_config: Destinations | None = None

    @property
    def is_task(self) -> bool:
        """Is the history of its calls kept and shown?"""
        return bool(self.async_task or self.stateful_invocation)

    def target(self, *, success: bool) -> str:
        """Where results go; empty for nowhere."""
        return self.destination_config.target(success=success) if self.destination_config is not None else ""


def async_config(document: object) -> AsyncConfig:
    """Raises ApiFailure for what is not valid."""
    try:
        return msgspec.convert(document, AsyncConfig)
    except msgspec.ValidationError as error:
        raise invalid(f"the asynchronous configuration is not valid: {error}") from error


def check_targets(config: AsyncConfig) -> list[tuple[str, str, str]]:
    """Service, function and qualifier of destinations that are functions. Raises ApiFailure for what cannot be one."""
    found = []
    for target in filter(None, (config.target(success=True), config.target(success=False))):
        function = function_target(target)
        if function is not None:
            found.append(function)
        elif re.match(r"acs:(mns|mq|eventbridge):", target):
            raise ApiFailure("NotImplemented", _NO_MESSAGES)
        elif not (is_own(target) or is_queue_or_topic(target)):
            raise invalid(f"destination '{target}' is neither a function, a queue or topic, nor a web address")
    return found


def function_target(target: str) -> tuple[str, str, str] | None:
    """Service, function and qualifier that a destination names; None if it is no function."""
    named = _FUNCTION.fullmatch(target)
    if named is None:
        return None
    qualifier = named["qualifier"] or named["alias"] or ""
    return named["service"] or "", named["function"], "" if qualifier in ("", names.LATEST) else qualifier


def retry_policy(config: AsyncConfig, scale: float) -> RetryPolicy:
    """Of calls under this configuration; every wait is multiplied by `scale`."""
    retries, age = config.max_async_retry_attempts, config.max_async_event_age_in_seconds
    return RetryPolicy(
        retries=limits.ASYNC_RETRIES if retries is None else retries,
        waits=tuple(wait * scale for wait in limits.ASYNC_WAITS),
        max_age=float(limits.ASYNC_AGE if age is None else age),
        first_back_off=limits.ASYNC_BACK_OFF * scale,
        longest_back_off=limits.ASYNC_BACK_OFF_MAX * scale,
        refused_for=limits.ASYNC_REFUSED_FOR,
    )


def delivery_policy(scale: float) -> RetryPolicy:
    """How long a result is sent to a destination that is down."""
    return RetryPolicy(
        retries=0,
        waits=(),
        max_age=limits.ASYNC_AGE_MAX,
        first_back_off=limits.ASYNC_BACK_OFF * scale,
        longest_back_off=limits.DELIVERY_BACK_OFF_MAX * scale,
        refused_for=limits.ASYNC_DELIVERED_FOR,
    )


def record(event: Event, progress: Progress, place: Place) -> bytes:
    """The record that destinations get."""
    result = progress.result
    condition = _CONDITIONS[progress.condition]
    if progress.condition == Condition.AGED and result is not None and result.verdict == Verdict.THROTTLED:
        condition = EXHAUSTED_RESOURCES
    document = {
        "timestamp": round(progress.ended * 1000),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": _arn(event, place),
            "condition": condition,
            "approximateInvokeCount": progress.runs,
        },
        "requestPayload": event.payload.decode(errors="replace"),
        "responseContext": {"statusCode": _status(result), "functionError": result.error_type if result else ""},
        "responsePayload": result.payload.decode(errors="replace") if result else "",
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _arn(event: Event, place: Place) -> str:
    service, function = names.service_of(event.function), names.function_of(event.function)
    if service:
        return place.function_arn(function, f"{service}.{event.qualifier or names.LATEST}")
    return place.function_arn(function)


def _status(result: Result | None) -> int:
    verdict = result.verdict if result is not None else Verdict.THROTTLED
    return {Verdict.THROTTLED.value: 429, Verdict.SYSTEM.value: 500}.get(verdict, 200)


def no_config(function: str) -> ApiFailure:
    """Nothing is set."""
    return ApiFailure("AsyncConfigNotExists", f"function '{function}' has no asynchronous configuration")

"""Rules, tags and the outcome of operations as the API shows them."""

from collections.abc import Mapping, Sequence
from typing import Any

from torpor.contracts.eventbridge.names import DEFAULT_BUS, Place

ENABLED, DISABLED = "ENABLED", "DISABLED"
_SHOWN = ("State", "Description", "ScheduleExpression", "RoleArn")


def rule(name: str, document: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """One item of ListRules; the answer of DescribeRule without its creator."""
    kept = {member: document[member] for member in _SHOWN if member in document}
    return {"Name": name, "Arn": place.rule_arn(name), **kept, "EventBusName": DEFAULT_BUS}


def tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """As lists of the API show them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def tags_of(listed: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """By key; of a key that comes twice, the last one."""
    return {tag["Key"]: tag["Value"] for tag in listed}


def failed(target: str, code: str, message: str) -> dict[str, str]:
    """Why one of several targets was passed over."""
    return {"TargetId": target, "ErrorCode": code, "ErrorMessage": message}


def outcome(entries: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The answer of an operation on several targets; `entries` are those that failed."""
    return {"FailedEntryCount": len(entries), "FailedEntries": list(entries)}

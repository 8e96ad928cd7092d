"""Groups, streams and events as the API shows them. Times come and go in milliseconds since the epoch."""

from collections.abc import Mapping
from typing import Any

from torpor.contracts.cloudwatch_logs.names import Place


def group(name: str, place: Place, *, created: float, stored: int, retention: int) -> dict[str, Any]:
    """One item of DescribeLogGroups."""
    arn = place.group_arn(name)
    shown = {
        "logGroupName": name,
        "creationTime": int(created),
        "metricFilterCount": 0,
        "arn": f"{arn}:*",
        "logGroupArn": arn,
        "logGroupClass": "STANDARD",
        "storedBytes": stored,
    }
    return {**shown, "retentionInDays": retention} if retention else shown


def stream(name: str, arn: str, created: float, times: Mapping[str, float | None]) -> dict[str, Any]:
    """One item of DescribeLogStreams; `arn` is the group's, `times` are those of its events."""
    known = {key: int(value) for key, value in times.items() if value is not None}
    shown = {"logStreamName": name, "creationTime": int(created), "arn": f"{arn}:log-stream:{name}", "storedBytes": 0}
    return {**shown, **known}


def event(time: float, received: float, message: str) -> dict[str, Any]:
    """One event of a stream."""
    return {"timestamp": int(time), "message": message, "ingestionTime": int(received)}


def event_id(time: float, number: int) -> str:
    """Names one event of a group, and sorts as the events do."""
    return f"{int(time):016d}{number:040d}"

"""Operations on log streams."""

from collections.abc import Mapping
from typing import Any

from torpor.api.logs.call import Call, Handler, Key, page
from torpor.contracts.cloudwatch_logs import rendering
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter
from torpor.telemetry import LogGroups, StreamEntry

_BY_TIME = "LastEventTime"


class StreamOperations:
    """Streams as wholes."""

    def __init__(self, groups: LogGroups) -> None:
        self._groups = groups

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "CreateLogStream": self.create,
            "DeleteLogStream": self.delete,
            "DescribeLogStreams": self.describe,
        }

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """DescribeLogStreams, by name or by the time of the last event."""
        values, group = call.values, call.group
        prefix, by_time = values.get("logStreamNamePrefix", ""), values.get("orderBy") == _BY_TIME
        if prefix and by_time:
            raise invalid_parameter("Cannot order by LastEventTime with a logStreamNamePrefix.")
        wanted = [
            (_key(entry, by_time), entry) for entry in self._groups.streams(group) if entry.name.startswith(prefix)
        ]
        shown, token = page(wanted, values, descending=values.get("descending", False))
        arn = call.place.group_arn(group)
        return {"logStreams": [_shown(entry, arn) for entry in shown], **token}

    async def create(self, call: Call) -> Mapping[str, Any]:
        """CreateLogStream."""
        self._groups.create_stream(call.values["logGroupName"], call.values["logStreamName"])
        return {}

    async def delete(self, call: Call) -> Mapping[str, Any]:
        """DeleteLogStream; an environment that goes on writing makes it anew."""
        self._groups.delete_stream(call.values["logGroupName"], call.values["logStreamName"])
        return {}


def _key(entry: StreamEntry, by_time: bool) -> Key:
    return (entry.last or 0.0) if by_time else 0.0, entry.name


def _shown(entry: StreamEntry, arn: str) -> dict[str, Any]:
    times = {
        "firstEventTimestamp": entry.first,
        "lastEventTimestamp": entry.last,
        "lastIngestionTime": entry.received,
    }
    return rendering.stream(entry.name, arn, entry.created, times)

"""Operations on log groups: which there are, how long their events are kept, their tags."""

from collections.abc import Mapping
from typing import Any

from torpor.api.logs.call import Call, Handler, page
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.cloudwatch_logs import limits, rendering
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter
from torpor.contracts.cloudwatch_logs.names import group_of, is_group_name
from torpor.contracts.cloudwatch_logs.requests import model
from torpor.telemetry import GroupDocument, LogGroups

_RESERVED = "aws/"


class GroupOperations:
    """Groups as wholes."""

    def __init__(self, groups: LogGroups) -> None:
        self._groups = groups

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "CreateLogGroup": self.create,
            "DeleteLogGroup": self.delete,
            "DeleteRetentionPolicy": self.delete_retention,
            "DescribeLogGroups": self.describe,
            "ListTagsForResource": self.list_tags,
            "PutRetentionPolicy": self.put_retention,
            "TagResource": self.tag,
            "UntagResource": self.untag,
        }

    async def describe(self, call: Call) -> Mapping[str, Any]:
        """DescribeLogGroups, by name."""
        values = call.values
        prefix, pattern = values.get("logGroupNamePrefix", ""), values.get("logGroupNamePattern", "")
        if prefix and pattern:
            raise invalid_parameter("LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.")
        only = {group_of(each, call.place) for each in values.get("logGroupIdentifiers", ())}
        wanted = [
            ((0.0, name), document)
            for name, document in self._groups.all().items()
            if is_group_name(name) and name.startswith(prefix) and pattern in name and (not only or name in only)
        ]
        shown, token = page(wanted, values)
        return {"logGroups": [self._shown(document, call) for document in shown], **token}

    async def create(self, call: Call) -> Mapping[str, Any]:
        """CreateLogGroup."""
        name = call.values["logGroupName"]
        if name.lower().startswith(_RESERVED):
            raise invalid_parameter(f"Log groups starting with {_RESERVED} are reserved.")
        self._groups.create(name, call.values.get("tags", {}))
        return {}

    async def delete(self, call: Call) -> Mapping[str, Any]:
        """DeleteLogGroup; a function that goes on writing makes it anew."""
        self._groups.delete(call.values["logGroupName"])
        return {}

    async def put_retention(self, call: Call) -> Mapping[str, Any]:
        """PutRetentionPolicy."""
        days = call.values["retentionInDays"]
        if days not in limits.RETENTION_DAYS:
            allowed = ", ".join(map(str, limits.RETENTION_DAYS))
            raise invalid_parameter(f"Invalid retention value. Possible values are: {allowed}")
        self._groups.keep_for(call.values["logGroupName"], days)
        return {}

    async def delete_retention(self, call: Call) -> Mapping[str, Any]:
        """DeleteRetentionPolicy: events are kept as long as there is room."""
        self._groups.keep_for(call.values["logGroupName"], 0)
        return {}

    async def list_tags(self, call: Call) -> Mapping[str, Any]:
        """ListTagsForResource."""
        return {"tags": dict(self._tagged(call).tags)}

    async def tag(self, call: Call) -> Mapping[str, Any]:
        """TagResource: add tags, replacing those of the same key."""
        group = self._tagged(call)
        tags = {**group.tags, **call.values["tags"]}
        most = model().shapes["Tags"]["max"]
        if len(tags) > most:
            raise ApiFailure("TooManyTagsException", f"A resource can have at most {most} tags.")
        self._groups.tag(group.name, tags)
        return {}

    async def untag(self, call: Call) -> Mapping[str, Any]:
        """UntagResource: keys that are not there are passed over."""
        group, gone = self._tagged(call), set(call.values["tagKeys"])
        self._groups.tag(group.name, {key: value for key, value in group.tags.items() if key not in gone})
        return {}

    def _tagged(self, call: Call) -> GroupDocument:
        return self._groups.get(group_of(call.values["resourceArn"], call.place))

    def _shown(self, document: GroupDocument, call: Call) -> dict[str, Any]:
        name = document.name
        stored = self._groups.stored(name)
        return rendering.group(name, call.place, created=document.created, stored=stored, retention=document.retention)

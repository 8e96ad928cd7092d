"""What is left: tags, instances, the account."""

import json
from collections.abc import Mapping
from typing import Any

from torpor.api.fc.call import Call, Handler, Reply
from torpor.api.fc.registry import SERVICE, Instances, Registry
from torpor.contracts.function_compute import limits, names, rendering
from torpor.contracts.function_compute.api_failures import invalid, not_built
from torpor.model.function import LATEST as NEWEST

_FUNCTION_TYPES = ("function", "ALIYUN::FC::FUNCTION")


class ResourceOperations:
    """Tags of functions and services, running instances, account settings."""

    def __init__(self, registry: Registry, instances: Instances) -> None:
        self._registry = registry
        self._instances = instances

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("GET", "F/{function}/instances"): self.list_instances,
            ("GET", "/account-settings"): self.account_settings,
            ("GET", "/regions"): self.regions,
            ("GET", "/reservedCapacities"): self.reserved_capacities,
            ("GET", "/reserved-capacities"): self.reserved_capacities,
            ("POST", "/tag"): self.tag,
            ("GET", "/tag"): self.get_tags,
            ("DELETE", "/tag"): self.untag,
            ("PUT", "/tag"): self.untag,
            ("POST", "/tags-v2"): self.tag_many,
            ("GET", "/tags-v2"): self.list_tags,
            ("DELETE", "/tags-v2"): self.untag_many,
        }

    async def list_instances(self, call: Call) -> Reply:
        """ListInstances: those that run, or are kept, now."""
        record = self._registry.record(call.function, call.service)
        wanted = call.query.get("qualifier") or ""
        shown = [
            _instance(instance, classic=call.generation.has_services)
            for instance in self._instances.of(record.name)
            if wanted in ("", _shown_version(instance))
        ]
        return Reply(200, {"instances": shown})

    async def account_settings(self, _call: Call) -> Reply:
        """GetAccountSettings."""
        return Reply(200, {"availableAZs": ["local"], "defaultRole": ""})

    async def regions(self, call: Call) -> Reply:
        """DescribeRegions: the one this server stands for."""
        return Reply(200, {"Regions": {"Region": [{"regionId": call.place.region, "localName": call.place.region}]}})

    async def reserved_capacities(self, _call: Call) -> Reply:
        """ListReservedCapacities: there is nothing to buy here."""
        return Reply(200, {"reservedCapacities": []})

    async def tag(self, call: Call) -> Reply:
        """TagResource."""
        values = call.document
        tags = values.get("tags") or {}
        if not isinstance(tags, dict) or not all(isinstance(value, str) for value in tags.values()):
            raise invalid("tags has to be an object of texts")
        self._tag(str(values.get("resourceArn") or ""), tags)
        return Reply(200, {})

    async def get_tags(self, call: Call) -> Reply:
        """GetResourceTags."""
        arn = call.query.get("resourceArn") or ""
        return Reply(200, {"resourceArn": arn, "tags": dict(self._tags(arn))})

    async def untag(self, call: Call) -> Reply:
        """UntagResource."""
        values = call.document
        arn = str(values.get("resourceArn") or "")
        keys = list(self._tags(arn)) if values.get("all") else _texts(values.get("tagKeys"))
        self._untag(arn, keys)
        return Reply(200, {})

    async def tag_many(self, call: Call) -> Reply:
        """TagResources."""
        values = _either_case(call.document)
        pairs = values.get("Tag") or []
        tags = {str(pair["Key"]): str(pair.get("Value") or "") for pair in map(_either_case, pairs) if pair.get("Key")}
        for arn in self._arns(_texts(values.get("ResourceId")), str(values.get("ResourceType") or ""), call):
            self._tag(arn, tags)
        return Reply(200, {})

    async def list_tags(self, call: Call) -> Reply:
        """ListTagResources."""
        found = []
        kind = call.query.get("ResourceType") or ""
        for arn in self._arns(_json_list(call.query.get("ResourceId")), kind, call):
            for key, value in sorted(self._tags(arn).items()):
                item = {"ResourceId": arn.rpartition("/")[2], "ResourceType": kind, "TagKey": key, "TagValue": value}
                found.append(item)
        return Reply(200, {"TagResources": found, "NextToken": ""})

    async def untag_many(self, call: Call) -> Reply:
        """UntagResources."""
        query = call.query
        keys = _json_list(query.get("TagKey"))
        for arn in self._arns(_json_list(query.get("ResourceId")), query.get("ResourceType") or "", call):
            self._untag(arn, list(self._tags(arn)) if query.get("All") == "true" else keys)
        return Reply(200, {})

    def _arns(self, given: list[str], kind: str, call: Call) -> list[str]:
        if kind.lower() not in tuple(item.lower() for item in _FUNCTION_TYPES):
            raise not_built(f"Tags of resources of the type {kind or 'that is not named'}")
        return [name if name.startswith("acs:") else call.place.function_arn(name) for name in given]

    def _tags(self, arn: str) -> Mapping[str, str]:
        service, function = names.resource_of(arn)
        if function:
            return self._registry.record(function, service).tags
        tags: Mapping[str, str] = self._registry.service(service).get("tags") or {}
        return tags

    def _tag(self, arn: str, tags: Mapping[str, str]) -> None:
        merged = {**self._tags(arn), **tags}
        if len(merged) > limits.TAGS_MAX:
            raise invalid(f"a resource has at most {limits.TAGS_MAX} tags")
        service, function = names.resource_of(arn)
        if function:
            self._registry.functions.tag(names.record_name(function, service), tags)
        else:
            self._put_service_tags(service, merged)

    def _untag(self, arn: str, keys: list[str]) -> None:
        left = {key: value for key, value in self._tags(arn).items() if key not in keys}
        service, function = names.resource_of(arn)
        if function:
            self._registry.functions.untag(names.record_name(function, service), keys)
        else:
            self._put_service_tags(service, left)

    def _put_service_tags(self, service: str, tags: Mapping[str, str]) -> None:
        document = {**self._registry.service(service), "tags": dict(tags)}
        self._registry.resources.put(SERVICE, service, document)


def _instance(instance: Mapping[str, Any], *, classic: bool) -> dict[str, Any]:
    shown = {"instanceId": str(instance["id"]), "versionId": names.shown_version(str(instance["version"]))}
    if classic:
        return shown
    return shown | {
        "qualifier": _shown_version(instance),
        "createdTimeMs": int(float(instance["created"]) * 1000),
        "status": "Running",
        "createdTime": rendering.time_text(float(instance["created"])),
    }


def _shown_version(instance: Mapping[str, Any]) -> str:
    return names.LATEST if instance["version"] == NEWEST else str(instance["version"])


def _texts(given: object) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise invalid("a list of texts is expected")
    return given


def _json_list(text: str | None) -> list[str]:
    """A list in a query: JSON, or one value."""
    if not text:
        return []
    if not text.startswith("["):
        return [text]
    try:
        return _texts(json.loads(text))
    except ValueError as error:
        raise invalid("a list in the query is not valid JSON") from error


def _either_case(values: Any) -> dict[str, Any]:
    """Fields by their names with a capital, however the client spells them."""
    if not isinstance(values, dict):
        raise invalid("an object is expected")
    return {name[:1].upper() + name[1:]: value for name, value in values.items()}

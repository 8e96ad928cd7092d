"""How many instances functions have: concurrency, on-demand and provision configurations."""

from collections.abc import Mapping
from typing import Any

from torpor.api.fc.call import NO_CONTENT, Call, Handler, Reply
from torpor.api.fc.registry import CONCURRENCY, PROVISION, Instances, Registry
from torpor.contracts.function_compute import limits, names, rendering
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid, not_built
from torpor.model.function import LATEST as NEWEST
from torpor.model.function import FunctionVersion

_SCHEDULES = ("scheduledActions", "targetTrackingPolicies", "horizontalScalingPolicies", "scheduledPolicies")


class ScalingOperations:
    """Bounds on the instances of functions (`maximum`) and of their versions (`minimum`)."""

    def __init__(self, registry: Registry, instances: Instances) -> None:
        self._registry = registry
        self._functions = registry.functions
        self._resources = registry.resources
        self._instances = instances

    def routes(self) -> dict[tuple[str, str], Handler]:
        """By method and path below the function's or service's; those that begin with `/` below the API's."""
        function = "F/{function}"
        return {
            ("PUT", f"{function}/concurrency"): self.put_concurrency,
            ("GET", f"{function}/concurrency"): self.get_concurrency,
            ("DELETE", f"{function}/concurrency"): self.delete_concurrency,
            ("GET", "/concurrency-configs"): self.list_concurrency,
            ("PUT", f"{function}/on-demand-config"): self.put_concurrency,
            ("GET", f"{function}/on-demand-config"): self.get_concurrency,
            ("DELETE", f"{function}/on-demand-config"): self.delete_concurrency,
            ("GET", "/on-demand-configs"): self.list_concurrency,
            ("PUT", f"{function}/provision-config"): self.put_provision,
            ("GET", f"{function}/provision-config"): self.get_provision,
            ("DELETE", f"{function}/provision-config"): self.delete_provision,
            ("GET", "/provision-configs"): self.list_provisions,
        }

    async def put_concurrency(self, call: Call) -> Reply:
        """PutConcurrencyConfig, PutFunctionOnDemandConfig: instances at most; 0 stops every call."""
        field = "maximumInstanceCount" if call.generation.has_services else "reservedConcurrency"
        most = _count(call.document, field)
        record = self._registry.record(call.function, call.service)
        if call.qualifier:
            raise not_built("An on-demand configuration for one version or alias; set it without a qualifier")
        self._bound(record.name, most)
        self._resources.put(CONCURRENCY, f"{record.name}/all", {"maximum": most})
        return Reply(200, self._concurrency(call, call.function, call.service, most))

    async def get_concurrency(self, call: Call) -> Reply:
        """GetConcurrencyConfig, GetFunctionOnDemandConfig."""
        record = self._registry.record(call.function, call.service)
        for _, document in self._registry.below(CONCURRENCY, record.name):
            return Reply(200, self._concurrency(call, call.function, call.service, document["maximum"]))
        code = "OnDemandConfigNotFound" if call.generation.has_services else "ConcurrencyConfigNotExist"
        raise ApiFailure(code, f"function '{call.function}' has no such configuration")

    async def delete_concurrency(self, call: Call) -> Reply:
        """DeleteConcurrencyConfig, DeleteFunctionOnDemandConfig."""
        record = self._registry.record(call.function, call.service)
        self._bound(record.name, None)
        self._registry.forget(record.name, CONCURRENCY)
        return NO_CONTENT

    async def list_concurrency(self, call: Call) -> Reply:
        """ListConcurrencyConfigs, ListOnDemandConfigs."""
        found = {}
        for key, document in self._resources.list(CONCURRENCY):
            record = key.rpartition("/")[0]
            function, service = names.function_of(record), names.service_of(record)
            if bool(service) is call.generation.has_services and call.query.get("functionName") in (None, function):
                found[record] = self._concurrency(call, function, service, document["maximum"])
        return _paged("configs", found, call)

    async def put_provision(self, call: Call) -> Reply:
        """PutProvisionConfig: instances that are kept up."""
        values = call.document
        for name in _SCHEDULES:
            if values.get(name):
                raise not_built(f"Scaling by {name}")
        if values.get("alwaysAllocateCPU") or values.get("alwaysAllocateGPU"):
            raise not_built("Instances that are never frozen (alwaysAllocateCPU)")
        field = "defaultTarget" if values.get("defaultTarget") is not None else "target"
        least = _count(values, field)
        version = self._provisioned(call)
        self._functions.scale(call.record, version.version, least, version.maximum)
        key = f"{call.record}/{version.version}"
        if least:
            self._resources.put(PROVISION, key, {"target": least})
        elif any(name == version.version for name, _ in self._registry.below(PROVISION, call.record)):
            self._resources.remove(PROVISION, key)
        return Reply(200, self._provision(call, call.record, version.version, least))

    async def get_provision(self, call: Call) -> Reply:
        """GetProvisionConfig; without one the target is 0."""
        version = self._provisioned(call)
        return Reply(200, self._provision(call, call.record, version.version, version.minimum))

    async def delete_provision(self, call: Call) -> Reply:
        """DeleteProvisionConfig."""
        version = self._provisioned(call)
        self._functions.scale(call.record, version.version, 0, version.maximum)
        if any(name == version.version for name, _ in self._registry.below(PROVISION, call.record)):
            self._resources.remove(PROVISION, f"{call.record}/{version.version}")
        return NO_CONTENT

    async def list_provisions(self, call: Call) -> Reply:
        """ListProvisionConfigs."""
        found = {}
        for key, document in self._resources.list(PROVISION):
            record, _, version = key.rpartition("/")
            service, wanted = names.service_of(record), call.query.get("functionName")
            if bool(service) is call.generation.has_services and wanted in (None, names.function_of(record)):
                found[key] = self._provision(call, record, version, document["target"])
        return _paged("provisionConfigs", found, call)

    def _bound(self, record: str, most: int | None) -> None:
        known = self._functions.get(record)
        for version in (known.latest.version, *(item.version for item in known.versions.values())):
            if most is not None and version.minimum > most:
                raise invalid(f"{version.minimum} instances are provisioned, more than {most}")
            self._functions.scale(record, version.version, version.minimum, most)

    def _provisioned(self, call: Call) -> FunctionVersion:
        qualifier = call.qualifier
        if qualifier and not qualifier.isdecimal():
            raise not_built("Provision for aliases; name the version")
        return self._registry.resolve(call.function, call.service, qualifier).version

    def _concurrency(self, call: Call, function: str, service: str, most: int) -> dict[str, Any]:
        if service:
            return {"resource": f"services/{service}/functions/{function}", "maximumInstanceCount": most}
        return {"functionArn": call.place.function_arn(function), "reservedConcurrency": most}

    def _provision(self, call: Call, record: str, version: str, least: int) -> dict[str, Any]:
        function, service = names.function_of(record), names.service_of(record)
        shown = names.LATEST if version == NEWEST else version
        running = sum(1 for instance in self._instances.of(record) if instance["version"] == version)
        common = {"target": least, "current": min(running, least), "alwaysAllocateCPU": False}
        if service:
            return {"resource": f"services/{service}.{shown}/functions/{function}", **common}
        return {"functionArn": call.place.function_arn(function), "defaultTarget": least, **common}


def _count(values: Mapping[str, Any], name: str) -> int:
    count = values.get(name)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= limits.INSTANCES_MAX:
        raise invalid(f"{name} has to be a number from 0 to {limits.INSTANCES_MAX}")
    return count


def _paged(field: str, found: Mapping[str, Any], call: Call) -> Reply:
    page, following = rendering.page(found, call.query)
    body: dict[str, Any] = {field: [found[name] for name in page]}
    return Reply(200, body | ({"nextToken": following} if following else {}))

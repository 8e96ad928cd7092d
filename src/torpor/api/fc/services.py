"""Services of the older generations, and the versions and aliases of both kinds of owners."""

from collections.abc import Mapping
from typing import Any, cast
from uuid import uuid4

from torpor.api.fc.call import NO_CONTENT, Call, Handler, Reply, alias_not_found, shown
from torpor.api.fc.registry import ALIAS, PROVISION, SERVICE, VERSION, Registry
from torpor.contracts.function_compute import configuration, names, rendering
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid, not_built
from torpor.model.errors import Conflict, NotFound
from torpor.service.changes import Changes

_KEPT = ("description", "role", "logConfig", "vpcConfig", "tracingConfig", "internetAccess")
_REFUSED = {"nasConfig": "Mounting NAS (nasConfig)", "ossMountConfig": "Mounting OSS (ossMountConfig)"}
_NEXT = "nextVersion"


class ServiceOperations:
    """Services: what their functions share."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._resources = registry.resources

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("POST", "services"): self.create,
            ("GET", "services"): self.list_all,
            ("GET", "services/{service}"): self.get,
            ("PUT", "services/{service}"): self.update,
            ("DELETE", "services/{service}"): self.delete,
        }

    async def create(self, call: Call) -> Reply:
        """CreateService."""
        values = call.document
        name = names.check_name(values.get("serviceName"), "serviceName")
        moment = rendering.time_text(self._registry.clock.wall())
        document = _read(values) | {"serviceName": name, "serviceId": str(uuid4()), "createdTime": moment}
        document |= {"lastModifiedTime": moment, _NEXT: 1}
        try:
            self._resources.put(SERVICE, name, document, create=True)
        except Conflict as error:
            raise ApiFailure("ServiceAlreadyExists", f"service '{name}' already exists") from error
        return _shown(document)

    async def get(self, call: Call) -> Reply:
        """GetService; a version or alias has to exist, and shows the service's present settings."""
        document = self._registry.service(call.service)
        if call.qualifier:
            VersionOperations(self._registry).require(call, call.qualifier)
        return _shown(document)

    async def list_all(self, call: Call) -> Reply:
        """ListServices."""
        if call.tag_query:
            raise not_built("Listing services by tags")
        documents = dict(self._resources.list(SERVICE))
        page, following = rendering.page(documents, call.query)
        body: dict[str, Any] = {"services": [_visible(documents[name]) for name in page]}
        return Reply(200, body | ({"nextToken": following} if following else {}))

    async def update(self, call: Call) -> Reply:
        """UpdateService: role and log of its functions follow."""
        old = self._registry.service(call.service)
        call.expect(rendering.etag(_visible(old)))
        moment = rendering.time_text(self._registry.clock.wall())
        document = {**old, **_read(call.document), "lastModifiedTime": moment}
        self._resources.put(SERVICE, call.service, document)
        for record in self._registry.of_service(call.service):
            settings = {k: v for k, v in record.latest.settings.items() if k not in rendering.INTERNAL}
            inherited = {name: document[name] for name in ("role", "logConfig") if document.get(name)}
            function = names.function_of(record.name)
            derived = configuration.derived(settings | inherited, function, call.service, call.place, call.generation)
            changes = {"role": derived["role"], "log_group": derived["log_group"]}
            self._registry.functions.update_configuration(record.name, cast(Changes, changes))
        return _shown(document)

    async def delete(self, call: Call) -> Reply:
        """DeleteService; its functions have to be gone before."""
        document = self._registry.service(call.service)
        call.expect(rendering.etag(_visible(document)))
        if self._registry.of_service(call.service):
            raise ApiFailure("ServiceNotEmpty", f"service '{call.service}' has functions")
        self._registry.forget(call.owner, ALIAS, VERSION, PROVISION)
        self._resources.remove(SERVICE, call.service)
        return NO_CONTENT


class VersionOperations:
    """Versions: of a function, or of all functions of a service at once."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._functions = registry.functions

    def routes(self) -> dict[tuple[str, str], Handler]:
        """By method and path below the owner's."""
        return {
            ("POST", "O/versions"): self.publish,
            ("GET", "O/versions"): self.list_all,
            ("DELETE", "O/versions/{version}"): self.delete,
        }

    async def publish(self, call: Call) -> Reply:
        """PublishVersion."""
        description = call.text("description")
        if not call.generation.has_services:
            self._registry.record(call.function)
            return Reply(200, rendering.version(self._functions.publish(call.record, description=description)))
        service = self._registry.service(call.service)
        number = str(service.get(_NEXT, 1))
        records = self._registry.of_service(call.service)
        if not records:
            raise invalid(f"service '{call.service}' has no function to publish")
        moment = rendering.time_text(self._registry.clock.wall())
        times = {"createdTime": moment, "lastModifiedTime": moment}
        document = {"versionId": number, "description": description, **times}
        # The number is taken before functions are published under it, so that none is ever used twice.
        self._registry.resources.put(SERVICE, call.service, {**service, _NEXT: int(number) + 1})
        for record in records:
            self._functions.publish(record.name, number=number)
        self._registry.resources.put(VERSION, f"{call.owner}/{number}", document)
        return Reply(200, document)

    async def list_all(self, call: Call) -> Reply:
        """ListVersions: newest first, or with FORWARD oldest first."""
        direction = (call.query.get("direction") or "BACKWARD").upper()
        if direction not in ("BACKWARD", "FORWARD"):
            raise invalid("direction has to be BACKWARD or FORWARD")
        found = sorted(self._documents(call), key=lambda item: int(item["versionId"]), reverse=direction == "BACKWARD")
        start = call.query.get("nextToken") or call.query.get("startKey") or ""
        if start.isdecimal():
            after = int(start)
            found = [
                item
                for item in found
                if (int(item["versionId"]) <= after if direction == "BACKWARD" else int(item["versionId"]) >= after)
            ]
        size = rendering.page_size(call.query)
        body: dict[str, Any] = {"versions": found[:size], "direction": direction}
        return Reply(200, body | ({"nextToken": found[size]["versionId"]} if len(found) > size else {}))

    async def delete(self, call: Call) -> Reply:
        """DeleteVersion; aliases that refer to it are left dangling."""
        number = call.values["version"]
        self.require(call, number)
        if not call.generation.has_services:
            self._functions.delete_version(call.record, number)
            return NO_CONTENT
        for record in self._registry.of_service(call.service):
            if number in record.versions:
                self._functions.delete_version(record.name, number)
        self._registry.resources.remove(VERSION, f"{call.owner}/{number}")
        return NO_CONTENT

    def require(self, call: Call, number: str) -> None:
        """Refuse a version or alias that there is not. Raises ApiFailure."""
        known = {item["versionId"] for item in self._documents(call)}
        aliases = {name for name, _ in self._registry.below(ALIAS, call.owner)}
        if number not in known and (number.isdecimal() or number not in aliases):
            owner = f"service '{call.service}'" if call.generation.has_services else f"function '{call.function}'"
            raise ApiFailure("VersionNotFound", f"version '{number}' of {owner} does not exist")

    def _documents(self, call: Call) -> list[Mapping[str, Any]]:
        if call.generation.has_services:
            self._registry.service(call.service)
            return [document for _, document in self._registry.below(VERSION, call.owner)]
        self._registry.record(call.function)
        return [rendering.version(record) for record in self._functions.versions(call.record)]


class AliasOperations:
    """Aliases: each for one version, or for two between which calls are divided."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._resources = registry.resources
        self._versions = VersionOperations(registry)

    def routes(self) -> dict[tuple[str, str], Handler]:
        """By method and path below the owner's."""
        return {
            ("POST", "O/aliases"): self.create,
            ("GET", "O/aliases"): self.list_all,
            ("GET", "O/aliases/{alias}"): self.get,
            ("PUT", "O/aliases/{alias}"): self.update,
            ("DELETE", "O/aliases/{alias}"): self.delete,
        }

    async def create(self, call: Call) -> Reply:
        """CreateAlias."""
        values = call.document
        name = names.check_alias(values.get("aliasName"))
        moment = rendering.time_text(self._registry.clock.wall())
        document = self._read(call, values, {"aliasName": name, "createdTime": moment})
        try:
            self._resources.put(ALIAS, f"{call.owner}/{name}", document, create=True)
        except Conflict as error:
            raise ApiFailure("AliasAlreadyExists", f"alias '{name}' already exists") from error
        return shown(document)

    async def get(self, call: Call) -> Reply:
        """GetAlias."""
        return shown(self._alias(call))

    async def list_all(self, call: Call) -> Reply:
        """ListAliases."""
        self._owner(call)
        documents = dict(self._registry.below(ALIAS, call.owner))
        page, following = rendering.page(documents, call.query)
        body: dict[str, Any] = {"aliases": [documents[name] for name in page]}
        return Reply(200, body | ({"nextToken": following} if following else {}))

    async def update(self, call: Call) -> Reply:
        """UpdateAlias: what is not given stays."""
        old = self._alias(call)
        call.expect(rendering.etag(old))
        given = {name: value for name, value in call.document.items() if value is not None}
        document = self._read(call, {**old, **given}, old)
        self._resources.put(ALIAS, f"{call.owner}/{old['aliasName']}", document)
        return shown(document)

    async def delete(self, call: Call) -> Reply:
        """DeleteAlias."""
        call.expect(rendering.etag(self._alias(call)))
        self._resources.remove(ALIAS, f"{call.owner}/{call.values['alias']}")
        return NO_CONTENT

    def _alias(self, call: Call) -> Mapping[str, Any]:
        self._owner(call)
        name = call.values["alias"]
        try:
            return self._resources.get(ALIAS, f"{call.owner}/{name}")
        except NotFound as error:
            raise alias_not_found(name, call.values.get("function", ""), call.service) from error

    def _owner(self, call: Call) -> None:
        if call.generation.has_services:
            self._registry.service(call.service)
        else:
            self._registry.record(call.function)

    def _read(self, call: Call, values: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
        version = values.get("versionId")
        if not isinstance(version, str) or not version.isdecimal():
            raise invalid("versionId has to be the number of a version, as a text")
        weights = values.get("additionalVersionWeight") or {}
        _check_weights(weights, version)
        for number in (version, *weights):
            self._versions.require(call, number)
        if values.get("resolvePolicy") not in (None, "", "Random"):
            raise not_built(f"The resolvePolicy {values['resolvePolicy']} of aliases")
        return {
            "aliasName": kept["aliasName"],
            "versionId": version,
            "description": str(values.get("description") or ""),
            "additionalVersionWeight": dict(weights),
            "createdTime": kept["createdTime"],
            "lastModifiedTime": rendering.time_text(self._registry.clock.wall()),
        }


def _check_weights(weights: object, version: str) -> None:
    if not isinstance(weights, dict) or len(weights) > 1:
        raise invalid("additionalVersionWeight may name one version beside versionId")
    for number, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1:
            raise invalid("a weight in additionalVersionWeight has to be a number from 0 to 1")
        if number == version:
            raise invalid("additionalVersionWeight has to name another version than versionId")


def _read(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a service. Raises ApiFailure for what is not built."""
    for name, what in _REFUSED.items():
        given = values.get(name) or {}
        if isinstance(given, dict) and given.get("mountPoints"):
            raise not_built(what)
    if values.get("internetAccess") is False:
        raise not_built("Services without access to the internet (internetAccess: false)")
    return {name: values[name] for name in _KEPT if values.get(name) is not None}


def _visible(document: Mapping[str, Any]) -> dict[str, Any]:
    return {"internetAccess": True} | {name: value for name, value in document.items() if name != _NEXT}


def _shown(document: Mapping[str, Any]) -> Reply:
    return shown(_visible(document))

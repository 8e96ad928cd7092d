"""Operations on functions: create, read, list, change, delete."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast
from uuid import uuid4

from torpor.api.aws.code_links import CodeLinks
from torpor.api.fc.call import NO_CONTENT, Call, Handler, Reply
from torpor.api.fc.packages import PackageSource
from torpor.api.fc.registry import ALIAS, ASYNC, CONCURRENCY, PROVISION, TRIGGER, Registry
from torpor.contracts.function_compute import configuration, limits, names, rendering
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid, not_built
from torpor.contracts.function_compute.rendering import CHECKSUM, CREATED, IDENTITY, LAYER_SIZES
from torpor.model.errors import Conflict, NotFound
from torpor.model.function import FunctionRecord, VersionRecord
from torpor.service.changes import Changes, NewFunction

CONTRACT = "function_compute"
"""What the platform calls the contract that these functions are served by."""


class FunctionOperations:
    """The control plane's view of the function service."""

    def __init__(
        self,
        registry: Registry,
        source: PackageSource,
        links: CodeLinks,
        prepare: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._registry = registry
        self._functions = registry.functions
        self._source = source
        self._links = links
        self._prepare = prepare

    def routes(self) -> dict[tuple[str, str], Handler]:
        """By method and path below the function's or service's."""
        return {
            ("POST", "F"): self.create,
            ("GET", "F"): self.list_all,
            ("GET", "F/{function}"): self.get,
            ("PUT", "F/{function}"): self.update,
            ("DELETE", "F/{function}"): self.delete,
            ("GET", "F/{function}/code"): self.code,
        }

    async def create(self, call: Call) -> Reply:
        """CreateFunction."""
        values = call.document
        function = names.check_name(values.get("functionName"), "functionName")
        record = names.record_name(function, call.service)
        self._check_free(record, function, call)
        changes = self._changes(configuration.kept(values), function, call)
        region = call.place.region
        archive, checksum = await self._source.archive_of(
            values.get("code"), region, expected=call.headers.get("x-fc-code-checksum")
        )
        moment = rendering.time_text(self._registry.clock.wall())
        changes["settings"] |= {CHECKSUM: checksum, CREATED: moment, IDENTITY: str(uuid4())}
        new = NewFunction(
            name=record,
            resource=call.place.function_arn(function, call.service),
            contract=CONTRACT,
            runtime=changes.pop("runtime"),
            handler=changes.pop("handler"),
            configuration=cast(Changes, changes),
            tags=_tags(values),
        )
        try:
            made = await self._functions.create(new, archive)
        except Conflict as error:
            raise _exists(function, call.service) from error
        if self._prepare is not None:
            await self._prepare(made.latest.version.runtime)
        return self._shown(made, made.latest, call)

    async def get(self, call: Call) -> Reply:
        """GetFunction."""
        version = self._registry.resolve(call.function, call.service, call.qualifier)
        return self._shown(self._functions.get(call.record), version, call)

    async def list_all(self, call: Call) -> Reply:
        """ListFunctions: by name; of a service, or of all functions that are in none."""
        if "tags" in call.query:
            raise not_built("Listing functions by tags")
        records = {names.function_of(record.name): record for record in self._listed(call)}
        page, following = rendering.page(records, call.query)
        shown = [
            rendering.function(records[name].latest, records[name].tags, call.place, call.generation) for name in page
        ]
        return Reply(200, {"functions": shown} | ({"nextToken": following} if following else {}))

    async def update(self, call: Call) -> Reply:
        """UpdateFunction: what is not given stays."""
        values = call.document
        old = self._registry.record(call.function, call.service)
        call.expect(rendering.function_etag(old))
        before = {name: value for name, value in old.latest.settings.items() if name not in rendering.INTERNAL}
        changes = self._changes(before | configuration.kept(values), call.function, call)
        if values.get("code"):
            archive, checksum = await self._source.archive_of(
                values["code"], call.place.region, expected=call.headers.get("x-fc-code-checksum")
            )
            changes["settings"][CHECKSUM] = checksum
            expected = old.latest.version.revision if call.headers.get("if-match") else None
            record = await self._functions.update_code(
                old.name, archive, expected_revision=expected, changes=cast(Changes, changes)
            )
        else:
            record = self._functions.update_configuration(old.name, cast(Changes, changes))
        return self._shown(record, record.latest, call)

    async def delete(self, call: Call) -> Reply:
        """DeleteFunction; triggers have to be gone before."""
        record = self._registry.record(call.function, call.service)
        call.expect(rendering.function_etag(record))
        if any(self._registry.below(TRIGGER, record.name)):
            raise ApiFailure("FunctionNotEmpty", f"function '{call.function}' has active triggers")
        self._functions.delete(record.name)
        self._registry.forget(record.name, PROVISION, CONCURRENCY, ASYNC, *(() if call.service else (ALIAS,)))
        return NO_CONTENT

    async def code(self, call: Call) -> Reply:
        """GetFunctionCode: a link to the package, good for ten minutes."""
        version = self._registry.resolve(call.function, call.service, call.qualifier)
        name = f"{call.record}@{version.version.version}"
        url = call.base_url + self._links.make(name, version.version.code.digest)
        return Reply(200, {"url": url, "checksum": version.settings.get(CHECKSUM, "")})

    async def archive(self, path: str, query: str) -> bytes:
        """The package behind a link. Raises AccessDenied and NotFound."""
        name, digest = self._links.open(path, query)
        record, _, qualifier = name.rpartition("@")
        if self._functions.resolve(record, qualifier).version.code.digest != digest:
            raise NotFound("The function has other code by now; ask for a new link.")
        return await self._functions.archive_of(record, qualifier)

    def _listed(self, call: Call) -> list[FunctionRecord]:
        if call.generation.has_services:
            self._registry.service(call.service)
            return self._at(self._registry.of_service(call.service), call.qualifier)
        found = [self._functions.get(name) for name in self._functions.names(names.SPACE)]
        wanted = call.query.get("runtime") or ""
        return [
            record
            for record in found
            if not names.service_of(record.name) and wanted in ("", record.latest.version.runtime)
        ]

    def _at(self, records: list[FunctionRecord], qualifier: str) -> list[FunctionRecord]:
        """The functions that have the version asked for."""
        if not qualifier:
            return records
        return [record for record in records if qualifier in record.versions]

    def _shown(self, record: FunctionRecord, version: VersionRecord, call: Call) -> Reply:
        document = rendering.function(version, record.tags, call.place, call.generation)
        return Reply(200, document, version.version.revision)

    def _check_free(self, record: str, function: str, call: Call) -> None:
        # Before the package is fetched or unpacked; the service checks again when it keeps the function.
        if call.service:
            self._registry.service(call.service)
            if len(self._registry.of_service(call.service)) >= limits.SERVICE_FUNCTIONS_MAX:
                message = f"service '{call.service}' has {limits.SERVICE_FUNCTIONS_MAX} functions already"
                raise ApiFailure("LimitExceededError", message)
        try:
            self._functions.get(record)
        except NotFound:
            return
        raise _exists(function, call.service)

    def _changes(self, config: Mapping[str, Any], function: str, call: Call) -> dict[str, Any]:
        """What is set of the function; `config` is its whole configuration, new and old."""
        whole = dict(config)
        if call.service:
            whole |= _inherited(self._registry.service(call.service))
        changes = configuration.derived(whole, function, call.service, call.place, call.generation)
        refs, sizes = {}, {}
        for arn in config.get("layers") or ():
            layer = self._layer(arn)
            refs[arn], sizes[arn] = layer.code, layer.code.packed_bytes
        # The first layer of the list wins over the others; the platform lays later ones over earlier ones.
        changes["layers"] = tuple(reversed(refs.values()))
        changes["settings"] = dict(config) | {LAYER_SIZES: sizes}
        return changes

    def _layer(self, arn: str) -> Any:
        name, number = names.layer_of(arn)
        try:
            return self._registry.layers.get(f"{names.SPACE}/{name}", number)
        except NotFound as error:
            raise ApiFailure("LayerVersionNotFound", f"layer version '{arn}' does not exist") from error


def _inherited(service: Mapping[str, Any]) -> dict[str, Any]:
    """What functions have of their service."""
    return {name: service[name] for name in ("role", "logConfig") if service.get(name)}


def _tags(values: Mapping[str, Any]) -> dict[str, str]:
    """Clients send an empty list when there are none, and spell a tag's fields in either case."""
    given = values.get("tags") or []
    if not isinstance(given, list) or not all(isinstance(tag, dict) for tag in given):
        raise invalid("tags has to be a list of objects with key and value")
    if len(given) > limits.TAGS_MAX:
        raise invalid(f"a function has at most {limits.TAGS_MAX} tags")
    tags = {
        str(tag.get("key") or tag.get("Key") or ""): str(tag.get("value") or tag.get("Value") or "") for tag in given
    }
    if "" in tags:
        raise invalid("a tag needs a key")
    return tags


def _exists(function: str, service: str) -> ApiFailure:
    where = f" in service '{service}'" if service else ""
    return ApiFailure("FunctionAlreadyExists", f"function '{function}' already exists{where}")

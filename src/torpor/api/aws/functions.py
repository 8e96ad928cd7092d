"""Operations on functions: create, read, list, change, delete."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from torpor.api.aws.call import Call, Handler, Reply, about
from torpor.api.aws.capacity import CapacityOperations
from torpor.api.aws.code_links import CodeLinks
from torpor.api.aws.code_signing import SigningOperations
from torpor.api.aws.layers import LayerOperations
from torpor.api.aws.lookup import Lookup, published
from torpor.api.aws.packages import PackageSource, check_archive
from torpor.api.aws.paging import marker_of, next_marker, page, page_size
from torpor.api.aws.versions import check_publishing, publish
from torpor.contracts.lambda_ import capacity, configuration, limits, rendering, snap_start
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter
from torpor.contracts.lambda_.names import FunctionName, Place, require_unqualified
from torpor.contracts.lambda_.operations import Shape
from torpor.contracts.lambda_.rendering import Moment
from torpor.contracts.lambda_.tenancy import check_tenancy
from torpor.model.errors import Conflict, NotFound, PreconditionFailed, TorporError
from torpor.model.function import LATEST, FunctionRecord, VersionRecord
from torpor.service.attachments import Attachments
from torpor.service.functions import Changes, Functions, NewFunction

CONTRACT = "lambda"
"""What the platform calls the contract that standard functions are served by."""

_OF_SNAPSHOTS = ("runtime", "tmp_mb", "snapshots")
"""What says whether a version can be saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What the operations on functions work with, beside the functions themselves."""

    lookup: Lookup
    layers: LayerOperations
    capacity: CapacityOperations
    attachments: Attachments
    signing: SigningOperations
    source: PackageSource
    links: CodeLinks
    shapes: Mapping[str, Shape]
    prepare: Callable[[str], Awaitable[None]] | None = None


class FunctionOperations:
    """The control plane's view of the function service."""

    def __init__(self, functions: Functions, beside: Beside) -> None:
        self._functions = functions
        self._beside = beside
        self._lookup = beside.lookup

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "CreateFunction": self.create,
            "GetFunction": self.get,
            "GetFunctionConfiguration": self.get_configuration,
            "ListFunctions": self.list,
            "UpdateFunctionCode": self.update_code,
            "UpdateFunctionConfiguration": self.update_configuration,
            "DeleteFunction": self.delete,
        }

    async def create(self, call: Call) -> Reply:
        """CreateFunction: check everything, take the package in, show the function as it is being made."""
        named, values = call.function, call.values
        require_unqualified(named)
        memory_max = limits.MANAGED_MEMORY_MAX_MB if capacity.CONFIG in values else limits.MEMORY_MAX_MB
        configuration.check_new(values, call.place, self._beside.shapes, memory_max=memory_max)
        if snap_start.wanted(values):
            tmp_mb = values.get("EphemeralStorage", {}).get("Size", limits.TMP_DEFAULT_MB)
            snap_start.check(values["Runtime"], tmp_mb, managed=capacity.CONFIG in values)
        new = self._new_function(named, call)
        check_publishing(new.contract, values)
        signing = values.get("CodeSigningConfigArn", "")
        with about(call, named):
            self._check_free(named.name)
            self._beside.signing.check_package(named.name, call.place, signing)
            archive = await self._beside.source.archive_of(values["Code"], call.place.region)
            try:
                record = await self._functions.create(new, archive)
            except Conflict as error:
                raise _exists(named.name) from error
            if signing:
                self._attach_signing(named.name, signing, call.place)
            made = self._published(record, values)
        if self._beside.prepare is not None:
            await self._beside.prepare(record.latest.version.runtime)
        return Reply(201, self._lookup.shown(made, Moment.CREATED))

    async def get(self, call: Call) -> Reply:
        """GetFunction: configuration, a link to the package, tags and reserved concurrency."""
        named = call.function
        record, kept = self._lookup.record(call, named), self._lookup.version(call, named)
        link = call.base_url + self._beside.links.make(record.name, kept.version.code.digest)
        return Reply(200, rendering.function(record, self._lookup.shown(kept, Moment.SETTLED, named.qualifier), link))

    async def get_configuration(self, call: Call) -> Reply:
        """GetFunctionConfiguration."""
        named = call.function
        return Reply(200, self._lookup.shown(self._lookup.version(call, named), Moment.SETTLED, named.qualifier))

    async def list(self, call: Call) -> Reply:
        """ListFunctions: pages of at most 50, by name; every version of each if all are asked for."""
        if call.values.get("FunctionVersion") == "ALL":
            records = map(self._functions.get, self._functions.names())
            versions, following = page((item for record in records for item in published(record)), call.values)
            items = [rendering.configuration(kept, Moment.LISTED, kept.version.version) for kept in versions]
            return Reply(200, {"Functions": items, **following})
        found, last = self._functions.page(marker_of(call.values), page_size(call.values))
        items = [rendering.configuration(record.latest, Moment.LISTED) for record in found]
        return Reply(200, {"Functions": items, **next_marker(last)})

    async def update_code(self, call: Call) -> Reply:
        """UpdateFunctionCode; with DryRun only the checks."""
        named, values = call.function, call.values
        require_unqualified(named)
        with self._lookup.updating(call, named) as record, about(call, named):
            _check_code_update(record, values)
            _check_revision(record, values.get("RevisionId"))
            self._beside.signing.check_package(named.name, call.place)
            archive = await self._beside.source.archive_of(values, call.place.region)
            if values.get("DryRun"):
                await check_archive(archive)
                return Reply(200, rendering.configuration(record.latest, Moment.SETTLED))
            given = {name: values[name] for name in ("Architectures",) if name in values}
            changes = cast(Changes, configuration.changes(given))
            record = await self._functions.update_code(
                named.name, archive, expected_revision=values.get("RevisionId"), changes=changes
            )
            made = self._published(record, {**values, "RevisionId": None})
        moment = Moment.UPDATED if made is record.latest else Moment.SETTLED
        return Reply(200, self._lookup.shown(made, moment))

    async def update_configuration(self, call: Call) -> Reply:
        """UpdateFunctionConfiguration: what is not given stays."""
        named, values = call.function, call.values
        require_unqualified(named)
        with self._lookup.updating(call, named) as record:
            changes = self._checked_changes(call, named, record)
            with about(call, named):
                record = self._functions.update_configuration(
                    named.name, changes, expected_revision=values.get("RevisionId")
                )
        return Reply(200, self._lookup.shown(record.latest, Moment.UPDATED))

    def _checked_changes(self, call: Call, named: FunctionName, record: FunctionRecord) -> Changes:
        values = call.values
        managed = record.latest.version.contract == capacity.CONTRACT
        memory_max = limits.MANAGED_MEMORY_MAX_MB if managed else limits.MEMORY_MAX_MB
        configuration.check_settings(values, call.place, self._beside.shapes, memory_max=memory_max)
        check_tenancy(values, per_tenant=record.latest.version.per_tenant)
        if values.get("Layers"):
            self._beside.signing.check_package(named.name, call.place)
        fields = self._on_capacity(configuration.changes(values), call, record.latest)
        after = replace(record.latest.version, **{name: fields[name] for name in _OF_SNAPSHOTS if name in fields})
        if after.snapshots:
            snap_start.check(after.runtime, after.tmp_mb, managed=managed)
        return cast(Changes, self._beside.layers.with_layers(fields, call))

    async def delete(self, call: Call) -> Reply:
        """DeleteFunction: all of it, or the version that is named."""
        named = call.function
        record = self._lookup.record(call, named)
        if named.qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        if named.qualifier in record.aliases:
            raise invalid_parameter(
                "The qualifier of DeleteFunction names a version; delete an alias with DeleteAlias."
            )
        with about(call, named):
            if named.qualifier:
                self._functions.check_deletable(named.name, named.qualifier)
            self._beside.attachments.forget(named.name, named.qualifier or None)
            if named.qualifier:
                self._functions.delete_version(named.name, named.qualifier)
            else:
                self._functions.delete(named.name)
        return Reply(204)

    def _attach_signing(self, name: str, arn: str, place: Place) -> None:
        """The configuration may have been deleted while the package was fetched: then there is no function either."""
        try:
            self._beside.signing.attach(name, arn, place)
        except TorporError:
            self._functions.delete(name)
            raise

    def _published(self, record: FunctionRecord, values: Mapping[str, Any]) -> VersionRecord:
        """What a call has made: a published version if it asks for one, else the newest."""
        if not (values.get("Publish") or values.get("PublishTo")):
            return record.latest
        return publish(self._functions, record, values)

    def _on_capacity(self, fields: dict[str, Any], call: Call, old: VersionRecord | None) -> dict[str, Any]:
        """A function's changes with what follows from the capacity provider it runs on, if it does."""
        config = call.values.get(capacity.CONFIG)
        if old is None:
            kept = None
        elif old.version.contract == capacity.CONTRACT:
            kept = old.settings[capacity.CONFIG]
        elif config:
            raise invalid_parameter("A function that was created without a capacity provider cannot be moved to one.")
        else:
            return fields
        config = config or kept
        if not config:
            return fields
        self._beside.capacity.require(capacity.provider_of({capacity.CONFIG: config}), call.place)
        managed = capacity.managed_fields(
            config,
            runtime=fields.get("runtime", old.version.runtime if old else ""),
            memory_mb=fields.get("memory_mb", old.version.memory_mb if old else None),
            log_format=fields.get("log_format", "JSON"),
        )
        return {**fields, **managed, "settings": {**fields.get("settings", {}), **managed["settings"]}}

    def _check_free(self, name: str) -> None:
        # Before the package is fetched or unpacked; the service checks again when it keeps the function.
        with suppress(NotFound):
            self._functions.get(name)
            raise _exists(name)

    def _new_function(self, named: FunctionName, call: Call) -> NewFunction:
        fields = self._on_capacity(configuration.changes(call.values), call, None)
        fields = self._beside.layers.with_layers(fields, call)
        fields["region"], fields["account"] = call.place.region, call.place.account
        fields.setdefault("log_group", configuration.default_log_group(named.name))
        return NewFunction(
            name=named.name,
            resource=call.place.function_arn(named.name),
            contract=capacity.CONTRACT if capacity.CONFIG in call.values else CONTRACT,
            runtime=fields.pop("runtime"),
            handler=fields.pop("handler"),
            configuration=cast(Changes, fields),
            tags=call.values.get("Tags", {}),
        )


def _exists(name: str) -> ApiFailure:
    return ApiFailure("ResourceConflictException", f"Function already exist: {name}")


def _check_code_update(record: FunctionRecord, values: Mapping[str, Any]) -> None:
    if values.get("ImageUri"):
        raise invalid_parameter("Please don't provide ImageUri when updating a function with packageType Zip.")
    check_publishing(record.latest.version.contract, values)


def _check_revision(record: FunctionRecord, expected: str | None) -> None:
    if expected is not None and expected != record.latest.version.revision:
        raise PreconditionFailed("The function has changed since that revision; read it again.")

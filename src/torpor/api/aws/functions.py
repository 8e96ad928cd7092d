"""Operations on functions: create, read, list, change, delete."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, cast

from torpor.api.aws.call import Call, Handler, Reply, about
from torpor.api.aws.code_links import CodeLinks
from torpor.api.aws.layers import LayerOperations
from torpor.api.aws.packages import PackageSource, check_archive
from torpor.contracts.lambda_ import configuration, limits, rendering
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter, not_built
from torpor.contracts.lambda_.names import FunctionName, require_latest, require_unqualified
from torpor.contracts.lambda_.operations import Shape
from torpor.contracts.lambda_.rendering import Moment
from torpor.model.errors import Conflict, NotFound, PreconditionFailed
from torpor.model.function import LATEST, FunctionRecord
from torpor.service.functions import Changes, Functions, NewFunction

CONTRACT = "lambda"
"""What the platform calls the contract that these functions are served by."""


class FunctionOperations:
    """The control plane's view of the function service."""

    def __init__(
        self,
        functions: Functions,
        shapes: Mapping[str, Shape],
        source: PackageSource,
        links: CodeLinks,
        layers: LayerOperations,
        prepare: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self._prepare = prepare
        self._functions = functions
        self._layers = layers
        self._shapes = shapes
        self._source = source
        self._links = links

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
        configuration.check_new(values, call.place, self._shapes)
        new = self._new_function(named, call)
        with about(call, named):
            self._check_free(named.name)
            archive = await self._source.archive_of(values["Code"], call.place.region)
            try:
                record = await self._functions.create(new, archive)
            except Conflict as error:
                raise _exists(named.name) from error
        if self._prepare is not None:
            await self._prepare(record.latest.version.runtime)
        return Reply(201, rendering.configuration(record.latest, Moment.CREATED))

    async def get(self, call: Call) -> Reply:
        """GetFunction: configuration, a link to the package, tags and reserved concurrency."""
        named = call.function
        record = self._record(call, named)
        link = call.base_url + self._links.make(record.name, record.latest.version.code.digest)
        return Reply(200, rendering.function(record, link, named.qualifier))

    async def get_configuration(self, call: Call) -> Reply:
        """GetFunctionConfiguration."""
        named = call.function
        record = self._record(call, named)
        return Reply(200, rendering.configuration(record.latest, Moment.SETTLED, named.qualifier))

    async def list(self, call: Call) -> Reply:
        """ListFunctions: pages of at most 50, by name."""
        marker, asked = call.values.get("Marker", ""), call.values.get("MaxItems", limits.PAGE_DEFAULT)
        after = decode_marker(marker) if marker else None
        records, following = self._functions.page(after, min(asked, limits.PAGE_DEFAULT))
        qualified = call.values.get("FunctionVersion") == "ALL"
        body: dict[str, Any] = {"Functions": [rendering.listed(record, qualified=qualified) for record in records]}
        if following is not None:
            body["NextMarker"] = encode_marker(following)
        return Reply(200, body)

    async def update_code(self, call: Call) -> Reply:
        """UpdateFunctionCode; with DryRun only the checks."""
        named, values = call.function, call.values
        require_unqualified(named)
        record = self._record(call, named)
        _check_code_update(values)
        with about(call, named):
            _check_revision(record, values.get("RevisionId"))
            archive = await self._source.archive_of(values, call.place.region)
            if values.get("DryRun"):
                await check_archive(archive)
                return Reply(200, rendering.configuration(record.latest, Moment.SETTLED))
            given = {name: values[name] for name in ("Architectures",) if name in values}
            changes = cast(Changes, configuration.changes(given))
            record = await self._functions.update_code(
                named.name, archive, expected_revision=values.get("RevisionId"), changes=changes
            )
        return Reply(200, rendering.configuration(record.latest, Moment.UPDATED))

    async def update_configuration(self, call: Call) -> Reply:
        """UpdateFunctionConfiguration: what is not given stays."""
        named, values = call.function, call.values
        require_unqualified(named)
        self._record(call, named)
        configuration.check_settings(values, call.place, self._shapes)
        changes = cast(Changes, self._layers.with_layers(configuration.changes(values), call))
        with about(call, named):
            record = self._functions.update_configuration(
                named.name, changes, expected_revision=values.get("RevisionId")
            )
        return Reply(200, rendering.configuration(record.latest, Moment.UPDATED))

    async def delete(self, call: Call) -> Reply:
        """DeleteFunction."""
        named = call.function
        self._record(call, named)
        if named.qualifier == LATEST:
            raise invalid_parameter("$LATEST version cannot be deleted without deleting the function.")
        with about(call, named):
            self._functions.delete(named.name)
        return Reply(204)

    def _record(self, call: Call, named: FunctionName) -> FunctionRecord:
        with about(call, named):
            record = self._functions.get(named.name)
        require_latest(named, call.place)
        return record

    def _check_free(self, name: str) -> None:
        # Before the package is fetched or unpacked; the service checks again when it keeps the function.
        with suppress(NotFound):
            self._functions.get(name)
            raise _exists(name)

    def _new_function(self, named: FunctionName, call: Call) -> NewFunction:
        fields = self._layers.with_layers(configuration.changes(call.values), call)
        fields["region"], fields["account"] = call.place.region, call.place.account
        fields.setdefault("log_group", configuration.default_log_group(named.name))
        return NewFunction(
            name=named.name,
            resource=call.place.function_arn(named.name),
            contract=CONTRACT,
            runtime=fields.pop("runtime"),
            handler=fields.pop("handler"),
            configuration=cast(Changes, fields),
            tags=call.values.get("Tags", {}),
        )


def encode_marker(name: str) -> str:
    """The opaque text that stands for the last function of a page."""
    return base64.urlsafe_b64encode(name.encode()).decode()


def decode_marker(marker: str) -> str:
    """The name behind a marker. Raises ApiFailure for a text that never was one."""
    try:
        return base64.b64decode(marker, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise invalid_parameter(f"The Marker {marker} is not valid. Start again without one.") from error


def _exists(name: str) -> ApiFailure:
    return ApiFailure("ResourceConflictException", f"Function already exist: {name}")


def _check_code_update(values: Mapping[str, Any]) -> None:
    if values.get("ImageUri"):
        raise invalid_parameter("Please don't provide ImageUri when updating a function with packageType Zip.")
    for name in ("Publish", "PublishTo"):
        if values.get(name):
            raise not_built(name)


def _check_revision(record: FunctionRecord, expected: str | None) -> None:
    if expected is not None and expected != record.latest.version.revision:
        raise PreconditionFailed("The function has changed since that revision; read it again.")

"""Operations on layers, and how functions refer to them."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.code_links import CodeLinks
from torpor.api.aws.packages import PackageSource
from torpor.contracts.lambda_ import layers as wire
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter, told_of_function
from torpor.contracts.lambda_.names import Place
from torpor.model.errors import NotFound, TorporError
from torpor.model.layer import LayerVersion
from torpor.service.layers import Layers, NewLayer
from torpor.service.resources import Resources

LAYER_POLICY = "layer policy"
"""The kind of resource that a layer version's policy is."""
_LINK = "layer:"
_Item = TypeVar("_Item")


class LayerOperations:
    """The control plane's view of the layer service."""

    def __init__(self, layers: Layers, source: PackageSource, links: CodeLinks, resources: Resources) -> None:
        self._layers = layers
        self._resources = resources
        self._source = source
        self._links = links

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "PublishLayerVersion": self.publish,
            "GetLayerVersion": self.get,
            "GetLayerVersionByArn": self.get_by_arn,
            "ListLayers": self.list,
            "ListLayerVersions": self.list_versions,
            "DeleteLayerVersion": self.delete,
        }

    async def publish(self, call: Call) -> Reply:
        """PublishLayerVersion: the package becomes the layer's next version."""
        values = call.values
        new = NewLayer(
            name=wire.layer_name(values["LayerName"], call.place),
            description=values.get("Description", ""),
            license=values.get("LicenseInfo", ""),
            runtimes=tuple(values.get("CompatibleRuntimes", ())),
            architectures=tuple(values.get("CompatibleArchitectures", ())),
        )
        archive = await self._source.archive_of(values["Content"], call.place.region)
        try:
            layer = await self._layers.publish(new, archive)
        except TorporError as error:
            raise told_of_function(error, wire.layer_arn(call.place, new.name)) from error
        return Reply(201, self._reply(layer, call))

    async def get(self, call: Call) -> Reply:
        """GetLayerVersion."""
        return Reply(200, self._reply(found_version(self._layers, call), call))

    async def get_by_arn(self, call: Call) -> Reply:
        """GetLayerVersionByArn."""
        named = wire.named_version(call.values["Arn"], call.place)
        if named is None:
            raise ApiFailure("ResourceNotFoundException", wire.absent_text(call.values["Arn"]))
        return Reply(200, self._reply(_version(self._layers, *named, call.place), call))

    async def list(self, call: Call) -> Reply:
        """ListLayers: each with its newest version that fits what is asked for, by name."""
        items = []
        for name in self._layers.names():
            fitting = [layer for layer in self._layers.versions(name) if _fits(layer, call.values)]
            if fitting:
                newest = wire.version_item(fitting[0], call.place)
                arn = wire.layer_arn(call.place, name)
                items.append({"LayerName": name, "LayerArn": arn, "LatestMatchingVersion": newest})
        return Reply(200, _page("Layers", items, call.values))

    async def list_versions(self, call: Call) -> Reply:
        """ListLayerVersions: those that fit what is asked for, newest first."""
        name = wire.layer_name(call.values["LayerName"], call.place)
        fitting = (layer for layer in self._layers.versions(name) if _fits(layer, call.values))
        items = [wire.version_item(layer, call.place) for layer in fitting]
        return Reply(200, _page("LayerVersions", items, call.values))

    async def delete(self, call: Call) -> Reply:
        """DeleteLayerVersion; functions that use it go on with it."""
        name, number = wire.layer_name(call.values["LayerName"], call.place), call.values["VersionNumber"]
        with suppress(NotFound):
            self._resources.remove(LAYER_POLICY, f"{name}:{number}")
        self._layers.delete(name, number)
        return Reply(204)

    def with_layers(self, fields: dict[str, Any], call: Call) -> dict[str, Any]:
        """A function's changes with the layers that the call names, if it names any. Raises ApiFailure."""
        arns = call.values.get("Layers")
        if arns is None:
            return fields
        found = [self._used(arn, call.place) for arn in arns]
        shown = [wire.used_layer(arn, layer) for arn, layer in zip(arns, found, strict=True)]
        settings = {**fields.get("settings", {}), "Layers": shown or None}
        return {**fields, "layers": tuple(layer.code for layer in found), "settings": settings}

    async def archive_of(self, link: str) -> bytes:
        """The package that a link's name stands for. Raises NotFound."""
        name, _, number = link.removeprefix(_LINK).rpartition(":")
        return await self._layers.archive_of(name, int(number))

    def _used(self, arn: str, place: Place) -> LayerVersion:
        named = wire.named_version(arn, place)
        try:
            if named is not None:
                return self._layers.get(*named)
        except NotFound as error:
            raise invalid_parameter(wire.absent_text(arn)) from error
        raise invalid_parameter(wire.absent_text(arn))

    def _reply(self, layer: LayerVersion, call: Call) -> dict[str, Any]:
        link = call.base_url + self._links.make(f"{_LINK}{layer.name}:{layer.number}", layer.code.digest)
        return wire.version_reply(layer, call.place, link)


def found_version(layers: Layers, call: Call) -> LayerVersion:
    """The layer version that a call names. Raises ApiFailure."""
    number: int = call.values["VersionNumber"]
    if number < 1:
        raise invalid_parameter("Layer Version Cannot be less than 1.")
    return _version(layers, wire.layer_name(call.values["LayerName"], call.place), number, call.place)


def _version(layers: Layers, name: str, number: int, place: Place) -> LayerVersion:
    try:
        return layers.get(name, number)
    except NotFound as error:
        text = wire.absent_text(f"{wire.layer_arn(place, name)}:{number}")
        raise ApiFailure("ResourceNotFoundException", text) from error


def is_layer_link(name: str) -> bool:
    """Does a link's name stand for a layer's package?"""
    return name.startswith(_LINK)


def _fits(layer: LayerVersion, values: Mapping[str, Any]) -> bool:
    runtime, architecture = values.get("CompatibleRuntime"), values.get("CompatibleArchitecture")
    return (runtime is None or runtime in layer.runtimes) and (
        architecture is None or architecture in layer.architectures
    )


def _page(key: str, items: Iterable[_Item], values: Mapping[str, Any]) -> dict[str, Any]:
    """One page of a list; the marker is the number of items before the next one."""
    marker = values.get("Marker", "0")
    if not marker.isdecimal():
        raise invalid_parameter(f"The Marker {marker} is not valid. Start again without one.")
    first = int(marker)
    rest = list(items)[first:]
    size = min(values.get("MaxItems", limits.PAGE_DEFAULT), limits.PAGE_DEFAULT)
    body: dict[str, Any] = {key: rest[:size]}
    if len(rest) > size:
        body["NextMarker"] = str(first + size)
    return body

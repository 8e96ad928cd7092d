"""Layers: packages that functions show beside their own code."""

from typing import Any

from torpor.api.aws.code_links import CodeLinks
from torpor.api.fc.call import NO_CONTENT, Call, Handler, Reply
from torpor.api.fc.packages import PackageSource
from torpor.api.fc.registry import Registry
from torpor.contracts.function_compute import limits, names, rendering
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid
from torpor.model.errors import NotFound
from torpor.model.layer import LayerVersion
from torpor.service.layers import NewLayer

LINK = "layers/"


class LayerOperations:
    """The layers of this contract; their names stand in a space of their own."""

    def __init__(self, registry: Registry, source: PackageSource, links: CodeLinks) -> None:
        self._registry = registry
        self._layers = registry.layers
        self._source = source
        self._links = links

    def routes(self) -> dict[tuple[str, str], Handler]:
        return {
            ("POST", "/layers/{layer}/versions"): self.publish,
            ("GET", "/layers/{layer}/versions"): self.list_versions,
            ("GET", "/layers/{layer}/versions/{number}"): self.get,
            ("DELETE", "/layers/{layer}/versions/{number}"): self.delete,
            ("GET", "/layers"): self.list_all,
            ("GET", "/layerarn/{arn}"): self.get_by_arn,
        }

    async def publish(self, call: Call) -> Reply:
        """CreateLayerVersion."""
        values = call.document
        name = names.check_name(call.values["layer"], "layerName")
        archive, checksum = await self._source.archive_of(values.get("code") or values.get("Code"), call.place.region)
        if len(archive) > limits.LAYER_MAX:
            raise invalid(f"a layer's package has at most {limits.LAYER_MAX} bytes")
        runtimes = values.get("compatibleRuntime") or []
        if not isinstance(runtimes, list):
            raise invalid("compatibleRuntime has to be a list")
        new = NewLayer(
            name=f"{names.SPACE}/{name}",
            description=call.text("description"),
            license=call.text("license"),
            runtimes=tuple(str(item) for item in runtimes),
        )
        return Reply(200, self._shown(await self._layers.publish(new, archive), call) | {"codeChecksum": checksum})

    async def get(self, call: Call) -> Reply:
        """GetLayerVersion."""
        return Reply(200, self._shown(self._layer(call.values["layer"], call.values["number"]), call))

    async def get_by_arn(self, call: Call) -> Reply:
        """GetLayerVersionByArn."""
        name, number = names.layer_of(call.values["arn"])
        return Reply(200, self._shown(self._layer(name, str(number)), call))

    async def list_versions(self, call: Call) -> Reply:
        """ListLayerVersions: newest first, from `startVersion` on."""
        start = call.query.get("startVersion") or ""
        known = self._layers.versions(f"{names.SPACE}/{call.values['layer']}")
        found = [layer for layer in known if not start.isdecimal() or layer.number <= int(start)]
        size = rendering.page_size(call.query)
        body: dict[str, Any] = {"layers": [self._shown(layer, call) for layer in found[:size]]}
        return Reply(200, body | ({"nextVersion": found[size].number} if len(found) > size else {}))

    async def list_all(self, call: Call) -> Reply:
        """ListLayers: the newest version of each."""
        prefix = f"{names.SPACE}/"
        known = [name.removeprefix(prefix) for name in self._layers.names(names.SPACE)]
        page, following = rendering.page(known, call.query)
        body: dict[str, Any] = {"layers": [self._shown(self._layers.versions(prefix + name)[0], call) for name in page]}
        return Reply(200, body | ({"nextToken": following} if following else {}))

    async def delete(self, call: Call) -> Reply:
        """DeleteLayerVersion."""
        layer = self._layer(call.values["layer"], call.values["number"])
        self._layers.delete(layer.name, layer.number)
        return NO_CONTENT

    async def archive(self, name: str) -> bytes:
        """The package of `layers/<name>/<number>`. Raises NotFound."""
        layer, _, number = name.removeprefix(LINK).rpartition("/")
        return await self._layers.archive_of(f"{names.SPACE}/{layer}", int(number))

    def _layer(self, name: str, number: str) -> LayerVersion:
        try:
            return self._layers.get(f"{names.SPACE}/{name}", int(number) if number.isdecimal() else 0)
        except NotFound as error:
            message = f"layer '{name}' version '{number}' does not exist"
            raise ApiFailure("LayerVersionNotFound", message) from error

    def _shown(self, layer: LayerVersion, call: Call) -> dict[str, Any]:
        name = layer.name.removeprefix(f"{names.SPACE}/")
        arn = call.place.layer_arn(name, layer.number)
        link = call.base_url + self._links.make(f"{LINK}{name}/{layer.number}", layer.code.digest)
        return {
            "layerName": name,
            "version": layer.number,
            "layerVersionArn": arn,
            "arnV2": arn,
            "description": layer.description,
            "license": layer.license,
            "compatibleRuntime": list(layer.runtimes),
            "codeSize": layer.code.packed_bytes,
            "code": {"location": link, "repositoryType": "OSS"},
            "createTime": rendering.time_text(layer.created),
            "acl": "0",
        }

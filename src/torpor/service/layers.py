"""Layers: packages that functions show beside their own code."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.function import CodeRef
from torpor.model.layer import LayerVersion
from torpor.service.packages import Packages
from torpor.store.ports import MetadataStore


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLayer:
    """A layer version to publish, without its code."""

    name: str
    description: str = ""
    license: str = ""
    runtimes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


class Layers:
    """The layers of one account. Raises StoreUnavailable from every changing method when a store fails."""

    def __init__(self, metadata: MetadataStore, packages: Packages, clock: Clock) -> None:
        self._metadata = metadata
        self._packages = packages
        self._clock = clock
        self._versions: dict[str, dict[int, LayerVersion]] = {}
        for layer in metadata.layers():
            self._versions.setdefault(layer.name, {})[layer.number] = layer

    async def publish(self, new: NewLayer, archive: bytes) -> LayerVersion:
        """Keep a package as the layer's next version. Raises TooLarge and InvalidPackage for the package."""
        async with self._packages.added(archive) as code:
            layer = LayerVersion(
                name=new.name,
                number=max(self._versions.get(new.name, ()), default=0) + 1,
                code=code,
                created=self._clock.wall(),
                description=new.description,
                license=new.license,
                runtimes=new.runtimes,
                architectures=new.architectures,
            )
            self._keep(layer)
        return layer

    def get(self, name: str, number: int) -> LayerVersion:
        """Raises NotFound, for a deleted version too."""
        layer = self._versions.get(name, {}).get(number)
        if layer is None or layer.deleted:
            raise NotFound(f"There is no version {number} of the layer {name}.")
        return layer

    def versions(self, name: str) -> list[LayerVersion]:
        """Newest first; empty for a layer that does not exist."""
        known: Mapping[int, LayerVersion] = self._versions.get(name, {})
        return [known[number] for number in sorted(known, reverse=True) if not known[number].deleted]

    def names(self, space: str = "") -> list[str]:
        """Of the layers that have a version, in order; `space` is the part of their names before a slash."""
        return [name for name in sorted(self._versions) if name.rpartition("/")[0] == space and self.versions(name)]

    def delete(self, name: str, number: int) -> None:
        """Functions that use the version go on with it. Versions that are not there are passed over."""
        layer = self._versions.get(name, {}).get(number)
        if layer is not None and not layer.deleted:
            self._keep(replace(layer, deleted=True))

    async def archive_of(self, name: str, number: int) -> bytes:
        """The version's package as it was given. Raises NotFound."""
        return await self._packages.archive(self.get(name, number).code)

    def code_in_use(self) -> Iterable[CodeRef]:
        """The packages of all versions that are not deleted."""
        return [layer.code for known in self._versions.values() for layer in known.values() if not layer.deleted]

    def _keep(self, layer: LayerVersion) -> None:
        self._metadata.save_layer(layer)
        self._versions.setdefault(layer.name, {})[layer.number] = layer

"""Metadata kept in this process only: for tests and for servers that need not remember."""

from collections.abc import Iterable
from dataclasses import replace

from torpor.model.function import FunctionRecord
from torpor.model.layer import LayerVersion
from torpor.store import documents


class MemoryMetadataStore:
    """A `MetadataStore` whose content ends with it. Records pass through their saved form, so it keeps copies."""

    def __init__(self) -> None:
        self._functions: dict[str, tuple[FunctionRecord, str, str]] = {}
        self._layers: dict[tuple[str, int], str] = {}

    def functions(self) -> Iterable[FunctionRecord]:
        return [self._load(name) for name in sorted(self._functions)]

    def save(self, record: FunctionRecord) -> None:
        self._functions[record.name] = (record, documents.encode(record.latest), documents.encode(record.tags))

    def remove(self, name: str) -> None:
        self._functions.pop(name, None)

    def layers(self) -> Iterable[LayerVersion]:
        return [documents.decode_layer(self._layers[key]) for key in sorted(self._layers)]

    def save_layer(self, layer: LayerVersion) -> None:
        self._layers[layer.name, layer.number] = documents.encode(layer)

    def close(self) -> None:
        """Nothing to do: another service may go on with what is here."""

    def _load(self, name: str) -> FunctionRecord:
        record, latest, tags = self._functions[name]
        return replace(record, latest=documents.decode_version(latest), tags=documents.decode_tags(tags))

"""Metadata kept in this process only: for tests and for servers that need not remember."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torpor.model.function import FunctionRecord
from torpor.model.layer import LayerVersion
from torpor.store import documents


class MemoryMetadataStore:
    """A `MetadataStore` whose content ends with it. Records pass through their saved form, so it keeps copies."""

    def __init__(self) -> None:
        self._functions: dict[str, tuple[FunctionRecord, _Documents]] = {}
        self._layers: dict[tuple[str, int], str] = {}
        self._resources: dict[tuple[str, str], str] = {}

    def functions(self) -> Iterable[FunctionRecord]:
        return [_load(*self._functions[name]) for name in sorted(self._functions)]

    def save(self, record: FunctionRecord) -> None:
        self._functions[record.name] = (
            replace(record, versions={}),
            _Documents(
                latest=documents.encode(record.latest),
                tags=documents.encode(record.tags),
                aliases=documents.encode(record.aliases),
                versions={number: documents.encode(version) for number, version in record.versions.items()},
            ),
        )

    def remove(self, name: str) -> None:
        self._functions.pop(name, None)

    def layers(self) -> Iterable[LayerVersion]:
        return [documents.decode_layer(self._layers[key]) for key in sorted(self._layers)]

    def save_layer(self, layer: LayerVersion) -> None:
        self._layers[layer.name, layer.number] = documents.encode(layer)

    def resources(self, kind: str) -> Iterable[tuple[str, dict[str, Any]]]:
        keys = sorted(key for key in self._resources if key[0] == kind)
        return [(name, documents.decode_resource(self._resources[kind, name])) for _, name in keys]

    def save_resource(self, kind: str, name: str, document: Mapping[str, Any]) -> None:
        self._resources[kind, name] = documents.encode(document)

    def remove_resource(self, kind: str, name: str) -> None:
        self._resources.pop((kind, name), None)

    def close(self) -> None:
        """Nothing to do: another service may go on with what is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Documents:
    latest: str
    tags: str
    aliases: str
    versions: Mapping[str, str]


def _load(record: FunctionRecord, saved: _Documents) -> FunctionRecord:
    return replace(
        record,
        latest=documents.decode_version(saved.latest),
        tags=documents.decode_tags(saved.tags),
        aliases=documents.decode_aliases(saved.aliases),
        versions={number: documents.decode_version(text) for number, text in saved.versions.items()},
    )

"""Resources beside functions, by kind and name: JSON documents that only their contract understands."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torpor.model.errors import Conflict, NotFound
from torpor.store.ports import MetadataStore


class Resources:
    """Kept in memory and written through: a call returns once its change is durable.

    Raises StoreUnavailable when the store fails; nothing has changed then.
    """

    def __init__(self, store: MetadataStore) -> None:
        self._store = store
        self._known: dict[str, dict[str, Mapping[str, Any]]] = {}

    def get(self, kind: str, name: str) -> Mapping[str, Any]:
        """Raises NotFound."""
        try:
            return self._of(kind)[name]
        except KeyError:
            raise NotFound(f"There is no {kind} {name}.", what=kind) from None

    def put(self, kind: str, name: str, document: Mapping[str, Any], *, create: bool = False) -> None:
        """Insert or replace. Raises Conflict if `create` is asked for and the name is taken."""
        known = self._of(kind)
        if create and name in known:
            raise Conflict(f"The {kind} {name} exists already.")
        kept = copy.deepcopy(dict(document))
        self._store.save_resource(kind, name, kept)
        known[name] = kept

    def remove(self, kind: str, name: str) -> None:
        """Raises NotFound."""
        self.get(kind, name)
        self._store.remove_resource(kind, name)
        del self._of(kind)[name]

    def list(self, kind: str) -> Sequence[tuple[str, Mapping[str, Any]]]:
        """Name and document of all of a kind, by name."""
        known = self._of(kind)
        return [(name, known[name]) for name in sorted(known)]

    def _of(self, kind: str) -> dict[str, Mapping[str, Any]]:
        if kind not in self._known:
            self._known[kind] = dict(self._store.resources(kind))
        return self._known[kind]

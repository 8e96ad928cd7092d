"""What is set for a function, or for one of its versions or aliases, and goes with it: JSON documents by kind."""

from collections.abc import Iterable, Mapping
from typing import Any

from torpor.model.errors import NotFound
from torpor.service.resources import Resources


class Attachments:
    """Kept among the resources, found by function. A qualifier is a version's number or an alias; empty for the whole.

    Raises StoreUnavailable when the store fails; nothing has changed then.
    """

    def __init__(self, resources: Resources, kinds: Iterable[str]) -> None:
        """`kinds` are all there are: whatever is forgotten is forgotten under each of them."""
        self._resources = resources
        self._known: dict[str, dict[tuple[str, str], Mapping[str, Any]]] = {}
        for kind in kinds:
            for name, document in resources.list(kind):
                function, _, qualifier = name.rpartition(":")
                self._known.setdefault(function, {})[kind, qualifier] = document

    def find(self, kind: str, function: str, qualifier: str = "") -> Mapping[str, Any] | None:
        """The document, or None if nothing is set."""
        return self._known.get(function, {}).get((kind, qualifier))

    def of(self, kind: str, function: str) -> list[tuple[str, Mapping[str, Any]]]:
        """Qualifier and document of all of a kind that a function has, by qualifier."""
        own = self._known.get(function, {})
        return sorted((key[1], document) for key, document in own.items() if key[0] == kind)

    def functions(self, kind: str) -> list[str]:
        """The names of those that have a document of a kind, in order."""
        return sorted(name for name, own in self._known.items() if any(key[0] == kind for key in own))

    def put(self, kind: str, function: str, qualifier: str, document: Mapping[str, Any]) -> None:
        """Insert or replace. Whether the function is there is the caller's to check."""
        name = f"{function}:{qualifier}"
        self._resources.put(kind, name, document)
        self._known.setdefault(function, {})[kind, qualifier] = self._resources.get(kind, name)

    def remove(self, kind: str, function: str, qualifier: str = "") -> None:
        """Raises NotFound."""
        own = self._known.get(function, {})
        if (kind, qualifier) not in own:
            raise NotFound(f"There is no {kind} of {function}:{qualifier}.", what=kind)
        self._resources.remove(kind, f"{function}:{qualifier}")
        del own[kind, qualifier]
        if not own:
            del self._known[function]

    def forget(self, function: str, qualifier: str | None = None) -> None:
        """Remove what belongs to a version or alias; with None, to the function and everything of it.

        Call it before what it belongs to goes: if the server ends in between, a function of the same name that is made
        later inherits nothing.
        """
        for kind, own in list(self._known.get(function, {})):
            if qualifier is None or own == qualifier:
                self.remove(kind, function, own)

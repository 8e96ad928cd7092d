"""The rules of the server, each with its targets: one JSON document by the rule's name.

A document has the members that were put (`ScheduleExpression`, `State`, `Description`, `RoleArn`), `Tags` by key,
`Targets` by id, the `Region` of the rule, and `Since`: the moment from which a rate counts, in seconds since the epoch.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from torpor.contracts.eventbridge.failures import no_rule
from torpor.contracts.eventbridge.names import DEFAULT_BUS
from torpor.model.errors import NotFound
from torpor.service.resources import Resources

RULE = "event rule"
Document: TypeAlias = Mapping[str, Any]


class Rules:
    """Raises StoreUnavailable when the store fails; nothing has changed then."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def find(self, name: str) -> Document | None:
        """The rule's document; None if there is no such rule."""
        try:
            return self._resources.get(RULE, name)
        except NotFound:
            return None

    def get(self, name: str) -> Document:
        """Raises ApiFailure if there is no such rule."""
        document = self.find(name)
        if document is None:
            raise no_rule(name, DEFAULT_BUS)
        return document

    def put(self, name: str, document: Document) -> None:
        """Insert or replace."""
        self._resources.put(RULE, name, document)

    def remove(self, name: str) -> None:
        """The rule has to be there."""
        self._resources.remove(RULE, name)

    def all(self) -> Sequence[tuple[str, Document]]:
        """Every rule by name."""
        return self._resources.list(RULE)

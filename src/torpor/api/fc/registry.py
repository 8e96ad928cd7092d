"""What the operations share: functions by name and qualifier, and the documents that stand beside them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torpor.api.fc.call import alias_not_found, told_of_function
from torpor.contracts.function_compute import names
from torpor.contracts.function_compute.api_failures import ApiFailure
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.function import Alias, FunctionRecord, VersionRecord
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.service.versions import chosen

SERVICE, TRIGGER, DOMAIN, ALIAS, VERSION, PROVISION, CONCURRENCY, ASYNC = (
    "fc-service", "fc-trigger", "fc-domain", "fc-alias", "fc-version", "fc-provision", "fc-concurrency", "fc-async",
)  # fmt: skip
"""Kinds of documents. The names of those below a function begin with its record's, those below a service with
`service:<name>/`."""


class Instances(Protocol):
    """The running environments."""

    def of(self, function: str) -> list[Mapping[str, Any]]:
        """`id` (the name an instance has inside), `version`, `revision` and `created` (seconds since the epoch) of each
        that serves the function."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The services behind the API."""

    functions: Functions
    layers: Layers
    resources: Resources
    clock: Clock
    draw: Callable[[], float]
    """A number from 0 to below 1; divides an alias's calls."""

    def record(self, function: str, service: str = "") -> FunctionRecord:
        """Raises ApiFailure."""
        if service:
            self.service(service)
        try:
            return self.functions.get(names.record_name(function, service))
        except NotFound as error:
            raise told_of_function(error, function, service, "") from error

    def resolve(self, function: str, service: str, qualifier: str) -> VersionRecord:
        """The version that a call with this qualifier goes to. Raises ApiFailure."""
        record = self.record(function, service)
        wanted = "" if qualifier == names.LATEST else qualifier
        if wanted and not wanted.isdecimal():
            wanted = self._behind(wanted, function, service)
        try:
            return self.functions.resolve(record.name, wanted)
        except NotFound as error:
            raise told_of_function(error, function, service, wanted) from error

    def service(self, name: str) -> Mapping[str, Any]:
        """Raises ApiFailure."""
        try:
            return self.resources.get(SERVICE, name)
        except NotFound as error:
            raise ApiFailure("ServiceNotFound", f"service '{name}' does not exist") from error

    def of_service(self, service: str) -> list[FunctionRecord]:
        """The functions of a service, by name."""
        prefix = names.record_name("", service)
        return [self.functions.get(name) for name in self.functions.names(names.SPACE) if name.startswith(prefix)]

    def below(self, kind: str, owner: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Names and documents of a kind that belong to one owner, by name."""
        prefix = f"{owner}/"
        for name, document in self.resources.list(kind):
            if name.startswith(prefix) and "/" not in name[len(prefix) :]:
                yield name[len(prefix) :], document

    def forget(self, owner: str, *kinds: str) -> None:
        """Remove what belongs to an owner that is gone."""
        for kind in kinds:
            for name, _ in list(self.below(kind, owner)):
                self.resources.remove(kind, f"{owner}/{name}")

    def _behind(self, alias: str, function: str, service: str) -> str:
        owner = f"service:{service}" if service else names.record_name(function)
        try:
            document = self.resources.get(ALIAS, f"{owner}/{alias}")
        except NotFound as error:
            raise alias_not_found(alias, function, service) from error
        weights = document.get("additionalVersionWeight") or {}
        return chosen(Alias(name=alias, version=document["versionId"], weights=weights), self.draw)

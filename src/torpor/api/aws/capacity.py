"""Operations on capacity providers, and on how many environments a managed version has."""

from collections.abc import Iterable, Mapping
from typing import Any

from torpor.api.aws.call import Call, Handler, Reply, about
from torpor.api.aws.lookup import Lookup, published
from torpor.api.aws.paging import page
from torpor.contracts.lambda_ import capacity
from torpor.contracts.lambda_.configuration import check_tags
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter
from torpor.contracts.lambda_.names import FunctionName, Place
from torpor.contracts.lambda_.rendering import date_text
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.function import LATEST, VersionRecord
from torpor.service.functions import Functions
from torpor.service.resources import Resources

KIND = "capacity provider"
_PENDING, _ACTIVE, _DELETING = "Pending", "Active", "Deleting"


class CapacityOperations:
    """The control plane's view of capacity."""

    def __init__(self, resources: Resources, functions: Functions, lookup: Lookup, clock: Clock) -> None:
        self._resources = resources
        self._functions = functions
        self._lookup = lookup
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "CreateCapacityProvider": self.create,
            "GetCapacityProvider": self.get,
            "ListCapacityProviders": self.list,
            "UpdateCapacityProvider": self.update,
            "DeleteCapacityProvider": self.delete,
            "ListFunctionVersionsByCapacityProvider": self.list_versions,
            "PutFunctionScalingConfig": self.put_scaling,
            "GetFunctionScalingConfig": self.get_scaling,
        }

    async def create(self, call: Call) -> Reply:
        """CreateCapacityProvider: another name for this host."""
        values = call.values
        name = capacity.provider_name(values["CapacityProviderName"], call.place)
        check_tags(values.get("Tags", {}))
        arn = capacity.provider_arn(call.place, name)
        document = capacity.provider_document(values, {"Arn": arn}, self._clock.wall())
        if name in dict(self._resources.list(KIND)):
            raise ApiFailure("ResourceConflictException", f"Capacity provider already exists: {arn}")
        self._resources.put(KIND, name, document, create=True)
        return Reply(202, {"CapacityProvider": _shown(document, _PENDING)})

    async def get(self, call: Call) -> Reply:
        """GetCapacityProvider."""
        _, document = self._named(call)
        return Reply(200, {"CapacityProvider": _shown(document, _ACTIVE)})

    async def list(self, call: Call) -> Reply:
        """ListCapacityProviders, of one state if it is named, by name."""
        wanted = call.values.get("State", _ACTIVE)
        found = self._resources.list(KIND) if wanted == _ACTIVE else ()
        documents, following = page(found, call.values)
        return Reply(200, {"CapacityProviders": [_shown(each, _ACTIVE) for each in documents], **following})

    async def update(self, call: Call) -> Reply:
        """UpdateCapacityProvider: what is not given stays."""
        name, kept = self._named(call)
        document = capacity.provider_document(call.values, kept, self._clock.wall())
        self._resources.put(KIND, name, document)
        return Reply(202, {"CapacityProvider": _shown(document, _ACTIVE)})

    async def delete(self, call: Call) -> Reply:
        """DeleteCapacityProvider; refused while a function is set to run on it."""
        name, document = self._named(call)
        using = sorted({kept.version.function for _, kept in self._versions_on(document["Arn"])})
        if using:
            message = f"The capacity provider {document['Arn']} is used by functions: {', '.join(using)}."
            raise ApiFailure("ResourceConflictException", message)
        self._resources.remove(KIND, name)
        return Reply(202, {"CapacityProvider": _shown(document, _DELETING)})

    async def list_versions(self, call: Call) -> Reply:
        """ListFunctionVersionsByCapacityProvider: the published ones, each with its state."""
        _, document = self._named(call)
        found = ((key, kept) for key, kept in self._versions_on(document["Arn"]) if kept.version.version != LATEST)
        versions, following = page(found, call.values)
        items = [
            {
                "FunctionArn": f"{kept.version.resource}:{kept.version.version}",
                "State": self._lookup.states(kept.version)[0],
            }
            for kept in versions
        ]
        return Reply(200, {"CapacityProviderArn": document["Arn"], "FunctionVersions": items, **following})

    async def put_scaling(self, call: Call) -> Reply:
        """PutFunctionScalingConfig: bounds for a published version; without any, the usual ones."""
        named = call.function
        kept = self._managed(call, named)
        minimum, maximum = capacity.scaling_bounds(call.values.get("FunctionScalingConfig", {}))
        with about(call, named):
            scaled = self._functions.scale(named.name, kept.version.version, minimum, maximum)
        return Reply(202, {"FunctionState": self._lookup.states(scaled.version)[0]})

    async def get_scaling(self, call: Call) -> Reply:
        """GetFunctionScalingConfig."""
        named = call.function
        version = self._managed(call, named).version
        bounds = capacity.scaling_config(version)
        return Reply(
            200,
            {
                "FunctionArn": f"{version.resource}:{version.version}",
                "AppliedFunctionScalingConfig": bounds,
                "RequestedFunctionScalingConfig": bounds,
            },
        )

    def require(self, arn: str, place: Place) -> None:
        """Refuse a provider that a function cannot be set to run on. Raises ApiFailure."""
        try:
            self._resources.get(KIND, capacity.provider_name(arn, place))
        except (NotFound, ApiFailure) as error:
            raise invalid_parameter(f"The capacity provider {arn} does not exist.") from error

    def tags(self, arn: str, place: Place) -> Mapping[str, str]:
        """A provider's tags. Raises ApiFailure."""
        tags: Mapping[str, str] = self._document(capacity.provider_name(arn, place), arn).get("Tags", {})
        return tags

    def set_tags(self, arn: str, place: Place, tags: Mapping[str, str]) -> None:
        """Replace a provider's tags. Raises ApiFailure."""
        check_tags(tags)
        name = capacity.provider_name(arn, place)
        self._resources.put(KIND, name, {**self._document(name, arn), "Tags": dict(tags)})

    def _named(self, call: Call) -> tuple[str, Mapping[str, Any]]:
        text = call.values["CapacityProviderName"]
        name = capacity.provider_name(text, call.place)
        return name, self._document(name, capacity.provider_arn(call.place, name))

    def _document(self, name: str, arn: str) -> Mapping[str, Any]:
        try:
            return self._resources.get(KIND, name)
        except NotFound as error:
            raise capacity.provider_not_found(arn) from error

    def _versions_on(self, arn: str) -> Iterable[tuple[str, VersionRecord]]:
        for name in self._functions.names():
            for key, kept in published(self._functions.get(name)):
                if capacity.provider_of(kept.settings) == arn:
                    yield key, kept

    def _managed(self, call: Call, named: FunctionName) -> VersionRecord:
        kept = self._lookup.version(call, named)
        if kept.version.contract != capacity.CONTRACT:
            raise invalid_parameter("A scaling configuration is for functions on a capacity provider only.")
        return kept


def _shown(document: Mapping[str, Any], state: str) -> dict[str, Any]:
    return capacity.provider(document, state, date_text(document["LastModified"]))

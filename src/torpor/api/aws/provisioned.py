"""Operations on provisioned concurrency: environments of a version that are initialised ahead of its invocations."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from torpor.api.aws.call import Call, Handler, Reply, about
from torpor.api.aws.lookup import Lookup
from torpor.api.aws.paging import page
from torpor.contracts.lambda_ import capacity, provisioned
from torpor.contracts.lambda_.failures_api import ApiFailure, function_not_found, invalid_parameter
from torpor.contracts.lambda_.names import FunctionName, require_unqualified
from torpor.model.errors import NotFound, TorporError
from torpor.model.function import LATEST, FunctionRecord, FunctionVersion
from torpor.model.provision import Provision, Standing
from torpor.service.functions import Functions
from torpor.service.provisions import provision_of, provisions, target

StandingOf: TypeAlias = Callable[[FunctionVersion], Standing]
"""Knows how many of a version's environments are up."""


def none_standing(_version: FunctionVersion) -> Standing:
    """For servers that run nothing."""
    return Standing()


class ProvisionedOperations:
    """The control plane's view of provisioned concurrency."""

    def __init__(self, functions: Functions, lookup: Lookup, standing: StandingOf) -> None:
        self._functions = functions
        self._lookup = lookup
        self._standing = standing

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "PutProvisionedConcurrencyConfig": self.put,
            "GetProvisionedConcurrencyConfig": self.get,
            "DeleteProvisionedConcurrencyConfig": self.delete,
            "ListProvisionedConcurrencyConfigs": self.list,
        }

    async def put(self, call: Call) -> Reply:
        """PutProvisionedConcurrencyConfig: its environments start at once."""
        named = call.function
        record = self._lookup.record(call, named)
        with _told(call, named):
            version = record.versions[target(record, named.qualifier)]
            if version.version.contract == capacity.CONTRACT:
                raise invalid_parameter("A version on a capacity provider has a scaling configuration instead.")
            if version.version.snapshots:
                raise invalid_parameter("Provisioned concurrency is not supported for a version with SnapStart.")
            number = call.values["ProvisionedConcurrentExecutions"]
            provision = self._functions.provision(record.name, named.qualifier, number)
        return Reply(202, provisioned.accepted(provision, self._standing_of(record, named.qualifier)))

    async def get(self, call: Call) -> Reply:
        """GetProvisionedConcurrencyConfig."""
        record, named = self._configurable(call)
        with _told(call, named):
            provision = provision_of(record, named.qualifier)
        if provision is None:
            raise provisioned.not_configured()
        return Reply(200, provisioned.shown(provision, self._standing_of(record, named.qualifier)))

    async def delete(self, call: Call) -> Reply:
        """DeleteProvisionedConcurrencyConfig; one that is not there is passed over."""
        record, named = self._configurable(call)
        with _told(call, named):
            self._functions.end_provision(record.name, named.qualifier)
        return Reply(204)

    async def list(self, call: Call) -> Reply:
        """ListProvisionedConcurrencyConfigs: by version or alias."""
        named = call.function
        require_unqualified(named)
        record = self._lookup.record(call, named)
        found: list[tuple[str, tuple[str, Provision]]] = [
            (qualifier, (qualifier, provision)) for qualifier, _, provision in provisions(record)
        ]
        configs, following = page(found, call.values)
        items = [
            {
                "FunctionArn": call.place.function_arn(record.name, qualifier),
                **provisioned.shown(provision, self._standing_of(record, qualifier)),
            }
            for qualifier, provision in configs
        ]
        return Reply(200, {"ProvisionedConcurrencyConfigs": items, **following})

    def _configurable(self, call: Call) -> tuple[FunctionRecord, FunctionName]:
        named = call.function
        record = self._lookup.record(call, named)
        if named.qualifier in ("", LATEST):
            raise provisioned.not_a_target()
        return record, named

    def _standing_of(self, record: FunctionRecord, qualifier: str) -> Standing:
        return self._standing(record.versions[target(record, qualifier)].version)


@contextmanager
def _told(call: Call, named: FunctionName) -> Iterator[None]:
    """Errors leave the block in the words that these operations have for them."""
    arn = call.place.function_arn(named.name, named.qualifier)
    with about(call, named):
        try:
            yield
        except NotFound as error:
            if error.what == "alias":
                raise ApiFailure("ResourceNotFoundException", f"Alias not found: {arn}") from error
            raise function_not_found(arn) from error
        except TorporError as error:
            raise provisioned.told(error) from error

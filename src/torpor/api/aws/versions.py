"""Operations on published versions and aliases."""

from collections.abc import Mapping
from typing import Any

from torpor.api.aws.call import Call, Handler, Reply, about
from torpor.api.aws.lookup import Lookup, published
from torpor.api.aws.paging import page
from torpor.contracts.lambda_ import capacity, limits, provisioned, rendering
from torpor.contracts.lambda_.failures_api import (
    ApiFailure,
    alias_not_found,
    function_not_found,
    invalid_parameter,
)
from torpor.contracts.lambda_.names import FunctionName, require_unqualified
from torpor.contracts.lambda_.rendering import Moment
from torpor.model.errors import Conflict, InvalidRequest
from torpor.model.function import LATEST, Alias, FunctionRecord, VersionRecord
from torpor.service.attachments import Attachments
from torpor.service.functions import Functions


class VersionOperations:
    """The control plane's view of versions and aliases."""

    def __init__(self, functions: Functions, lookup: Lookup, attachments: Attachments) -> None:
        self._functions = functions
        self._lookup = lookup
        self._attachments = attachments

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "PublishVersion": self.publish,
            "ListVersionsByFunction": self.list,
            "CreateAlias": self.create_alias,
            "GetAlias": self.get_alias,
            "ListAliases": self.list_aliases,
            "UpdateAlias": self.update_alias,
            "DeleteAlias": self.delete_alias,
        }

    async def publish(self, call: Call) -> Reply:
        """PublishVersion: unchanged since the last one, that one is shown again."""
        named = _whole(call)
        with self._lookup.updating(call, named) as record:
            kept = self._publish(call, named, record)
        return Reply(201, self._lookup.shown(kept, Moment.SETTLED))

    def _publish(self, call: Call, named: FunctionName, record: FunctionRecord) -> VersionRecord:
        check_publishing(record.latest.version.contract, call.values)
        digest, wanted = rendering.sha256_text(record.latest.version.code.digest), call.values.get("CodeSha256")
        if wanted and wanted != digest:
            raise invalid_parameter(
                f"CodeSHA256 ({wanted}) is different from current CodeSHA256 in $LATEST ({digest}). "
                "Please try again with the CodeSHA256 in $LATEST."
            )
        with about(call, named):
            return publish(self._functions, record, call.values)

    async def list(self, call: Call) -> Reply:
        """ListVersionsByFunction: the unpublished version, then by number."""
        record = self._lookup.record(call, call.function)
        versions, following = page(published(record), call.values)
        items = [rendering.configuration(kept, Moment.LISTED, kept.version.version) for kept in versions]
        return Reply(200, {"Versions": items, **following})

    async def create_alias(self, call: Call) -> Reply:
        """CreateAlias."""
        named, values = _whole(call), call.values
        record = self._lookup.record(call, named)
        if values["Name"] in record.aliases:
            arn = call.place.function_arn(named.name, values["Name"])
            raise ApiFailure("ResourceConflictException", f"Alias already exists: {arn}")
        alias = _alias(Alias(name=values["Name"], version=""), values)
        return Reply(201, self._keep(call, record, alias))

    async def get_alias(self, call: Call) -> Reply:
        """GetAlias."""
        record = self._lookup.record(call, _whole(call))
        return Reply(200, _shown(record, _existing(call, record)))

    async def list_aliases(self, call: Call) -> Reply:
        """ListAliases, of one version if it is named, by name."""
        record = self._lookup.record(call, _whole(call))
        wanted = call.values.get("FunctionVersion")
        found = (alias for alias in record.aliases.values() if wanted in (None, alias.version, *alias.weights))
        aliases, following = page(((alias.name, alias) for alias in found), call.values)
        return Reply(200, {"Aliases": [_shown(record, alias) for alias in aliases], **following})

    async def update_alias(self, call: Call) -> Reply:
        """UpdateAlias: what is not given stays; an empty RoutingConfig takes the weights away."""
        record = self._lookup.record(call, _whole(call))
        alias = _alias(_existing(call, record), call.values)
        return Reply(200, self._keep(call, record, alias))

    async def delete_alias(self, call: Call) -> Reply:
        """DeleteAlias; one that is not there is passed over."""
        record = self._lookup.record(call, _whole(call))
        if call.values["Name"] in record.aliases:
            self._attachments.forget(record.name, call.values["Name"])
            self._functions.delete_alias(record.name, call.values["Name"])
        return Reply(204)

    def _keep(self, call: Call, record: FunctionRecord, alias: Alias) -> dict[str, Any]:
        for version in (alias.version, *alias.weights):
            if version != LATEST and version not in record.versions:
                raise function_not_found(call.place.function_arn(record.name, version))
        _check_alike(record, alias)
        with about(call, FunctionName(name=record.name)):
            try:
                kept = self._functions.put_alias(record.name, alias, expected_revision=call.values.get("RevisionId"))
            except (Conflict, InvalidRequest) as error:  # its provisioned concurrency cannot move along
                raise provisioned.told(error) from error
        return _shown(record, kept)


def check_publishing(contract: str, values: Mapping[str, Any]) -> None:
    """Refuse to publish where the function's kind does not allow it. Raises ApiFailure."""
    if values.get("PublishTo") and contract != capacity.CONTRACT:
        raise invalid_parameter("PublishTo is for functions on a capacity provider; this one is published by number.")


def publish(functions: Functions, record: FunctionRecord, values: Mapping[str, Any]) -> VersionRecord:
    """Publish as a call's values say. Raises what the service raises."""
    replaced = capacity.LATEST_PUBLISHED if values.get("PublishTo") else None
    managed = record.latest.version.contract == capacity.CONTRACT
    return functions.publish(
        record.name,
        description=values.get("Description"),
        number=replaced,
        replacing=replaced is not None,
        unless_changed=replaced is None,
        expected_revision=values.get("RevisionId"),
        minimum=limits.MANAGED_ENVIRONMENTS if managed else None,
    )


def _whole(call: Call) -> FunctionName:
    named = call.function
    require_unqualified(named)
    return named


def _existing(call: Call, record: FunctionRecord) -> Alias:
    alias = record.aliases.get(call.values["Name"])
    if alias is None:
        raise alias_not_found(call.place.function_arn(record.name, call.values["Name"]))
    return alias


def _alias(old: Alias, values: Mapping[str, Any]) -> Alias:
    """The alias as a call wants it. Raises ApiFailure for weights that cannot be."""
    version = values.get("FunctionVersion", old.version)
    weights = old.weights
    if "RoutingConfig" in values:
        weights = dict(values["RoutingConfig"].get("AdditionalVersionWeights", {}))
    if len(weights) > 1:
        raise invalid_parameter("Number of items in AdditionalVersionWeights cannot be greater than 1")
    if version in weights:
        raise invalid_parameter(
            f"Invalid function version {version}. Function version {version} is already included in routing "
            "configuration."
        )
    if weights and version == LATEST:
        raise invalid_parameter("$LATEST is not supported for an alias pointing to more than 1 version")
    description = values.get("Description", old.description)
    return Alias(name=old.name, version=version, description=description, weights=weights)


def _check_alike(record: FunctionRecord, alias: Alias) -> None:
    """Versions that share an alias's invocations have one role and one dead-letter queue. Raises ApiFailure."""
    main = record.versions.get(alias.version, record.latest)
    for number in alias.weights:
        other = record.versions[number]
        if other.version.role != main.version.role:
            raise _unlike(alias.version, number, "execution role")
        if other.settings.get("DeadLetterConfig") != main.settings.get("DeadLetterConfig"):
            raise _unlike(alias.version, number, "dead-letter configuration")


def _unlike(one: str, other: str, what: str) -> ApiFailure:
    return invalid_parameter(
        f"The versions {one} and {other} do not have the same {what}, so that an alias cannot divide invocations "
        "between them."
    )


def _shown(record: FunctionRecord, alias: Alias) -> dict[str, Any]:
    shown = {
        "AliasArn": f"{record.latest.version.resource}:{alias.name}",
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision,
    }
    return shown | {"RoutingConfig": {"AdditionalVersionWeights": dict(alias.weights)}} if alias.weights else shown

"""Operations on resource policies of functions and layer versions."""

from collections.abc import Mapping
from typing import Any

from torpor.api.aws.attached import POLICY, plain
from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.layers import LAYER_POLICY, found_version
from torpor.api.aws.lookup import Lookup
from torpor.contracts.lambda_ import layers as wire
from torpor.contracts.lambda_ import resource_policy
from torpor.contracts.lambda_.failures_api import invalid_parameter
from torpor.contracts.lambda_.names import FunctionName
from torpor.model.errors import NotFound
from torpor.model.function import LATEST
from torpor.service.attachments import Attachments
from torpor.service.changes import new_revision
from torpor.service.layers import Layers
from torpor.service.resources import Resources


class PermissionOperations:
    """Who else may use a function, each alias and version with a policy of its own."""

    def __init__(self, lookup: Lookup, attachments: Attachments) -> None:
        self._lookup = lookup
        self._attachments = attachments

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {"AddPermission": self.add, "RemovePermission": self.remove, "GetPolicy": self.get}

    async def add(self, call: Call) -> Reply:
        """AddPermission."""
        named = call.function
        if named.qualifier == LATEST:
            raise invalid_parameter(resource_policy.NOT_ON_LATEST)
        arn = self._lookup.arn(call, named)
        statement = resource_policy.function_statement(call.values, arn, call.place)
        kept = self._kept(named)
        present = kept["RevisionId"] if kept else self._revision(call, named)
        resource_policy.check_revision(call.values.get("RevisionId"), present, "GetPolicy")
        document = resource_policy.with_statement(kept, statement, new_revision())
        self._attachments.put(POLICY, named.name, named.qualifier, document)
        return Reply(201, {"Statement": resource_policy.json_text(statement)})

    async def remove(self, call: Call) -> Reply:
        """RemovePermission: with its last statement the policy goes."""
        named, kept = self._existing(call)
        left = resource_policy.without_statement(kept, call.values["StatementId"], new_revision())
        resource_policy.check_revision(call.values.get("RevisionId"), kept["RevisionId"], "GetPolicy")
        if left is None:
            self._attachments.remove(POLICY, named.name, named.qualifier)
        else:
            self._attachments.put(POLICY, named.name, named.qualifier, left)
        return Reply(204)

    async def get(self, call: Call) -> Reply:
        """GetPolicy."""
        _, kept = self._existing(call)
        return Reply(200, {"Policy": resource_policy.text(kept), "RevisionId": kept["RevisionId"]})

    def _existing(self, call: Call) -> tuple[FunctionName, Mapping[str, Any]]:
        named = plain(call.function)
        self._lookup.arn(call, named)
        kept = self._kept(named)
        if kept is None:
            raise resource_policy.absent()
        return named, kept

    def _kept(self, named: FunctionName) -> Mapping[str, Any] | None:
        return self._attachments.find(POLICY, named.name, named.qualifier)

    def _revision(self, call: Call, named: FunctionName) -> str:
        """Of what has no policy yet."""
        alias = self._lookup.record(call, named).aliases.get(named.qualifier)
        return alias.revision if alias else self._lookup.version(call, named).version.revision


class LayerPermissionOperations:
    """Who else may use a layer version."""

    def __init__(self, layers: Layers, resources: Resources) -> None:
        self._layers = layers
        self._resources = resources

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "AddLayerVersionPermission": self.add,
            "GetLayerVersionPolicy": self.get,
            "RemoveLayerVersionPermission": self.remove,
        }

    async def add(self, call: Call) -> Reply:
        """AddLayerVersionPermission."""
        name, arn = self._named(call)
        statement = resource_policy.layer_statement(call.values, arn, call.place)
        kept = self._kept(name)
        resource_policy.check_revision(
            call.values.get("RevisionId"), kept["RevisionId"] if kept else "", "GetLayerPolicy"
        )
        document = resource_policy.with_statement(kept, statement, new_revision())
        self._resources.put(LAYER_POLICY, name, document)
        shown = {"Statement": resource_policy.json_text(statement), "RevisionId": document["RevisionId"]}
        return Reply(201, shown)

    async def get(self, call: Call) -> Reply:
        """GetLayerVersionPolicy."""
        kept = self._existing(self._named(call)[0])
        return Reply(200, {"Policy": resource_policy.text(kept), "RevisionId": kept["RevisionId"]})

    async def remove(self, call: Call) -> Reply:
        """RemoveLayerVersionPermission: with its last statement the policy goes."""
        name, _ = self._named(call)
        kept = self._existing(name)
        left = resource_policy.without_statement(kept, call.values["StatementId"], new_revision())
        resource_policy.check_revision(call.values.get("RevisionId"), kept["RevisionId"], "GetLayerPolicy")
        if left is None:
            self._resources.remove(LAYER_POLICY, name)
        else:
            self._resources.put(LAYER_POLICY, name, left)
        return Reply(204)

    def _named(self, call: Call) -> tuple[str, str]:
        """The name its policy is kept by, and the version's ARN. Raises ApiFailure if it is not there."""
        layer = found_version(self._layers, call)
        return f"{layer.name}:{layer.number}", f"{wire.layer_arn(call.place, layer.name)}:{layer.number}"

    def _existing(self, name: str) -> Mapping[str, Any]:
        kept = self._kept(name)
        if kept is None:
            raise resource_policy.absent()
        return kept

    def _kept(self, name: str) -> Mapping[str, Any] | None:
        try:
            return self._resources.get(LAYER_POLICY, name)
        except NotFound:
            return None

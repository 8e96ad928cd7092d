"""Operations on what belongs to a function or the account as a whole: tags, reserved concurrency, limits."""

from collections.abc import Mapping
from typing import Protocol

from torpor.api.aws.call import Call, Handler, Reply, about
from torpor.contracts.lambda_ import rendering
from torpor.contracts.lambda_.configuration import check_tags
from torpor.contracts.lambda_.names import FunctionName, Place, require_unqualified, taggable_function
from torpor.contracts.lambda_.provisioned import under_provisioned
from torpor.model.errors import InvalidRequest
from torpor.service.functions import Functions
from torpor.service.layers import Layers


class Taggable(Protocol):
    """Resources that are no functions and have tags. Both methods raise ApiFailure."""

    def tags(self, arn: str, place: Place) -> Mapping[str, str]: ...

    def set_tags(self, arn: str, place: Place, tags: Mapping[str, str]) -> None: ...


class ResourceOperations:
    """Tags, concurrency and account settings."""

    def __init__(self, functions: Functions, layers: Layers, others: Mapping[str, Taggable]) -> None:
        """`others` have tags too, by what stands in their ARNs."""
        self._functions = functions
        self._layers = layers
        self._others = others

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "TagResource": self.tag,
            "UntagResource": self.untag,
            "ListTags": self.list_tags,
            "PutFunctionConcurrency": self.put_concurrency,
            "GetFunctionConcurrency": self.get_concurrency,
            "DeleteFunctionConcurrency": self.delete_concurrency,
            "GetAccountSettings": self.account_settings,
        }

    async def tag(self, call: Call) -> Reply:
        """TagResource: add tags, replacing those of the same key."""
        if (other := self._other(call)) is not None:
            tags = other.tags(call.values["Resource"], call.place)
            other.set_tags(call.values["Resource"], call.place, {**tags, **call.values["Tags"]})
            return Reply(204)
        named = _tagged(call)
        with about(call, named):
            tags = self._functions.tags(named.name)
            check_tags({**tags, **call.values["Tags"]})
            self._functions.tag(named.name, call.values["Tags"])
        return Reply(204)

    async def untag(self, call: Call) -> Reply:
        """UntagResource: keys that are not there are passed over."""
        if (other := self._other(call)) is not None:
            gone, tags = set(call.values["TagKeys"]), other.tags(call.values["Resource"], call.place)
            left = {key: value for key, value in tags.items() if key not in gone}
            other.set_tags(call.values["Resource"], call.place, left)
            return Reply(204)
        named = _tagged(call)
        with about(call, named):
            self._functions.untag(named.name, call.values["TagKeys"])
        return Reply(204)

    async def list_tags(self, call: Call) -> Reply:
        """ListTags."""
        if (other := self._other(call)) is not None:
            return Reply(200, {"Tags": dict(other.tags(call.values["Resource"], call.place))})
        named = _tagged(call)
        with about(call, named):
            return Reply(200, {"Tags": dict(self._functions.tags(named.name))})

    async def put_concurrency(self, call: Call) -> Reply:
        """PutFunctionConcurrency; 0 stops every invocation."""
        named = _whole_function(call)
        wanted = call.values["ReservedConcurrentExecutions"]
        with about(call, named):
            try:
                self._functions.reserve(named.name, wanted)
            except InvalidRequest as error:
                if error.what == "under provisioned":
                    raise under_provisioned(wanted, error.limit) from error
                raise
        return Reply(200, {"ReservedConcurrentExecutions": wanted})

    async def get_concurrency(self, call: Call) -> Reply:
        """GetFunctionConcurrency: empty when nothing is reserved."""
        named = _whole_function(call)
        with about(call, named):
            reserved = self._functions.reserved(named.name)
        return Reply(200, {} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    async def delete_concurrency(self, call: Call) -> Reply:
        """DeleteFunctionConcurrency."""
        named = _whole_function(call)
        with about(call, named):
            self._functions.reserve(named.name, None)
        return Reply(204)

    async def account_settings(self, _call: Call) -> Reply:
        """GetAccountSettings."""
        code_bytes, count = self._functions.code_usage()
        shown = rendering.account_settings(
            concurrency=self._functions.concurrency,
            reserved=self._functions.total_reserved(),
            code_bytes=code_bytes + sum(code.packed_bytes for code in self._layers.code_in_use()),
            functions=count,
        )
        return Reply(200, shown)

    def _other(self, call: Call) -> Taggable | None:
        """Who has the tags that a call is about; None if that is a function."""
        arn: str = call.values["Resource"]
        return next((other for mark, other in self._others.items() if mark in arn), None)


def _whole_function(call: Call) -> FunctionName:
    named = call.function
    require_unqualified(named)
    return named


def _tagged(call: Call) -> FunctionName:
    return FunctionName(name=taggable_function(call.values["Resource"], call.place))

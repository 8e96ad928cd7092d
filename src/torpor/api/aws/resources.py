"""Operations on what belongs to a function or the account as a whole: tags, reserved concurrency, limits."""

from torpor.api.aws.call import Call, Handler, Reply, about
from torpor.api.aws.capacity import CapacityOperations
from torpor.contracts.lambda_ import rendering
from torpor.contracts.lambda_.configuration import check_tags
from torpor.contracts.lambda_.names import FunctionName, require_unqualified, taggable_function
from torpor.contracts.lambda_.provisioned import under_provisioned
from torpor.model.errors import InvalidRequest
from torpor.service.functions import Functions


class ResourceOperations:
    """Tags, concurrency and account settings."""

    def __init__(self, functions: Functions, capacity: CapacityOperations) -> None:
        self._functions = functions
        self._capacity = capacity

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
        if (provider := _provider(call)) is not None:
            tags = self._capacity.tags(provider, call.place)
            self._capacity.set_tags(provider, call.place, {**tags, **call.values["Tags"]})
            return Reply(204)
        named = _tagged(call)
        with about(call, named):
            tags = self._functions.tags(named.name)
            check_tags({**tags, **call.values["Tags"]})
            self._functions.tag(named.name, call.values["Tags"])
        return Reply(204)

    async def untag(self, call: Call) -> Reply:
        """UntagResource: keys that are not there are passed over."""
        if (provider := _provider(call)) is not None:
            gone, tags = set(call.values["TagKeys"]), self._capacity.tags(provider, call.place)
            left = {key: value for key, value in tags.items() if key not in gone}
            self._capacity.set_tags(provider, call.place, left)
            return Reply(204)
        named = _tagged(call)
        with about(call, named):
            self._functions.untag(named.name, call.values["TagKeys"])
        return Reply(204)

    async def list_tags(self, call: Call) -> Reply:
        """ListTags."""
        if (provider := _provider(call)) is not None:
            return Reply(200, {"Tags": dict(self._capacity.tags(provider, call.place))})
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
            code_bytes=code_bytes,
            functions=count,
        )
        return Reply(200, shown)


def _whole_function(call: Call) -> FunctionName:
    named = call.function
    require_unqualified(named)
    return named


def _provider(call: Call) -> str | None:
    """The ARN of the capacity provider that a tagging call is about; None if it is about something else."""
    arn: str = call.values["Resource"]
    return arn if ":capacity-provider:" in arn else None


def _tagged(call: Call) -> FunctionName:
    return FunctionName(name=taggable_function(call.values["Resource"], call.place))

"""Operations on what is set beside a function's configuration: its events, its runtime's updates, its recursion."""

from collections.abc import Mapping
from typing import Any

from torpor.api.aws.attached import EVENT_SETTINGS, RECURSION, RUNTIME_UPDATES, plain
from torpor.api.aws.call import Call, Handler, Reply
from torpor.api.aws.lookup import Lookup
from torpor.api.aws.paging import page
from torpor.contracts.lambda_ import event_settings as wire
from torpor.contracts.lambda_.failures_api import invalid_parameter
from torpor.contracts.lambda_.names import FunctionName, require_unqualified
from torpor.contracts.lambda_.rendering import runtime_arn
from torpor.model.clock import Clock
from torpor.model.errors import NotFound
from torpor.model.function import LATEST
from torpor.service.attachments import Attachments
from torpor.service.functions import Functions

_TERMINATE = "Terminate"


class EventOperations:
    """What becomes of asynchronous invocations of a function, a version or an alias."""

    def __init__(self, functions: Functions, lookup: Lookup, attachments: Attachments, clock: Clock) -> None:
        self._functions = functions
        self._lookup = lookup
        self._attachments = attachments
        self._clock = clock

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "PutFunctionEventInvokeConfig": self.put,
            "UpdateFunctionEventInvokeConfig": self.update,
            "GetFunctionEventInvokeConfig": self.get,
            "DeleteFunctionEventInvokeConfig": self.delete,
            "ListFunctionEventInvokeConfigs": self.list,
        }

    async def put(self, call: Call) -> Reply:
        """PutFunctionEventInvokeConfig: what is not given is not set any more."""
        named = self._existing(call)
        return self._keep(call, named, wire.given_settings(call.values))

    async def update(self, call: Call) -> Reply:
        """UpdateFunctionEventInvokeConfig: what is not given stays."""
        named = self._existing(call)
        kept = self._kept(call, named)
        return self._keep(call, named, wire.merged(kept, wire.given_settings(call.values)))

    async def get(self, call: Call) -> Reply:
        """GetFunctionEventInvokeConfig."""
        named = self._existing(call)
        return Reply(200, wire.shown_settings(self._kept(call, named), _qualified_arn(call, named)))

    async def delete(self, call: Call) -> Reply:
        """DeleteFunctionEventInvokeConfig."""
        named = self._existing(call)
        self._kept(call, named)
        self._attachments.remove(EVENT_SETTINGS, named.name, named.qualifier)
        return Reply(204)

    async def list(self, call: Call) -> Reply:
        """ListFunctionEventInvokeConfigs: of the function, its versions and aliases."""
        named = self._existing(call)
        found = self._attachments.of(EVENT_SETTINGS, named.name)
        shown = (
            (qualifier, wire.shown_settings(document, call.place.function_arn(named.name, qualifier or LATEST)))
            for qualifier, document in found
        )
        items, following = page(shown, call.values)
        return Reply(200, {"FunctionEventInvokeConfigs": items, **following})

    def _keep(self, call: Call, named: FunctionName, settings: Mapping[str, Any]) -> Reply:
        for name, arn in wire.functions_named(settings, named.name, call.place):
            try:
                self._functions.get(name)
            except NotFound as error:
                raise wire.invalid_destination(arn) from error
        document = {**settings, "LastModified": round(self._clock.wall(), 3)}
        self._attachments.put(EVENT_SETTINGS, named.name, named.qualifier, document)
        return Reply(200, wire.shown_settings(document, _qualified_arn(call, named)))

    def _existing(self, call: Call) -> FunctionName:
        named = plain(call.function)
        self._lookup.arn(call, named)
        return named

    def _kept(self, call: Call, named: FunctionName) -> Mapping[str, Any]:
        kept = self._attachments.find(EVENT_SETTINGS, named.name, named.qualifier)
        if kept is None:
            raise wire.no_settings(_qualified_arn(call, named))
        return kept


class ManagementOperations:
    """When a function's runtime is updated, and whether it may call itself in a circle."""

    def __init__(self, lookup: Lookup, attachments: Attachments) -> None:
        self._lookup = lookup
        self._attachments = attachments

    def handlers(self) -> dict[str, Handler]:
        """By operation name."""
        return {
            "PutRuntimeManagementConfig": self.put_runtime,
            "GetRuntimeManagementConfig": self.get_runtime,
            "PutFunctionRecursionConfig": self.put_recursion,
            "GetFunctionRecursionConfig": self.get_recursion,
        }

    async def put_runtime(self, call: Call) -> Reply:
        """PutRuntimeManagementConfig: a runtime is what this host has, so only that version can be asked for."""
        named = plain(call.function)
        present = runtime_arn(self._lookup.version(call, named).version)
        mode, arn = call.values["UpdateRuntimeOn"], call.values.get("RuntimeVersionArn")
        if (mode == "Manual") != (arn is not None):
            raise invalid_parameter("RuntimeVersionArn has to be given with the mode Manual, and with no other.")
        if arn not in (None, present):
            raise invalid_parameter(f"The runtime version {arn} is not on this host, which has {present}.")
        document = {"UpdateRuntimeOn": mode} | ({"RuntimeVersionArn": arn} if arn else {})
        self._attachments.put(RUNTIME_UPDATES, named.name, named.qualifier, document)
        return Reply(200, {**document, "FunctionArn": _qualified_arn(call, named)})

    async def get_runtime(self, call: Call) -> Reply:
        """GetRuntimeManagementConfig: automatic unless it was set."""
        named = plain(call.function)
        self._lookup.version(call, named)
        kept = self._attachments.find(RUNTIME_UPDATES, named.name, named.qualifier) or {"UpdateRuntimeOn": "Auto"}
        return Reply(200, {**kept, "FunctionArn": _qualified_arn(call, named)})

    async def put_recursion(self, call: Call) -> Reply:
        """PutFunctionRecursionConfig."""
        named = self._whole(call)
        self._attachments.put(RECURSION, named.name, "", {"RecursiveLoop": call.values["RecursiveLoop"]})
        return Reply(200, {"RecursiveLoop": call.values["RecursiveLoop"]})

    async def get_recursion(self, call: Call) -> Reply:
        """GetFunctionRecursionConfig."""
        kept = self._attachments.find(RECURSION, self._whole(call).name)
        return Reply(200, kept or {"RecursiveLoop": _TERMINATE})

    def _whole(self, call: Call) -> FunctionName:
        named = call.function
        require_unqualified(named)
        self._lookup.record(call, named)
        return named


def ends_circles(attachments: Attachments, function: str) -> bool:
    """Is a function that calls itself in a circle stopped?"""
    kept = attachments.find(RECURSION, function) or {}
    return bool(kept.get("RecursiveLoop", _TERMINATE) == _TERMINATE)


def _qualified_arn(call: Call, named: FunctionName) -> str:
    return call.place.function_arn(named.name, named.qualifier or LATEST)

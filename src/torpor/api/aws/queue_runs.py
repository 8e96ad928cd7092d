"""Batches of messages go to their function, and nowhere else: which version runs, and with which trace."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torpor.api.aws.attached import RECURSION
from torpor.api.aws.function_settings import ends_circles
from torpor.api.aws.invocations import Dispatcher, Invocations
from torpor.api.aws.lookup import States, always_active
from torpor.contracts.lambda_.event_source import function_of, place_of
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.lambda_.invoke_request import InvokeRequest
from torpor.contracts.lambda_.invoking import invocation_of
from torpor.contracts.lambda_.lineage import counted, is_circle
from torpor.contracts.lambda_.names import FunctionName, Place
from torpor.contracts.lambda_.queue_records import event_of, trace_of
from torpor.model.clock import Clock
from torpor.model.errors import NotFound, TorporError
from torpor.model.invocation import Outcome
from torpor.service.attachments import Attachments
from torpor.service.functions import Functions
from torpor.service.resources import Resources
from torpor.service.states import VersionStates

_LARGE = 256 * 1024
"""Events of so many characters are written in a thread, so that other work goes on meanwhile."""
_UNSAMPLED = "Sampled=0"
"""A trace header for a question only: no invocation that is recorded is counted for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """What running functions takes; as AwsFace is given it."""

    functions: Functions
    resources: Resources
    dispatcher: Dispatcher
    clock: Clock
    states: States = always_active
    version_states: VersionStates = field(default_factory=VersionStates)


class BatchRuns:
    """Runs the functions of mappings, which are given as their documents."""

    def __init__(self, parts: RunParts) -> None:
        self._functions = parts.functions
        self._resources = parts.resources
        self._dispatcher = parts.dispatcher
        self._invocations = Invocations(
            parts.functions, parts.dispatcher, parts.clock, parts.states, parts.version_states, self._ends_circles
        )

    def bar(self, document: Mapping[str, Any]) -> str:
        """Why the function cannot be called now; empty if it can. Messages that are received would only be counted."""
        try:
            record, _, _, _ = self._invocations.resolve(*_target(document), _UNSAMPLED)
        except TorporError as error:
            return str(error)
        return "The function's reserved concurrency is 0" if record.reserved_concurrency == 0 else ""

    def circular(self, document: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> frozenset[str]:
        """Ids of the messages that must not reach the function, which has sent their like to itself too often."""
        resource = self._resource(document)
        found = frozenset(record["messageId"] for record in records if is_circle(trace_of(record), resource))
        return found if found and self._ends_circles(function_of(document).name) else frozenset()

    async def run(self, document: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Outcome | TorporError:
        """Call the function once. It is found anew, so that an alias leads where it leads by now."""
        named, place = _target(document)
        payload = event_of(records) if _length(records) < _LARGE else await asyncio.to_thread(event_of, records)
        resource = self._resource(document)
        traces = (trace_of(record) for record in records)
        given = max(traces, key=lambda trace: (counted(trace, resource), bool(trace)))
        try:
            record, version, trace, upstream = self._invocations.resolve(named, place, given)
        except TorporError as error:
            return error
        request = InvokeRequest(function=named, kind="RequestResponse", payload=payload)
        invocation = invocation_of(request, new_request_id(), version.resource, trace, upstream, is_kept=True)
        waiting: asyncio.Future[Outcome | TorporError] = asyncio.get_running_loop().create_future()

        def done(result: Outcome | TorporError) -> None:
            if not waiting.done():
                waiting.set_result(result)

        self._dispatcher.submit(version, invocation, record.reserved_concurrency, done)
        return await waiting

    def _resource(self, document: Mapping[str, Any]) -> str:
        """By what the function is known in trace headers."""
        named, place = _target(document)
        try:
            return self._functions.get(named.name).latest.version.resource
        except NotFound:
            return place.function_arn(named.name)

    def _ends_circles(self, function: str) -> bool:
        # Settings change any time, and are asked for only when a circle is found.
        return ends_circles(Attachments(self._resources, (RECURSION,)), function)


def _length(records: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(record["body"]) for record in records)


def _target(document: Mapping[str, Any]) -> tuple[FunctionName, Place]:
    return function_of(document), place_of(document)

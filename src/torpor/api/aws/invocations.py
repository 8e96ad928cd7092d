"""Invoke: from a checked call to the dispatcher and back, without a task of its own."""

import logging
from collections.abc import Callable
from typing import Protocol, TypeAlias

from torpor.api import exchanges
from torpor.api.aws.lookup import States
from torpor.api.aws.streams import Caller, EventStream
from torpor.contracts.lambda_ import capacity, limits, lineage, streaming
from torpor.contracts.lambda_.failures_api import (
    function_not_found,
    is_expected,
    no_snapshot_yet,
    not_built,
    not_in_state,
    recursive,
    render_failure,
)
from torpor.contracts.lambda_.invoke_request import InvokeRequest
from torpor.contracts.lambda_.invoking import check_size, invocation_of, render_outcome
from torpor.contracts.lambda_.names import FunctionName, Place
from torpor.contracts.lambda_.tenancy import for_tenant
from torpor.contracts.lambda_.tracing import ACTIVE, Sampling, new_trace, read_trace
from torpor.contracts.lambda_.wire import ApiResponse
from torpor.model.clock import Clock
from torpor.model.errors import NotFound, TorporError
from torpor.model.function import LATEST, FunctionRecord, FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.service.functions import Functions
from torpor.service.states import PENDING, VersionStates

_LOG = logging.getLogger(__name__)

Reply: TypeAlias = Callable[[ApiResponse], None]
Accept: TypeAlias = Callable[[InvokeRequest, str, str, Callable[[TorporError | None], None]], None]
"""Takes an asynchronous call, its id and trace, and what is told once it is kept or why it is not."""


class Dispatcher(Protocol):
    """The single way to run a function."""

    def submit(
        self,
        version: FunctionVersion,
        invocation: Invocation,
        reserved: int | None,
        done: Callable[[Outcome | TorporError], None],
    ) -> object:
        """Run it once; `done` gets the outcome, or why there is none, maybe before this returns. Never raises."""
        ...


class Invocations:
    """The operation Invoke."""

    def __init__(
        self,
        functions: Functions,
        dispatcher: Dispatcher,
        clock: Clock,
        states: States,
        version_states: VersionStates,
        ends_circles: Callable[[str], bool],
    ) -> None:
        """`states` are those of managed versions, `version_states` those of the others; `ends_circles` tells whether a
        function that calls itself in a circle is stopped."""
        self._functions = functions
        self._states = states
        self._version_states = version_states
        self._dispatcher = dispatcher
        self._clock = clock
        self._sampling = Sampling()
        self.ends_circles = ends_circles
        self.accept: Accept = _none_accepted

    def begin(self, request: InvokeRequest, place: Place, request_id: str, reply: Reply) -> None:
        """Start what is asked; `reply` is called once. Raises what refuses the call before it has begun."""
        record, version = self._invoked(request, place)
        if request.kind == "DryRun":
            reply(self._would_run(request, request_id))
            return
        if request.kind == "Event":
            self._accept(request, version, request_id, reply)
            return
        trace, upstream = self._trace(self._unless_circle(request, version), version)
        wants_log = request.wants_log

        def done(result: Outcome | TorporError) -> None:
            reply(_answer(result, request_id, trace, wants_log=wants_log))

        invocation = invocation_of(request, request_id, version.resource, trace, upstream)
        self._dispatcher.submit(version, invocation, record.reserved_concurrency, done)

    def begin_streamed(
        self, request: InvokeRequest, place: Place, request_id: str, reply: Reply, caller: Caller
    ) -> None:
        """As `begin`, but the answer goes to `caller` as a stream of events, from its first byte on."""
        record, version = self._invoked(request, place)
        if request.kind == "DryRun":
            reply(self._would_run(request, request_id))
            return
        trace, upstream = self._trace(self._unless_circle(request, version), version)
        fields = streaming.head(version.version, request_id, trace)
        sink = EventStream(caller, fields, request_id, report, wants_log=request.wants_log)
        invocation = invocation_of(request, request_id, version.resource, trace, upstream, sink)
        self._dispatcher.submit(version, invocation, record.reserved_concurrency, sink.done)

    def resolve(
        self, named: FunctionName, place: Place, given: str
    ) -> tuple[FunctionRecord, FunctionVersion, str, str]:
        """What runs if the function is called another way, and the trace headers as for Invoke: the one to hand on, and
        the one before it; `given` is the caller's, or empty. Raises ApiFailure."""
        request = InvokeRequest(function=named, kind="RequestResponse", payload=b"", trace=given)
        record, version = self._invoked(request, place)
        trace, upstream = self._trace(self._unless_circle(request, version), version)
        return record, version, trace, upstream

    def resolved(self, request: InvokeRequest, place: Place) -> tuple[FunctionRecord, FunctionVersion, str, str]:
        """As `resolve`, of an asynchronous call that was counted when it was accepted."""
        record, version = self._invoked(request, place)
        trace, upstream = self._trace(request.trace, version)
        return record, version, trace, upstream

    def begin_event(
        self, request: InvokeRequest, place: Place, request_id: str, told: Callable[[TorporError | None], None]
    ) -> None:
        """Take an asynchronous call; `told` hears once that it is kept, or why it is not. Raises ApiFailure."""
        self._invoked(request, place)
        check_size(len(request.payload), limits.EVENT_MAX)
        self.accept(request, request_id, new_trace(self._clock.wall()), told)

    def _accept(self, request: InvokeRequest, version: FunctionVersion, request_id: str, reply: Reply) -> None:
        check_size(len(request.payload), limits.EVENT_MAX)
        trace = lineage.stepped(request.trace, version.resource) if request.trace else ""
        if not read_trace(trace).root:  # nothing would count the calls of a circle
            trace = new_trace(self._clock.wall())

        def kept(error: TorporError | None) -> None:
            reply(render_failure(error, request_id) if error is not None else _taken(request_id, trace))

        self.accept(request, request_id, trace, kept)

    def _unless_circle(self, request: InvokeRequest, version: FunctionVersion) -> str:
        """The caller's trace header with this call counted. Raises ApiFailure if the function has called itself too
        often."""
        if not request.trace:
            return ""
        if lineage.is_circle(request.trace, version.resource) and self.ends_circles(version.function):
            raise recursive(version.resource)
        return lineage.stepped(request.trace, version.resource)

    def _would_run(self, request: InvokeRequest, request_id: str) -> ApiResponse:
        trace = request.trace or new_trace(self._clock.wall())
        return ApiResponse(status=204, headers=(("x-amzn-RequestId", request_id), ("X-Amzn-Trace-Id", trace)))

    def _trace(self, given: str, version: FunctionVersion) -> tuple[str, str]:
        """The trace header to hand on, and the one before it if the invocation's trace is recorded."""
        if version.tracing == ACTIVE:
            return self._sampling.step(given, version.function, self._clock.wall())
        return given or new_trace(self._clock.wall()), ""

    def _invoked(self, request: InvokeRequest, place: Place) -> tuple[FunctionRecord, FunctionVersion]:
        named = request.function
        try:
            record = self._functions.get(named.name)
            version = record.latest.version
            if version.contract == capacity.CONTRACT:
                version = self._managed(record, named.qualifier)
            elif named.qualifier:
                version = self._functions.resolve(named.name, named.qualifier).version
        except NotFound as error:
            raise function_not_found(place.function_arn(named.name, named.qualifier)) from error
        if not self._version_states.all_active and not (state := self._version_states.of(version)).is_active:
            if version.is_restored and state.name == PENDING:
                raise no_snapshot_yet(place.function_arn(named.name, version.version))
            raise not_in_state(state.name)
        if version.per_tenant or request.tenant:
            version = for_tenant(version, request.tenant)
        return record, version

    def _managed(self, record: FunctionRecord, qualifier: str) -> FunctionVersion:
        """The version of managed instances to invoke: only published ones are, once their environments are up."""
        if not qualifier and capacity.LATEST_PUBLISHED in record.versions:
            qualifier = capacity.LATEST_PUBLISHED
        version = self._functions.resolve(record.name, qualifier).version
        if version.version == LATEST:
            raise capacity.not_published(record)
        state, _, _ = self._states(version)
        if state != "Active":
            raise not_in_state(state)
        return version


def _none_accepted(*_: object) -> None:
    raise not_built("Asynchronous invocation")


def _taken(request_id: str, trace: str) -> ApiResponse:
    return ApiResponse(status=202, headers=(("x-amzn-RequestId", request_id), ("X-Amzn-Trace-Id", trace)))


def _answer(result: Outcome | TorporError, request_id: str, trace: str, *, wants_log: bool) -> ApiResponse:
    try:
        if isinstance(result, Exception):
            raise result
        return render_outcome(result, request_id, trace, wants_log=wants_log)
    except Exception as error:
        report(error, f"invocation {request_id}")
        return render_failure(error, request_id)


def report(error: Exception, what: str) -> None:
    """See `exchanges.report`."""
    exchanges.report(error, what, expected=is_expected(error))

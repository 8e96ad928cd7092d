"""InvokeFunction: from a call to the dispatcher and back, without a task of its own."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import msgspec

from torpor.api import exchanges
from torpor.api.fc.registry import Registry
from torpor.contracts.function_compute import failures, invoking, limits, names
from torpor.contracts.function_compute.api_failures import ApiFailure, is_expected, render_failure
from torpor.contracts.function_compute.failures import Cost
from torpor.contracts.function_compute.invoking import Control, Mode
from torpor.contracts.function_compute.names import Generation
from torpor.contracts.function_compute.rendering import CHECKSUM
from torpor.contracts.http import ApiResponse
from torpor.model.errors import ShuttingDown, TorporError
from torpor.model.function import FunctionVersion, VersionRecord
from torpor.model.invocation import Invocation, Outcome

_LOG = logging.getLogger(__name__)

Reply: TypeAlias = Callable[[ApiResponse], None]
Done: TypeAlias = Callable[[Outcome | TorporError], None]
Watch: TypeAlias = Callable[[Callable[[], None]], None]
"""Takes what is to be called if the caller goes away before its answer."""


class Dispatcher(Protocol):
    """The single way to run a function."""

    def submit(self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done) -> Any:
        """Run it once; `done` gets the outcome, or why there is none, maybe before this returns. Never raises. What is
        returned is for `cancel`; None if it was refused at once."""
        ...

    def cancel(self, request: Any) -> None:
        """The caller has gone away; `done` is called all the same."""
        ...


class InvokeCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of InvokeFunction."""

    generation: Generation
    service: str
    function: str
    qualifier: str
    payload: bytes
    control: Control


class Invocations:
    """Runs functions on behalf of callers and timers."""

    def __init__(self, registry: Registry, dispatcher: Dispatcher) -> None:
        self._registry = registry
        self._dispatcher = dispatcher
        self._tasks: OrderedDict[tuple[str, str], float] = OrderedDict()
        """Ids of asynchronous calls, by function, with the time at which they were taken."""
        self._backlog = 0
        """Bytes of events that nobody waits for and that have not run yet."""

    def begin(self, call: InvokeCall, request_id: str, reply: Reply, watch: Watch) -> None:
        """Start what is asked; `reply` is called once. Raises what refuses the call before it has begun."""
        control = call.control
        invoking.check_payload(len(call.payload), control.mode)
        record = self._registry.resolve(call.function, call.service, call.qualifier)
        version = record.version
        invocation = invoking.event_invocation(version, call.payload, request_id, call.qualifier, control)
        if control.mode is Mode.ASYNC:
            self.accept(version, invocation, control)
            reply(invoking.accepted(request_id))
            return

        def done(result: Outcome | TorporError) -> None:
            reply(_answer(result, record, request_id, control, call.generation))

        self.submit(version, invocation, done, watch)

    def submit(self, version: FunctionVersion, invocation: Invocation, done: Done, watch: Watch) -> None:
        """Run it for a caller that waits; one that goes away cancels it."""
        request = self._dispatcher.submit(version, invocation, None, done)
        if request is not None:
            watch(lambda: self._dispatcher.cancel(request))

    def accept(self, version: FunctionVersion, invocation: Invocation, control: Control) -> None:
        """Take an asynchronous call. Raises ApiFailure."""
        if self._backlog + len(invocation.payload) > limits.BACKLOG_MAX:
            message = "too many asynchronous invocations wait for their turn already; send it again later"
            raise ApiFailure("ResourceExhausted", message)
        self._accept_task(version.function, control.task_id)
        self._submit_later(version, invocation, control.delay)

    def _submit_later(self, version: FunctionVersion, invocation: Invocation, delay: float = 0.0) -> None:
        """Run it for nobody who waits, after `delay` seconds; in the order of the calls where there is none."""
        size = len(invocation.payload)
        self._backlog += size

        def done(result: Outcome | TorporError) -> None:
            self._backlog -= size
            if isinstance(result, ShuttingDown):
                _LOG.warning("asynchronous invocation %s of %s is lost: %s", invocation.id, version.function, result)
            elif isinstance(result, TorporError):
                report(result, f"asynchronous invocation {invocation.id} of {version.function}")

        def begin() -> None:
            """The function may have changed meanwhile: its code of then may be gone."""
            function, service = names.function_of(version.function), names.service_of(version.function)
            try:
                current = self._registry.resolve(function, service, invocation.qualifier).version
            except Exception as error:
                self._backlog -= size
                _LOG.warning("The delayed invocation %s of %s cannot run: %s", invocation.id, version.function, error)
                return
            self._dispatcher.submit(current, invocation, None, done)

        if delay:
            asyncio.get_running_loop().call_later(delay, begin)
        else:
            self._dispatcher.submit(version, invocation, None, done)

    def _accept_task(self, function: str, task_id: str) -> None:
        """Refuse an asynchronous call whose id was used before. Raises ApiFailure."""
        if not task_id:
            return
        now, key = self._registry.clock.wall(), (function, task_id)
        while self._tasks and now - next(iter(self._tasks.values())) > limits.TASK_KEPT:
            self._tasks.popitem(last=False)
        if key in self._tasks:
            message = f"an asynchronous invocation with the id '{task_id}' exists already"
            raise ApiFailure("StatefulAsyncInvocationAlreadyExists", message)
        self._tasks[key] = now
        if len(self._tasks) > limits.TASKS_REMEMBERED:
            self._tasks.popitem(last=False)

    def fire(self, record: str, qualifier: str, event: bytes) -> None:
        """A timer goes off: its event runs asynchronously."""
        request_id = names.new_request_id(self._registry.clock.wall())
        function, service = names.function_of(record), names.service_of(record)
        try:
            version = self._registry.resolve(function, service, qualifier).version
        except ApiFailure as error:
            _LOG.warning("A timer of %s has nothing to call: %s", record, error)
            return
        control = Control(mode=Mode.ASYNC)
        self._submit_later(version, invoking.event_invocation(version, event, request_id, qualifier, control))


def explained(outcome: Outcome, version: FunctionVersion, request_id: str) -> Outcome:
    """The outcome with its failure worded anew, now that all is known of it."""
    if outcome.failure is None:
        return outcome
    cost = Cost(seconds=outcome.duration, memory_mb=outcome.memory_mb)
    kind, payload = failures.told(outcome.failure, version, request_id, cost)
    return msgspec.structs.replace(outcome, error_type=kind, payload=payload)


def _answer(
    result: Outcome | TorporError, record: VersionRecord, request_id: str, control: Control, generation: Generation
) -> ApiResponse:
    try:
        if isinstance(result, Exception):
            raise result
        outcome = explained(result, record.version, request_id)
        checksum = record.settings.get(CHECKSUM, "")
        return invoking.render_outcome(outcome, record.version, request_id, control, generation, checksum)
    except Exception as error:
        report(error, f"invocation {request_id}")
        return render_failure(error, request_id)


def report(error: Exception, what: str) -> None:
    """See `exchanges.report`."""
    exchanges.report(error, what, expected=is_expected(error))

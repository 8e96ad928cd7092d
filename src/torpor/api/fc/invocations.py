"""InvokeFunction: from a call to the dispatcher and back, without a task of its own."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import msgspec

from torpor.api import exchanges
from torpor.api.fc.async_calls import AsyncCalls, explained
from torpor.api.fc.registry import Registry
from torpor.contracts.function_compute import invoking
from torpor.contracts.function_compute.api_failures import is_expected, render_failure
from torpor.contracts.function_compute.invoking import Control, Mode
from torpor.contracts.function_compute.names import Generation
from torpor.contracts.function_compute.rendering import CHECKSUM
from torpor.contracts.http import ApiResponse
from torpor.model.errors import TorporError
from torpor.model.event import Event
from torpor.model.function import FunctionVersion, VersionRecord
from torpor.model.invocation import Invocation, Outcome

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

    def __init__(self, registry: Registry, dispatcher: Dispatcher, later: AsyncCalls) -> None:
        """`later` takes asynchronous calls."""
        self._registry = registry
        self._dispatcher = dispatcher
        self._later = later

    def begin(self, call: InvokeCall, request_id: str, reply: Reply, watch: Watch) -> None:
        """Start what is asked; `reply` is called once. Raises what refuses the call before it has begun."""
        control = call.control
        invoking.check_payload(len(call.payload), control.mode)
        record = self._registry.resolve(call.function, call.service, call.qualifier)
        version = record.version
        if control.mode is Mode.ASYNC:
            event = self._later.event(version, call.payload, request_id, call.qualifier, control)
            self.accept(event, control, reply)
            return
        invocation = invoking.event_invocation(version, call.payload, request_id, call.qualifier, control)

        def done(result: Outcome | TorporError) -> None:
            reply(_answer(result, record, request_id, control, call.generation))

        self.submit(version, invocation, done, watch)

    def submit(self, version: FunctionVersion, invocation: Invocation, done: Done, watch: Watch) -> None:
        """Run it for a caller that waits; one that goes away cancels it."""
        request = self._dispatcher.submit(version, invocation, None, done)
        if request is not None:
            watch(lambda: self._dispatcher.cancel(request))

    def accept(self, event: Event, control: Control, reply: Reply) -> None:
        """Take an asynchronous call; `reply` is called once it is on the disk, or with why it is not."""
        request_id = event.request_id

        def told(error: TorporError | None) -> None:
            reply(invoking.accepted(request_id) if error is None else render_failure(error, request_id))

        self._later.accept(event, told, control.delay)


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

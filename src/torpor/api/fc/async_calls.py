"""Asynchronous calls: accepted into the queue, and the rules by which it runs them (5)."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from torpor.api.fc.registry import ASYNC, Registry
from torpor.api.relay import NoCaller
from torpor.contracts import event_targets
from torpor.contracts.event_results import judged
from torpor.contracts.function_compute import event_rules, invoking, limits, names
from torpor.contracts.function_compute.api_failures import ApiFailure
from torpor.contracts.function_compute.event_rules import AsyncConfig
from torpor.contracts.function_compute.failures import Cost, told
from torpor.contracts.function_compute.invoking import Control, Mode
from torpor.contracts.function_compute.names import Place
from torpor.model.errors import NotFound, TargetRefused, Throttled, TorporError
from torpor.model.event import Event, EventRequest, Owed, Progress, Result
from torpor.model.function import FunctionVersion
from torpor.model.invocation import HttpRequest, Invocation, Outcome
from torpor.model.parcel import Parcel, ToFunction
from torpor.scheduling import ThrottleReason
from torpor.scheduling.retries import Condition, RetryPolicy
from torpor.service.events.port import Intake, Run

CONTRACT = "function_compute"
DESTINATION = "destination"
_PLAIN = AsyncConfig()
_PLAIN_CALL = Control(mode=Mode.ASYNC)

Told = Callable[[TorporError | None], None]


class AsyncCalls:
    """An `EventContract`: this cloud's rules for events."""

    def __init__(self, registry: Registry, intake: Intake, place: Place, scale: float, most: int) -> None:
        """`scale` is what waits before further attempts are multiplied by, `most` how many instances there may be."""
        self._registry = registry
        self._intake = intake
        self._place = place
        self._scale = scale
        self.most = most
        self.delivery = event_rules.delivery_policy(scale)

    def accept(self, event: Event, told: Told, delay: float = 0.0) -> None:
        """Take a call, to run after `delay` seconds; `told` hears once that it is on the disk, or why it is not."""

        def done(error: TorporError | None, twice: bool) -> None:
            told(_taken_twice(event.task) if twice and error is None else error)

        self._intake.accept(event, done, delay=delay)

    def event(
        self,
        version: FunctionVersion,
        payload: bytes,
        request_id: str,
        qualifier: str,
        control: Control = _PLAIN_CALL,
        *,
        request: EventRequest | None = None,
        source: str = "",
        planned: float = 0.0,
    ) -> Event:
        """What is kept of a call. If it is a task it has a name, that of the call if it brings none."""
        qualifier = "" if qualifier == names.LATEST else qualifier
        config = kept_config(self._registry, version.function, qualifier) or _PLAIN
        is_task = control.is_task or config.is_task
        return Event(
            request_id=request_id,
            function=version.function,
            contract=CONTRACT,
            payload=payload,
            accepted=self._registry.clock.wall(),
            qualifier=qualifier,
            task=control.task_id or (request_id if is_task else ""),
            request=request,
            source=source,
            planned=planned,
        )

    # -- the queue's questions ----------------------------------------------------------------------------------------

    def kept_as(self, event: Event) -> tuple[str, float]:
        return (f"{task_prefix(event.function)}{event.task}", limits.TASK_KEPT) if event.task else ("", 0.0)

    def policy(self, event: Event) -> RetryPolicy:
        return event_rules.retry_policy(self._config(event), self._scale)

    def bar(self, event: Event) -> Condition | None:
        return None

    def run(self, event: Event, progress: Progress) -> Run:
        version = self._version(event)
        if version.maximum == 0:
            message = f"The function {names.function_of(event.function)} may have no instances."
            raise Throttled(message, reason=ThrottleReason.RESERVED)
        invocation = Invocation(
            id=event.request_id,
            payload=event.payload,
            resource=version.resource,
            content_type=invoking.EVENT_TYPE,
            qualifier=event.qualifier,
            patient=True,
            is_kept=True,
            attempt=progress.errors,
            http=_http(event),
        )
        return Run(version=version, invocation=invocation, reserved=None)

    def judged(self, event: Event, result: Outcome | TorporError) -> Result:
        if isinstance(result, Outcome) and result.failure is not None:
            result = self._explained(event, result)
        return judged(result)

    def owed(self, event: Event, progress: Progress) -> tuple[Owed, ...]:
        if progress.condition not in event_rules.TOLD:
            return ()
        target = self._config(event).target(success=progress.condition == Condition.SUCCESS)
        return (Owed(target=target, role=DESTINATION),) if target else ()

    def parcel(self, event: Event, progress: Progress, owed: Owed) -> Parcel:
        body = event_rules.record(event, progress, self._place)
        function = event_rules.function_target(owed.target)
        if function is not None:
            return ToFunction(event=self._forwarded(event, function, body))
        identity = f"{event.request_id}:{progress.condition}"
        found = event_targets.parcel(owed.target, body, identity, largest=limits.TARGET_MAX)
        if found is None:
            raise event_targets.unknown(owed.target)
        return found

    def _forwarded(self, event: Event, target: tuple[str, str, str], body: bytes) -> Event:
        service, function, qualifier = target
        if len(body) > limits.ASYNC_PAYLOAD_MAX:
            raise TargetRefused(
                f"The record has {len(body)} bytes, more than the {limits.ASYNC_PAYLOAD_MAX} of an event."
            )
        try:
            version = self._registry.resolve(function, service, qualifier).version
        except ApiFailure as error:
            raise TargetRefused(str(error)) from error
        identity = names.new_request_id(self._registry.clock.wall())
        return self.event(version, body, identity, qualifier, source=f"destination:{event.request_id}")

    def _version(self, event: Event) -> FunctionVersion:
        function, service = names.function_of(event.function), names.service_of(event.function)
        try:
            return self._registry.resolve(function, service, event.qualifier).version
        except ApiFailure as error:
            raise NotFound(str(error)) from error

    def _explained(self, event: Event, outcome: Outcome) -> Outcome:
        try:
            return explained(outcome, self._version(event), event.request_id)
        except NotFound:  # it was deleted while it ran
            return outcome

    def _config(self, event: Event) -> AsyncConfig:
        return kept_config(self._registry, event.function, event.qualifier) or _PLAIN


def kept_config(registry: Registry, record: str, qualifier: str) -> AsyncConfig | None:
    """What is set for a version or alias of a function; None if nothing is."""
    document = kept_document(registry, record, qualifier)
    return event_rules.async_config(document) if document is not None else None


def kept_document(registry: Registry, record: str, qualifier: str) -> Mapping[str, Any] | None:
    """As `kept_config`, as it is kept."""
    try:
        return registry.resources.get(ASYNC, f"{record}/{qualifier or names.LATEST}")
    except NotFound:
        return None


def explained(outcome: Outcome, version: FunctionVersion, request_id: str) -> Outcome:
    """The outcome with its failure worded anew, now that all is known of it."""
    if outcome.failure is None:
        return outcome
    cost = Cost(seconds=outcome.duration, memory_mb=outcome.memory_mb)
    kind, payload = told(outcome.failure, version, request_id, cost)
    return msgspec.structs.replace(outcome, error_type=kind, payload=payload)


def task_prefix(record: str) -> str:
    """What the keys of a function's tasks begin with."""
    return f"task:{record}:"


def _taken_twice(task: str) -> ApiFailure:
    message = f"an asynchronous invocation with the id '{task}' exists already"
    return ApiFailure("StatefulAsyncInvocationAlreadyExists", message)


def _http(event: Event) -> HttpRequest | None:
    request = event.request
    if request is None:
        return None
    return HttpRequest(
        method=request.method,
        target=request.target,
        fields=request.fields,
        relay=NoCaller(),
        length=len(event.payload),
        peer=request.peer,
    )

"""Asynchronous invocations: accepted into the queue, and the rules by which it runs them (contract 10)."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torpor.api.aws.attached import EVENT_SETTINGS
from torpor.api.aws.invocations import Invocations
from torpor.contracts.event_results import judged
from torpor.contracts.lambda_ import destinations, event_rules, limits
from torpor.contracts.lambda_.event_rules import DEAD_LETTER, DESTINATION
from torpor.contracts.lambda_.failures_api import ApiFailure, not_built
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.lambda_.invoke_request import InvokeRequest
from torpor.contracts.lambda_.invoking import invocation_of
from torpor.contracts.lambda_.lineage import is_circle, stepped
from torpor.contracts.lambda_.names import FunctionName, Place, function_name
from torpor.contracts.lambda_.tracing import new_trace
from torpor.model.clock import Clock
from torpor.model.errors import NotFound, TargetRefused, TorporError
from torpor.model.event import Event, Owed, Progress, Result
from torpor.model.function import LATEST
from torpor.model.invocation import Outcome
from torpor.model.parcel import Parcel, ToFunction
from torpor.scheduling.retries import Condition, RetryPolicy
from torpor.service.attachments import Attachments
from torpor.service.events.port import Intake, Run
from torpor.service.functions import Functions

_LOG = logging.getLogger(__name__)
CONTRACT = "lambda"


class AsyncInvocations:
    """An `EventContract`: this cloud's rules for events."""

    most = limits.ACCOUNT_CONCURRENCY

    def __init__(
        self,
        functions: Functions,
        attachments: Attachments,
        invocations: Invocations,
        intake: Intake | None,
        clock: Clock,
        scale: float,
    ) -> None:
        """`scale` is what waits before further attempts are multiplied by."""
        self._functions = functions
        self._attachments = attachments
        self._invocations = invocations
        self._intake = intake
        self._clock = clock
        self._scale = scale
        self.delivery = event_rules.delivery_policy(scale)

    def accept(
        self, request: InvokeRequest, request_id: str, trace: str, told: Callable[[TorporError | None], None]
    ) -> None:
        """Take a call; `told` hears once that it is on the disk, or why it is not."""
        if self._intake is None:
            raise not_built("Asynchronous invocation")
        self._intake.accept(self.event(request, request_id, trace), lambda error, _twice: told(error))

    def event(
        self, request: InvokeRequest, request_id: str, trace: str, source: str = "", planned: float = 0.0
    ) -> Event:
        """What is kept of a call. Raises NotFound if there is no such function."""
        return Event(
            request_id=request_id,
            function=request.function.name,
            contract=CONTRACT,
            payload=request.payload,
            accepted=self._clock.wall(),
            resource=self._functions.get(request.function.name).latest.version.resource,
            qualifier=request.function.qualifier,
            trace=trace,
            tenant=request.tenant,
            source=source,
            planned=planned,
        )

    def scheduled(self, function: str, qualifier: str, payload: bytes, source: str, planned: float) -> Event | None:
        """The event of a schedule that goes off; None if the function is not there."""
        named = FunctionName(name=function, qualifier=qualifier)
        request = InvokeRequest(function=named, kind="Event", payload=payload)
        try:
            return self.event(request, new_request_id(), new_trace(self._clock.wall()), source=source, planned=planned)
        except NotFound:
            _LOG.warning("%s has nothing to call: there is no function %s", source, function)
            return None

    def kept_as(self, event: Event) -> tuple[str, float]:
        return "", 0.0

    def policy(self, event: Event) -> RetryPolicy:
        return event_rules.retry_policy(self._settings(event), self._scale)

    def bar(self, event: Event) -> Condition | None:
        try:
            record = self._functions.get(event.function)
        except NotFound:
            return Condition.GONE
        if record.reserved_concurrency == 0:
            return Condition.BLOCKED
        if (
            event.trace
            and is_circle(event.trace, record.latest.version.resource)
            and self._invocations.ends_circles(record.name)
        ):
            return Condition.RECURSION
        return None

    def run(self, event: Event, progress: Progress) -> Run:
        named = FunctionName(name=event.function, qualifier=event.qualifier)
        request = InvokeRequest(
            function=named, kind="Event", payload=event.payload, trace=event.trace, tenant=event.tenant
        )
        try:
            record, version, trace, upstream = self._invocations.resolved(request, self._place(event))
        except ApiFailure as error:
            if error.code == "ResourceNotFoundException":
                raise NotFound(str(error)) from error
            raise
        invocation = invocation_of(
            request, event.request_id, version.resource, trace, upstream, attempt=progress.errors, is_kept=True
        )
        return Run(version=version, invocation=invocation, reserved=record.reserved_concurrency)

    def judged(self, event: Event, result: Outcome | TorporError) -> Result:
        return judged(result)

    def owed(self, event: Event, progress: Progress) -> tuple[Owed, ...]:
        if progress.condition not in event_rules.TOLD:
            return ()
        which = "OnSuccess" if event_rules.is_success(progress) else "OnFailure"
        target = self._settings(event).get("DestinationConfig", {}).get(which, {}).get("Destination")
        found = [Owed(target=target, role=DESTINATION)] if target else []
        letters = "" if event_rules.is_success(progress) else self._dead_letters(event)
        return (*found, *([Owed(target=letters, role=DEAD_LETTER)] if letters else []))

    def parcel(self, event: Event, progress: Progress, owed: Owed) -> Parcel:
        place = self._place(event)
        arn = place.function_arn(event.function, event.qualifier or LATEST)
        body = event_rules.record(event, progress, arn)
        if owed.role == DESTINATION and ":lambda:" in owed.target:
            return ToFunction(event=self._forwarded(event, owed.target, body))
        return destinations.parcel(event, progress, owed, body, arn, place.region)

    def _forwarded(self, event: Event, target: str, body: bytes) -> Event:
        if len(body) > limits.EVENT_MAX:
            raise TargetRefused(f"The record has {len(body)} bytes, more than the {limits.EVENT_MAX} of an event.")
        try:
            named = function_name(target, "", self._place(event))
            resource = self._functions.get(named.name).latest.version.resource
        except TorporError as error:
            raise TargetRefused(f"There is no function {target}.") from error
        request = InvokeRequest(function=named, kind="Event", payload=body)
        if is_circle(event.trace, resource) and self._invocations.ends_circles(named.name):
            raise TargetRefused(f"{target} was called in a circle too often.")
        trace = stepped(event.trace, resource)
        return self.event(request, new_request_id(), trace, source=f"destination:{event.request_id}")

    def _place(self, event: Event) -> Place:
        """Where the function is, or was."""
        _, _, _, region, account, *_ = event.resource.split(":")
        return Place(account=account, region=region)

    def _settings(self, event: Event) -> Mapping[str, Any]:
        qualifier = "" if event.qualifier == LATEST else event.qualifier
        return self._attachments.find(EVENT_SETTINGS, event.function, qualifier) or {}

    def _dead_letters(self, event: Event) -> str:
        try:
            kept = self._functions.resolve(event.function, event.qualifier)
        except NotFound:
            return ""
        return str(kept.settings.get("DeadLetterConfig", {}).get("TargetArn", ""))

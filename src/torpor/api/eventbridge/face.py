"""Requests of EventBridge's API in, answers out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torpor.api.eventbridge.call import Call
from torpor.api.eventbridge.registry import Rules
from torpor.api.eventbridge.rules import RuleOperations
from torpor.api.eventbridge.schedules import Fired, Schedules, TimerService
from torpor.api.eventbridge.targets import TargetOperations
from torpor.api.exchanges import report, request_of
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.eventbridge import limits
from torpor.contracts.eventbridge.failures import CONTENT_TYPE, is_expected, not_built, render_failure
from torpor.contracts.eventbridge.names import Place
from torpor.contracts.eventbridge.requests import PREFIX, SERVICE, TARGET, operation_of, read_input
from torpor.contracts.http import ApiRequest
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.sigv4 import region_of, verify
from torpor.model.clock import Clock
from torpor.model.event_origin import EventOrigin
from torpor.service.resources import Resources
from torpor.transport import Exchange


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsSettings:
    """What a server's owner decides about this API."""

    account: str = "000000000000"
    region: str = "us-east-1"
    """For requests that are not signed for any."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Secrets by access key id; with none, signatures are not verified."""


def claims(exchange: Exchange) -> bool:
    """Is a request to `/` one for this face?"""
    return exchange.method == "POST" and exchange.headers.get(TARGET, "").startswith(PREFIX)


class RulesFace:
    """Rules with schedules and their targets: authenticates, checks, keeps and words the answers.

    From its construction on, enabled rules go off: `timers` say when, and `fire` is told for each target. Belongs to
    one event loop's thread, as the timers do.
    """

    def __init__(
        self, resources: Resources, timers: TimerService, fire: Fired, settings: EventsSettings, clock: Clock
    ) -> None:
        self._settings = settings
        self._clock = clock
        rules = Rules(resources)
        self._schedules = Schedules(rules, timers, fire, settings.account)
        operations = (RuleOperations(rules, self._schedules, clock), TargetOperations(rules))
        self._handlers = {name: handler for each in operations for name, handler in each.handlers().items()}

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        request_id, request = new_request_id(), request_of(exchange)
        try:
            body = self._serve(request)
        except Exception as error:
            report(error, f"request {request_id} ({request.headers.get(TARGET)})", expected=is_expected(error))
            answer = render_failure(error, request_id)
            exchange.reply(answer.status, answer.headers, answer.body)
            return
        exchange.reply(200, (("Content-Type", CONTENT_TYPE), ("x-amzn-RequestId", request_id)), body)

    def origins(self) -> Sequence[EventOrigin]:
        """What its rules make events of."""
        return self._schedules.origins()

    def _serve(self, request: ApiRequest) -> bytes:
        if len(request.body) > limits.REQUEST_MAX:
            raise ApiFailure("RequestEntityTooLargeException", f"A request has at most {limits.REQUEST_MAX} bytes.")
        if self._settings.keys:
            verify(request, self._settings.keys, self._clock.wall(), SERVICE)
        operation = operation_of(request)
        if operation not in self._handlers:
            raise not_built(operation)
        place = Place(account=self._settings.account, region=region_of(request, self._settings.region))
        value = self._handlers[operation](Call(values=read_input(operation, request.body), place=place))
        return json.dumps(value, separators=(",", ":")).encode() if value else b""

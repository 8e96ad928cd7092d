"""Requests of the CloudWatch Logs API in, answers out."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from torpor.api.exchanges import report, request_of
from torpor.api.logs.call import Call
from torpor.api.logs.events import EventOperations
from torpor.api.logs.groups import GroupOperations
from torpor.api.logs.live_tail import LiveTails
from torpor.api.logs.streams import StreamOperations
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.cloudwatch_logs import limits
from torpor.contracts.cloudwatch_logs.failures import CONTENT_TYPE, is_expected, not_built, render_failure
from torpor.contracts.cloudwatch_logs.names import Place
from torpor.contracts.cloudwatch_logs.requests import SERVICE, TARGET, operation_of, read_input
from torpor.contracts.http import ApiRequest
from torpor.contracts.lambda_.identifiers import new_request_id
from torpor.contracts.sigv4 import region_of, verify
from torpor.model.clock import Clock
from torpor.telemetry import LogGroups
from torpor.transport import Exchange

_LARGE = 256 * 1024
"""Bodies from this size on, in bytes, are checked and decoded in a thread, so that other calls go on meanwhile."""
_TAIL = "StartLiveTail"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogsSettings:
    """What a server's owner decides about this API."""

    account: str = "000000000000"
    region: str = "us-east-1"
    """For requests that are not signed for any."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Secrets by access key id; with none, signatures are not verified."""


def claims(exchange: Exchange) -> bool:
    """Is a request to `/` one for this face?"""
    return exchange.method == "POST" and TARGET in exchange.headers


class LogsFace:
    """The whole API: authenticates, checks, calls the journal and words the answers."""

    def __init__(self, groups: LogGroups, settings: LogsSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._tails = LiveTails(groups, clock)
        self._running: set[asyncio.Task[None]] = set()
        operations = (GroupOperations(groups), StreamOperations(groups), EventOperations(groups, clock))
        self._handlers = {name: handler for each in operations for name, handler in each.handlers().items()}

    def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        task = asyncio.get_running_loop().create_task(self._answer(exchange))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def close(self) -> None:
        """End what would never end by itself."""
        self._tails.close()

    async def _answer(self, exchange: Exchange) -> None:
        request_id, request = new_request_id(), request_of(exchange)
        try:
            await self._serve(exchange, request, request_id)
        except Exception as error:
            report(error, f"request {request_id} ({request.headers.get(TARGET)})", expected=is_expected(error))
            answer = render_failure(error, request_id)
            exchange.reply(answer.status, answer.headers, answer.body)

    async def _serve(self, exchange: Exchange, request: ApiRequest, request_id: str) -> None:
        if len(request.body) > limits.REQUEST_MAX:
            raise ApiFailure("RequestEntityTooLargeException", f"A request has at most {limits.REQUEST_MAX} bytes.")
        if len(request.body) < _LARGE:
            operation, call = self._read(request)
        else:
            operation, call = await asyncio.to_thread(self._read, request)
        if operation == _TAIL:
            await self._tails.serve(call, exchange, request_id)
            return
        value = await self._handlers[operation](call)
        headers = (("Content-Type", CONTENT_TYPE), ("x-amzn-RequestId", request_id))
        body = json.dumps(value, separators=(",", ":")).encode() if value else b""
        exchange.reply(200, headers, body)

    def _read(self, request: ApiRequest) -> tuple[str, Call]:
        if self._settings.keys:
            verify(request, self._settings.keys, self._clock.wall(), SERVICE)
        operation = operation_of(request)
        if operation != _TAIL and operation not in self._handlers:
            raise not_built(operation)
        place = Place(account=self._settings.account, region=region_of(request, self._settings.region))
        return operation, Call(values=read_input(operation, request.body), place=place)

"""The in-sandbox API for runtimes that poll: HTTP calls in, machine events out.

Every answer is given in the same turn of the event loop in which its cause arrived; nothing is queued. The endpoint
keeps only the parked requests for work; what is allowed when is the machine's to say.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Protocol

from torpor.engine.contract import PollerWire
from torpor.engine.uploads import UNHANDLED, Uploads
from torpor.lifecycle import RUNTIME, AgentCall, TransitionRefused
from torpor.lifecycle.events import (
    AgentFailed,
    Answered,
    AnswerRefused,
    Event,
    NextRequested,
    NextWithdrawn,
    RestoreAwaited,
)
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.invocation import AnswerSink, Invocation
from torpor.model.runtime_calls import RuntimeCall
from torpor.transport import Exchange, FixedHeaders, Headers

_TOGETHER = 1.0
"""Seconds within which a process that ends closes all its connections."""
_RUNTIME_ASKS = NextRequested(RUNTIME)


class Host(Protocol):
    """What the endpoint needs of its environment."""

    def feed(self, event: Event) -> None:
        """Pass an event to the machine. Raises TransitionRefused if it may not be."""
        ...

    @property
    def has_workers(self) -> bool:
        """Does the runtime ask for work in parallel?"""
        ...

    def is_running(self, invocation_id: str) -> bool: ...

    def has_expired(self, invocation_id: str) -> bool:
        """Has it timed out alone?"""
        ...

    def require(self, call: AgentCall) -> None:
        """Raises TransitionRefused if the runtime may not make this call now."""
        ...

    @property
    def uses_snapshots(self) -> bool:
        """Is its runtime saved, or does it go on from a snapshot?"""
        ...

    def sink_of(self, invocation_id: str) -> AnswerSink | None:
        """Where the streamed answer to a running invocation goes; None if it is to be collected."""
        ...


class PollingEndpoint:
    """One environment's Runtime API."""

    def __init__(
        self,
        host: Host,
        wire: PollerWire,
        deadline_ms: Callable[[float], int],
        *,
        connection_is_worker: bool = False,
        otherwise: Callable[[Exchange], None] | None = None,
    ) -> None:
        """`otherwise` answers calls that are none of this API's."""
        self._host = host
        self._otherwise = otherwise
        self._connection_is_worker = connection_is_worker
        self._wire = wire
        self._json = FixedHeaders((wire.JSON,))
        self._deadline_ms = deadline_ms
        self._parked: deque[Exchange] = deque()
        self._restorable: Exchange | None = None
        """The request of a runtime that waits to go on from its snapshot."""
        self._undelivered: deque[tuple[list[tuple[str, str]], bytes]] = deque()
        """Events whose workers had gone when they were to be handed over."""
        self._now = time.monotonic
        self._has_logs = False
        self._log_closed_at = -inf
        self._suspects: dict[str, float] = {}
        """Invocations whose worker's connection is gone, and since when."""
        self.uploads = Uploads(host, wire, self._reply)

    def handle(self, exchange: Exchange) -> None:
        """The transport's application."""
        call, invocation_id = self._wire.parse_call(exchange.method, exchange.path)
        try:
            if call is RuntimeCall.NEXT:
                self._next(exchange)
            elif call is RuntimeCall.RESPONSE or call is RuntimeCall.ERROR:
                self._answer(exchange, call, invocation_id)
            elif call is RuntimeCall.INIT_ERROR:
                self._init_error(exchange)
            elif call is RuntimeCall.RESTORE_NEXT and self._host.uses_snapshots:
                self._await_restore(exchange)
            elif call is RuntimeCall.RESTORE_ERROR and self._host.uses_snapshots:
                self._init_error(exchange)
            elif call is RuntimeCall.PING:
                exchange.reply(200, (self._wire.TEXT,), b"pong")
            elif self._otherwise is not None:
                self._otherwise(exchange)
            else:
                exchange.reply(*self._wire.unrouted(exchange.method, exchange.path))
        except TransitionRefused as refused:
            if self.uploads.settle():
                self.handle(exchange)
                return
            self._reply(exchange, 403, self._wire.refusal(refused, error=call is RuntimeCall.ERROR))

    def streams(self, method: str, path: str, headers: Headers) -> bool:
        """Is this request read while it arrives? The transport asks about those with a body."""
        if headers.get(self._wire.RESPONSE_MODE_HEADER) not in self._wire.RESPONSE_MODES or headers.get("upgrade"):
            return False
        call, invocation_id = self._wire.parse_call(method, path)
        if call is not RuntimeCall.RESPONSE:
            return False
        self.uploads.announced = invocation_id
        return True

    def deliver(self, invocation: Invocation, deadline: float) -> None:
        """Answer the oldest parked request with the event; if its peer has gone, the next request gets it again."""
        headers = self._wire.event_headers(invocation, self._deadline_ms(deadline))
        while self._parked:
            exchange = self._parked.popleft()
            if self._connection_is_worker:
                exchange.watch_connection(partial(self._worker_lost, invocation.id))
            if exchange.reply(200, headers, invocation.payload):
                return
        if self._host.has_workers:
            self._undelivered.append((headers, invocation.payload))

    def wake(self) -> None:
        """Answer the runtime that waits to go on from its snapshot."""
        exchange, self._restorable = self._restorable, None
        if exchange is not None:
            exchange.reply(200)

    def forget(self) -> None:
        """The processes are gone: their parked requests are worth nothing."""
        self._parked.clear()
        self._restorable = None
        self._undelivered.clear()
        self._suspects.clear()

    def worker_log_opened(self) -> None:
        """Workers have logs of their own here, so that those tell of their ends too."""
        self._has_logs = True

    def worker_log_closed(self) -> None:
        """A worker has closed its log: one whose connection was lost a moment ago has surely ended."""
        self._log_closed_at = self._now()
        for invocation_id, lost_at in list(self._suspects.items()):
            del self._suspects[invocation_id]
            if self._log_closed_at - lost_at <= _TOGETHER:
                self._worker_ended(invocation_id)

    def _worker_lost(self, invocation_id: str) -> None:
        """The connection of the worker that was handed this invocation is gone. HTTP clients also drop connections that
        were idle for long, so where workers have logs, their end must be told by both."""
        now = self._now()
        if not self._has_logs or now - self._log_closed_at <= _TOGETHER:
            self._worker_ended(invocation_id)
        elif self._host.is_running(invocation_id):
            self._suspects[invocation_id] = now

    def _worker_ended(self, invocation_id: str) -> None:
        """If it still had the invocation, that has failed."""
        if self._host.is_running(invocation_id) or self._host.has_expired(invocation_id):
            self._host.feed(AnswerRefused(invocation_id, Failure(kind=FailureKind.EXIT)))

    def _next(self, exchange: Exchange) -> None:
        while self._undelivered:
            if exchange.reply(200, *self._undelivered.popleft()):
                return
        exchange.on_disconnect = partial(self._unpark, exchange)
        self._parked.append(exchange)
        try:
            self._host.feed(_RUNTIME_ASKS)
        except TransitionRefused:
            self._parked.pop()
            raise

    def _await_restore(self, exchange: Exchange) -> None:
        self._host.require(AgentCall.AWAIT_RESTORE)
        self._restorable = exchange
        self._host.feed(RestoreAwaited())

    def _unpark(self, exchange: Exchange) -> None:
        if exchange in self._parked:
            self._parked.remove(exchange)
            if self._host.has_workers:
                self._host.feed(NextWithdrawn(RUNTIME))

    def _answer(self, exchange: Exchange, call: RuntimeCall, invocation_id: str) -> None:
        if not self._host.is_running(invocation_id):
            self._answer_of_none(exchange, invocation_id)
            return
        streamed = None
        if self.uploads.open and invocation_id in self.uploads.open:
            if not self._may_interrupt(call):
                self._reply(exchange, 400, self._wire.INVALID_REQUEST_ID)
                return
            streamed = self.uploads.interrupt(invocation_id)
        headers, body = exchange.headers, exchange.body
        mode = headers.get(self._wire.RESPONSE_MODE_HEADER)
        if mode and mode not in self._wire.RESPONSE_MODES:
            self._refuse(exchange, 400, self._wire.INVALID_MODE, invocation_id, "Runtime.InvalidResponseModeHeader")
        elif mode and call is RuntimeCall.RESPONSE:
            self.uploads.begin(exchange, invocation_id)
        elif len(body) > self._wire.RESPONSE_MAX:
            self._refuse(exchange, 413, self._wire.TOO_LARGE, invocation_id, "", size=len(body))
        else:
            kind = cause = ""
            if call is RuntimeCall.ERROR:
                named = headers.get(self._wire.ERROR_TYPE_HEADER)
                kind = self._wire.checked_error_type(named) if named else UNHANDLED
                cause = headers.get(self._wire.CAUSE_HEADER)
            content_type = headers.get("content-type", "application/octet-stream")
            answer = Answer(payload=body, content_type=content_type, error_type=kind, streamed=streamed, cause=cause)
            self._host.require(AgentCall.ANSWER)
            # The runtime goes on to ask for more while its answer is still on the way to the caller.
            self._reply(exchange, 202, self._wire.ACCEPTED)
            self._host.feed(Answered(invocation_id, answer))

    def _may_interrupt(self, call: RuntimeCall) -> bool:
        """May this call end a streamed answer that is under way? Raises TransitionRefused where there is one call at a
        time."""
        if not self._host.has_workers:
            self._host.require(AgentCall.BEGIN_ANSWER)
        return call is RuntimeCall.ERROR

    def _answer_of_none(self, exchange: Exchange, invocation_id: str) -> None:
        if self._host.has_expired(invocation_id):
            self._reply(exchange, 410, self._wire.LATE)
            self._host.feed(Answered(invocation_id, Answer(payload=b"")))
        else:
            self._reply(exchange, 400, self._wire.INVALID_REQUEST_ID)

    def _refuse(
        self, exchange: Exchange, status: int, body: bytes, invocation_id: str, kind: str, size: int = 0
    ) -> None:
        cause = FailureKind.OVERSIZE if status == 413 else FailureKind.MALFORMED
        self._host.feed(AnswerRefused(invocation_id, Failure(kind=cause, error_type=kind, size=size)))
        self._reply(exchange, status, body)

    def _init_error(self, exchange: Exchange) -> None:
        kind = exchange.headers.get(self._wire.ERROR_TYPE_HEADER)
        self._host.feed(AgentFailed(RUNTIME, self._wire.checked_error_type(kind), exchange.body))
        self._reply(exchange, 202, self._wire.ACCEPTED)

    def _reply(self, exchange: Exchange, status: int, body: bytes) -> None:
        exchange.reply(status, self._json, body)

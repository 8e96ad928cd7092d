"""Processes inside that poll: the in-sandbox server with the runtime's and the extensions' API on it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torpor.engine.contract import ExtensionWire, PollerWire, TelemetryWire
from torpor.engine.extensions import ExtensionsEndpoint
from torpor.engine.polling import PollingEndpoint
from torpor.engine.subscriptions import Subscriptions
from torpor.lifecycle import RUNTIME, AgentCall
from torpor.lifecycle.events import AnswerRefused, Event
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import AnswerSink
from torpor.sandbox.port import Sandbox
from torpor.transport import Attention, Exchange, HttpLimits, HttpServer, listen

_MIB = 1024 * 1024
_TOO_LARGE = 413
_UNREADABLE = frozenset({400, 408})
_HEADER_MAX = _MIB + 64 * 1024
"""Bytes of a request's head inside: runtimes tell the whole stack of an error in a header field of up to a MiB."""
_CONNECTIONS = 64
_DAY = 86_400.0
"""Seconds a process may be silent, between requests or, while it streams an answer, within one: invocations have time
limits of their own."""
_CONNECTIONS_PER_WORKER = 4


class Host(Protocol):
    """What this side needs of its environment."""

    @property
    def takes_registrations(self) -> bool: ...

    @property
    def delivered(self) -> tuple[str, ...]:
        """The invocations whose answer is awaited."""
        ...

    def feed(self, event: Event) -> None: ...

    @property
    def has_workers(self) -> bool: ...

    def is_running(self, invocation_id: str) -> bool: ...

    def has_expired(self, invocation_id: str) -> bool: ...

    def require(self, call: AgentCall) -> None: ...

    def sink_of(self, invocation_id: str) -> AnswerSink | None: ...

    @property
    def uses_snapshots(self) -> bool: ...

    def credentials(self, given: str) -> tuple[int, tuple[str, str], bytes]: ...


class PolledInside:
    """See `Inside`."""

    def __init__(
        self,
        host: Host,
        wire: PollerWire,
        extension_wire: ExtensionWire,
        version: FunctionVersion,
        deadline_ms: Callable[[float], int],
        attention: Attention,
        *,
        connection_is_worker: bool,
        telemetry_wire: TelemetryWire | None = None,
        telemetry: Subscriptions | None = None,
    ) -> None:
        self._host = host
        self._wire = wire
        self._attention = attention
        self._workers = version.concurrency
        self._server: HttpServer | None = None
        self._external: tuple[str, ...] = ()
        self._telemetry_wire = telemetry_wire
        self._telemetry = telemetry
        self._subscribers = telemetry.subscribers if telemetry is not None else {}
        self._endpoint = PollingEndpoint(
            host, wire, deadline_ms, connection_is_worker=connection_is_worker, otherwise=self._other_call
        )
        self._extensions = ExtensionsEndpoint(host, extension_wire, version, deadline_ms)
        self._extensions_prefix = extension_wire.PREFIX
        self.deliver = self._endpoint.deliver
        self.wake = self._endpoint.wake
        self.worker_log_opened = self._endpoint.worker_log_opened
        self.worker_log_closed = self._endpoint.worker_log_closed
        self.notify_invoke = self._extensions.notify_invoke
        self.notify_shutdown = self._extensions.notify_shutdown

    address = ""

    async def open(self, sandbox: Sandbox, external: tuple[str, ...]) -> None:
        self._external = external
        self._extensions.announce(external)
        if self._telemetry is not None:
            self._telemetry.placed(sandbox)
        self._server = await listen(
            self._handle,
            sock=sandbox.api_socket,
            limits=self._limits(),
            on_error=self._refused,
            attention=self._attention,
            streams=self._endpoint.streams,
        )

    def starting(self, agents: tuple[str, ...]) -> None:
        if RUNTIME not in agents or not self._external:
            self._extensions.forget()
        if RUNTIME in agents:
            self._endpoint.forget()

    def started(self, agent: str) -> None:
        """Pollers say themselves when they are ready."""

    def exited(self, agent: str) -> None:
        if agent == RUNTIME:
            self._endpoint.forget()
        if self._telemetry is not None:
            self._telemetry.exited(agent, self._external)

    def farewell(self, agent: str, end: Callable[[], None]) -> None:
        if self._telemetry is not None:
            self._telemetry.farewell(agent, end)
        else:
            end()

    def release(self, invocation_id: str) -> float:
        """A poller cannot be told, but what it may still upload is not taken."""
        if self._endpoint.uploads.open:
            self._endpoint.uploads.release(invocation_id)
        return 0.0

    def elapsed(self, invocation_id: str) -> float:
        return 0.0

    def call_hook(self, hook: str) -> None:
        raise NotImplementedError(f"pollers have no hooks: {hook}")

    def frozen(self) -> None:
        """Their connections are served by themselves."""
        if self._subscribers:
            for subscriber in self._subscribers.values():
                subscriber.freeze()

    def thawed(self) -> None:
        if self._subscribers:
            for subscriber in self._subscribers.values():
                subscriber.thaw()

    def close(self) -> None:
        if self._telemetry is not None:
            self._telemetry.close()
        if self._server is not None:
            self._server.close()

    def _limits(self) -> HttpLimits:
        """What processes inside may ask of the server: enough for a runtime and its extensions, little for a flood."""
        return HttpLimits(
            header_bytes=_HEADER_MAX,
            body_bytes=self._wire.body_limit,
            connections=_CONNECTIONS + _CONNECTIONS_PER_WORKER * (self._workers - 1),
            head_timeout=60.0,
            stream_timeout=_DAY,
            idle_timeout=_DAY,
        )

    def _refused(self, status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
        """The in-sandbox server turns a request away before its endpoint sees it. One that is too large, while a single
        invocation runs, is that invocation's answer."""
        wire, running = self._wire, self._host.delivered
        if status == _TOO_LARGE and len(running) == 1:
            self._host.feed(AnswerRefused(running[0], Failure(kind=FailureKind.OVERSIZE)))
        if status in _UNREADABLE:
            self._endpoint.uploads.refuse(running)
            return (wire.JSON,), wire.TRUNCATED
        return (wire.JSON,), wire.TOO_LARGE if status == _TOO_LARGE else wire.NOT_FOUND

    def _other_call(self, exchange: Exchange) -> None:
        """A call that is none of the runtime's: an extension subscribes to telemetry."""
        wire, telemetry = self._telemetry_wire, self._telemetry
        api = wire.api_of(exchange.method, exchange.path) if wire is not None else ""
        if not api or telemetry is None:
            exchange.reply(*self._wire.unrouted(exchange.method, exchange.path))
        elif agent := self._extensions.caller(exchange):
            telemetry.subscribe(exchange, api, agent)

    def _handle(self, exchange: Exchange) -> None:
        """A call over the in-sandbox API, of the runtime or of an extension."""
        if exchange.path == self._wire.CREDENTIALS_PATH and self._host.uses_snapshots:
            status, content_type, body = self._host.credentials(exchange.headers.get("authorization"))
            exchange.reply(status if exchange.method == "GET" else 405, (content_type,), body)
            return
        endpoint = self._extensions if exchange.path.startswith(self._extensions_prefix) else self._endpoint
        endpoint.handle(exchange)

"""The way to a runtime that is a server: its readiness, its connections, its hooks and its health.

Connections are kept alive and used again, the one used last first. Each is made from a socket that lives in the
sandbox's own network, so that nothing else can ever be reached over it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Protocol

from torpor.engine.contract import RawFields, ServerWire
from torpor.engine.deliveries import BufferedDelivery, Delivery, RelayedDelivery
from torpor.engine.inquiry import Inquiry
from torpor.lifecycle import RUNTIME
from torpor.lifecycle.events import Event, HealthChanged, HookFinished, NextRequested
from torpor.model.errors import SandboxUnavailable
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation
from torpor.model.server import INITIALIZE, HealthCheck, Probe, ServerCall
from torpor.sandbox.port import Sandbox
from torpor.transport import ClientConnection, ClientLimits, connect, encode_request, within

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
_EXIT_EXPLAINS = 0.05
"""Seconds a connection that has ended waits for the news that its process has, too."""
_CONNECT_WITHIN = 5.0
_FIRST_PERIOD = 0.001
_PERIOD_GROWTH = 0.02
"""Probes come the more often the shorter the server has been starting, up to the probe's own period."""
_HEALTHY = range(200, 400)


class Host(Protocol):
    """What the endpoint needs of its environment."""

    def feed(self, event: Event) -> None: ...


class ServingInside:
    """See `Inside`: sends one environment's server its work."""

    def __init__(self, host: Host, wire: ServerWire, version: FunctionVersion, identity: str) -> None:
        self.feed = host.feed
        self.wire = wire
        self.version = version
        self.identity = identity
        self.buffered_max = wire.response_max(version, relayed=False)
        self.relayed_max = wire.response_max(version, relayed=True)
        self._loop = asyncio.get_running_loop()
        self._sandbox: Sandbox | None = None
        self._place = ("", 0)
        self._limits = ClientLimits(header_bytes=wire.head_max, connect_timeout=_CONNECT_WITHIN)
        self._idle: list[ClientConnection] = []
        self._running: dict[str, Delivery] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._frozen_at: float | None = None
        self._freezes = 0

    @property
    def address(self) -> str:
        host, port = self._place
        return f"{host}:{port}" if host else ""

    # -- what the environment asks -----------------------------------------------------------------------------------

    async def open(self, sandbox: Sandbox, external: tuple[str, ...]) -> None:
        settings = self.version.server
        assert settings is not None, "a server has settings"
        self._sandbox = sandbox
        self._place = (LOOPBACK if self.wire.loopback else sandbox.address), sandbox.server_port(settings.port)

    def starting(self, agents: tuple[str, ...]) -> None:
        """Nothing is kept of earlier processes."""

    def started(self, agent: str) -> None:
        """The server's process runs: tell once it can be reached."""
        self._spawn(self._become_ready(self.wire.probe(self.version)))

    def deliver(self, invocation: Invocation, deadline: float) -> None:
        http = invocation.http
        now = self._loop.time()
        delivery: Delivery
        if http is None:
            delivery = BufferedDelivery(self, invocation, now)
        else:
            delivery = RelayedDelivery(self, invocation, now, http)
        self._running[invocation.id] = delivery
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.idle:
                delivery.begin(connection, reused=True)
                return
        self._spawn(self._deliver_over_new(delivery))

    def elapsed(self, invocation_id: str) -> float:
        delivery = self._running.get(invocation_id)
        return self._loop.time() - delivery.began if delivery is not None else 0.0

    def notify_invoke(self, agent: str, invocation: Invocation, deadline: float) -> None:
        """Servers have no extensions."""

    def notify_shutdown(self, agent: str, reason: str, deadline: float) -> None:
        """See `notify_invoke`."""

    def worker_log_opened(self) -> None:
        """Servers have no workers that the platform knows."""

    def worker_log_closed(self) -> None:
        """See `worker_log_opened`."""

    def farewell(self, agent: str, end: Callable[[], None]) -> None:
        """Nothing is on its way to a server but requests."""
        end()

    def release(self, invocation_id: str) -> float:
        delivery = self._running.pop(invocation_id, None)
        if delivery is None:
            return 0.0
        if not delivery.over:
            delivery.release()
        return self._loop.time() - delivery.began

    def wake(self) -> None:
        raise NotImplementedError("servers have no snapshots")

    def call_hook(self, hook: str) -> None:
        self._spawn(self._run_hook(hook))

    def frozen(self) -> None:
        self._frozen_at = self._loop.time()
        self._freezes += 1

    def thawed(self) -> None:
        """What the server would have closed meanwhile, had it been running, is not used any more."""
        if self._frozen_at is not None and self._loop.time() - self._frozen_at > self.wire.reuse_after_freeze:
            self._close_idle()
        self._frozen_at = None

    def exited(self, agent: str) -> None:
        """What was running is over, and kept until it is released: how long it took is told then."""
        for task in self._tasks:
            task.cancel()
        self._close_idle()
        for delivery in self._running.values():
            delivery.release()

    def close(self) -> None:
        self.exited("")
        self._running.clear()

    # -- what deliveries ask -----------------------------------------------------------------------------------------

    def give_back(self, connection: ClientConnection) -> None:
        if connection.idle:
            self._idle.append(connection)

    def again(self, delivery: Delivery) -> None:
        self._spawn(self._deliver_over_new(delivery))

    def lost(self, delivery: Delivery, failure: Failure) -> None:
        self._loop.call_later(_EXIT_EXPLAINS, delivery.fail, failure)

    def ended(self, delivery: Delivery) -> None:
        self._loop.call_later(_EXIT_EXPLAINS, delivery.complete, False)

    # -- connections -------------------------------------------------------------------------------------------------

    async def _open(self) -> ClientConnection:
        """Raises OSError, or TimeoutError, if the server does not accept, or at once takes back that it did."""
        assert self._sandbox is not None, "the server has been started"
        try:
            sock = await self._sandbox.open_socket()
        except SandboxUnavailable as error:
            raise ConnectionError(str(error)) from error
        connection = await connect(sock, self._place, self._limits)
        if not connection.idle:
            raise ConnectionError("the server closed the connection at once, or spoke first")
        connection.on_closed = partial(self._drop_idle, connection)
        return connection

    async def _deliver_over_new(self, delivery: Delivery) -> None:
        try:
            connection = await self._open()
            if delivery.over:
                self.give_back(connection)
            else:
                delivery.begin(connection, reused=False)
        except (OSError, TimeoutError) as error:
            failure = Failure(kind=FailureKind.NO_ANSWER, detail=_reason(error))
            self.lost(delivery, failure)
        except Exception as error:  # an invocation waits: whatever went wrong, it is told
            log.exception("%s: an invocation cannot be handed over", self.version.function)
            delivery.fail(Failure(kind=FailureKind.SANDBOX, detail=f"handing it over failed: {error}"))

    def _drop_idle(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(connection)

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # -- readiness, hooks, health ------------------------------------------------------------------------------------

    async def _become_ready(self, probe: Probe) -> None:
        began = self._loop.time()
        while not await self._passes(probe):  # noqa: ASYNC110 - the server inside cannot set an event
            await asyncio.sleep(min(probe.period_s, _FIRST_PERIOD + _PERIOD_GROWTH * (self._loop.time() - began)))
        self.feed(NextRequested(RUNTIME))

    async def _passes(self, probe: Probe) -> bool:
        call = ServerCall(method="GET", target=probe.path, fields=probe.fields, timeout_s=probe.timeout_s)
        try:
            if probe.path:
                await self._ask(call)
            else:
                self.give_back(await self._open())
        except (OSError, TimeoutError):
            return False
        return True

    async def _run_hook(self, hook: str) -> None:
        try:
            failure = await self._hook_failure(hook)
        except Exception as error:  # the environment waits for it: nothing would ever become of it
            log.exception("%s: the hook %s", self.version.function, hook)
            failure = Failure(kind=FailureKind.SANDBOX, detail=f"calling the hook {hook} failed: {error}")
        self.feed(HookFinished(hook, failure))

    async def _hook_failure(self, hook: str) -> Failure | None:
        """After its initialisation the server must be healthy too, where its health is asked for."""
        failure = None
        if hook != INITIALIZE or hook in self._hooks():
            failure = await self._call(hook)
        health = self.version.server.health if self.version.server is not None else None
        if hook == INITIALIZE and health is not None and failure is None:
            await asyncio.sleep(health.initial_delay_s)
            failure = await self._check(health)
            if failure is None:
                self._spawn(self._watch_health(health))
        return failure

    def _hooks(self) -> frozenset[str]:
        return frozenset(self.version.server.hooks if self.version.server is not None else ())

    async def _call(self, hook: str) -> Failure | None:
        call = self.wire.hook(self.version, hook, self.identity)
        try:
            status, fields, body = await self._ask(call)
        except TimeoutError:
            return Failure(kind=FailureKind.TIMEOUT, limit=call.timeout_s, detail=hook, starting=hook == INITIALIZE)
        except OSError as error:
            return Failure(kind=FailureKind.NO_ANSWER, detail=_reason(error), starting=hook == INITIALIZE)
        return self.wire.hook_failure(hook, status, fields, body)

    async def _check(self, health: HealthCheck) -> Failure | None:
        call = ServerCall(method="GET", target=health.path, timeout_s=health.timeout_s)
        try:
            status, _, _ = await self._ask(call)
        except (OSError, TimeoutError) as error:
            return Failure(kind=FailureKind.HEALTH, detail=_reason(error))
        return None if status in _HEALTHY else Failure(kind=FailureKind.HEALTH, code=status)

    async def _watch_health(self, health: HealthCheck) -> None:
        healthy, row = True, 0
        while True:
            await asyncio.sleep(health.period_s)
            freezes = self._freezes
            if self._frozen_at is not None:
                continue
            passed = await self._check(health) is None
            if self._freezes != freezes:
                continue  # it had no time to answer
            row = 0 if passed is healthy else row + 1
            if row >= (health.failures if healthy else health.successes):
                healthy, row = not healthy, 0
                self.feed(HealthChanged(healthy))

    async def _ask(self, call: ServerCall) -> tuple[int, RawFields, bytes]:
        """Raises OSError or TimeoutError if no complete answer comes."""
        return await within(call.timeout_s or None, self._asked(call))

    async def _asked(self, call: ServerCall) -> tuple[int, RawFields, bytes]:
        connection = await self._open()
        inquiry = Inquiry(self._loop)
        try:
            fields = call.fields or (("Host", self.address),)
            connection.send(encode_request(call.method, call.target, fields, len(call.body)), call.body, inquiry)
            answer = await inquiry.answer
        except BaseException:
            connection.abort()
            raise
        self.give_back(connection) if inquiry.reusable else connection.close()
        return answer

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    return (getattr(error, "strerror", None) or str(error)).lower()

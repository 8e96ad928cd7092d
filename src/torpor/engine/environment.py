"""The driver of one environment: performs what the machine asks for, tells it what happens.

Effects are performed inline, in the order given: between the last byte of a request and its delivery to a parked
runtime there is no task switch and no queue. The driver decides nothing; where it seems to, it only orders what the
machine, the pool and the sandbox each know.
"""

import asyncio
import logging
import os
import signal as signals
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torpor.engine.contract import Contract
from torpor.engine.deadlines import Deadlines
from torpor.engine.extensions import ExtensionsEndpoint, external_extensions
from torpor.engine.polling import PollingEndpoint
from torpor.engine.tracing import Tracer
from torpor.engine.transcript import Transcript
from torpor.lifecycle import EXTENSIONS, RUNTIME, EnvironmentMachine, PhaseName, TransitionRefused
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.model.clock import Clock
from torpor.model.errors import TorporError
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.model.records import InitEnded, InvocationEnded
from torpor.sandbox.images import RuntimeImage
from torpor.sandbox.port import (
    ProcessExit,
    ProcessSpec,
    Sandbox,
    SandboxProvider,
    SandboxSpec,
    SandboxStatistics,
    Stream,
)
from torpor.telemetry import END_OF_PHASE, History, Journal, Traces
from torpor.transport import Attention, Exchange, HttpLimits, HttpServer, listen

log = logging.getLogger(__name__)
_SIGNALS = {fx.SignalName.TERMINATE: signals.SIGTERM, fx.SignalName.KILL: signals.SIGKILL}
_MIB = 1024 * 1024
_TOO_LARGE = 413
_HEADER_MAX = _MIB + 64 * 1024
"""Bytes of a request's head inside: runtimes tell the whole stack of an error in a header field of up to a MiB."""
_AFTER_OUTPUT = frozenset({InvocationEnded, InitEnded})
"""Records that come after all that the processes have written."""
_FAILED = {
    FailureKind.TIMEOUT: OutcomeStatus.TIMEOUT,
    FailureKind.SANDBOX: OutcomeStatus.FAILURE,
    FailureKind.STOPPED: OutcomeStatus.FAILURE,
}


class Owner(Protocol):
    """The pool, as its environments see it."""

    def settled(self, environment: "Environment") -> None:
        """The environment has room again, or has ended; give it work or leave it."""
        ...


Done = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every environment of a server shares."""

    provider: SandboxProvider
    journal: Journal
    history: History
    traces: Traces
    clock: Clock
    loop: asyncio.AbstractEventLoop
    code_folder: Callable[[CodeRef], str]
    limits_cpu: bool = True
    attention: Attention = field(default_factory=Attention)


class Environment:
    """One environment: a machine, a sandbox, an endpoint and their timers."""

    def __init__(
        self,
        identity: str,
        version: FunctionVersion,
        contract: Contract,
        image: RuntimeImage,
        around: Surroundings,
        owner: Owner,
    ) -> None:
        self.id = identity
        self.version = version
        self.key = version.key
        self.created = self.last_used = around.clock.monotonic()
        self.invocations = 0
        self.retired = False
        """A newer revision of its function exists: it takes no new work."""
        self.listed = False
        """The pool has it among those with room."""
        self.charged_mb = 0
        """Its part of the host's memory budget now; kept by the pool."""
        self._contract = contract
        self._image = image
        self._around = around
        self._owner = owner
        self._clock = around.clock
        self._code = around.code_folder(version.code)
        self._layers = tuple(around.code_folder(layer) for layer in version.layers)
        wire = contract.extension_wire
        self._external = tuple(EXTENSIONS + name for name in external_extensions(self._layers, wire.FOLDER))
        self.machine = EnvironmentMachine(contract.policy(version), self._external)
        self._extensions = ExtensionsEndpoint(self, wire, version, self._external, self._epoch_ms)
        self._extensions_prefix = wire.PREFIX
        self.is_running = self.machine.is_running
        self.require = self.machine.runtime.require
        self._done: dict[str, Done] = {}
        self._deadlines = Deadlines(around.loop, around.clock, lambda timer: self.feed(ev.DeadlineReached(timer)))
        self._sandbox: Sandbox | None = None
        self._server: HttpServer | None = None
        self._endpoint = PollingEndpoint(self, contract.wire, self._epoch_ms)
        self.log_stream = contract.log_stream(version, identity, around.clock.wall())
        traced = contract.is_traced(version)
        self._tracer = Tracer(version, self.log_stream, contract, around.traces) if traced else None
        self._transcript = Transcript(
            around.journal, version, self.log_stream, contract, image, self._memory_mb, self._tracer
        )
        self._ended = asyncio.Event()
        self._removal: asyncio.Task[None] | None = None
        self._perform: Mapping[type, Callable[[Any], None]] = {
            fx.Deliver: self._deliver,
            fx.NotifyInvoke: self._notify_invoke,
            fx.NotifyShutdown: self._notify_shutdown,
            fx.Complete: self._complete,
            fx.Emit: self._emit,
            fx.ArmTimer: self._arm,
            fx.CancelTimer: self._cancel,
            fx.Freeze: self._freeze,
            fx.Thaw: self._thaw,
            fx.LimitCpu: self._limit_cpu,
            fx.StartAgents: self._start_agents,
            fx.SignalAgent: self._signal_agent,
            fx.KillAgents: self._kill_agents,
            fx.Destroy: self._destroy,
        }

    # -- what the pool asks ------------------------------------------------------------------------------------------

    @property
    def phase(self) -> PhaseName:
        return self.machine.phase.name

    @property
    def free_slots(self) -> int:
        return 0 if self.retired else self.machine.free_slots

    @property
    def is_busy(self) -> bool:
        """Does an invocation run or wait in it, or does an extension still work on one?"""
        return bool(self._done) or self.machine.is_working

    async def provision(self) -> None:
        """Make the sandbox and start Init. Failures are told to the machine, never raised."""
        try:
            sandbox = await self._around.provider.create(self._sandbox_spec(), self)
            if self.machine.is_gone:
                await sandbox.destroy()
                return
            self._sandbox = sandbox
            self._server = await listen(
                self._handle,
                sock=sandbox.api_socket,
                limits=self._limits(),
                on_error=self._refused,
                attention=self._around.attention,
            )
        except TorporError as error:
            self.feed(ev.SandboxLost(str(error)))
        except Exception as error:  # an invocation waits: whatever went wrong, it is told
            log.exception("environment %s of %s cannot be made", self.id, self.version.function)
            self.feed(ev.SandboxLost(f"making the sandbox failed: {error}"))
        else:
            if self.machine.is_gone:
                self._server.close()
            else:
                self.feed(ev.SandboxReady())

    def _limits(self) -> HttpLimits:
        """What processes inside may ask of the server: enough for a runtime and its extensions, little for a flood."""
        return HttpLimits(
            header_bytes=_HEADER_MAX,
            body_bytes=self._contract.wire.body_limit,
            connections=64,
            head_timeout=60.0,
            idle_timeout=86_400.0,
        )

    def _refused(self, status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
        """The in-sandbox server turns a request away before its endpoint sees it. One that is too large, while a single
        invocation runs, is that invocation's answer."""
        wire = self._contract.wire
        running = self.machine.delivered
        if status == _TOO_LARGE and len(running) == 1:
            self.feed(ev.AnswerRefused(running[0], oversize=True, error_type="", size=0))
        return (wire.JSON,), wire.TOO_LARGE if status == _TOO_LARGE else wire.NOT_FOUND

    def assign(self, invocation: Invocation, done: Done) -> None:
        """Run an invocation here; `done` is called exactly once, synchronously when the answer is there."""
        self._done[invocation.id] = done
        if self._tracer is not None:
            self._tracer.begin(invocation)
        self.invocations += 1
        self.feed(ev.Assigned(invocation, self.version.timeout_s))

    def rest(self) -> None:
        """There is no work for it now."""
        self.feed(ev.NothingPending())

    def stop(self, reason: str) -> None:
        """End it; what runs in it fails."""
        self.feed(ev.StopRequested(reason))

    async def ended(self) -> None:
        """Return when nothing of it is left."""
        await self._ended.wait()

    def statistics(self) -> SandboxStatistics:
        return self._sandbox.statistics() if self._sandbox is not None else SandboxStatistics()

    # -- the one way to the machine ----------------------------------------------------------------------------------

    def feed(self, event: ev.Event) -> None:
        """Pass an event to the machine and perform what it asks for.

        Raises TransitionRefused for an agent's call out of turn. A fault of the platform ends the environment."""
        try:
            for effect in self.machine.handle(event, self._clock.monotonic()):
                self._perform[type(effect)](effect)
        except TransitionRefused:
            raise
        except Exception:  # half of what the machine asked for is not done: the environment cannot be trusted any more
            log.exception("environment %s of %s: %s", self.id, self.version.function, type(event).__name__)
            self._lose_track()
        if self.machine.free_slots and type(event) is not ev.NothingPending:
            self._owner.settled(self)

    def _lose_track(self) -> None:
        """End the environment, and answer whoever still waits for it."""
        if not self.machine.is_gone:
            self.feed(ev.SandboxLost("the platform lost track of the environment"))
        for done in list(self._done.values()):
            done(Outcome(status=OutcomeStatus.FAILURE, payload=b""))
        self._done.clear()

    def _handle(self, exchange: Exchange) -> None:
        """A call over the in-sandbox API, of the runtime or of an extension."""
        endpoint = self._extensions if exchange.path.startswith(self._extensions_prefix) else self._endpoint
        endpoint.handle(exchange)

    @property
    def takes_registrations(self) -> bool:
        return self.machine.takes_registrations

    # -- what the sandbox tells --------------------------------------------------------------------------------------

    def process_exited(self, exit: ProcessExit) -> None:
        self._transcript.process_ended()
        if exit.name == RUNTIME:
            self._endpoint.forget()
        self.feed(ev.AgentExited(exit.name, exit.code, exit.signal, exit.out_of_memory, exit.start_error))

    def output(self, stream: Stream, data: bytes) -> None:
        self._transcript.output(stream, data, self._clock.wall())

    def worker_output(self, connection: int, data: bytes) -> None:
        self._transcript.worker_output(connection, data, self._clock.wall())

    def worker_closed(self, connection: int) -> None:
        self._transcript.worker_closed(connection, self._clock.wall())

    def sandbox_died(self, reason: str) -> None:
        self.feed(ev.SandboxLost(reason))

    # -- effects -----------------------------------------------------------------------------------------------------

    def _deliver(self, effect: fx.Deliver) -> None:
        self._endpoint.deliver(effect.invocation, effect.deadline)

    def _notify_invoke(self, effect: fx.NotifyInvoke) -> None:
        self._extensions.notify_invoke(effect.agent, effect.invocation, effect.deadline)

    def _notify_shutdown(self, effect: fx.NotifyShutdown) -> None:
        self._extensions.notify_shutdown(effect.agent, effect.reason, effect.deadline)

    def _complete(self, effect: fx.Complete) -> None:
        invocation = effect.invocation
        done = self._done.pop(invocation.id, None)
        self.last_used = self._clock.monotonic()
        if done is not None:
            done(self._outcome(invocation, effect.result))

    def _outcome(self, invocation: Invocation, result: Answer | Failure) -> Outcome:
        tail = self._transcript.tail(invocation.id) if invocation.wants_log else b""
        if isinstance(result, Answer):
            return Outcome(
                status=OutcomeStatus.ERROR if result.error_type else OutcomeStatus.SUCCESS,
                payload=result.payload,
                content_type=result.content_type,
                error_type=result.error_type,
                version=self.version.version,
                log_tail=tail,
            )
        if result.kind is FailureKind.SANDBOX:
            log.error("invocation %s of %s: %s", invocation.id, self.version.function, result.detail)
        kind, payload = self._contract.failure(result, invocation.id, self._clock.wall())
        status = _FAILED.get(result.kind, OutcomeStatus.ERROR)
        return Outcome(
            status=status,
            payload=payload,
            error_type="" if status is OutcomeStatus.FAILURE else kind,
            version=self.version.version,
            log_tail=tail,
        )

    def _emit(self, effect: fx.Emit) -> None:
        record = effect.record
        if type(record) in _AFTER_OUTPUT and self._sandbox is not None:
            self._sandbox.drain_output()
        wall = self._clock.wall()
        self._transcript.note(record, wall)
        if type(record) in END_OF_PHASE:
            self._around.history.note(self.version.function, self.id, record, wall)

    def _memory_mb(self) -> int:
        return -(-self._sandbox.memory_peak() // _MIB) if self._sandbox is not None else 0

    def _arm(self, effect: fx.ArmTimer) -> None:
        self._deadlines.arm(effect.timer, effect.at)

    def _cancel(self, effect: fx.CancelTimer) -> None:
        self._deadlines.cancel(effect.timer)

    def _freeze(self, effect: fx.Freeze) -> None:
        if self._sandbox is not None:
            self._sandbox.freeze()

    def _thaw(self, effect: fx.Thaw) -> None:
        if self._sandbox is not None:
            self._sandbox.thaw()

    def _limit_cpu(self, effect: fx.LimitCpu) -> None:
        if self._sandbox is not None and self._around.limits_cpu:
            self._sandbox.limit_cpu(effect.limited)

    def _start_agents(self, effect: fx.StartAgents) -> None:
        sandbox = self._sandbox
        assert sandbox is not None, "agents start only once the sandbox is there"
        if RUNTIME not in effect.agents or not self._external:
            self._extensions.forget()
        for agent in effect.agents:
            if agent == RUNTIME:
                self._endpoint.forget()
                sandbox.start(self._process(agent, sandbox))
            else:
                sandbox.start(self._extension(agent, sandbox))

    def _extension(self, agent: str, sandbox: Sandbox) -> ProcessSpec:
        contract, paths = self._contract, sandbox.paths
        return ProcessSpec(
            name=agent,
            argv=(f"{paths['opt']}/{agent}",),
            environment=contract.extension_variables(
                self.version, self._image.placed(paths), paths=paths, api_address=sandbox.api_address
            ),
        )

    def _process(self, agent: str, sandbox: Sandbox) -> ProcessSpec:
        contract, version = self._contract, self.version
        image = self._image.placed(sandbox.paths)
        return ProcessSpec(
            name=agent,
            argv=contract.program(version, image, self._exists),
            environment=contract.variables(
                version, image, paths=sandbox.paths, api_address=sandbox.api_address, log_stream=self.log_stream
            ),
            clone=self._image.clone_module is not None and contract.may_clone(version),
            framed_log_variable=contract.framed_log_variable(version),
        )

    def _exists(self, path: str) -> bool:
        """Is a path of the package or a layer there, as seen inside?"""
        if path.startswith("/var/task/"):
            return os.path.exists(self._code + path[len("/var/task") :])
        return path.startswith("/opt/") and any(os.path.exists(layer + path[len("/opt") :]) for layer in self._layers)

    def _sandbox_spec(self) -> SandboxSpec:
        version, contract = self.version, self._contract
        return SandboxSpec(
            name=self.id,
            runtime=version.runtime,
            code=self._code,
            layers=self._layers,
            memory_mb=version.memory_mb,
            tmp_mb=version.tmp_mb,
            cpu_share=contract.cpu_share(version),
            processes=contract.processes_max,
            files=contract.files_max,
        )

    def _signal_agent(self, effect: fx.SignalAgent) -> None:
        if self._sandbox is not None:
            self._sandbox.signal(effect.agent, _SIGNALS[effect.signal])

    def _kill_agents(self, effect: fx.KillAgents) -> None:
        if self._sandbox is not None:
            self._sandbox.kill_all()

    def _destroy(self, effect: fx.Destroy) -> None:
        self._deadlines.clear()
        self._removal = self._around.loop.create_task(self._remove())

    async def _remove(self) -> None:
        try:
            if self._server is not None:
                self._server.close()
            if self._sandbox is not None:
                await self._sandbox.destroy()
            self._transcript.process_ended()
        finally:
            self._ended.set()
            self._owner.settled(self)

    def _epoch_ms(self, monotonic: float) -> int:
        """Milliseconds since the epoch, rounded down: nobody is told of more time than there is."""
        return int((self._clock.wall() + monotonic - self._clock.monotonic()) * 1000)

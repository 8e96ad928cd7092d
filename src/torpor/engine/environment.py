"""The driver of one environment: performs what the machine asks for, tells it what happens.

Effects are performed inline, in the order given: between the last byte of a request and its delivery to a parked
runtime there is no task switch and no queue. The driver decides nothing; where it seems to, it only orders what the
machine, the pool and the sandbox each know.
"""

import asyncio
import logging
import signal as signals
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from torpor.engine.contract import Contract
from torpor.engine.deadlines import Deadlines
from torpor.engine.inside import Inside
from torpor.engine.polled import PolledInside
from torpor.engine.reports import Reports
from torpor.engine.serving import ServingInside
from torpor.engine.specs import Specifications, fetched_specifications
from torpor.engine.surroundings import Surroundings
from torpor.lifecycle import RUNTIME, EnvironmentMachine, PhaseName, TransitionRefused
from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.model.errors import TorporError
from torpor.model.failure import Failure
from torpor.model.function import FunctionVersion
from torpor.model.invocation import AnswerSink, Invocation, Outcome, OutcomeStatus
from torpor.model.policy import RuntimeKind
from torpor.model.records import CodeFetched, InitEnded, InvocationStarted, RuntimeDone, SandboxMade
from torpor.model.start import Start
from torpor.sandbox.images import RuntimeImage
from torpor.sandbox.port import ProcessExit, ProcessImage, Sandbox, SandboxStatistics, Stream

log = logging.getLogger(__name__)
_SIGNALS = {fx.SignalName.TERMINATE: signals.SIGTERM, fx.SignalName.KILL: signals.SIGKILL}
_IDLE_PHASES = frozenset({PhaseName.IDLE, PhaseName.FROZEN, PhaseName.UNINITIALIZED})
_LEAVING = frozenset({PhaseName.STOPPING, PhaseName.GONE})
_SETTLING_PHASES = frozenset({PhaseName.SERVING, PhaseName.RESETTING})
_GIVES_NO_ROOM = frozenset({ev.Assigned, ev.NothingPending})
"""Events after which the pool has nothing to do: it has sent them."""


class Owner(Protocol):
    """The pool, as its environments see it."""

    @property
    def is_awaited(self) -> bool:
        """Does a request wait for memory or for its turn?"""
        ...

    def settled(self, environment: "Environment") -> None:
        """The environment has room again, or has ended; give it work or leave it."""
        ...


Done = Callable[[Outcome], None]


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
        start: Start = Start.ON_DEMAND,
    ) -> None:
        self.id = identity
        self.version = version
        self.start = start
        self.key = version.key
        self.created = self.last_used = around.clock.monotonic()
        self.invocations = 0
        self.retired = False
        """It is not needed any more, is too old, or its version was replaced: it takes no new work."""
        self.was_ready = False
        """Its Init has succeeded once."""
        self.failure = ""
        """Why its Init failed, for people."""
        self.init_failure: Failure | None = None
        self._saved: ProcessImage | None = None
        """What its runtime goes on from, until it does."""
        self._saving: asyncio.Task[None] | None = None
        self.overran = False
        """Its Init failed because it took too long."""
        self.listed = False
        """The pool has it among those with room."""
        self.charged_mb = 0
        """Its part of the host's memory budget now; kept by the pool."""
        self._contract = contract
        self._image = image
        self._around = around
        self._owner = owner
        self._clock = around.clock
        self.machine = EnvironmentMachine(contract.policy(version, start))
        self._specs: Specifications | None = None
        self.is_running = self.machine.is_running
        self.has_expired = self.machine.has_expired
        self.require = self.machine.runtime.require
        self.settles = self.machine.policy.runtime_kind is not RuntimeKind.SERVER
        """Whether it may have answered without being free yet."""
        self.has_workers = self.machine.policy.runtime_kind is RuntimeKind.PARALLEL_POLLER
        self._done: dict[str, Done] = {}
        self._deadlines = Deadlines(around.loop, around.clock, lambda timer: self.feed(ev.DeadlineReached(timer)))
        self._sandbox: Sandbox | None = None
        self._reports = Reports(identity, version, contract, around, start, has_workers=self.has_workers)
        self._inside = self._make_inside(around)
        self.log_stream = self._reports.log_stream
        self._transcript = self._reports.transcript
        self._tracer = self._reports.tracer
        self._ended = asyncio.Event()
        self._removal: asyncio.Task[None] | None = None
        self._perform: Mapping[type, Callable[[Any], None]] = {
            fx.Deliver: self._deliver,
            fx.DeliverAgain: self._deliver_again,
            fx.SaveRuntime: self._save_runtime,
            fx.WakeRuntime: self._wake_runtime,
            fx.NotifyInvoke: self._notify_invoke,
            fx.NotifyShutdown: self._notify_shutdown,
            fx.Conclude: self._conclude,
            fx.Complete: self._complete,
            fx.Emit: self._emit,
            fx.ArmTimer: self._arm,
            fx.CancelTimer: self._cancel,
            fx.Freeze: self._freeze,
            fx.Thaw: self._thaw,
            fx.LimitCpu: self._limit_cpu,
            fx.CallHook: self._call_hook,
            fx.StartAgents: self._start_agents,
            fx.SignalAgent: self._signal_agent,
            fx.KillAgents: self._kill_agents,
            fx.Destroy: self._destroy,
        }

    def _make_inside(self, around: Surroundings) -> Inside:
        contract, version = self._contract, self.version
        if contract.server_wire is not None:
            return ServingInside(self, contract.server_wire, version, self.id)
        assert contract.wire is not None and contract.extension_wire is not None, "a runtime is a server or polls"
        return PolledInside(
            self,
            contract.wire,
            contract.extension_wire,
            version,
            self._epoch_ms,
            around.attention,
            connection_is_worker=contract.is_connection_per_worker(version),
            telemetry_wire=contract.telemetry_wire,
            telemetry=self._reports.telemetry,
        )

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

    @property
    def is_idle(self) -> bool:
        """Does nothing run in it, and could something?"""
        return self.phase in _IDLE_PHASES and not self.is_busy

    @property
    def is_leaving(self) -> bool:
        """Is it ending, or has it ended?"""
        return self.phase in _LEAVING

    @property
    def takes_work(self) -> bool:
        """Will it be given invocations, now or once it has room?"""
        machine = self.machine
        return not (self.retired or machine.draining or self.is_leaving or machine.policy.is_saved) and machine.healthy

    @property
    def is_up(self) -> bool:
        """Is it past its Init, and still of use?"""
        return self.was_ready and self.takes_work

    @property
    def returning_slots(self) -> int:
        """Slots of workers that have answered and are about to ask for more."""
        return 0 if self.retired else self.machine.returning_slots

    @property
    def settling_slots(self) -> int:
        """Slots that will be free in a moment."""
        if self.retired:
            return 0
        if self.machine.policy.runtime_kind is RuntimeKind.POLLER:
            return int(self.machine.phase.name in _SETTLING_PHASES)
        return self.machine.returning_slots

    @property
    def running(self) -> int:
        """Invocations that were handed to its runtime."""
        return len(self.machine.slots)

    @property
    def delivered(self) -> tuple[str, ...]:
        """The invocations whose answer is awaited."""
        return self.machine.delivered

    def sink_of(self, invocation_id: str) -> AnswerSink | None:
        """Where the streamed answer to a running invocation goes."""
        return self.machine.slots[invocation_id].invocation.sink

    async def provision(self) -> None:
        """Fetch the code, make the sandbox and start Init. Failures are told to the machine, never raised."""
        try:
            specs = self._specs = await self._fetch()
            if self._is_gone():
                return
            began = self._clock.monotonic()
            if self.start is Start.RESTORED:
                self._saved = await self._around.snapshots.take(self.version)
                if self._is_gone():
                    self._let_go()
                    return
            sandbox = await self._around.provider.create(specs.sandbox(self.id), self)
            if self._is_gone():
                self._let_go()
                await sandbox.destroy()
                return
            self._sandbox = sandbox
            self._reports.placed(sandbox, specs.placed(sandbox))
            await self._inside.open(sandbox, specs.extensions)
            self._reports.address = self._inside.address
            self._note_stage(SandboxMade, began)
        except TorporError as error:
            self.feed(ev.SandboxLost(str(error)))
        except Exception as error:  # an invocation waits: whatever went wrong, it is told
            log.exception("environment %s of %s cannot be made", self.id, self.version.function)
            self.feed(ev.SandboxLost(f"making the sandbox failed: {error}"))
        else:
            if self._is_gone():
                self._inside.close()
            else:
                self.feed(ev.SandboxReady(specs.extensions))

    def _is_gone(self) -> bool:
        return self.machine.is_gone

    async def _fetch(self) -> Specifications:
        began = self._clock.monotonic()
        specs, fetched = await fetched_specifications(
            self.version, self._contract, self._image, self.start, self._around.fetch_code
        )
        self._note_stage(CodeFetched, began, fetched=fetched)
        return specs

    def _note_stage(self, kind: type[CodeFetched] | type[SandboxMade], began: float, **facts: bool) -> None:
        now = self._clock.monotonic()
        self._reports.past(kind(at=now, duration=now - began, **facts))

    def assign(self, invocation: Invocation, done: Done) -> None:
        """Run an invocation here; `done` is called exactly once, synchronously when the answer is there."""
        self._done[invocation.id] = done
        if self._tracer is not None:
            self._tracer.begin(invocation)
        self.invocations += 1
        self.feed(ev.Assigned(invocation, self.version.timeout_s))

    def credentials(self, given: str) -> tuple[int, tuple[str, str], bytes]:
        """The answer to a process inside that asks for credentials and shows this token."""
        return self._contract.credentials_answer(self.version, given, self.id, self._clock.wall())

    def cancel(self, invocation_id: str) -> None:
        """Its caller has gone; what follows is the contract's to say."""
        self.feed(ev.Cancelled(invocation_id))

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
        if type(event) not in _GIVES_NO_ROOM:
            self._offer_room()

    def _offer_room(self) -> None:
        """Tell the pool of room that it does not know of, or that somebody waits for."""
        machine = self.machine
        is_known = self.listed and machine.slots and not self.has_workers
        if (not is_known or self._owner.is_awaited) and machine.free_slots:
            self._owner.settled(self)

    def _lose_track(self) -> None:
        """End the environment, and answer whoever still waits for it."""
        if not self.machine.is_gone:
            self.feed(ev.SandboxLost("the platform lost track of the environment"))
        for done in list(self._done.values()):
            done(Outcome(status=OutcomeStatus.FAILURE, payload=b""))
        self._done.clear()

    @property
    def uses_snapshots(self) -> bool:
        """Is its runtime saved, or does it go on from a snapshot?"""
        return self.start in (Start.SAVED, Start.RESTORED)

    @property
    def takes_registrations(self) -> bool:
        return self.machine.takes_registrations

    # -- what the sandbox tells --------------------------------------------------------------------------------------

    def process_exited(self, exit: ProcessExit) -> None:
        self._transcript.process_ended(exit.name)
        self._inside.exited(exit.name)
        if exit.stale:
            self._around.snapshots.doubt(self.version, exit.start_error)
        self.feed(ev.AgentExited(exit.name, exit.code, exit.signal, exit.out_of_memory, exit.start_error))

    def output(self, stream: Stream, data: bytes) -> None:
        self._transcript.output(stream, data, self._clock.wall())

    def process_output(self, name: str, data: bytes) -> None:
        self._transcript.process_output(name, data, self._clock.wall())

    def worker_output(self, connection: int, data: bytes) -> None:
        self._inside.worker_log_opened()
        self._transcript.worker_output(connection, data, self._clock.wall())

    def worker_closed(self, connection: int) -> None:
        self._transcript.worker_closed(connection, self._clock.wall())
        self._inside.worker_log_closed()

    def sandbox_died(self, reason: str) -> None:
        self.feed(ev.SandboxLost(reason))

    # -- effects -----------------------------------------------------------------------------------------------------

    def _deliver(self, effect: fx.Deliver) -> None:
        invocation = effect.invocation
        self._deadlines.arm(invocation.id, effect.deadline)
        if self._reports.logs_all or invocation.wants_log:
            self._reports.note(InvocationStarted(at=effect.at, id=invocation.id))
        self._inside.deliver(invocation, effect.deadline)

    def _deliver_again(self, effect: fx.DeliverAgain) -> None:
        self._inside.deliver(effect.invocation, effect.deadline)

    def _notify_invoke(self, effect: fx.NotifyInvoke) -> None:
        self._inside.notify_invoke(effect.agent, effect.invocation, effect.deadline)

    def _notify_shutdown(self, effect: fx.NotifyShutdown) -> None:
        self._inside.notify_shutdown(effect.agent, effect.reason, effect.deadline)

    def _complete(self, effect: fx.Complete) -> None:
        invocation = effect.invocation
        done = self._done.pop(invocation.id, None)
        self.last_used = now = self._clock.monotonic()
        elapsed = self._inside.release(invocation.id) or (now - effect.started if effect.started else 0.0)
        outcome = self._reports.outcome(invocation, effect.result, elapsed)
        if done is not None:
            done(outcome)

    def _emit(self, effect: fx.Emit) -> None:
        record = effect.record
        if type(record) is RuntimeDone:
            self._reports.runtime_done(record)
        elif type(record) is InitEnded:
            self.overran = record.status is OutcomeStatus.TIMEOUT
            self.was_ready = self.was_ready or record.failure is None
            self.failure = self._reports.init_ended(record) or self.failure
            self.init_failure = record.failure
        else:
            self._reports.happened(record)

    def _conclude(self, effect: fx.Conclude) -> None:
        record = effect.record
        self._deadlines.cancel(record.id)
        elapsed = 0.0 if record.failure is None else self._inside.elapsed(record.id)
        self._reports.concluded(record, elapsed)

    def _arm(self, effect: fx.ArmTimer) -> None:
        self._deadlines.arm(effect.timer, effect.at)

    def _cancel(self, effect: fx.CancelTimer) -> None:
        self._deadlines.cancel(effect.timer)

    def _freeze(self, effect: fx.Freeze) -> None:
        if self._sandbox is not None:
            self._sandbox.freeze()
            self._inside.frozen()

    def _thaw(self, effect: fx.Thaw) -> None:
        if self._sandbox is not None:
            self._sandbox.thaw()
            self._inside.thawed()

    def _limit_cpu(self, effect: fx.LimitCpu) -> None:
        if self._sandbox is not None and self._around.limits_cpu:
            self._sandbox.limit_cpu(effect.limited)

    def _call_hook(self, effect: fx.CallHook) -> None:
        self._inside.call_hook(effect.hook)

    def _start_agents(self, effect: fx.StartAgents) -> None:
        sandbox, specs = self._sandbox, self._specs
        assert sandbox is not None and specs is not None, "agents start only once the sandbox is there"
        self._inside.starting(effect.agents)
        self._reports.began = self._clock.monotonic()
        for agent in effect.agents:
            sandbox.start(specs.process(agent, sandbox, self.log_stream, self._saved))
            self._inside.started(agent)
        if RUNTIME in effect.agents:
            self._let_go()

    def _let_go(self) -> None:
        """Its runtime goes on from there, or never will."""
        if self._saved is not None:
            self._saved.close()
            self._saved = None

    def _save_runtime(self, effect: fx.SaveRuntime) -> None:
        self._saving = self._around.loop.create_task(self._save())

    async def _save(self) -> None:
        assert self._sandbox is not None, "its runtime waits in it"
        try:
            image = await self._sandbox.checkpoint(RUNTIME)
            await self._around.snapshots.keep(self.version, image)
        except TorporError as error:
            self.failure = str(error)
        except Exception as error:
            log.exception("the snapshot of %s cannot be made", self.version.function)
            self.failure = f"making the snapshot failed: {error}"
        self.feed(ev.StopRequested("spindown"))

    def _wake_runtime(self, effect: fx.WakeRuntime) -> None:
        self._inside.wake()

    def _signal_agent(self, effect: fx.SignalAgent) -> None:
        sandbox = self._sandbox
        if sandbox is None:
            return
        if effect.agent == RUNTIME or effect.signal is fx.SignalName.TERMINATE:
            sandbox.signal(effect.agent, _SIGNALS[effect.signal])
        else:
            self._inside.farewell(effect.agent, partial(sandbox.signal, effect.agent, signals.SIGKILL))

    def _kill_agents(self, effect: fx.KillAgents) -> None:
        if self._sandbox is not None:
            self._sandbox.kill_all()

    def _destroy(self, effect: fx.Destroy) -> None:
        self._deadlines.clear()
        self._removal = self._around.loop.create_task(self._remove())

    async def _remove(self) -> None:
        try:
            self._inside.close()
            self._let_go()
            if self._sandbox is not None:
                await self._sandbox.destroy()
            self._transcript.all_ended()
        finally:
            self._ended.set()
            self._owner.settled(self)

    def _epoch_ms(self, monotonic: float) -> int:
        """Milliseconds since the epoch, rounded down: nobody is told of more time than there is."""
        return int((self._clock.wall() + monotonic - self._clock.monotonic()) * 1000)

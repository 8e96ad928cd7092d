"""All the parts of one server, put together."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial

from torpor.api.admin import AdminFace, AdminParts
from torpor.api.aws import AwsFace
from torpor.api.aws.async_invocations import AsyncInvocations
from torpor.api.aws.guard import operator_guard
from torpor.api.aws.queue_client import Timing
from torpor.api.aws.queue_pollers import QueuePollers
from torpor.api.aws.queue_runs import RunParts
from torpor.api.eventbridge import Firing, RulesFace
from torpor.api.fc import FcParts
from torpor.api.logs import LogsFace
from torpor.api.web import ServicesFace, Traffic
from torpor.app.contracts import contracts, pool_limits
from torpor.app.faces import (
    Faces,
    application,
    aws_settings,
    body_limit,
    error_face,
    events_settings,
    fc_face,
    logs_settings,
    streams,
)
from torpor.app.instances import Instances
from torpor.app.sandboxes import ladder_of, runtimes
from torpor.app.snapshots import SnapshotStates, made_for, require_snapshots
from torpor.app.stores import open_stores
from torpor.contracts.web import limits as web_limits
from torpor.contracts.web import settings as web_settings
from torpor.engine.building import SandboxBuilder
from torpor.engine.dispatcher import Dispatcher
from torpor.engine.handover import Handover
from torpor.engine.pool import Pool
from torpor.engine.scaler import Scaler
from torpor.engine.snapshots import SnapshotShelf, Workshop
from torpor.engine.surroundings import Surroundings
from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.errors import PlatformError, TorporError
from torpor.model.function import LATEST, CodeRef, FunctionVersion
from torpor.model.policy import ScalingPolicy
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.interpreters import discover
from torpor.sandbox.port import Capability
from torpor.scheduling.due import Missed
from torpor.service.events.desk import EventDesk
from torpor.service.events.interventions import Interventions
from torpor.service.events.lanes import QueueLimits
from torpor.service.events.queue import EventQueue
from torpor.service.events.timed import TimedEvents
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.service.services import Services
from torpor.service.states import VersionStates
from torpor.service.timers import Timers
from torpor.settings import Settings
from torpor.targets import CloudServices, Couriers, ResultFiles, WebRequests
from torpor.targets.web import read_secret
from torpor.telemetry import History, LogGroups, Traces
from torpor.transport import Attention, HttpLimits, HttpServer, listen

log = logging.getLogger("torpor")
_SWEEP_EVERY = 0.5
_CODE_SWEEP_EVERY = 300.0
_WARM_WITHIN = 10.0
_POLLERS_LATER = 2.0
"""Seconds that the messages of the last batches may take to be deleted, once those have run."""
_MIB = 1024 * 1024


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class Server:
    """Everything that one process serves, started and stopped in order."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.images = ImageCatalog(str(settings.runtimes), discover(), any_node=settings.any_node)
        self.history = History()
        self._clock = SystemClock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._http: HttpServer | None = None
        self._sweeping = asyncio.Lock()
        self._opened = AsyncExitStack()
        """What must be closed again, in the reverse order of opening."""

    async def start(self) -> None:
        """Open the data folder, the sandboxes and the port. Raises PlatformError with what to do."""
        settings = self.settings
        self._stores = open_stores(settings)
        self._opened.callback(self._stores.close)
        traces = self._traces = Traces(self._stores.journal, settings.trace_daemon)
        self._opened.callback(traces.close)
        self._ladder = ladder_of(settings, self._stores.folder, self.images)
        self._opened.push_async_callback(self._ladder.close)
        self.provider = await self._ladder.climb()
        self._opened.push_async_callback(self.provider.close)
        self.version_states = VersionStates()
        self.snapshots = SnapshotShelf(self._stores.snapshots, settings.snapshot_memory_mb * _MIB)
        self._opened.callback(self.snapshots.close)
        around = Surroundings(
            provider=self.provider,
            snapshots=self.snapshots,
            journal=self._stores.journal,
            history=self.history,
            traces=traces,
            clock=self._clock,
            loop=asyncio.get_running_loop(),
            fetch_code=self._fetch_code,
            limits_cpu=settings.cpu_limit,
            attention=Attention(settings.busy_poll),
        )
        self.functions = self._make_functions()
        self.resources = Resources(self._stores.metadata)
        self.layers = Layers(self._stores.metadata, self.functions.packages, self._clock)
        self._contracts = contracts(settings, self.provider.isolation, self._stores.key)
        self.pool = Pool(around, self._contracts, self.images, pool_limits(settings), self._reserved)
        self.snapshots.open(
            Workshop(
                start=self.pool.start_saved,
                made_for=partial(made_for, contracts=self._contracts, images=self.images),
                watcher=SnapshotStates(self.version_states, self._expect_restored),
            )
        )
        self.scaler = Scaler(self.pool, self._clock)
        self.handover = Handover(self.pool, self.scaler)
        self._dispatcher = Dispatcher(self.pool, self.handover.in_force)
        self._cloud = CloudServices(settings.aws_endpoint_url)
        self.events = self._make_events()
        self._opened.push_async_callback(self.events.close)
        self._desk = EventDesk(self.events, Interventions(self.events, self._dispatcher, self._clock))
        self.pollers = self._make_pollers()
        self._timed = TimedEvents(self.events, around.loop)
        missed = Missed(settings.missed_timers)
        self.timers = Timers(self._clock, self._stores.events.timers(), self._timed.keep, missed)
        builder = SandboxBuilder(self.provider, self.images, str(self._stores.folder / "code" / "builds"))
        self.logs = LogsFace(LogGroups(self._stores.journal, self._clock), logs_settings(settings), self._clock)
        self.services = Services(self.functions, builder, settings.web_build_limit)
        faces = self._faces()
        self._http = await listen(
            application(faces, settings),
            host=settings.host,
            port=settings.port,
            limits=HttpLimits(body_bytes=partial(body_limit, settings)),
            on_error=error_face,
            attention=around.attention,
            streams=streams,
        )
        self._opened.callback(self._http.close)
        self._opened.push_async_callback(self.pool.drain, 0.0)
        self._opened.push_async_callback(self._end_tasks)
        self._opened.push_async_callback(self.pollers.close, 0.0)
        self._opened.callback(self.events.pause)
        self._take_up_versions()
        self.events.start({"lambda": faces.aws.events, "function_compute": faces.fc.events})
        self.timers.started()
        faces.aws.resume_sources()
        self._spawn(self.events.tick())
        self._spawn(self._housekeeping())
        self._spawn(self.timers.run())
        latest = [self.functions.get(name).latest.version for name in self.functions.names(None)]
        for image in {self._image(version.contract, version.runtime) for version in latest}:
            self._spawn(self._warm(image))

    def _make_functions(self) -> Functions:
        return Functions(
            self._stores.metadata,
            self._stores.code,
            clock=self._clock,
            packages=PackageLimits(zipped=self.settings.max_unpacked, unpacked=self.settings.max_unpacked),
            reservations=ReservationLimits(
                account=self.settings.account_concurrency, unreserved_minimum=self.settings.unreserved_minimum
            ),
            other_packages={
                web_settings.CONTRACT: PackageLimits(zipped=web_limits.PACKAGE_MAX, unpacked=web_limits.BUILT_MAX)
            },
            code_in_use=lambda: self.pool.code_in_use(),
            on_change=self._changed,
            on_scale=self._keep_up,
            require_runtime=self._require,
            require_snapshots=partial(require_snapshots, self.provider),
        )

    def _make_events(self) -> EventQueue:
        settings = self.settings
        if settings.webhook_secret and not os.path.exists(settings.webhook_secret):
            raise PlatformError(f"There is no file {settings.webhook_secret} with the secret of web requests.")
        secret = read_secret(settings.webhook_secret or str(self._stores.folder / "webhook.secret"))
        courier = Couriers(
            self._cloud,
            WebRequests(secret, self._clock),
            ResultFiles(self._stores.folder / "results"),
        )
        limits = QueueLimits(history=settings.event_history)
        loop = asyncio.get_running_loop()
        return EventQueue(self._stores.events, self._dispatcher, courier, self._clock, loop, limits)

    def _make_pollers(self) -> QueuePollers:
        parts = RunParts(
            functions=self.functions,
            resources=self.resources,
            dispatcher=self._dispatcher,
            clock=self._clock,
            states=self._state,
            version_states=self.version_states,
        )
        return QueuePollers(parts, self._cloud, Timing(scale=self.settings.event_wait_scale))

    def _take_up_versions(self) -> None:
        """What an earlier life kept is kept up again."""
        restored = []
        for version in self._versions():
            self._keep_up(version)
            if version.is_restored:
                restored.append(version)
        self.snapshots.keep_only(restored)
        for version in restored:
            self.snapshots.prepare(version)
            self._expect_restored(version)

    def _versions(self) -> Iterator[FunctionVersion]:
        """All there are, of whatever function."""
        for name in self.functions.names(None):
            record = self.functions.get(name)
            yield from (kept.version for kept in (record.latest, *record.versions.values()))

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = self.settings.host
        port = self._http.port if self._http is not None else 0
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def capabilities(self) -> tuple[Capability, ...]:
        """The isolation ladder with a reason for each missing rung, and the runtimes found."""
        return (*self._ladder.capabilities(self.provider), *runtimes(self.images))

    async def abandon(self) -> None:
        """Close whatever is open, at once."""
        await self._opened.aclose()

    async def stop(self) -> None:
        """Drain: running invocations finish within the bound, new ones are refused; then nothing is left."""
        timeout = self.settings.drain_timeout
        self.events.pause()
        await self.services.close()
        await asyncio.gather(self.pollers.close(timeout + _POLLERS_LATER), self.pool.drain(timeout))
        self.logs.close()
        if self._http is not None:
            await self._http.drain(2.0)
        await self.abandon()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def hurry(self) -> None:
        """Let `stop` wait for no invocation any more."""
        if self._http is not None:
            self.pool.hurry()

    def _faces(self) -> Faces:
        settings, dispatcher = self.settings, self._dispatcher
        allowed = operator_guard(settings.access_keys, self._clock)
        aws = AwsFace(
            self.functions,
            self.layers,
            dispatcher,
            aws_settings(settings, self._preparing("lambda")),
            self._clock,
            resources=self.resources,
            states=self._state,
            version_states=self.version_states,
            standing=self.scaler.standing,
            intake=self.events.intake,
            sources=self.pollers,
        )
        parts = FcParts(
            functions=self.functions,
            layers=self.layers,
            resources=self.resources,
            dispatcher=dispatcher,
            timers=self.timers,
            intake=self.events.intake,
            timed=self._timed.submit,
            desk=self._desk,
            instances=Instances(self.pool, self._clock),
            clock=self._clock,
        )
        rules = RulesFace(
            self.resources, self.timers, partial(self._fire, aws.events), events_settings(settings), self._clock
        )
        fc = fc_face(settings, parts, self._preparing("function_compute"))
        admin = AdminParts(
            functions=self.functions,
            pool=self.pool,
            journal=self._stores.journal,
            history=self.history,
            traces=self._traces,
            provider=self.provider,
            clock=self._clock,
            desk=self._desk,
            origins=lambda: [*rules.origins(), *fc.origins(), *aws.origins()],
            runtimes=tuple(name for name in self.images.present() if self.images.installed(name)),
            capabilities=self.capabilities,
            allowed=allowed,
        )
        return Faces(
            rules=rules,
            aws=aws,
            fc=fc,
            admin=AdminFace(admin),
            services=ServicesFace(self.services, allowed),
            traffic=Traffic(self.functions, dispatcher),
            logs=self.logs,
        )

    def _fire(self, rules: AsyncInvocations, timer: str, planned: float, firings: Sequence[Firing]) -> None:
        """A schedule goes off."""
        events = [
            rules.scheduled(each.function, each.qualifier, each.payload, each.source, planned) for each in firings
        ]
        self._timed.submit([event for event in events if event is not None], timer, planned)

    def _preparing(self, contract: str) -> Callable[[str], Awaitable[None]]:
        """What makes the first start of a runtime quick."""
        return lambda runtime: self._warm(self._image(contract, runtime))

    def _code_in_use(self) -> list[CodeRef]:
        return [*self.pool.code_in_use(), *self.layers.code_in_use()]

    async def _fetch_code(self, code: CodeRef) -> tuple[str, bool]:
        return await self.functions.packages.fetch(code)

    def _reserved(self) -> int:
        return self.functions.total_reserved()

    def _changed(self, old: FunctionVersion | None, new: FunctionVersion | None) -> None:
        handover = old is not None and new is not None and self._scaling(old).handover and self._scaling(new).handover
        if old is not None and not handover:
            self.handover.forget(old)
        if old is not None:
            self._forget(old)
        if new is not None:
            self._keep_up(new)
            if new.is_restored:
                self.version_states.pend(new)
                self.snapshots.prepare(new)
            elif ahead := self._scaling(new).ahead:
                self.pool.start_ahead(new, ahead)
        if old is not None and new is not None and handover:
            self.handover.replace(old, new)
        if old is not None and new is not None and new.runtime != old.runtime:
            self._spawn(self._warm(self._image(new.contract, new.runtime)))

    def _forget(self, version: FunctionVersion) -> None:
        self.version_states.settle(version)
        if version.is_restored:
            try:
                self.snapshots.forget(version)
            except TorporError as error:
                log.warning("%s", error)

    def _keep_up(self, version: FunctionVersion) -> None:
        """Environments of this version may have to be up without an invocation; its bounds may have changed."""
        scaling = self._scaling(version)
        if scaling.minimum or not (scaling.on_demand or version.version == LATEST):
            self.scaler.keep(version)
        else:
            self.scaler.release(version)

    def _scaling(self, version: FunctionVersion) -> ScalingPolicy:
        return self._contracts[version.contract].scaling(version)

    def _state(self, version: FunctionVersion) -> tuple[str, str, str]:
        """A version's state, and why it is not active."""
        up, reason = self.scaler.state(version)
        if up:
            return "Active", "", ""
        if reason:
            return "Failed", reason, "FunctionError"
        return "Pending", "The function is being created.", "Creating"

    def _require(self, contract: str, runtime: str) -> None:
        """Raises RuntimeMissing if this host cannot serve the runtime."""
        self.images.resolve(self._image(contract, runtime))

    def _image(self, contract: str, runtime: str) -> str:
        """The runtime that the sandbox knows it by."""
        return self._contracts[contract].image(runtime)

    def _expect_restored(self, version: FunctionVersion) -> None:
        self._spawn(self._warm(self._image(version.contract, version.runtime), restored=True))

    async def _warm(self, runtime: str, *, restored: bool = False) -> None:
        warming = asyncio.get_running_loop().create_task(self.provider.warm(runtime, restored=restored))
        warming.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait({warming}, timeout=_WARM_WITHIN)  # which goes on whatever happens
        if not warming.done():
            log.warning("Preparing sandboxes for %s takes long; first starts will be slow.", runtime)
            await asyncio.wait({warming})
        if error := warming.exception():
            log.warning("%s", error)

    async def _housekeeping(self) -> None:
        swept = 0.0
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            try:
                self.pool.reclaim()
                self.scaler.tick()
                self.handover.tick()
                if self._clock.monotonic() - swept > _CODE_SWEEP_EVERY:
                    swept = self._clock.monotonic()
                    self._spawn(self._sweep_code())
                try:
                    self._stores.journal.flush()
                finally:
                    self._stores.journal.expire(self._clock.wall())
            except TorporError as error:
                log.warning("%s", error)
            except Exception:  # the next round may do better; no round at all would be worse
                log.exception("housekeeping failed")

    async def _sweep_code(self) -> None:
        """It waits until no package is being added, which may take long."""
        if self._sweeping.locked():
            return
        async with self._sweeping:
            try:
                await self.functions.sweep_code(self._code_in_use)
            except TorporError as error:
                log.warning("%s", error)
            except Exception:  # the next sweep may do better
                log.exception("sweeping the code store failed")

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

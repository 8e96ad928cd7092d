"""All the parts of one server, put together."""

import asyncio
import logging
import secrets
import time
from contextlib import AsyncExitStack

from torpor.api.admin import PREFIX as ADMIN_PREFIX
from torpor.api.admin import AdminFace, AdminParts
from torpor.api.aws import AwsFace, AwsSettings, ObjectSource, body_limit, error_face, mount
from torpor.api.aws.code_links import PREFIX as CODE_PREFIX
from torpor.api.aws.guard import operator_guard
from torpor.api.same_machine import SameMachine
from torpor.app.contracts import contracts, pool_limits
from torpor.app.sandboxes import ladder_of, runtimes
from torpor.app.stores import open_stores
from torpor.engine.dispatcher import Dispatcher
from torpor.engine.environment import Surroundings
from torpor.engine.pool import Pool
from torpor.engine.scaler import Scaler
from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.errors import TorporError
from torpor.model.function import LATEST, CodeRef, FunctionVersion
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.interpreters import discover
from torpor.sandbox.port import Capability
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.settings import Settings
from torpor.telemetry import History, Traces
from torpor.transport import Application, Attention, Exchange, HttpLimits, HttpServer, listen

log = logging.getLogger("torpor")
_SWEEP_EVERY = 0.5
_CODE_SWEEP_EVERY = 300.0
_WARM_WITHIN = 10.0


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
        around = Surroundings(
            provider=self.provider,
            journal=self._stores.journal,
            history=self.history,
            traces=traces,
            clock=self._clock,
            loop=asyncio.get_running_loop(),
            fetch_code=self._fetch_code,
            limits_cpu=settings.cpu_limit,
            attention=Attention(settings.busy_poll),
        )
        self.functions = Functions(
            self._stores.metadata,
            self._stores.code,
            clock=self._clock,
            packages=PackageLimits(zipped=settings.max_unpacked, unpacked=settings.max_unpacked),
            reservations=ReservationLimits(
                account=settings.account_concurrency, unreserved_minimum=settings.unreserved_minimum
            ),
            on_change=self._changed,
            on_scale=self._keep_up,
            require_runtime=self._require,
        )
        self.resources = Resources(self._stores.metadata)
        self.layers = Layers(self._stores.metadata, self.functions.packages, self._clock)
        self._contracts = contracts(settings, self.provider.isolation)
        self.pool = Pool(around, self._contracts, self.images, pool_limits(settings), self._reserved)
        self.scaler = Scaler(self.pool, self._clock)
        self._http = await listen(
            self._application(),
            host=settings.host,
            port=settings.port,
            limits=HttpLimits(body_bytes=lambda method, path: min(body_limit(method, path), settings.max_body)),
            on_error=error_face,
            attention=around.attention,
        )
        for name in self.functions.names(None):
            record = self.functions.get(name)
            for kept in (record.latest, *record.versions.values()):
                self._keep_up(kept.version)
        self._spawn(self._housekeeping())
        for runtime in {self.functions.get(name).latest.version.runtime for name in self.functions.names(None)}:
            self._spawn(self._warm(runtime))

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
        await self.pool.drain(timeout)
        if self._http is not None:
            await self._http.drain(2.0)
            self._http.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.abandon()

    def hurry(self) -> None:
        """Let `stop` wait for no invocation any more."""
        if self._http is not None:
            self.pool.hurry()

    def _application(self) -> Application:
        settings = self.settings
        face = AwsFace(
            self.functions,
            self.layers,
            Dispatcher(self.pool),
            AwsSettings(
                account=settings.account,
                region=settings.region,
                keys=settings.access_keys,
                prepare=self._warm,
                max_inline=settings.max_package,
                objects=ObjectSource(endpoint=settings.aws_endpoint_url),
                secret=secrets.token_bytes(32),
            ),
            self._clock,
            resources=self.resources,
            states=self._state,
        )
        admin = AdminFace(
            AdminParts(
                functions=self.functions,
                pool=self.pool,
                journal=self._stores.journal,
                history=self.history,
                traces=self._traces,
                provider=self.provider,
                clock=self._clock,
                runtimes=tuple(name for name in self.images.present() if self.images.installed(name)),
                capabilities=self.capabilities,
                allowed=operator_guard(settings.access_keys, self._clock),
            )
        )
        aws = mount(face)

        pages = SameMachine(settings.host) if not settings.access_keys else None

        def application(exchange: Exchange) -> None:
            if pages is not None and (reason := pages.refuses(exchange)):
                exchange.reply(403, *error_face(403, reason))
                return
            own = exchange.path.startswith(ADMIN_PREFIX) and not exchange.path.startswith(CODE_PREFIX)
            (admin.handle if own else aws)(exchange)

        return application

    def _code_in_use(self) -> list[CodeRef]:
        return [*self.pool.code_in_use(), *self.layers.code_in_use()]

    async def _fetch_code(self, code: CodeRef) -> tuple[str, bool]:
        return self._stores.code.folder(code), False

    def _reserved(self) -> int:
        return self.functions.total_reserved()

    def _changed(self, old: FunctionVersion | None, new: FunctionVersion | None) -> None:
        if old is not None:
            self.pool.retire(old)
            self.scaler.forget(old)
        if new is not None:
            self._keep_up(new)
        if old is not None and new is not None and new.runtime != old.runtime:
            self._spawn(self._warm(self._contracts[new.contract].image(new.runtime)))

    def _keep_up(self, version: FunctionVersion) -> None:
        """Environments of this version may have to be up without an invocation; its bounds may have changed."""
        scaling = self._contracts[version.contract].scaling(version)
        if scaling.minimum or not (scaling.on_demand or version.version == LATEST):
            self.scaler.keep(version)

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
        self.images.resolve(self._contracts[contract].image(runtime))

    async def _warm(self, runtime: str) -> None:
        try:
            async with asyncio.timeout(_WARM_WITHIN):
                await asyncio.shield(self.provider.warm(runtime))
        except TimeoutError:
            log.warning("Preparing sandboxes for %s takes long; first starts will be slow.", runtime)
        except TorporError as error:
            log.warning("%s", error)

    async def _housekeeping(self) -> None:
        swept = 0.0
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            try:
                self.pool.reclaim()
                self.scaler.tick()
                if self._clock.monotonic() - swept > _CODE_SWEEP_EVERY:
                    swept = self._clock.monotonic()
                    await self.functions.sweep_code(self._code_in_use)
                self._stores.journal.flush()
            except TorporError as error:
                log.warning("%s", error)
            except Exception:  # the next round may do better; no round at all would be worse
                log.exception("housekeeping failed")

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

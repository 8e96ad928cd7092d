"""The composition root: builds a server out of its parts and runs it until it is told to stop."""

import asyncio
import fcntl
import gc
import logging
import os
import resource
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from torpor import __version__
from torpor.api.admin import PREFIX as ADMIN_PREFIX
from torpor.api.admin import AdminFace, AdminParts
from torpor.api.aws import AwsFace, AwsSettings, ObjectSource, body_limit, error_face, mount
from torpor.api.aws.code_links import PREFIX as CODE_PREFIX
from torpor.api.aws.guard import operator_guard
from torpor.api.same_machine import SameMachine
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.platform_log import Billing, LogStyle, PlatformLog
from torpor.engine.dispatcher import Dispatcher
from torpor.engine.environment import Surroundings
from torpor.engine.pool import Pool, PoolLimits
from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.errors import PlatformError, RuntimeMissing, TorporError
from torpor.model.function import CodeRef, FunctionVersion
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.interpreters import discover
from torpor.sandbox.ladder import Ladder, LadderOptions
from torpor.sandbox.linux.destinations import HOST_ADDRESS
from torpor.sandbox.port import Capability, Isolation
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.settings import Settings, local_port
from torpor.store.code import DiskCodeStore
from torpor.store.metadata import SqlMetadataStore
from torpor.telemetry import History, Journal, Traces
from torpor.transport import Application, Attention, Exchange, HttpLimits, HttpServer, listen

log = logging.getLogger("torpor")
_MIB = 1024 * 1024
_MEMORY_SHARE = 0.8
_SWEEP_EVERY = 0.5
_CODE_SWEEP_EVERY = 300.0
_WARM_WITHIN = 10.0
_FILES_WANTED = 20_000
_YOUNG_OBJECTS = 10_000


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


@dataclass(frozen=True, slots=True)
class _Stores:
    folder: Path
    metadata: SqlMetadataStore
    code: DiskCodeStore
    journal: Journal
    lock: int


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
        self._stores = _open_stores(settings)
        self._opened.callback(self._close_stores)
        traces = self._traces = Traces(self._stores.journal, settings.trace_daemon)
        self._opened.callback(traces.close)
        self._ladder = _ladder(settings, self._stores.folder, self.images)
        self._opened.push_async_callback(self._ladder.close)
        self.provider = await self._ladder.climb()
        self._opened.push_async_callback(self.provider.close)
        contract = _contract(settings, self.provider.isolation)
        around = Surroundings(
            provider=self.provider,
            journal=self._stores.journal,
            history=self.history,
            traces=traces,
            clock=self._clock,
            loop=asyncio.get_running_loop(),
            code_folder=self._stores.code.folder,
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
            require_runtime=self.images.resolve,
        )
        self.resources = Resources(self._stores.metadata)
        self.layers = Layers(self._stores.metadata, self.functions.packages, self._clock)
        self.pool = Pool(around, {"lambda": contract}, self.images, _pool_limits(settings), self._reserved)
        self._http = await listen(
            self._application(),
            host=settings.host,
            port=settings.port,
            limits=HttpLimits(body_bytes=lambda method, path: min(body_limit(method, path), settings.max_body)),
            on_error=error_face,
            attention=around.attention,
        )
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
        return (*self._ladder.capabilities(self.provider), *_runtimes(self.images))

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

    def _close_stores(self) -> None:
        try:
            self._stores.journal.flush()
        finally:
            self._stores.metadata.close()
            os.close(self._stores.lock)

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

    def _reserved(self) -> int:
        return self.functions.total_reserved()

    def _changed(self, old: FunctionVersion | None, new: FunctionVersion | None) -> None:
        if old is not None:
            self.pool.retire(old)
        if old is not None and new is not None and new.runtime != old.runtime:
            self._spawn(self._warm(new.runtime))

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


def serve(settings: Settings, tell: Callable[[str], None] | None = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. Raises PlatformError if the server cannot start."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(message)s")
    code: int = _runner()(_serve(settings, tell or _announce))
    return code


def _runner() -> Callable[..., Any]:
    try:
        import uvloop
    except ImportError:
        return asyncio.run
    return uvloop.run


async def _serve(settings: Settings, tell: Callable[[str], None]) -> int:
    server = Server(settings)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if stopping.is_set():
            server.hurry()
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    _raise_file_limit()
    _set_niceness(settings.niceness)
    try:
        await server.start()
    except BaseException:
        await server.abandon()
        raise
    _spare_the_collector()
    runtimes = " ".join(name for name in server.images.present() if not name.startswith("provided"))
    tell(
        f"Torpor {__version__} serves Lambda at {server.url} "
        f"(isolation: {server.provider.isolation}; {runtimes or 'provided runtimes only'})"
    )
    await stopping.wait()
    if running := server.pool.statistics().running:
        seconds = f"{settings.drain_timeout:.0f} s"
        tell(f"Waiting {seconds} at most for {running} running invocations; Ctrl-C again ends them now.")
    await server.stop()
    return 0


def _raise_file_limit() -> None:
    """Each environment takes about twenty descriptors of the server's; functions have a limit of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard != resource.RLIM_INFINITY and hard < _FILES_WANTED:
        log.warning("Only %d files may be open here: that is about %d environments at once.", hard, hard // 20)


def _set_niceness(wanted: int) -> None:
    """Functions that use every CPU must not hold up the answers of others. Nothing the server starts inherits it."""
    try:
        if wanted < 0:
            os.setpriority(os.PRIO_PROCESS, 0, wanted)
        if os.getpriority(os.PRIO_PROCESS, 0) < 0:
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
    except OSError as error:
        log.warning("The server goes on without a niceness of %d: %s.", wanted, error.strerror)


def _spare_the_collector() -> None:
    """What start-up has made stays for good: looking through it again and again for garbage makes some requests wait
    tens of milliseconds. Requests themselves leave next to no cycles, so that collections may be rare."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


def _announce(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def diagnose(settings: Settings) -> list[Capability]:
    """What this host offers, tried for real in a folder of its own: the isolation ladder and the runtimes found."""
    images = ImageCatalog(str(settings.runtimes), discover(), any_node=settings.any_node)

    async def climb(folder: Path) -> tuple[Capability, ...]:
        ladder = _ladder(settings, folder, images)
        provider = await ladder.climb()
        found = ladder.capabilities(provider)
        await provider.close()
        await ladder.close()
        return found

    with tempfile.TemporaryDirectory(prefix="torpor-doctor-") as folder:
        return [*_runner()(climb(Path(folder))), *_runtimes(images)]


def _runtimes(images: ImageCatalog) -> list[Capability]:
    return [
        Capability(name=name, available=images.installed(name), detail=_runtime_detail(images, name))
        for name in images.present()
    ]


def _ladder(settings: Settings, folder: Path, images: ImageCatalog) -> Ladder:
    code = folder / "code"
    code.mkdir(exist_ok=True)
    return Ladder(
        LadderOptions(
            choice=settings.isolation,
            state_dir=str(folder / "sandboxes"),
            code_root=str(code),
            images=images,
            prepared=settings.prepared,
            boot_only=not settings.clone,
            host_ports=_host_ports(settings),
        )
    )


def _host_ports(settings: Settings) -> frozenset[int]:
    """Ports of the host's loopback that functions may reach: those set, and that of a local AWS endpoint."""
    port = local_port(settings.aws_endpoint_url)
    return frozenset(settings.host_ports) | (frozenset() if port is None else {port})


def _runtime_detail(images: ImageCatalog, name: str) -> str:
    try:
        image = images.resolve(name)
    except RuntimeMissing as error:
        return str(error)
    return f"{image.version} at {image.host_executable}" if image.host_executable else "bootstrap of the package"


def _contract(settings: Settings, isolation: Isolation) -> LambdaContract:
    return LambdaContract(
        credentials=_credentials(settings),
        init_limit=settings.init_limit,
        single_use=settings.single_use,
        clone=settings.clone,
        log=PlatformLog(style=LogStyle(settings.log_style), billing=Billing(settings.billing)),
        endpoint_url=_endpoint_inside(settings.aws_endpoint_url, isolation) if settings.pass_endpoint_url else "",
    )


def _endpoint_inside(url: str, isolation: Isolation) -> str:
    """The AWS endpoint as functions reach it: in a network of their own, this host's loopback has another address."""
    port = local_port(url)
    if port is None or isolation is Isolation.PROCESS:
        return url
    # An address rather than a name: SDKs put a bucket's name before a name, where nothing would resolve it.
    return urlsplit(url)._replace(netloc=f"{HOST_ADDRESS}:{port}").geturl()


def _credentials(settings: Settings) -> Credentials:
    """Functions sign with a key that opens nothing by itself; the server's own keys are never given to them."""
    return Credentials(
        access_key="ASIA" + settings.account + "TORP",
        secret_key=secrets.token_urlsafe(30),
        session_token=secrets.token_urlsafe(60),
    )


def _pool_limits(settings: Settings) -> PoolLimits:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _MIB
    return PoolLimits(
        account_concurrency=settings.account_concurrency,
        memory_budget_mb=settings.memory_budget_mb or int(total * _MEMORY_SHARE),
        memory_wait=settings.memory_wait,
        idle_timeout=settings.idle_timeout,
        max_age=settings.max_age,
    )


def _open_stores(settings: Settings) -> _Stores:
    folder = settings.data
    try:
        for part in (folder, folder / "code", folder / "logs"):
            part.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise PlatformError(
            f"The data folder {folder} cannot be used ({error.strerror}); name another with --data."
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise PlatformError(
            f"Another Torpor server uses the data folder {folder}; stop it, or name another with --data."
        ) from None
    return _Stores(
        folder=folder,
        metadata=SqlMetadataStore(str(folder / "torpor.db")),
        code=DiskCodeStore(str(folder / "code")),
        journal=Journal(str(folder / "logs")),
        lock=lock,
    )


__all__ = ["Server", "SystemClock", "diagnose", "limits", "serve"]

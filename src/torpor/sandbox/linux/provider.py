"""Makes real sandboxes: launchers on demand, a pool of prepared sandboxes for each, and the way from a specification to
a sandbox. The mounting, forking and privilege dropping is done by the launcher, never here."""

import asyncio
import contextlib
import itertools
import logging
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

from torpor.model.errors import RuntimeMissing, SandboxUnavailable
from torpor.sandbox.images import ImageCatalog, RuntimeImage
from torpor.sandbox.launcher import places
from torpor.sandbox.linux import host
from torpor.sandbox.linux.home import Home
from torpor.sandbox.linux.launcher_process import LauncherPlan, LauncherProcess
from torpor.sandbox.linux.pool import PreparedPool
from torpor.sandbox.linux.prepared import Contents, KeeperGone, PreparedSandbox
from torpor.sandbox.linux.sandbox import Egress, LinuxSandbox
from torpor.sandbox.port import (
    Capability,
    Isolation,
    ProviderStatistics,
    SandboxListener,
    SandboxSpec,
)

DEFAULT_TMP_MB = 512
_BOOTED = "booted"
"""The launcher without a function's interpreter in its memory, for programs that are executed or restored."""
_ATTEMPTS = 3
_FIRST_USER = 700_000
_USERS = 100_000
_FIRST_RANGE = 1_000_000_000
_RANGES = 16_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What prepared sandboxes are told apart by."""

    image: RuntimeImage
    as_root: bool = False
    restored: bool = False

    @property
    def name(self) -> str:
        return self.image.runtime + ("+root" if self.as_root else "") + ("+restored" if self.restored else "")

    @property
    def launcher(self) -> str:
        """A process that is replaced by a saved one has to clear its memory first: the less the better."""
        return self.image.runtime if self.image.clone_module and not self.restored else _BOOTED


class LinuxProvider:
    """The `sandbox` rung, or with `rootless` the `sandbox-rootless` one.

    `code_root` is the folder all code folders lie below; `prepared_target` how many sandboxes of each runtime are kept
    ready without code; with `boot_only` every process is executed afresh and no interpreter is ever cloned.
    """

    def __init__(
        self,
        state_dir: str,
        code_root: str,
        images: ImageCatalog,
        egress: Egress | None = None,
        rootless: bool = False,
        prepared_target: int = 2,
        boot_only: bool = False,
    ) -> None:
        self._state_dir = state_dir
        self._code_root = os.path.realpath(code_root)
        self._images = images
        self._egress = egress
        self._rootless = rootless
        self._target = prepared_target
        self._boot_only = boot_only
        self._home: Home | None = None
        self._launchers: dict[str, asyncio.Task[LauncherProcess]] = {}
        self._pools: dict[str, PreparedPool] = {}
        self._live: dict[str, LinuxSandbox] = {}
        self._numbers = itertools.count(1)
        self._first_user = random.randrange(_USERS)
        self._problems: list[list[str]] = []

    @property
    def isolation(self) -> Isolation:
        return Isolation.ROOTLESS if self._rootless else Isolation.ROOT

    async def open(self) -> None:
        if self._home is not None:
            return
        try:
            self._home = await asyncio.to_thread(Home, self._state_dir)
        except OSError as error:
            raise SandboxUnavailable(f"The state folder {self._state_dir} cannot be used: {error}.") from error

    async def warm(self, runtime: str, *, restored: bool = False) -> None:
        kind = _Kind(self._images.resolve(runtime), restored=restored)
        await self._launcher(kind)
        await self._pool(kind).fill()

    async def create(self, spec: SandboxSpec, listener: SandboxListener) -> LinuxSandbox:
        contents = self._contents(spec)
        kind = _Kind(self._images.resolve(spec.runtime), as_root=spec.as_root, restored=spec.restored)
        for _ in range(_ATTEMPTS):
            prepared = await self._pool(kind).take()
            # One that was made ahead may have died meanwhile, with its launcher for instance.
            with contextlib.suppress(KeeperGone):
                sandbox = await self._placed(prepared, contents, spec, kind.image, listener)
                self._live[spec.name] = sandbox
                return sandbox
        raise SandboxUnavailable("No sandbox lived long enough to be used.")

    async def _placed(
        self,
        prepared: PreparedSandbox,
        contents: Contents,
        spec: SandboxSpec,
        image: RuntimeImage,
        listener: SandboxListener,
    ) -> LinuxSandbox:
        """The keeper shows the code while the server sets up its side. Raises SandboxUnavailable."""
        sandbox: LinuxSandbox | None = None
        try:
            prepared.assign(contents)
            loop = asyncio.get_running_loop()
            sandbox = LinuxSandbox(loop, spec, prepared, image, listener, self._egress, self._forget)
            await prepared.assigned()
        except BaseException:
            await (prepared.discard() if sandbox is None else sandbox.destroy())
            raise
        return sandbox

    def snapshots(self) -> Capability:
        return host.snapshots()

    def capabilities(self) -> tuple[Capability, ...]:
        return (*host.capabilities(rootless=self._rootless, boot_only=self._boot_only), self.snapshots())

    def statistics(self) -> ProviderStatistics:
        return ProviderStatistics(
            isolation=self.isolation,
            live=len(self._live),
            prepared={name: len(pool) for name, pool in self._pools.items()},
        )

    async def close(self) -> None:
        home, self._home = self._home, None  # from now on no launcher is started and no sandbox prepared
        await asyncio.gather(*(pool.close() for pool in self._pools.values()))
        self._pools.clear()
        await asyncio.gather(*(sandbox.destroy() for sandbox in list(self._live.values())))
        for task in list(self._launchers.values()):
            with contextlib.suppress(SandboxUnavailable):
                await (await task).close()
        self._launchers.clear()
        if home is not None:
            await asyncio.to_thread(home.release)

    def _forget(self, sandbox: LinuxSandbox) -> None:
        if self._live.get(sandbox.name) is sandbox:
            del self._live[sandbox.name]

    def _contents(self, spec: SandboxSpec) -> Contents:
        if spec.code_at not in places.CODE_PLACES:
            known = ", ".join(places.CODE_PLACES)
            raise SandboxUnavailable(f"Code cannot be shown at {spec.code_at}; possible are {known}.")
        return Contents(
            code=self._below_root(spec.code),
            code_at=spec.code_at,
            layers=tuple(self._below_root(layer) for layer in spec.layers),
            system=self._below_root(spec.system) if spec.system else "",
            tmp_mb=spec.tmp_mb,
            writable=spec.writable,
        )

    def _below_root(self, folder: str) -> str:
        relative = os.path.relpath(os.path.realpath(folder), self._code_root)
        if relative.split("/")[0] == "..":
            raise SandboxUnavailable(f"The code folder {folder} is not below {self._code_root}.")
        return relative

    def _pool(self, kind: _Kind) -> PreparedPool:
        if self._home is None:
            raise SandboxUnavailable("The provider is not open.")
        pool = self._pools.get(kind.name)
        if pool is None:
            pool = PreparedPool(asyncio.get_running_loop(), lambda: self._prepare(kind), self._target)
            self._pools[kind.name] = pool
        return pool

    async def _prepare(self, kind: _Kind) -> PreparedSandbox:
        launcher = await self._launcher(kind)
        number = next(self._numbers)
        prepared = PreparedSandbox(asyncio.get_running_loop(), launcher, f"s{number}")
        user = _FIRST_USER + (self._first_user + number) % _USERS
        if kind.as_root:
            user = _FIRST_RANGE + (self._first_user + number) % _RANGES * places.ROOT_IDS
        try:
            await prepared.make(kind.image.runtime, user, DEFAULT_TMP_MB, as_root=kind.as_root)
        except BaseException:
            await prepared.discard()
            raise
        return prepared

    async def _launcher(self, kind: _Kind) -> LauncherProcess:
        key = kind.launcher
        task = self._launchers.get(key)
        if task is not None and task.done() and (task.exception() or not task.result().is_alive):
            self._launchers.pop(key, None)
            if not task.exception():
                await task.result().close()
            task = self._launchers.get(key)
        if task is None:
            task = self._launchers[key] = asyncio.create_task(self._start_launcher(key, kind.image))
        return await asyncio.shield(task)

    async def _start_launcher(self, key: str, image: RuntimeImage) -> LauncherProcess:
        if self._home is None:
            raise SandboxUnavailable("The provider is not open.")
        clonable = key != _BOOTED
        plan = LauncherPlan(
            code_root=self._code_root,
            rootless=self._rootless,
            disk=not self._rootless,
            map_ids=host.maps_ids(),
            image=image if clonable else None,
            clone=clonable and not self._boot_only,
            others={} if clonable else {other.runtime: other for other in self._served_images()},
        )
        launcher = LauncherProcess(asyncio.get_running_loop(), self._home, plan)
        await launcher.start()
        self._problems = launcher.problems
        return launcher

    def _served_images(self) -> Iterator[RuntimeImage]:
        for runtime in self._images.served():
            with contextlib.suppress(RuntimeMissing):
                yield self._images.resolve(runtime)

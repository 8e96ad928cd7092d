"""Builds: a package's source becomes an application, in a sandbox of its own and as root there.

The build has the image's interpreters, may write everywhere and reaches the network. What it leaves is taken out of the
sandbox as it is: the folder of the application, and in it the system folders that were changed. The sandbox is gone
afterwards, whatever came of it.
"""

import asyncio
import os
import re
import shutil
import signal as signals
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from uuid import uuid4

from torpor.model.build import BuildOrder
from torpor.model.errors import BuildFailed, PlatformError, SandboxUnavailable, StoreUnavailable
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.port import ProcessExit, ProcessSpec, Sandbox, SandboxProvider, SandboxSpec, Stream
from torpor.sandbox.server_image import LANG
from torpor.store import disk
from torpor.store.ports import Tree
from torpor.store.unpacking import unpack

_BUILD = "build"
_FOLDER = "build-"
_SCRIPT_MAX = 1024 * 1024
"""Bytes of a file that may be a script."""


class SandboxBuilder:
    """Builds below `folder`, which is its own and lies where the provider takes code from."""

    def __init__(self, provider: SandboxProvider, images: ImageCatalog, folder: str) -> None:
        """Make the folder, without what an earlier life has left in it. Raises StoreUnavailable."""
        self._provider = provider
        self._images = images
        self._folder = folder
        with _translated():
            disk.remove(folder)
            os.makedirs(folder, mode=0o755, exist_ok=True)

    async def build(self, order: BuildOrder, on_output: Callable[[bytes], None]) -> Tree:
        """Run the build and keep what it leaves; the tree is the caller's, to be given to `discard` in the end.

        Raises BuildFailed for the command, InvalidPackage and TooLarge for the source, SandboxUnavailable,
        RuntimeMissing and StoreUnavailable.
        """
        with _translated():
            place = tempfile.mkdtemp(prefix=_FOLDER, dir=self._folder)
        try:
            await asyncio.to_thread(_prepare, place, order)
            interpreters = await self._run(place, order, on_output)
            return Tree(folder=await asyncio.to_thread(_assemble, place, order.system_at, interpreters))
        except BaseException:
            await asyncio.to_thread(disk.remove, place)
            raise

    async def discard(self, tree: Tree) -> None:
        """Remove what a build has left, the tree included if it was not moved away."""
        place = os.path.dirname(os.path.dirname(tree.folder))
        await asyncio.to_thread(disk.remove, place)

    async def _run(self, place: str, order: BuildOrder, on_output: Callable[[bytes], None]) -> str:
        """Where the interpreters stood inside."""
        listener = _Listener(on_output)
        sandbox = await self._provider.create(_sandbox(place, order), listener)
        try:
            sandbox.start(self._process(sandbox, order))
            try:
                async with asyncio.timeout(order.time_limit):
                    ended = await listener.ended
            except TimeoutError:
                reason = f"was ended after {order.time_limit:g} s, the longest that a build may take"
                raise BuildFailed(f"The build command `{order.shown}` {reason}.") from None
            _check(ended, order)
            sandbox.kill_all()  # what it has left running must not write any more
            await sandbox.save(f"{place}/result")
            return sandbox.paths["lang"]
        finally:
            await sandbox.destroy()

    def _process(self, sandbox: Sandbox, order: BuildOrder) -> ProcessSpec:
        paths = sandbox.paths
        image = self._images.resolve(order.image).placed(paths)
        return ProcessSpec(
            name=_BUILD, argv=order.program, environment=order.variables(image.environment, paths["task"])
        )


class _Listener:
    """Waits for the end of the build's process, or of its sandbox."""

    def __init__(self, on_output: Callable[[bytes], None]) -> None:
        self._on_output = on_output
        self.ended: asyncio.Future[ProcessExit] = asyncio.get_running_loop().create_future()

    def process_exited(self, exit: ProcessExit) -> None:
        if not self.ended.done():
            self.ended.set_result(exit)

    def output(self, stream: Stream, data: bytes) -> None:
        self._on_output(data)

    def sandbox_died(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(SandboxUnavailable(f"The build's sandbox is gone: {reason}."))

    def process_output(self, name: str, data: bytes) -> None:
        """A build has one output."""

    def worker_output(self, connection: int, data: bytes) -> None:
        """Builds have no workers."""

    def worker_closed(self, connection: int) -> None:
        """See `worker_output`."""


def _prepare(place: str, order: BuildOrder) -> None:
    with _translated():
        os.chmod(place, 0o755)
        for name in ("source", "result"):
            os.mkdir(f"{place}/{name}")
            os.chmod(f"{place}/{name}", 0o755)
        unpack(order.archive, f"{place}/source", limit=order.source_limit)


def _sandbox(place: str, order: BuildOrder) -> SandboxSpec:
    return SandboxSpec(
        name=_FOLDER + uuid4().hex[:12],
        runtime=order.image,
        code=f"{place}/source",
        code_at=order.code_at,
        memory_mb=order.memory_mb,
        tmp_mb=order.disk_mb,
        processes=order.processes,
        files=order.files,
        as_root=True,
        writable=True,
    )


def _check(ended: ProcessExit, order: BuildOrder) -> None:
    """Raises BuildFailed unless the command succeeded."""
    if ended.start_error:
        reason = f"could not be started: {ended.start_error}"
    elif ended.out_of_memory:
        reason = f"was ended for using more than {order.memory_mb} MB of memory"
    elif ended.signal is not None:
        reason = f"was ended by signal {_signal_name(ended.signal)}"
    elif ended.code:
        reason = f"ended with exit status {ended.code}"
    else:
        return
    raise BuildFailed(f"The build command `{order.shown}` {reason}.", code=ended.code)


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return str(number)


def _assemble(place: str, system_at: str, interpreters: str) -> str:
    """One tree of what was saved: the application, and in it the changed system folders."""
    tree, system = f"{place}/result/code", f"{place}/result/system"
    with _translated():
        disk.remove(f"{place}/source")
        os.chmod(tree, 0o755)
        _remove(f"{tree}/{system_at}")
        if os.path.isdir(system):
            os.rename(system, f"{tree}/{system_at}")
        if interpreters != LANG:
            _look_up_interpreters(tree, interpreters)
    return tree


def _look_up_interpreters(tree: str, interpreters: str) -> None:
    """Without isolation the build's interpreters stood in a folder that is gone: scripts shall find them by name."""
    named = re.compile(b"#!" + re.escape(os.fsencode(interpreters)) + rb"/(?:[^ \n/]+/)*")
    for folder, _, files in os.walk(tree):
        if os.path.basename(folder) != "bin":
            continue
        for path in (f"{folder}/{name}" for name in files):
            if os.path.islink(path) or os.path.getsize(path) > _SCRIPT_MAX:
                continue
            with open(path, "rb+") as script:
                text = script.read()
                if named.match(text):
                    script.seek(0)
                    script.truncate()
                    script.write(named.sub(b"#!/usr/bin/env ", text, count=1))


def _remove(path: str) -> None:
    """Whatever a build may have put there: the name is the platform's."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            os.unlink(path)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except PlatformError:
        raise
    except OSError as error:
        raise StoreUnavailable(f"The disk could not take the build: {error.strerror}.") from error

"""The snapshots of versions: made when they are published, kept encrypted, at hand for the environments made from them.

One thread; what takes a moment is done in another.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torpor.model.errors import SandboxUnavailable, TorporError
from torpor.model.failure import Failure
from torpor.model.function import FunctionVersion
from torpor.sandbox.port import ProcessImage

log = logging.getLogger(__name__)
_MEMORY_RETRY = 1.0
"""Seconds between two attempts to make a snapshot while there is no memory for its environment."""


class Store(Protocol):
    """Where snapshots are kept; its calls block."""

    def save(self, name: str, parts: Mapping[str, int], about: Mapping[str, str]) -> None: ...

    def about(self, name: str) -> dict[str, str]: ...

    def load(self, name: str) -> dict[str, int]: ...

    def remove(self, name: str) -> None: ...

    def names(self) -> list[str]: ...


class Watcher(Protocol):
    """Is told how far the versions are."""

    def pending(self, version: FunctionVersion) -> None:
        """Its snapshot is being made."""
        ...

    def ready(self, version: FunctionVersion) -> None: ...

    def at_hand(self, version: FunctionVersion) -> None:
        """Its environments can be made from now on without reading the disk, and are likely to be."""
        ...

    def failed(self, version: FunctionVersion, reason: str, failure: Failure | None) -> None:
        """It could not be made; `failure` is that of its Init, if that was it."""
        ...


class Making(Protocol):
    """An environment whose runtime is to be saved."""

    @property
    def failure(self) -> str: ...

    @property
    def init_failure(self) -> Failure | None: ...

    async def ended(self) -> None:
        """Returns once nothing is left of it."""
        ...


@dataclass(frozen=True, slots=True)
class Workshop:
    """What making a snapshot takes."""

    start: Callable[[FunctionVersion], Making | None]
    """Starts an environment that is to be saved; None if there is no memory. Raises TorporError."""
    made_for: Callable[[FunctionVersion], Mapping[str, str]]
    """What a snapshot made now depends on beside the version. Raises TorporError."""
    watcher: Watcher


class _Failed(SandboxUnavailable):
    """A snapshot could not be made, because of this failure of Init if there is one."""

    def __init__(self, reason: str, failure: Failure | None) -> None:
        super().__init__(reason)
        self.failure = failure


class SnapshotShelf:
    """See `torpor.engine.surroundings.Snapshots`. `room` is in bytes: what is used least goes from memory first."""

    def __init__(self, store: Store, room: int) -> None:
        self._store = store
        self._room = room
        self._workshop: Workshop | None = None
        self._images: dict[str, ProcessImage] = {}
        """Most recently used last."""
        self._reading: dict[str, asyncio.Task[Any]] = {}
        self._making: dict[str, asyncio.Task[Any]] = {}
        self._wanted: set[str] = set()
        """What is being made, unless its version has gone meanwhile."""
        self._stored: set[str] = set()
        self._unsaved: set[str] = set()
        """Snapshots that memory alone has, because the disk refused them."""

    def open(self, workshop: Workshop) -> None:
        """From now on snapshots can be made. Raises StoreUnavailable."""
        self._workshop = workshop
        self._stored = set(self._store.names())

    def keep_only(self, versions: Iterable[FunctionVersion]) -> None:
        """Remove the snapshots of all others from the disk. Raises StoreUnavailable."""
        for name in self._stored - {_name(version) for version in versions}:
            self._store.remove(name)
            self._stored.discard(name)

    def prepare(self, version: FunctionVersion) -> None:
        """Make the version's snapshot unless there is one that this host can go on from."""
        name = _name(version)
        if name in self._stored:
            self._read(name, self._verify(version))
        elif name not in self._making:
            self._wanted.add(name)
            self._making[name] = self._spawn(name, self._make(version), self._making)

    def forget(self, version: FunctionVersion) -> None:
        """The version is gone. Raises StoreUnavailable."""
        name = _name(version)
        self._wanted.discard(name)
        for tasks in (self._making, self._reading):
            task = tasks.pop(name, None)
            if task is not None:
                task.cancel()
        self._drop(name)
        if name in self._stored:
            self._stored.discard(name)
            self._store.remove(name)

    async def take(self, version: FunctionVersion) -> ProcessImage:
        """Who takes it has memory set aside, so it never waits for the environment that makes it."""
        name = _name(version)
        while (image := self._images.get(name)) is None:
            if name not in self._stored:
                self.prepare(version)
                raise SandboxUnavailable("The snapshot of this version is being made; its state says when it is ready.")
            await _settled(self._reading.get(name) or self._read(name, self._load(version)))
        self._images[name] = self._images.pop(name)
        return image.copy()

    async def keep(self, version: FunctionVersion, image: ProcessImage) -> None:
        name = _name(version)
        if name not in self._wanted:
            image.close()
            return
        self._put(version, image)
        parts = image.copy()
        try:
            about = self._shop.made_for(version)
            await asyncio.to_thread(self._store.save, name, _parts(parts), about)
            self._saved(name)
        except TorporError as error:
            log.warning("The snapshot of %s is kept in memory only: %s", version.function, error)
            self._unsaved.add(name)
        finally:
            parts.close()

    def _saved(self, name: str) -> None:
        if name in self._wanted:
            self._stored.add(name)
        else:
            self._store.remove(name)

    def doubt(self, version: FunctionVersion, reason: str) -> None:
        """It is made anew: what it was made on has changed."""
        name = _name(version)
        if name not in self._images or name in self._making:
            return
        self.forget(version)
        self._replace(version, reason)

    def close(self) -> None:
        """Let go of the memory."""
        for task in (*self._making.values(), *self._reading.values()):
            task.cancel()
        for name in list(self._images):
            self._drop(name)

    @property
    def _shop(self) -> Workshop:
        assert self._workshop is not None, "open comes first"
        return self._workshop

    def _read(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._reading[name] = self._spawn(name, work, self._reading)
        return task

    def _spawn(
        self, name: str, work: Coroutine[Any, Any, Any], among: dict[str, asyncio.Task[Any]]
    ) -> asyncio.Task[Any]:
        def ended(task: asyncio.Task[Any]) -> None:
            if among.get(name) is task:
                del among[name]
            if not task.cancelled():
                task.exception()  # whoever waits is told; nobody may be waiting

        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(ended)
        return task

    async def _load(self, version: FunctionVersion) -> None:
        if not await self._verify(version):
            return
        try:
            self._put(version, ProcessImage(**await asyncio.to_thread(self._store.load, _name(version))))
        except TorporError as error:
            self._replace(version, str(error))

    async def _verify(self, version: FunctionVersion) -> bool:
        """Have it made anew if this host cannot go on from what is kept."""
        try:
            if await asyncio.to_thread(self._store.about, _name(version)) == self._shop.made_for(version):
                return True
        except TorporError as error:
            reason = str(error)
        else:
            reason = "the kernel, the runtime or Torpor is another one now"
        self._replace(version, reason)
        return False

    def _replace(self, version: FunctionVersion, reason: str) -> None:
        log.warning("The snapshot of %s %s is made anew: %s.", version.function, version.version, reason.rstrip("."))
        self._stored.discard(_name(version))
        self.prepare(version)

    async def _make(self, version: FunctionVersion) -> None:
        watcher = self._shop.watcher
        watcher.pending(version)
        failed: TorporError | None = None
        try:
            await self._made_by_environment(version)
        except TorporError as error:
            failed = error
        except Exception as error:  # the version must not stay pending for ever
            log.exception("the snapshot of %s %s cannot be made", version.function, version.version)
            failed = SandboxUnavailable(f"making the snapshot failed: {error}")
        if failed is None:
            watcher.ready(version)
            return
        watcher.failed(version, str(failed), failed.failure if isinstance(failed, _Failed) else None)
        raise failed

    async def _made_by_environment(self, version: FunctionVersion) -> None:
        environment = self._shop.start(version)
        while environment is None:
            await asyncio.sleep(_MEMORY_RETRY)
            environment = self._shop.start(version)
        await environment.ended()
        if _name(version) not in self._images:
            raise _Failed(environment.failure or "the environment ended before it was saved", environment.init_failure)

    def _put(self, version: FunctionVersion, image: ProcessImage) -> None:
        name = _name(version)
        self._drop(name)
        self._images[name] = image
        for other in list(self._images)[:-1]:
            if sum(kept.size for kept in self._images.values()) <= self._room:
                break
            if other not in self._unsaved:
                self._drop(other)
        self._shop.watcher.at_hand(version)

    def _drop(self, name: str) -> None:
        image = self._images.pop(name, None)
        self._unsaved.discard(name)
        if image is not None:
            image.close()


async def _settled(task: asyncio.Task[Any]) -> None:
    """Raises TorporError as the task did, or because it was given up."""
    await asyncio.wait([task])
    if task.cancelled():
        raise SandboxUnavailable("The snapshot of this version is no longer kept.")
    task.result()


def _parts(image: ProcessImage) -> dict[str, int]:
    return {"layout": image.layout, "memory": image.memory, "files": image.files}


def _name(version: FunctionVersion) -> str:
    return hashlib.sha256("\0".join(version.key[:3]).encode()).hexdigest()

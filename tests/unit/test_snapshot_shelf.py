"""Who wants a snapshot gets it, or is told at once that it is being made."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from torpor.engine.snapshots import SnapshotShelf, Workshop
from torpor.model.errors import SandboxUnavailable
from torpor.model.failure import Failure
from torpor.model.function import CodeRef, FunctionVersion
from torpor.sandbox.port import ProcessImage
from torpor.store.snapshots import KEY_BYTES, SnapshotStore

VERSION = FunctionVersion(
    function="saved",
    version="1",
    resource="saved",
    revision="a",
    contract="lambda",
    runtime="python3.12",
    handler="app.handler",
    code=CodeRef(digest="d", packed_bytes=1, unpacked_bytes=1),
)


def _image() -> ProcessImage:
    parts = [os.memfd_create("part", os.MFD_CLOEXEC) for _ in range(3)]
    for part in parts:
        os.write(part, b"content")
    return ProcessImage(**dict(zip(("layout", "memory", "files"), parts, strict=True)))


class MakingEnvironment:
    """In place of an environment: saves its runtime once it may."""

    failure = "it cannot be saved"
    init_failure: Failure | None = None

    def __init__(self, shelf: SnapshotShelf, may_save: asyncio.Event, works: bool) -> None:
        self._shelf = shelf
        self._may_save = may_save
        self._works = works

    async def ended(self) -> None:
        await self._may_save.wait()
        if self._works:
            await self._shelf.keep(VERSION, _image())


class Bench:
    """A shelf in a workshop that the test holds the keys of; it is its own watcher."""

    def __init__(self, folder: Path) -> None:
        self.store = SnapshotStore(str(folder), bytes(KEY_BYTES))
        self.kernel = "6"
        self.works = True
        self.said: list[str] = []
        self.warmed = 0
        self.may_save = asyncio.Event()
        self.shelf = self._opened()

    def restart(self) -> None:
        self.shelf.close()
        self.shelf = self._opened()

    def _opened(self) -> SnapshotShelf:
        shelf = SnapshotShelf(self.store, 1 << 30)
        shelf.open(Workshop(start=self._start, made_for=lambda version: {"kernel": self.kernel}, watcher=self))
        return shelf

    def _start(self, version: FunctionVersion) -> MakingEnvironment:
        return MakingEnvironment(self.shelf, self.may_save, self.works)

    def pending(self, version: FunctionVersion) -> None:
        self.said.append("pending")

    def ready(self, version: FunctionVersion) -> None:
        self.said.append("ready")

    def at_hand(self, version: FunctionVersion) -> None:
        self.warmed += 1

    def failed(self, version: FunctionVersion, reason: str, failure: Failure | None) -> None:
        self.said.append(reason)

    async def made(self) -> None:
        self.may_save.set()
        await self.until(lambda: self.said[-1:] == ["ready"])

    async def until(self, condition: Callable[[], Any]) -> None:
        for _ in range(5_000):
            if condition():
                return
            await asyncio.sleep(0.001)
        raise AssertionError(self.said)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "snapshots")
    yield made
    made.shelf.close()


async def test_a_snapshot_is_made_once_and_taken_often(bench: Bench) -> None:
    bench.shelf.prepare(VERSION)
    await bench.made()
    assert bench.warmed == 1
    bench.shelf.prepare(VERSION)

    for image in [await bench.shelf.take(VERSION), await bench.shelf.take(VERSION)]:
        assert os.pread(image.memory, 100, 0) == b"content"
        image.close()
    assert bench.said == ["pending", "ready"]


async def test_nobody_waits_while_it_is_made(bench: Bench) -> None:
    with pytest.raises(SandboxUnavailable, match="is being made"):
        await bench.shelf.take(VERSION)
    await bench.made()

    (await bench.shelf.take(VERSION)).close()


async def test_why_it_could_not_be_made_is_told(bench: Bench) -> None:
    bench.works = False
    bench.shelf.prepare(VERSION)
    bench.may_save.set()

    await bench.until(lambda: bench.said == ["pending", "it cannot be saved"])


async def test_the_next_server_takes_it_from_the_disk(bench: Bench) -> None:
    bench.shelf.prepare(VERSION)
    await bench.made()
    bench.restart()
    bench.shelf.prepare(VERSION)

    (await bench.shelf.take(VERSION)).close()
    assert bench.said == ["pending", "ready"]


@pytest.mark.parametrize("damage", ["kernel", "file", "loss"])
async def test_what_this_host_cannot_go_on_from_is_made_anew(bench: Bench, tmp_path: Path, damage: str) -> None:
    bench.shelf.prepare(VERSION)
    await bench.made()
    bench.restart()
    (file,) = (tmp_path / "snapshots").iterdir()
    if damage == "kernel":
        bench.kernel = "7"
    elif damage == "file":
        file.write_bytes(b"nothing of the kind")
    else:
        file.unlink()
    bench.said.clear()
    bench.shelf.prepare(VERSION)
    await bench.made()

    (await bench.shelf.take(VERSION)).close()


async def test_a_version_that_goes_while_it_is_saved_leaves_nothing(bench: Bench) -> None:
    bench.shelf.prepare(VERSION)
    bench.shelf.forget(VERSION)
    await bench.shelf.keep(VERSION, _image())

    assert bench.store.names() == []


async def test_who_waits_for_a_snapshot_whose_version_goes_is_told(bench: Bench) -> None:
    bench.shelf.prepare(VERSION)
    await bench.made()
    bench.restart()
    waiting = asyncio.ensure_future(bench.shelf.take(VERSION))
    await asyncio.sleep(0)
    bench.shelf.forget(VERSION)

    with pytest.raises(SandboxUnavailable):
        await waiting

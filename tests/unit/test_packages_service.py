"""Packages on their way to environments: fetched once for all who wait, and told when they cannot be had."""

import asyncio
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.support.functions_bench import archive

from torpor.model.account import PackageLimits
from torpor.model.errors import StoreUnavailable
from torpor.model.function import CodeRef
from torpor.service.packages import Packages
from torpor.store.code import DiskCodeStore
from torpor.store.homes import DiskArchiveHome

LIMITS = PackageLimits(zipped=10_000, unpacked=10_000)


class GatedStore(DiskCodeStore):
    """Each fetch stops at its start until the test opens the gate."""

    def __init__(self, folder: Path, bound: int = 0) -> None:
        home = DiskArchiveHome(str(folder / "packages"))
        super().__init__(str(folder / "trees"), home, built=str(folder / "built"), bound=bound)
        self.gate = threading.Event()
        self.fetches: list[list[CodeRef]] = []

    def fetch(self, code: CodeRef, in_use: Iterable[CodeRef]) -> str:
        self.fetches.append(list(in_use))
        assert self.gate.wait(10)
        return super().fetch(code, in_use)


@pytest.fixture
def store(tmp_path: Path) -> GatedStore:
    return GatedStore(tmp_path)


async def deployed(packages: Packages, content: str = "x = 1") -> CodeRef:
    async with packages.added(archive(content)) as code:
        return code


async def test_present_package_is_not_fetched(store: GatedStore) -> None:
    packages = Packages(store, LIMITS)
    code = await deployed(packages)
    assert await packages.fetch(code) == (store.folder(code), False)
    assert store.fetches == []


async def test_missing_package_is_fetched_once_for_all_who_wait(store: GatedStore, tmp_path: Path) -> None:
    packages = Packages(store, LIMITS)
    code = await deployed(packages)
    shutil.rmtree(tmp_path / "trees")
    waiting = [asyncio.create_task(packages.fetch(code)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    store.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [(store.folder(code), True)] * 2
    assert waiting[0].cancelled() and len(store.fetches) == 1
    assert await packages.fetch(code) == (store.folder(code), False)


async def test_package_that_cannot_be_had_fails_all_who_wait_and_is_tried_again(
    store: GatedStore, tmp_path: Path
) -> None:
    packages = Packages(store, LIMITS)
    code = await deployed(packages)
    shutil.rmtree(tmp_path / "trees")
    moved = (tmp_path / "packages").rename(tmp_path / "elsewhere")
    store.gate.set()
    results = await asyncio.gather(packages.fetch(code), packages.fetch(code), return_exceptions=True)
    assert all(isinstance(result, StoreUnavailable) for result in results)
    moved.rename(tmp_path / "packages")
    assert await packages.fetch(code) == (store.folder(code), True)


async def test_what_environments_hold_is_spared_when_room_is_made(tmp_path: Path) -> None:
    store, held = GatedStore(tmp_path, bound=1000), list[CodeRef]()
    packages = Packages(store, LIMITS, in_use=lambda: held)
    store.gate.set()
    first = await deployed(packages, "a" * 600)
    held.append(first)
    second = await deployed(packages, "b" * 600)
    third = await deployed(packages, "c" * 600)
    assert [store.present(code) for code in (first, second, third)] == [True, False, True]
    assert await packages.fetch(second) == (store.folder(second), True)
    assert store.fetches == [[first]]
    assert [store.present(code) for code in (first, second, third)] == [True, True, False]
    held.clear()
    await deployed(packages, "d" * 600)
    assert [store.present(code) for code in (first, second, third)] == [False, False, False]

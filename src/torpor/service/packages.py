"""Packages between their arrival and the moment a function refers to them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

from torpor.model.account import PackageLimits
from torpor.model.errors import TooLarge
from torpor.model.function import CodeRef
from torpor.store.ports import CodeStore, Tree

Package = bytes | Tree
"""A zip archive, or a tree that is taken over."""


class Packages:
    """Adds, fetches and sweeps packages so that none undoes another; disk and network work runs in worker threads.

    A package that is being added belongs to no function yet. So a sweep waits until none is under way, and packages
    that arrive during a sweep wait for its end.
    """

    def __init__(
        self,
        store: CodeStore,
        limits: PackageLimits,
        others: Mapping[str, PackageLimits] = MappingProxyType({}),
        in_use: Callable[[], Iterable[CodeRef]] = tuple,
    ) -> None:
        """`others` are the limits of contracts that have limits of their own; `in_use` names what environments hold,
        from before they fetch it until they have ended."""
        self._in_use = in_use
        self._fetching: dict[str, asyncio.Future[str]] = {}
        self._store = store
        self._limits = limits
        self._others = others
        self._adding = 0
        self._none_added = asyncio.Event()
        self._none_added.set()
        self._not_sweeping = asyncio.Event()
        self._not_sweeping.set()

    @asynccontextmanager
    async def added(self, package: Package, *, layers_bytes: int = 0, contract: str = "") -> AsyncIterator[CodeRef]:
        """Unpack an archive or take over a tree; the body makes a function refer to it before any sweep can begin.

        Raises TooLarge and InvalidPackage for the package, StoreUnavailable for the disk.
        """
        self._check_zipped(package, contract)
        await self._no_sweep()
        self._adding += 1
        self._none_added.clear()
        limit = self._limits_of(contract).unpacked - layers_bytes
        work = asyncio.ensure_future(asyncio.to_thread(self._add, package, limit, list(self._in_use())))
        try:
            yield await asyncio.shield(work)
        finally:
            # A cancelled caller leaves its thread at work; the package is under way until that is done.
            work.add_done_callback(self._end_adding)

    async def fetch(self, code: CodeRef) -> tuple[str, bool]:
        """The folder of the unpacked package, and whether it had to be brought here for this.

        Fetches of one package that overlap share the work. Raises StoreUnavailable if it cannot be had.
        """
        if self._store.present(code):
            return self._store.folder(code), False
        work = self._fetching.get(code.digest)
        if work is None:
            work = asyncio.ensure_future(asyncio.to_thread(self._store.fetch, code, list(self._in_use())))
            self._fetching[code.digest] = work
            work.add_done_callback(partial(self._end_fetching, code.digest))
        return await asyncio.shield(work), True

    async def sweep(self, used: Callable[[], Iterable[CodeRef]]) -> None:
        """Remove every package that `used`, asked while none is being added, does not name."""
        await self._no_sweep()
        self._not_sweeping.clear()
        try:
            await self._none_added.wait()
            kept = list(used())
        except BaseException:
            self._not_sweeping.set()
            raise
        work = asyncio.ensure_future(asyncio.to_thread(self._store.keep_only, kept))
        work.add_done_callback(self._end_sweep)
        await asyncio.shield(work)

    async def _no_sweep(self) -> None:
        while not self._not_sweeping.is_set():
            await self._not_sweeping.wait()

    def _end_fetching(self, digest: str, work: asyncio.Future[str]) -> None:
        _forget(work)
        del self._fetching[digest]

    def _end_adding(self, work: asyncio.Future[CodeRef]) -> None:
        _forget(work)
        self._adding -= 1
        if not self._adding:
            self._none_added.set()

    def _end_sweep(self, work: asyncio.Future[None]) -> None:
        _forget(work)
        self._not_sweeping.set()

    async def archive(self, code: CodeRef) -> bytes:
        """The archive as it was given. Raises NotFound and StoreUnavailable."""
        return await asyncio.to_thread(self._store.archive, code)

    def check_unpacked(self, total: int, contract: str = "") -> None:
        """Raises TooLarge when code and layers together have more bytes than a function of the contract may."""
        limit = self._limits_of(contract).unpacked
        if total > limit:
            raise TooLarge(f"Code and layers unpack to {total} bytes, more than {limit}.", what="unpacked", limit=limit)

    def _limits_of(self, contract: str) -> PackageLimits:
        return self._others.get(contract, self._limits)

    def _add(self, package: Package, limit: int, in_use: list[CodeRef]) -> CodeRef:
        if isinstance(package, Tree):
            return self._store.adopt(package, unpacked_limit=limit)
        code = self._store.add(package, unpacked_limit=limit)
        self._store.trim([*in_use, code])
        return code

    def _check_zipped(self, package: Package, contract: str) -> None:
        limit = self._limits_of(contract).zipped
        if not isinstance(package, Tree) and len(package) > limit:
            raise TooLarge(f"The package has {len(package)} bytes, more than {limit}.", what="zipped", limit=limit)


def _forget(work: asyncio.Future[Any]) -> None:
    """Mark an error as seen: whoever waits has it, and nobody is left to be told when the waiting was cancelled."""
    if not work.cancelled():
        work.exception()

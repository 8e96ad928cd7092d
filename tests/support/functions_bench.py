"""A functions service with everything around it, in the hands of a test."""

import asyncio
import itertools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import functions

from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.errors import StoreUnavailable
from torpor.model.function import CodeRef, FunctionRecord, FunctionVersion
from torpor.service.functions import Changes, Functions, NewFunction
from torpor.store.code import DiskCodeStore
from torpor.store.memory import MemoryMetadataStore
from torpor.store.ports import CodeStore, MetadataStore


def archive(content: str = "x = 1\n") -> bytes:
    return functions.archive({"app.py": content})


ARCHIVES = [archive("x = " + str(number) * 10) for number in range(3)]
PACKED, UNPACKED = len(ARCHIVES[0]), 14


class HandClock:
    """Stands still until told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class FailingMetadata(MemoryMetadataStore):
    """Refuses to save or remove while `broken`."""

    broken = False

    def save(self, record: FunctionRecord) -> None:
        if self.broken:
            raise StoreUnavailable("The disk is gone.")
        super().save(record)

    def remove(self, name: str) -> None:
        if self.broken:
            raise StoreUnavailable("The disk is gone.")
        super().remove(name)


class GatedCode(DiskCodeStore):
    """Each `add` and sweep stops at its start or end until the test opens the gate."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.gate = threading.Event()
        self.arrived = threading.Semaphore(0)
        self.gated = True

    def add(self, archive: bytes, *, unpacked_limit: int) -> CodeRef:
        code = super().add(archive, unpacked_limit=unpacked_limit)
        self._stop()
        return code

    def keep_only(self, used: Iterable[CodeRef]) -> None:
        self._stop()
        super().keep_only(used)

    async def wait_for_arrival(self) -> None:
        assert await asyncio.to_thread(self.arrived.acquire, timeout=10)

    def _stop(self) -> None:
        if not self.gated:
            return
        self.arrived.release()
        assert self.gate.wait(10)


@dataclass(kw_only=True)
class Bench:
    """A service with everything around it."""

    folder: Path
    metadata: MetadataStore = field(default_factory=FailingMetadata)
    clock: HandClock = field(default_factory=HandClock)
    seen: list[tuple[FunctionVersion | None, FunctionVersion | None]] = field(default_factory=list)
    scaled: list[FunctionVersion] = field(default_factory=list)
    revisions: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    draws: list[float] = field(default_factory=list)
    """What the source of chance gives, from the front."""

    def service(
        self, code: CodeStore | None = None, *, account: int = 1000, zipped: int = 10_000, unpacked: int = 1000
    ) -> Functions:
        return Functions(
            self.metadata,
            code or DiskCodeStore(str(self.folder)),
            clock=self.clock,
            packages=PackageLimits(zipped=zipped, unpacked=unpacked),
            reservations=ReservationLimits(account=account, unreserved_minimum=100),
            on_change=lambda old, new: self.seen.append((old, new)),
            on_scale=self.scaled.append,
            draw=lambda: self.draws.pop(0),
            revisions=lambda: f"r{next(self.revisions)}",
        )


def new(name: str = "greet", **configuration: Any) -> NewFunction:
    return NewFunction(
        name=name,
        resource=f"res:{name}",
        contract="lambda",
        runtime="python3.12",
        handler="app.f",
        configuration=Changes(**configuration),  # type: ignore[typeddict-item]
        tags={"team": "blue"},
    )

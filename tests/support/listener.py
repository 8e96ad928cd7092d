"""A sandbox listener that remembers everything and lets a test wait for it."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from torpor.sandbox.port import ProcessExit, Stream

T = TypeVar("T")
PATIENCE = 10.0
"""Seconds a test waits for something before it fails."""


class RecordingListener:
    """Told by a sandbox; `log` holds every call in order: a `Stream` for output, a `ProcessExit`, a reason of death."""

    def __init__(self) -> None:
        self.log: list[Stream | ProcessExit | str] = []
        self.data: dict[Stream, bytearray] = {stream: bytearray() for stream in Stream}
        self.own: dict[str, bytearray] = {}
        """What each process with an output of its own wrote."""
        self.workers: dict[int, bytearray] = {}
        """What came over each worker connection."""
        self.ended_workers: list[int] = []
        self.largest = 0
        """The most bytes told in one call."""
        self._news: list[asyncio.Future[None]] = []

    def process_exited(self, exit: ProcessExit) -> None:
        self.log.append(exit)
        self._tell()

    def output(self, stream: Stream, data: bytes) -> None:
        assert data, "output is told only when there is some"
        self.log.append(stream)
        self.data[stream] += data
        self.largest = max(self.largest, len(data))
        self._tell()

    def process_output(self, name: str, data: bytes) -> None:
        assert data, "output is told only when there is some"
        self.log.append(Stream.OUTPUT)
        self.own.setdefault(name, bytearray()).extend(data)
        self.largest = max(self.largest, len(data))
        self._tell()

    def worker_output(self, connection: int, data: bytes) -> None:
        assert data, "output is told only when there is some"
        self.workers.setdefault(connection, bytearray()).extend(data)
        self.largest = max(self.largest, len(data))
        self._tell()

    def worker_closed(self, connection: int) -> None:
        assert connection not in self.ended_workers
        self.ended_workers.append(connection)
        self._tell()

    def sandbox_died(self, reason: str) -> None:
        self.log.append(reason)
        self._tell()

    def _tell(self) -> None:
        for waiter in self._news:
            if not waiter.done():
                waiter.set_result(None)
        self._news.clear()

    @property
    def text(self) -> str:
        """All ordinary output so far."""
        return self.data[Stream.OUTPUT].decode()

    @property
    def exits(self) -> list[ProcessExit]:
        """All exits so far."""
        return [entry for entry in self.log if isinstance(entry, ProcessExit)]

    @property
    def deaths(self) -> list[str]:
        """Reasons of `sandbox_died` so far."""
        return [entry for entry in self.log if isinstance(entry, str) and not isinstance(entry, Stream)]

    async def wait_for(self, what: Callable[[], T], patience: float = PATIENCE) -> T:
        """The first true result of `what`, looked at after every call told. Raises TimeoutError."""
        async with asyncio.timeout(patience):
            while not (result := what()):
                news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._news.append(news)
                await news
        return result

    async def wait_exit(self, name: str, patience: float = PATIENCE) -> ProcessExit:
        """The first exit of the process with this name."""
        found = await self.wait_for(lambda: [exit for exit in self.exits if exit.name == name], patience)
        return found[0]

    async def wait_text(self, piece: str, patience: float = PATIENCE) -> None:
        """Until the ordinary output contains the piece."""
        await self.wait_for(lambda: piece in self.text, patience)

"""A bare HTTP peer for tests: sends any bytes, reads answers strictly, on either event loop."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class BrokenAnswer(AssertionError):
    """What came is no HTTP answer."""


def on_each_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    """Run a coroutine test once on plain asyncio and once on uvloop."""

    @pytest.mark.parametrize("loop", list(LOOPS))
    def run(loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(asyncio.wait_for(test(), 30))

    functools.update_wrapper(run, test, assigned=("__name__", "__doc__", "__module__"), updated=())
    del run.__wrapped__  # type: ignore[attr-defined]
    return run


class Peer:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int = 0, path: str | None = None) -> "Peer":
        if path is not None:
            return cls(*await asyncio.open_unix_connection(path))
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def __aenter__(self) -> "Peer":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.vanish()
        await asyncio.sleep(0)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def vanish(self) -> None:
        self.writer.transport.abort()

    async def answer(self, *, bodiless: bool = False) -> Answer:
        """The next answer; `bodiless` for one to a HEAD request."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head[:-4].split("\r\n")
        version, status, _ = first.split(" ", 2)
        if version != "HTTP/1.1" or len(status) != 3:
            raise BrokenAnswer(first)
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        size = 0 if bodiless or status in ("100", "101", "204", "304") else int(headers["content-length"])
        return Answer(int(status), headers, await self.reader.readexactly(size))

    async def ended(self) -> bool:
        """Wait for the server's end; True if nothing more came before it."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

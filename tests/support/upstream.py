"""A scripted server inside, and a sink that writes down what a client tells it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from torpor.transport import AnswerFields, ClientConnection, ClientLimits, Loss, RawHeaders, connect

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Record:
    """What came of one request, in order."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.status = 0
        self.headers: RawHeaders = []
        self.body = bytearray()
        self.rest = b""
        self.reusable: bool | None = None
        self.loss: Loss | None = None
        self.over = asyncio.Event()
        self.on_writable: Callable[[], None] | None = None
        self.on_data: Callable[[bytes], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_upgraded: Callable[[bytes], None] | None = None

    def head(self, status: int, headers: AnswerFields) -> None:
        self.told.append("head")
        self.status, self.headers = status, headers.pairs

    def data(self, chunk: bytes) -> None:
        self.told.append("data")
        self.body += chunk
        if self.on_data is not None:
            self.on_data(chunk)

    def end(self, reusable: bool) -> None:
        self.told.append("end")
        self.reusable = reusable
        self.over.set()
        if self.on_end is not None:
            self.on_end()

    def lost(self, loss: Loss) -> None:
        self.told.append("lost")
        self.loss = loss
        self.over.set()

    def upgraded(self, status: int, headers: AnswerFields, rest: bytes) -> None:
        self.told.append("upgraded")
        self.status, self.headers, self.rest = status, headers.pairs, rest
        if self.on_upgraded is not None:
            self.on_upgraded(rest)
        self.over.set()

    def writable(self) -> None:
        if self.on_writable is not None:
            self.on_writable()


async def connected(port: int, limits: ClientLimits | None = None) -> ClientConnection:
    """A connection to a server of this machine."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return await connect(sock, ("127.0.0.1", port), limits or ClientLimits())


@asynccontextmanager
async def upstream(script: Script) -> AsyncIterator[int]:
    """Run the script on every connection; gives the port."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def saying(*pieces: bytes, close: bool = False, reset: bool = False) -> Script:
    """Answer every request head with these pieces, each in a packet of its own."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.01)
            if reset:
                writer.transport.abort()
            if close:
                writer.close()

    return script

"""An environment in front of a real Runtime API; the test is its runtime, and takes what is streamed."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.support.pools import Clock, surroundings, until
from tests.support.raw_http import Answer, Peer

from torpor.contracts.lambda_ import runtime_api
from torpor.contracts.lambda_.contract import LambdaContract
from torpor.contracts.lambda_.environment import Credentials
from torpor.contracts.lambda_.managed import ManagedContract
from torpor.engine.environment import Environment
from torpor.lifecycle import PhaseName
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.memory import MemoryProcess, MemoryProvider

PREFIX = "/2018-06-01/runtime/invocation"
STREAMING = {"Lambda-Runtime-Function-Response-Mode": "streaming"}


class Taker:
    """A sink that keeps what it is told; with `slow` it wants a pause after every piece."""

    def __init__(self, *, slow: bool = False) -> None:
        self.slow = slow
        self.type = ""
        self.begun = 0.0
        self.pieces: list[bytes] = []
        self.times: list[float] = []
        self.on_writable: Callable[[], None] | None = None

    @property
    def taken(self) -> bytes:
        return b"".join(self.pieces)

    def begin(self, content_type: str) -> None:
        assert not self.begun and not self.pieces
        self.begun, self.type = time.monotonic(), content_type

    def data(self, chunk: bytes) -> bool:
        assert self.begun
        self.pieces.append(chunk)
        self.times.append(time.monotonic())
        return not self.slow

    def go_on(self) -> None:
        told, self.on_writable = self.on_writable, None
        if told is not None:
            told()


class NoPool:
    is_awaited = False

    def settled(self, environment: Environment) -> None:
        """Nothing waits for room here."""


@dataclass
class Stage:
    """One environment. The test says what its runtime does."""

    environment: Environment
    provider: MemoryProvider
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return int(self.provider.sandboxes[self.environment.id].api_address.rpartition(":")[2])

    @property
    def phase(self) -> PhaseName:
        return self.environment.phase

    def peer(self) -> Any:
        """A connection of the runtime's."""
        return Peer.connect(self.port)

    async def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        async with await self.peer() as peer:
            peer.send(request(method, path, {"Content-Length": str(len(body))} | headers) + body)
            return await asyncio.wait_for(peer.answer(), 5)

    async def invoke(self, sink: Taker | None = None, *, wants_log: bool = False) -> str:
        """Assign an invocation; its id."""
        name = str(uuid.uuid4())
        invocation = Invocation(id=name, payload=b"{}", resource="arn:f", sink=sink, wants_log=wants_log)
        self.environment.assign(invocation, lambda outcome: self.outcomes.__setitem__(name, outcome))
        await until(lambda: self.phase is PhaseName.SERVING)
        return name

    async def begun(self, peer: Peer, sink: Taker | None = None, *pieces: bytes, **headers: str) -> str:
        """Ask for work with one peer, get some, and begin to stream the answer over the other; the invocation's id."""
        async with await self.peer() as asking:
            asking.send(request("GET", "/next"))
            await until(lambda: self.environment.free_slots)
            name = await self.invoke(sink)
            assert (await asking.answer()).headers["lambda-runtime-aws-request-id"] == name
        upload(peer, name, *pieces, **headers)
        return name

    async def outcome(self, name: str) -> Outcome:
        await until(lambda: name in self.outcomes)
        return self.outcomes[name]

    async def asks_again(self) -> None:
        """The runtime asks for more work and, as its answer is done, may wait for it."""
        async with await self.peer() as peer:
            peer.send(request("GET", "/next"))
            await until(lambda: self.phase in (PhaseName.IDLE, PhaseName.FROZEN))

    def kill(self) -> None:
        self.provider.sandboxes[self.environment.id].kill_all()


def request(method: str, path: str, headers: dict[str, str] | None = None) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in (headers or {}).items()]
    return f"{method} {PREFIX}{path} HTTP/1.1\r\nHost: api\r\n{''.join(lines)}\r\n".encode()


def upload(peer: Peer, name: str, *pieces: bytes, **headers: str) -> None:
    fields = {**STREAMING, "Transfer-Encoding": "chunked", "Content-Type": "text/plain", **headers}
    peer.send(request("POST", f"/{name}/response", fields) + b"".join(map(chunk, pieces)))


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def end(*trailers: tuple[str, str]) -> bytes:
    return b"0\r\n" + b"".join(f"{name}: {value}\r\n".encode() for name, value in trailers) + b"\r\n"


def told(answer: Answer) -> tuple[int, str]:
    """Status and error type of a refusal, or `OK`."""
    body = json.loads(answer.body)
    return answer.status, body.get("errorType", body.get("status"))


async def _hangs(process: MemoryProcess) -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def staged(folder: Path, *, managed: bool = False, timeout: float = 5.0, **bounds: int) -> AsyncIterator[Stage]:
    """An environment past its Init; `bounds` replace the contract's numbers."""
    wire: Any = SimpleNamespace(**vars(runtime_api) | bounds)
    standard = type("Standard", (LambdaContract,), {"wire": wire})(
        credentials=Credentials(access_key="A", secret_key="S", session_token="T")
    )
    contract = type("Managed", (ManagedContract,), {"wire": wire})(standard=standard) if managed else standard
    (folder / "bootstrap").write_text("")
    provider = MemoryProvider({"/var/task/bootstrap": _hangs})
    await provider.open()
    version = FunctionVersion(
        function="f",
        version="1",
        resource="arn:f",
        revision="1",
        contract="lambda",
        runtime="provided.al2023",
        handler="h",
        code=CodeRef(digest="code", packed_bytes=1, unpacked_bytes=1),
        log_group="group",
        timeout_s=timeout,
        concurrency=4 if managed else 1,
    )
    around = surroundings(provider, Clock(), folder)
    image = ImageCatalog("", ()).resolve("provided.al2023")
    environment = Environment(uuid.uuid4().hex, version, contract, image, around, NoPool())
    await environment.provision()
    stage = Stage(environment, provider)
    if not managed:  # workers ask when the test says so
        await stage.asks_again()
    yield stage
    environment.stop("spindown")
    await asyncio.wait_for(environment.ended(), 5)
    await provider.close()

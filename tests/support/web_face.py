"""The faces of web services on a real server in a thread of its own, before the real service and stores; only builds
and the servers inside are faked."""

import asyncio
import http.client
import io
import json
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torpor.api.web import ServicesFace, Traffic, body_limit, is_services_path, is_traffic, streams
from torpor.engine.groups import Request
from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.build import BuildOrder
from torpor.model.errors import BuildFailed, TorporError
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import HttpRequest, Invocation, Outcome, OutcomeStatus
from torpor.service.functions import Functions
from torpor.service.services import Services
from torpor.store.code import DiskCodeStore
from torpor.store.memory import MemoryMetadataStore
from torpor.store.ports import Tree
from torpor.transport import Exchange, HttpLimits, listen

PACKAGES = PackageLimits(zipped=1_000_000, unpacked=1_000_000)
Inside = Callable[[HttpRequest, bytes], None]


def archive(files: Mapping[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        for name, text in (files or {"server.py": "serve()"}).items():
            package.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


class SystemClock:
    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


@dataclass
class FakeBuilder:
    """Writes what the command says and leaves it in a file; the command `fail` fails, `wait` waits to be let go on."""

    folder: Path
    orders: list[BuildOrder] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)

    async def build(self, order: BuildOrder, on_output: Callable[[bytes], None]) -> Tree:
        self.orders.append(order)
        command = order.shown
        on_output(f"$ {command}\n".encode())
        if command == "fail":
            raise BuildFailed("The build command `fail` ended with exit status 3.", code=3)
        if command == "wait":
            await asyncio.to_thread(self.go_on.wait)
        tree = self.folder / f"built-{len(self.orders)}"
        tree.mkdir(parents=True)
        (tree / "built").write_text(command)
        return Tree(folder=str(tree))

    async def discard(self, tree: Tree) -> None:
        self.discarded.append(tree.folder)
        shutil.rmtree(tree.folder, ignore_errors=True)


def echo(request: HttpRequest, body: bytes) -> None:
    """A server that answers with what it was sent."""
    fields = [line.split(": ", 1) for line in request.lines.decode("latin-1").split("\r\n")[:-1]]
    told = {"method": request.method, "target": request.target, "fields": fields, "body": body.decode()}
    data = json.dumps(told).encode()
    request.relay.head(201, [("Content-Type", "application/json"), ("X-Own", "1")], len(data))
    request.relay.data(data)
    request.relay.end()


@dataclass
class FakeDispatcher:
    """Calls a server made of one function, or fails as a test says."""

    inside: Inside = echo
    failure: Failure | None = None
    error: TorporError | None = None
    seen: list[tuple[FunctionVersion, Invocation]] = field(default_factory=list)

    def submit(
        self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Callable[..., None]
    ) -> Request | None:
        self.seen.append((version, invocation))
        assert invocation.http is not None
        if self.error is not None:
            done(self.error)
            return None
        request = invocation.http
        if request.body is not None:
            self._collect(request, invocation.payload, done)
        else:
            self._serve(request, invocation.payload, done)
        return None

    def _collect(self, request: HttpRequest, begun: bytes, done: Callable[..., None]) -> None:
        """Serve once the whole body is there; as the engine does, give up if its caller goes away."""
        pieces = [begun]

        def ended(complete: bool) -> None:
            if complete:
                self._serve(request, b"".join(pieces), done)
            else:
                gone = Failure(kind=FailureKind.CANCELLED)
                done(Outcome(status=OutcomeStatus.ERROR, payload=b"", error_type="X", failure=gone))

        assert request.body is not None
        request.body.pump(pieces.append, ended)

    def _serve(self, request: HttpRequest, body: bytes, done: Callable[..., None]) -> None:
        self.inside(request, body)
        if self.failure is not None:
            done(Outcome(status=OutcomeStatus.ERROR, payload=b"", error_type="X", failure=self.failure))
        else:
            done(Outcome(status=OutcomeStatus.SUCCESS, payload=b""))

    def cancel(self, request: Request) -> None:
        """Nothing runs on here."""


@dataclass(frozen=True)
class Answer:
    status: int
    fields: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class WebServer:
    """A running server and what stands behind it."""

    port: int
    folder: Path
    functions: Functions
    dispatcher: FakeDispatcher
    builder: FakeBuilder

    def request(self, method: str, target: str, body: bytes = b"", *, host: str = "", **fields: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in fields.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, target, body or None, sent | ({"Host": host} if host else {}))
            reply = connection.getresponse()
            return Answer(reply.status, reply.msg, reply.read())
        finally:
            connection.close()

    def chunked(self, host: str, pieces: Sequence[bytes]) -> Answer:
        """A request whose body comes in chunks."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            with suppress(ConnectionError):  # what is refused is not read to its end
                connection.request("POST", "/", iter(pieces), {"Host": host}, encode_chunked=True)
            reply = connection.getresponse()
            return Answer(reply.status, reply.msg, reply.read())
        finally:
            connection.close()

    def put(self, name: str, settings: Mapping[str, Any] | None = None, source: bytes | None = None) -> Answer:
        """Begin a deployment."""
        given = json.dumps({"start": "./run"} | dict(settings or {}))
        return self.request(
            "PUT", f"/_torpor/services/{name}", archive() if source is None else source, X_Torpor_Settings=given
        )

    def followed(self, name: str) -> Any:
        """The end of the last deployment, with all of its output."""
        after, stage, output = 0, "", ""
        while stage not in ("succeeded", "failed"):
            target = f"/_torpor/services/{name}/deployment?after={after}&stage={stage}&wait=5"
            news = self.request("GET", target).json
            after, stage, output = news["after"], news["stage"], output + news["output"]
        return news | {"output": output}

    def deploy(self, name: str = "shop", **settings: Any) -> Any:
        """A service that is in force."""
        assert self.put(name, settings).status == 202
        assert self.followed(name)["stage"] == "succeeded"
        return self.request("GET", f"/_torpor/services/{name}").json


@contextmanager
def serving(folder: Path, *, allowed: Callable[[Exchange], bool] = lambda exchange: True) -> Iterator[WebServer]:
    """A server until the block ends."""
    dispatcher, builder = FakeDispatcher(), FakeBuilder(folder / "builds")
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    functions = Functions(
        MemoryMetadataStore(),
        DiskCodeStore(str(folder / "code")),
        clock=SystemClock(),
        packages=PACKAGES,
        reservations=ReservationLimits(account=1000, unreserved_minimum=100),
    )

    async def start() -> Any:
        services = Services(functions, builder)
        face, traffic = ServicesFace(services, allowed), Traffic(functions, dispatcher)

        def application(exchange: Exchange) -> None:
            wanted = is_traffic(exchange)
            if wanted is not None:
                traffic.handle(exchange, *wanted)
            elif is_services_path(exchange.path):
                face.handle(exchange)
            else:
                exchange.reply(404)

        limits = HttpLimits(body_bytes=lambda method, path: body_limit(method, path) or 64 * 1024 * 1024)
        return services, await listen(application, limits=limits, streams=streams)

    async def stop() -> None:
        await services.close()
        await server.drain(1.0)
        server.close()
        await loop.shutdown_default_executor()

    services, server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield WebServer(server.port, folder, functions, dispatcher, builder)
    finally:
        builder.go_on.set()
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

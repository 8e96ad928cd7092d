"""The Function Compute API on a real server in a thread, in front of the real services; only running is faked."""

import asyncio
import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fc2
import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_fc20230330.client import Client as V3Client
from alibabacloud_fc_open20210406.client import Client as OpenClient
from alibabacloud_tea_openapi.models import Config
from tests.contracts.aws_support import SystemClock, archive

from torpor.api.fc import FcFace, FcParts, FcSettings, body_limit, error_face, mount
from torpor.contracts.function_compute import limits
from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.clock import Clock
from torpor.model.errors import TorporError
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.service.events.desk import EventDesk
from torpor.service.events.interventions import Interventions
from torpor.service.events.lanes import QueueLimits
from torpor.service.events.queue import EventQueue
from torpor.service.events.timed import TimedEvents
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.service.timers import Timers
from torpor.store.code import DiskCodeStore
from torpor.store.events import SqliteEventStore
from torpor.store.memory import MemoryMetadataStore
from torpor.targets import CloudServices, Couriers, ResultFiles, WebRequests
from torpor.transport import HttpLimits, listen

KEY, SECRET = "LTAItest", "secret-of-the-test"
KEYS = {KEY: SECRET}
SERVER = {"server.py": "import http.server\n"}

fc_warnings = pytest.mark.filterwarnings(
    # The clients' own: they use what Python and their own packages have deprecated.
    "ignore::DeprecationWarning:(alibabacloud|Tea|fc2|darabonba).*",
    "ignore::SyntaxWarning",
)

Done = Callable[[Outcome | TorporError], None]


@dataclass(eq=False)
class FakeRun:
    """A run that goes on until a test ends it."""

    done: Done
    environment: str | None = "0123456789abcdef0123456789abcdef"
    """Where it runs; None while it waits for an environment."""
    ends_when_told: bool = True
    """Does it end at once when it is cancelled?"""


@dataclass
class FakeDispatcher:
    """Answers with the payload it was given, with what a test sets, or with what a test's server says."""

    seen: list[tuple[FunctionVersion, Invocation]] = field(default_factory=list)
    outcome: Outcome | None = None
    error: TorporError | None = None
    serve: Callable[[Invocation], None] | None = None
    """Answers a request that is passed on."""
    held: list[Done] | None = None
    """If set, nothing is answered; what would is kept here."""
    cancelled: list[Any] = field(default_factory=list)
    answer: Callable[[Invocation], Outcome | TorporError | None] | None = None
    """In place of all that: what a run comes to at once, or None if it goes on until a test ends it."""
    running: dict[str, FakeRun] = field(default_factory=dict)
    """Those that go on, by request id."""

    def submit(self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done) -> object:
        self.seen.append((version, invocation))
        if self.answer is not None:
            return self._answered(self.answer(invocation), invocation.id, done)
        if self.held is not None:
            self.held.append(done)
            return invocation.id
        if self.error is not None:
            done(self.error)
            return None
        if invocation.http is not None and self.serve is not None:
            self.serve(invocation)
        echo = Outcome(status=OutcomeStatus.SUCCESS, payload=invocation.payload, version=version.version)
        done(self.outcome or echo)
        return None

    def cancel(self, request: object) -> None:
        self.cancelled.append(request)
        if isinstance(request, FakeRun) and request.ends_when_told:
            failure = Failure(kind=FailureKind.CANCELLED)
            request.done(Outcome(status=OutcomeStatus.ERROR, payload=b"", failure=failure))

    def _answered(self, result: Outcome | TorporError | None, identity: str, done: Done) -> FakeRun | None:
        if result is None:
            self.running[identity] = run = FakeRun(done)
            return run
        done(result)
        return None


@dataclass
class FakeInstances:
    running: list[Mapping[str, Any]] = field(default_factory=list)

    def of(self, function: str) -> list[Mapping[str, Any]]:
        return [instance for instance in self.running if instance["function"] == function]


@dataclass(frozen=True)
class Server:
    port: int
    dispatcher: FakeDispatcher
    instances: FakeInstances
    timers: Timers
    results: Path
    """The folder of results that go to files."""
    loop: asyncio.AbstractEventLoop
    """The server's."""

    def end(self, request_id: str, result: Outcome | TorporError | None = None) -> None:
        """End a run that goes on, well unless told otherwise."""
        run = self.until(lambda: self.dispatcher.running.get(request_id))
        good = Outcome(status=OutcomeStatus.SUCCESS, payload=b"ended", environment=run.environment or "")
        self.loop.call_soon_threadsafe(run.done, result or good)

    def records(self, name: str, number: int = 1) -> list[Any]:
        """The lines of a file of results, once there are so many."""
        path = self.results / name

        def found() -> list[str]:
            lines = path.read_text().splitlines(keepends=True) if path.exists() else []
            return [line for line in lines if line.endswith("\n")]

        return [json.loads(line) for line in self.until(lambda: len(found()) >= number and found())]

    def until(self, holds: Callable[[], Any], timeout: float = 10.0) -> Any:
        """What `holds` returns, once that is something."""
        deadline = time.monotonic() + timeout
        while not (found := holds()):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found

    def invocations(self, number: int) -> list[Invocation]:
        """What the dispatcher has got, once it is so many."""
        self.until(lambda: len(self.dispatcher.seen) >= number)
        return [invocation for _, invocation in self.dispatcher.seen]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def classic(self, key: str = KEY, secret: str = SECRET) -> Any:
        return fc2.Client(endpoint=self.url, accessKeyID=key, accessKeySecret=secret)

    def v3(self, key: str = KEY, secret: str = SECRET, **config: Any) -> V3Client:
        return V3Client(self._config(key, secret, **config))

    def open(self, key: str = KEY, secret: str = SECRET, **config: Any) -> OpenClient:
        return OpenClient(self._config(key, secret, **config))

    def _config(self, key: str, secret: str, **config: Any) -> Config:
        endpoint = f"127.0.0.1:{self.port}"
        return Config(access_key_id=key, access_key_secret=secret, endpoint=endpoint, protocol="http", **config)

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, host: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, fields by lower-case name, and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            fields = {**(headers or {}), **({"Host": host} if host else {})}
            connection.request(method, path, body=body or None, headers=fields)
            reply = connection.getresponse()
            return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read()
        finally:
            connection.close()


@contextmanager
def serving(
    folder: Path,
    settings: FcSettings | None = None,
    draw: Callable[[], float] = lambda: 0.5,
    endpoint: str = "",
    queue_limits: QueueLimits | None = None,
    clock: Clock | None = None,
) -> Iterator[Server]:
    """A server until the block ends; results for queues go to `endpoint`."""
    events: list[Any] = []
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    clock = clock or SystemClock()

    async def start() -> tuple[Any, Server]:
        metadata = MemoryMetadataStore()
        functions = Functions(
            metadata,
            DiskCodeStore(str(folder)),
            clock=clock,
            packages=PackageLimits(zipped=limits.CODE_REQUEST_MAX, unpacked=limits.CODE_OBJECT_MAX),
            reservations=ReservationLimits(account=limits.INSTANCES, unreserved_minimum=0),
        )
        dispatcher, instances, timers = FakeDispatcher(), FakeInstances(), Timers(clock)
        store = SqliteEventStore(str(folder / "events.db"))
        files = ResultFiles(folder / "results")
        courier = Couriers(CloudServices(endpoint), WebRequests(b"k" * 32, clock), files)
        queue = EventQueue(store, dispatcher, courier, clock, loop, limits=queue_limits)
        parts = FcParts(
            functions=functions,
            layers=Layers(metadata, functions.packages, clock),
            resources=Resources(metadata),
            dispatcher=dispatcher,
            timers=timers,
            intake=queue.intake,
            timed=TimedEvents(queue, loop).submit,
            desk=EventDesk(queue, Interventions(queue, dispatcher, clock)),
            instances=instances,
            clock=clock,
        )
        face = FcFace(parts, settings or FcSettings(keys=KEYS, event_wait_scale=0.01), draw)
        queue.start({"function_compute": face.events})
        events.extend((queue, loop.create_task(queue.tick()), store))
        server = await listen(mount(face), limits=HttpLimits(body_bytes=body_limit), on_error=error_face)
        return server, Server(server.port, dispatcher, instances, timers, folder / "results", loop)

    async def stop() -> None:
        await listener.drain(1.0)
        listener.close()
        queue, ticking, store = events
        ticking.cancel()
        await queue.close()
        store.close()
        await loop.shutdown_default_executor()

    listener, served = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def encoded(files: Mapping[str, str] | None = None) -> str:
    return base64.b64encode(archive(files or SERVER)).decode()


def new_v3(client: V3Client, name: str, **values: Any) -> Any:
    """Create a function with a server of its own."""
    given: dict[str, Any] = {
        "function_name": name,
        "runtime": "custom",
        "handler": "index.handler",
        "code": v3.InputCodeLocation(zip_file=encoded()),
        "custom_runtime_config": v3.CustomRuntimeConfig(command=["python"], args=["server.py"]),
    }
    return client.create_function(v3.CreateFunctionRequest(body=v3.CreateFunctionInput(**(given | values)))).body


def new_classic(client: Any, service: str, name: str, folder: Path, **values: Any) -> Any:
    """Create a service and a function in it."""
    # From a folder: of a file the client leaves the descriptor open.
    source = folder / name
    source.mkdir()
    for file, text in SERVER.items():
        (source / file).write_text(text)
    client.create_service(service)
    return client.create_function(service, name, "custom", "index.handler", codeDir=str(source), **values)

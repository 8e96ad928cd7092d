"""Function URLs on a real server in a thread of its own, beside the API; only running functions is faked."""

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from tests.contracts.aws_support import KEYS, SystemClock, functions, layers, new_function, resources

from torpor.api.aws import AwsFace, AwsSettings, body_limit, error_face, mount
from torpor.contracts.lambda_.url_routing import PREFIX, names_url, url_route
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion
from torpor.model.invocation import AnswerSink, Invocation, Outcome, OutcomeStatus
from torpor.service.functions import Functions
from torpor.service.resources import Resources
from torpor.transport import Exchange, Headers, HttpLimits, listen

Fields = Sequence[tuple[str, str]]
Done = Callable[[Outcome | TorporError], None]
Script = Callable[[Invocation, Done], None]


@dataclass
class FakeRunner:
    """Answers as a test says; without a word with the event itself."""

    seen: list[tuple[FunctionVersion, Invocation]] = field(default_factory=list)
    script: Script | None = None

    def submit(self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done) -> None:
        self.seen.append((version, invocation))
        if self.script is not None:
            self.script(invocation, done)
        else:
            done(Outcome(status=OutcomeStatus.SUCCESS, payload=invocation.payload))

    def answers(self, result: Any, **outcome: Any) -> None:
        """From now on with this: bytes as they are, anything else as JSON."""
        payload = result if isinstance(result, bytes) else json.dumps(result).encode()
        told = Outcome(**{"status": OutcomeStatus.SUCCESS, "payload": payload, **outcome})
        self.script = lambda invocation, done: done(told)

    def fails(self, error: TorporError) -> None:
        self.script = lambda invocation, done: done(error)

    def streams(self, content_type: str, pieces: Sequence[bytes], end: Outcome | TorporError | None = None) -> None:
        """From now on piece by piece, if that is wanted; the end is a success unless it is said otherwise."""
        done_with = end or Outcome(status=OutcomeStatus.SUCCESS, payload=b"")

        def script(invocation: Invocation, done: Done) -> None:
            sink = invocation.sink
            if sink is None:
                done(Outcome(status=OutcomeStatus.SUCCESS, payload=b"".join(pieces), content_type=content_type))
                return
            sink.begin(content_type)
            _Pieces(sink, list(pieces), partial(done, done_with)).go_on()

        self.script = script

    @property
    def event(self) -> Any:
        """The last one."""
        return json.loads(self.seen[-1][1].payload)


@dataclass
class _Pieces:
    """Writes as a runtime does: no further while its caller reads too slowly."""

    sink: AnswerSink
    left: list[bytes]
    end: Callable[[], None]

    def go_on(self) -> None:
        while self.left:
            if not self.sink.data(self.left.pop(0)):
                self.sink.on_writable = self.go_on
                return
        self.end()


@dataclass(frozen=True)
class Answer:
    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def get(self, name: str) -> str | None:
        """All values of a field; None if there is none."""
        values = [value for key, value in self.fields if key.lower() == name.lower()]
        return ",".join(values) if values else None


@dataclass(frozen=True)
class UrlServer:
    port: int
    runner: FakeRunner
    functions: Functions
    region: str = "us-east-1"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **config: Any) -> Any:
        return boto3.client(
            "lambda",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id="AKIATEST",
            aws_secret_access_key=KEYS["AKIATEST"],
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20, **config),
        )

    def host(self, identity: str) -> str:
        return f"{identity}.lambda-url.{self.region}.localhost:{self.port}"

    def call(
        self, identity: str, target: str = "/", *, method: str = "GET", fields: Fields = (), body: bytes | None = None
    ) -> Answer:
        """One request by host; fields are sent as they are, in order, and may repeat."""
        named = {name.lower() for name, _ in fields}
        framing = [] if body is None or "transfer-encoding" in named else [("Content-Length", str(len(body)))]
        host = [] if "host" in named else [("Host", self.host(identity))]
        return self.request(method, target, [*host, *fields, *framing], body or b"")

    def request(self, method: str, target: str, fields: Fields, body: bytes = b"") -> Answer:
        """One request with exactly these fields."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in fields:
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders(body)
            reply = connection.getresponse()
            return Answer(reply.status, reply.getheaders(), reply.read())
        finally:
            connection.close()


def open_url(client: Any, name: str, qualifier: str = "", **config: Any) -> str:
    """A function with a URL that is open to all; the URL's id."""
    new_function(client, name)
    return url_of(client, name, qualifier, **config)


def url_of(client: Any, name: str, qualifier: str = "", **config: Any) -> str:
    """A URL that is open to all, if nothing else is said; its id."""
    which = {"FunctionName": name, **({"Qualifier": qualifier} if qualifier else {})}
    made = client.create_function_url_config(**which, **{"AuthType": "NONE", **config})
    if config.get("AuthType", "NONE") == "NONE":
        client.add_permission(
            **which,
            StatementId="open",
            Action="lambda:InvokeFunctionUrl",
            Principal="*",
            FunctionUrlAuthType="NONE",
        )
    return identity_of(made["FunctionUrl"])


def identity_of(url: str) -> str:
    return url.partition("://")[2].partition(".")[0]


def streams(method: str, path: str, headers: Headers) -> bool:
    return path.startswith(PREFIX) or names_url(headers.get("host"))


@contextmanager
def serving_urls(
    folder: Path, settings: AwsSettings, *, kept: Resources | None = None, service: Functions | None = None
) -> Iterator[UrlServer]:
    """A server until the block ends; with what an earlier one has kept, if that is given."""
    runner = FakeRunner()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    own = service or functions(folder)

    async def start() -> Any:
        face = AwsFace(own, layers(own), runner, settings, SystemClock(), resources=kept or resources())
        api = mount(face)

        def application(exchange: Exchange) -> None:
            if url_route(exchange.headers.get("host"), exchange.target) is not None:
                face.urls.handle(exchange)
            else:
                api(exchange)

        limits = HttpLimits(body_bytes=body_limit, body_timeout=0.5)
        return await listen(application, limits=limits, on_error=error_face, streams=streams)

    async def stop() -> None:
        await server.drain(1.0)
        server.close()
        await loop.shutdown_default_executor()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield UrlServer(port=server.port, runner=runner, functions=own)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def eventually(read: Callable[[], Any], within: float = 5.0) -> Any:
    deadline = time.monotonic() + within
    while not (value := read()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value

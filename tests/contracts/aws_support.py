"""The API on a real server in a thread of its own, in front of the real service and stores; only running is faked."""

import asyncio
import base64
import io
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from torpor.api.aws import AwsFace, AwsSettings, body_limit, error_face, mount
from torpor.api.aws.lookup import States, always_active
from torpor.api.aws.provisioned import StandingOf, none_standing
from torpor.api.aws.queue_pollers import QueuePollers
from torpor.api.aws.queue_runs import RunParts
from torpor.contracts.lambda_ import limits
from torpor.model.account import PackageLimits, ReservationLimits
from torpor.model.errors import TorporError
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.service.events.queue import EventQueue
from torpor.service.functions import Functions
from torpor.service.layers import Layers
from torpor.service.resources import Resources
from torpor.service.states import VersionStates
from torpor.store.code import DiskCodeStore
from torpor.store.memory import MemoryMetadataStore
from torpor.transport import HttpLimits, listen

ROLE = "arn:aws:iam::000000000000:role/app"
KEYS = {"AKIATEST": "secret-of-the-test"}


class SystemClock:
    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


@dataclass
class FakeDispatcher:
    """Answers with the payload it was given, or with what a test sets."""

    seen: list[tuple[FunctionVersion, Invocation, int | None]] = field(default_factory=list)
    outcome: Outcome | None = None
    error: TorporError | None = None
    run: Callable[[Invocation, Callable[[Outcome | TorporError], None]], None] | None = None
    """In place of both: what is done with an invocation and its `done`, in the loop's thread."""

    def submit(
        self,
        version: FunctionVersion,
        invocation: Invocation,
        reserved: int | None,
        done: Callable[[Outcome | TorporError], None],
    ) -> None:
        self.seen.append((version, invocation, reserved))
        if self.error is not None:
            done(self.error)
            return
        if self.run is not None:
            self.run(invocation, done)
            return
        echo = Outcome(status=OutcomeStatus.SUCCESS, payload=invocation.payload, version=version.version)
        done(self.outcome or echo)


@dataclass(frozen=True)
class Server:
    url: str
    dispatcher: FakeDispatcher
    version_states: VersionStates

    def client(self, **config: Any) -> Any:
        return boto3.client(
            "lambda",
            endpoint_url=self.url,
            region_name=config.pop("region", "us-east-1"),
            aws_access_key_id=config.pop("access_key", "AKIATEST"),
            aws_secret_access_key=config.pop("secret_key", KEYS["AKIATEST"]),
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20, **config),
        )

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the official command line tool."""
        command = [str(Path(sys.executable).with_name("aws")), "lambda", *arguments, "--endpoint-url", self.url]
        environment = _tool_environment()
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _tool_environment() -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": KEYS["AKIATEST"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "PATH": "/usr/bin:/bin",
    }


def archive(files: Mapping[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        for name, text in (files or {"app.py": "def handler(event, context):\n    return event\n"}).items():
            package.writestr(zipfile.ZipInfo(name), text)
    return buffer.getvalue()


def new_function(client: Any, name: str, **values: Any) -> Any:
    given = {
        "FunctionName": name,
        "Runtime": "python3.12",
        "Handler": "app.handler",
        "Role": ROLE,
        "Code": {"ZipFile": archive()},
    }
    return client.create_function(**(given | values))


def unchecked(**values: Any) -> dict[str, Any]:
    """Client settings that send values the client itself would refuse."""
    return {"parameter_validation": False, **values}


def functions(folder: Path) -> Functions:
    return Functions(
        MemoryMetadataStore(),
        DiskCodeStore(str(folder)),
        clock=SystemClock(),
        packages=PackageLimits(zipped=limits.UNZIPPED_MAX, unpacked=limits.UNZIPPED_MAX),
        reservations=ReservationLimits(
            account=limits.ACCOUNT_CONCURRENCY, unreserved_minimum=limits.UNRESERVED_MINIMUM
        ),
    )


def layers(service: Functions) -> Layers:
    return Layers(MemoryMetadataStore(), service.packages, SystemClock())


def resources() -> Resources:
    return Resources(MemoryMetadataStore())


@contextmanager
def serving(
    folder: Path,
    settings: AwsSettings,
    states: States = always_active,
    standing: StandingOf = none_standing,
    events: Callable[[Any, asyncio.AbstractEventLoop], EventQueue] | None = None,
    pollers: Callable[[RunParts], QueuePollers] | None = None,
    kept: Resources | None = None,
) -> Iterator[Server]:
    """A server until the block ends; `events` makes its queue, without which it takes no asynchronous calls, `pollers`
    what reads the queues of others. `kept` are the resources of a server that was there before."""
    dispatcher, version_states = FakeDispatcher(), VersionStates()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    queues: dict[EventQueue, asyncio.Task[None]] = {}
    sources: list[QueuePollers] = []
    documents = kept or resources()

    async def start() -> Any:
        service = functions(folder)
        queue = events(dispatcher, loop) if events is not None else None
        if pollers is not None:
            parts = RunParts(
                functions=service,
                resources=documents,
                dispatcher=dispatcher,
                clock=SystemClock(),
                states=states,
                version_states=version_states,
            )
            sources.append(pollers(parts))
        face = AwsFace(
            service,
            layers(service),
            dispatcher,
            settings,
            SystemClock(),
            resources=documents,
            states=states,
            version_states=version_states,
            standing=standing,
            intake=queue.intake if queue is not None else None,
            sources=sources[0] if sources else None,
        )
        face.resume_sources()
        if queue is not None:
            queue.start({"lambda": face.events})
            queues[queue] = loop.create_task(queue.tick())
        return await listen(mount(face), limits=HttpLimits(body_bytes=body_limit), on_error=error_face)

    async def stop() -> None:
        await server.drain(1.0)
        server.close()
        for each in sources:
            await each.close(0.0)
        for queue, ticking in queues.items():
            ticking.cancel()
            await queue.close()
        await loop.shutdown_default_executor()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield Server(url=f"http://127.0.0.1:{server.port}", dispatcher=dispatcher, version_states=version_states)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def signed_post(server: Server, path: str, body: bytes) -> tuple[int, Any, bytes]:
    """Status, headers and body of a request that no client would send."""
    request = AWSRequest(method="POST", url=server.url + path, data=body, headers={"Content-Type": "application/json"})
    SigV4Auth(Credentials("AKIATEST", KEYS["AKIATEST"]), "lambda", "us-east-1").add_auth(request)
    sent = urllib.request.Request(server.url + path, data=body, headers=dict(request.headers.items()), method="POST")
    try:
        with urllib.request.urlopen(sent, timeout=20) as reply:
            return reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def refusal(error: ClientError) -> tuple[str, str]:
    """Code and message as the client tells them."""
    return error.response["Error"]["Code"], error.response["Error"]["Message"]

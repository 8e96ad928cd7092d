"""The CloudWatch Logs API on a real server in a thread of its own, over a real journal."""

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from tests.contracts.aws_support import KEYS, SystemClock

from torpor.api.logs import LogsFace, LogsSettings
from torpor.contracts.cloudwatch_logs import limits
from torpor.telemetry import Journal, LogGroups
from torpor.transport import HttpLimits, listen

Value = TypeVar("Value")
GROUP = "/aws/lambda/f"
STREAM = "2024/05/01/[$LATEST]0123456789abcdef0123456789abcdef"
ARN = f"arn:aws:logs:us-east-1:000000000000:log-group:{GROUP}"


@dataclass(frozen=True)
class Server:
    url: str
    journal: Journal
    loop: asyncio.AbstractEventLoop

    def run(self, work: Callable[[], Value]) -> Value:
        """Do something with the journal where it belongs."""

        async def there() -> Value:
            return work()

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(10)

    def log(self, *messages: str, stream: str = STREAM, at: float = 0.0, group: str = GROUP) -> None:
        """Log as a function does; `at` is in seconds since the epoch, by default now."""
        self.run(lambda: self.journal.append(group, stream, at or SystemClock().wall(), messages))

    def client(self, **config: Any) -> Any:
        return boto3.client(
            "logs",
            endpoint_url=self.url,
            region_name=config.pop("region", "us-east-1"),
            aws_access_key_id=config.pop("access_key", "AKIATEST"),
            aws_secret_access_key=config.pop("secret_key", KEYS["AKIATEST"]),
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20, inject_host_prefix=False, **config),
        )

    def post(self, operation: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, Any, Any]:
        """Status, headers and JSON body of a signed request that no client would send."""
        given = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": operation, **(headers or {})}
        request = AWSRequest(method="POST", url=self.url + "/", data=body, headers=given)
        SigV4Auth(Credentials("AKIATEST", KEYS["AKIATEST"]), "logs", "us-east-1").add_auth(request)
        sent = urllib.request.Request(self.url + "/", data=body, headers=dict(request.headers.items()), method="POST")
        try:
            with urllib.request.urlopen(sent, timeout=20) as reply:
                return reply.status, reply.headers, json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, json.loads(error.read())


@contextmanager
def serving(folder: Path, keys: Mapping[str, str] = KEYS, clock: Any = None, size: int = 1 << 25) -> Iterator[Server]:
    """A server until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    journal = Journal(str(folder / "logs"), size)
    used = clock or SystemClock()
    faces: list[LogsFace] = []

    async def start() -> Any:
        faces.append(LogsFace(LogGroups(journal, used), LogsSettings(keys=keys), used))
        return await listen(faces[0].handle, limits=HttpLimits(body_bytes=lambda method, path: 2 * limits.REQUEST_MAX))

    async def stop() -> None:
        faces[0].close()
        await server.drain(1.0)
        server.close()
        await loop.shutdown_default_executor()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield Server(f"http://127.0.0.1:{server.port}", journal, loop)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

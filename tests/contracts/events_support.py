"""EventBridge's API on a real server in a thread of its own; timers go off when a test says so."""

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from tests.contracts.aws_support import KEYS, refusal, resources

from torpor.api.eventbridge import EventsSettings, Firing, RulesFace, claims
from torpor.contracts.eventbridge import limits
from torpor.service.resources import Resources
from torpor.transport import Exchange, HttpLimits, listen

Value = TypeVar("Value")
PREFIX = "AWSEvents."
RULE_ARN = "arn:aws:events:us-east-1:000000000000:rule/"
BUS_ARN = "arn:aws:events:us-east-1:000000000000:event-bus/default"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


class Clock:
    """The system's, unless a test sets another time."""

    def __init__(self) -> None:
        self.now: float | None = None

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time() if self.now is None else self.now


class Timer(NamedTuple):
    following: Callable[[float], float | None]
    fire: Callable[[float], None]


class Fire(NamedTuple):
    """What was told of one target."""

    function: str
    qualifier: str
    payload: bytes
    source: str
    planned: float


@dataclass
class FakeTimers:
    """Timers that never go off by themselves."""

    timers: dict[str, Timer] = field(default_factory=dict)
    put_names: list[str] = field(default_factory=list)
    """Of every timer that was started, in turn."""

    def put(self, name: str, following: Callable[[float], float | None], fire: Callable[[float], None]) -> None:
        self.timers[name] = Timer(following, fire)
        self.put_names.append(name)

    def remove(self, name: str) -> None:
        self.timers.pop(name, None)

    def planned(self, name: str) -> float | None:
        """As if it were the first of May 2024."""
        return self.timers[name].following(1_714_521_600.0) if name in self.timers else None


@dataclass
class Sink:
    """Takes what is fired."""

    fired: list[Fire] = field(default_factory=list)

    def __call__(self, timer: str, planned: float, firings: Sequence[Firing]) -> None:
        for each in firings:
            assert each.source.startswith(timer)
            self.fired.append(Fire(each.function, each.qualifier, each.payload, each.source, planned))


@dataclass(frozen=True)
class Server:
    url: str
    loop: asyncio.AbstractEventLoop
    clock: Clock
    resources: Resources
    timers: FakeTimers
    sink: Sink

    def run(self, work: Callable[[], Value]) -> Value:
        """Do something where the face and its timers belong."""

        async def there() -> Value:
            return work()

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(10)

    def go_off(self, rule: str, planned: float = 1_714_521_600.0) -> list[Fire]:
        """Let a rule's timer go off; what its targets were told."""
        before = len(self.sink.fired)
        self.run(lambda: self.timers.timers[f"rule:{rule}"].fire(planned))
        return self.sink.fired[before:]

    def client(self, **config: Any) -> Any:
        return boto3.client(
            "events",
            endpoint_url=self.url,
            region_name=config.pop("region", "us-east-1"),
            aws_access_key_id=config.pop("access_key", "AKIATEST"),
            aws_secret_access_key=config.pop("secret_key", KEYS["AKIATEST"]),
            config=Config(retries={"total_max_attempts": 1}, read_timeout=20, **config),
        )

    def post(self, target: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, Any, Any]:
        """Status, headers and JSON body of a signed request that no client would send."""
        given = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target, **(headers or {})}
        request = AWSRequest(method="POST", url=self.url + "/", data=body, headers=given)
        SigV4Auth(Credentials("AKIATEST", KEYS["AKIATEST"]), "events", "us-east-1").add_auth(request)
        sent = urllib.request.Request(self.url + "/", data=body, headers=dict(request.headers.items()), method="POST")
        try:
            with urllib.request.urlopen(sent, timeout=20) as reply:
                return reply.status, reply.headers, json.loads(reply.read() or b"{}")
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, json.loads(error.read())


@contextmanager
def serving(keys: Mapping[str, str] = KEYS, kept: Resources | None = None) -> Iterator[Server]:
    """A server until the block ends; `kept` are the resources of one that was there before."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    clock, timers, sink = Clock(), FakeTimers(), Sink()
    used = kept or resources()

    async def start() -> Any:
        face = RulesFace(used, timers, sink, EventsSettings(keys=keys), clock)

        def answer(exchange: Exchange) -> None:
            if claims(exchange):
                face.handle(exchange)
            else:
                exchange.reply(404, (), b'{"__type":"NotClaimed","message":""}')

        return await listen(answer, limits=HttpLimits(body_bytes=lambda method, path: 2 * limits.REQUEST_MAX))

    async def stop() -> None:
        await server.drain(1.0)
        server.close()
        await loop.shutdown_default_executor()

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield Server(f"http://127.0.0.1:{server.port}", loop, clock, used, timers, sink)
    finally:
        asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def refused(call: Callable[..., Any], **values: Any) -> tuple[str, str]:
    """Code and message of a call that fails."""
    with pytest.raises(ClientError) as error:
        call(**values)
    return refusal(error.value)


def new_rule(client: Any, name: str = "tick", **values: Any) -> str:
    """The ARN of a rule that goes off every five minutes."""
    arn: str = client.put_rule(**{"Name": name, "ScheduleExpression": "rate(5 minutes)", **values})["RuleArn"]
    return arn


def target(identity: str = "one", function: str = "f", **values: Any) -> dict[str, Any]:
    """A target that is a function."""
    return {"Id": identity, "Arn": FUNCTION_ARN + function, **values}

"""A real server of queues, the API with its pollers before it, and a function that answers as a test says."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import boto3
from moto.sqs.models import SQSBackend, sqs_backends
from tests.contracts.aws_support import KEYS, Server, new_function, serving
from tests.support.objects import PLAIN, object_store

from torpor.api.aws import AwsSettings
from torpor.api.aws.queue_client import Cloud, Timing
from torpor.api.aws.queue_pollers import QueuePollers
from torpor.api.aws.queue_runs import RunParts
from torpor.model.errors import TorporError
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.model.parcel import ToService
from torpor.service.resources import Resources
from torpor.targets import CloudServices

ACCOUNT = "000000000000"
QUICK = Timing(wait=1, patience=5.0, settle=3.0, scale=0.1)
SUCCESS = Outcome(status=OutcomeStatus.SUCCESS, payload=b"null", version="$LATEST")
ERROR = Outcome(
    status=OutcomeStatus.ERROR, payload=b'{"errorMessage":"no"}', error_type="Function.Error", version="$LATEST"
)
Answer = Outcome | TorporError | None
Value = TypeVar("Value")
_numbers = count(1)


def eventually(look: Callable[[], Value | None], within: float = 20.0) -> Value:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"nothing came of {look}"
        time.sleep(0.02)
    return found


def numbered(count: int, what: str = "body") -> list[str]:
    """So many texts that sort as they are counted."""
    return [f"{what} {number:02}" for number in range(count)]


def reply(payload: Any) -> Outcome:
    """What a function answers with."""
    return Outcome(status=OutcomeStatus.SUCCESS, payload=json.dumps(payload).encode(), version="$LATEST")


@dataclass(frozen=True)
class Run:
    """One call of the function."""

    invocation: Invocation
    at: float
    end: Callable[[Outcome | TorporError], None]
    """Answers it, from whatever thread."""

    @property
    def records(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.invocation.payload)["Records"]
        return found

    @property
    def bodies(self) -> list[str]:
        return [record["body"] for record in self.records]


@dataclass
class Function:
    """Remembers its calls, and answers each as a test says."""

    runs: list[Run] = field(default_factory=list)
    answer: Callable[[Run], Answer] = lambda run: SUCCESS
    """None if the test answers later."""
    running: int = 0
    most: int = 0
    """Calls that ran at once."""

    def __call__(self, invocation: Invocation, done: Callable[[Outcome | TorporError], None]) -> None:
        loop = asyncio.get_running_loop()

        def end(result: Outcome | TorporError) -> None:
            self.running -= 1
            done(result)

        run = Run(invocation, time.monotonic(), lambda result: loop.call_soon_threadsafe(end, result) and None)
        self.running += 1
        self.most = max(self.most, self.running)
        self.runs.append(run)
        if (answer := self.answer(run)) is not None:
            end(answer)

    @property
    def bodies(self) -> list[str]:
        """Of all calls, in order."""
        return [body for run in list(self.runs) for body in run.bodies]


class Watched:
    """Cloud services, with what was asked of them."""

    def __init__(self, endpoint: str) -> None:
        self.calls: list[ToService] = []
        self._cloud = CloudServices(endpoint)

    async def call(self, parcel: ToService) -> Mapping[str, Any]:
        self.calls.append(parcel)
        return await self._cloud.call(parcel)

    def made(self, operation: str) -> int:
        """How many calls of this operation."""
        return sum(parcel.operation == operation for parcel in self.calls)


@contextmanager
def queues() -> Iterator[str]:
    """The address of a server of queues. By itself it now and then hands a message to two who ask at once."""
    receive, turn = SQSBackend.receive_message, threading.Lock()

    def one_by_one(backend: Any, name: str, count: int, wait: int, *others: Any) -> Any:
        deadline = time.monotonic() + wait
        while True:
            with turn:
                found = receive(backend, name, count, 0, *others)
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.02)

    with patch.object(SQSBackend, "receive_message", one_by_one), object_store() as address:
        yield address


@dataclass(frozen=True)
class Queue:
    """One of the server's."""

    sqs: Any
    name: str

    @property
    def arn(self) -> str:
        return f"arn:aws:sqs:us-east-1:{ACCOUNT}:{self.name}"

    @property
    def url(self) -> str:
        return f"https://sqs.us-east-1.amazonaws.com/{ACCOUNT}/{self.name}"

    def send(self, *bodies: str, **values: Any) -> list[str]:
        """The ids of the messages."""
        return [self.sqs.send_message(QueueUrl=self.url, MessageBody=body, **values)["MessageId"] for body in bodies]

    def send_all(self, bodies: Sequence[str], **values: Any) -> None:
        """In as few calls as can be: what is sent in one is there at once."""
        for start in range(0, len(bodies), 10):
            part = bodies[start : start + 10]
            entries = [{"Id": str(number), "MessageBody": body, **values} for number, body in enumerate(part)]
            answer = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert len(answer["Successful"]) == len(part)

    def counts(self) -> tuple[int, int]:
        """Messages that can be received, and those that are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])

    @property
    def is_empty(self) -> bool:
        return self.counts() == (0, 0)


@dataclass
class Scene:
    """Everything that a test needs."""

    server: Server
    client: Any
    function: Function
    endpoint: str
    cloud: Any
    pollers: QueuePollers
    loop: asyncio.AbstractEventLoop
    sqs: Any = None

    def __post_init__(self) -> None:
        self.use_queues_at(self.endpoint)

    def use_queues_at(self, endpoint: str) -> None:
        """Where the test itself makes queues, sends and looks."""
        self.sqs = boto3.client("sqs", endpoint_url=endpoint, **PLAIN)

    def queue(self, visibility: int = 30, suffix: str = "", **attributes: str) -> Queue:
        """A new one; `visibility` in seconds."""
        name = f"queue-{next(_numbers)}{suffix}"
        given = {"VisibilityTimeout": str(visibility), **attributes}
        self.sqs.create_queue(QueueName=name, Attributes=given)
        return Queue(self.sqs, name)

    def fifo(self, visibility: int = 30) -> Queue:
        return self.queue(visibility, ".fifo", FifoQueue="true", ContentBasedDeduplication="true")

    def map(self, queue: Queue | str, function: str = "greet", *, settled: bool = True, **values: Any) -> str:
        """A new mapping's UUID, once it is settled."""
        arn = queue if isinstance(queue, str) else queue.arn
        made = self.client.create_event_source_mapping(EventSourceArn=arn, FunctionName=function, **values)
        uuid: str = made["UUID"]
        if settled:
            self.settled(uuid)
        return uuid

    def settled(self, uuid: str) -> str:
        """The state, once no change is under way."""
        return eventually(lambda: state if (state := self.shown(uuid)["State"]) in ("Enabled", "Disabled") else None)

    def shown(self, uuid: str) -> Any:
        return self.client.get_event_source_mapping(UUID=uuid)

    def left(self, queue: Queue) -> set[str]:
        """Ids of the messages that the queue's server still has, hidden or not."""
        return {message.id for message in sqs_backends["123456789012"]["us-east-1"].queues[queue.name]._messages}

    def says(self, uuid: str, text: str) -> str:
        """The last result, once it contains this."""
        return eventually(lambda: said if text in (said := self.shown(uuid)["LastProcessingResult"]) else None)

    def there(self, work: Coroutine[Any, Any, Value]) -> Value:
        """Done where the pollers are."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def runs(self, number: int) -> list[Run]:
        """The function's calls, once there are so many."""
        eventually(lambda: len(self.function.runs) >= number)
        return list(self.function.runs)


@contextmanager
def scene(
    folder: Path, endpoint: str, timing: Timing = QUICK, cloud: Cloud | None = None, kept: Resources | None = None
) -> Iterator[Scene]:
    """A server with the function `greet` until the block ends."""
    function, used = Function(), cloud or Watched(endpoint)
    made: list[tuple[QueuePollers, asyncio.AbstractEventLoop]] = []

    def pollers(parts: RunParts) -> QueuePollers:
        made.append((QueuePollers(parts, used, timing), asyncio.get_running_loop()))
        return made[0][0]

    with serving(folder, AwsSettings(keys=KEYS), pollers=pollers, kept=kept) as server:
        server.dispatcher.run = function
        client = server.client()
        new_function(client, "greet")
        yield Scene(server, client, function, endpoint, used, *made[0])

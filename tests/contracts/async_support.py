"""The API in front of a real event queue over a file; only running is faked, and destinations are files to look at."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from tests.contracts.aws_support import KEYS, FakeDispatcher, Server, new_function, serving

from torpor.api.aws import AwsSettings
from torpor.model.errors import TorporError
from torpor.model.event import EventState
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.service.events.lanes import QueueLimits
from torpor.service.events.queue import EventQueue
from torpor.store.events import SqliteEventStore
from torpor.store.ports import EventFilter, EventRow
from torpor.targets import CloudServices, Couriers, ResultFiles, WebRequests

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
SCALE = 0.001
"""Of the waits before further attempts: a minute is 60 ms."""
WEB_KEY = bytes(range(32))
NOTHING = Outcome(status=OutcomeStatus.SUCCESS, payload=b"null", version="$LATEST")
FAILED = Outcome(
    status=OutcomeStatus.ERROR,
    payload=b'{"errorMessage":"no","errorType":"ValueError"}',
    error_type="ValueError",
    version="$LATEST",
)

Answer = Callable[[Invocation], Outcome | TorporError]
Value = TypeVar("Value")


class Clock:
    """The machine's, set forward by `skipped` seconds."""

    def __init__(self) -> None:
        self.skipped = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.skipped

    def wall(self) -> float:
        return time.time() + self.skipped


@dataclass
class EventBench:
    """A running server, its queue's file and the folder of its file destinations."""

    server: Server
    store: SqliteEventStore
    results: Path
    clock: Clock
    client: Any
    look: Callable[[], None]
    """Has the queue look at its time."""
    answers: dict[str, Answer] = field(default_factory=dict)
    """By function; the others answer `null`."""
    runs: list[Invocation] = field(default_factory=list)
    """Every attempt, in order."""
    begun: dict[str, list[float]] = field(default_factory=dict)
    """When each attempt began, by request id."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def answer(self, invocation: Invocation, done: Callable[[Outcome | TorporError], None]) -> None:
        """In place of running a function; in the loop's thread."""
        self.begun.setdefault(invocation.id, []).append(time.monotonic())
        self.runs.append(invocation)
        done(self.answers.get(function_of(invocation), lambda _: NOTHING)(invocation))

    def clear(self) -> None:
        """Forget what an earlier test has made, set and seen."""
        self.answers.clear()
        self.runs.clear()
        self.begun.clear()

    def function(self, answer: Answer | Outcome = NOTHING, *, settings: Mapping[str, Any] = {}, **values: Any) -> str:
        """A new function; `settings` are for its events."""
        name = f"f{next(self._numbers)}"
        new_function(self.client, name, **values)
        self.answers[name] = answer if callable(answer) else lambda _: answer
        if settings:
            self.client.put_function_event_invoke_config(FunctionName=name, **settings)
        return name

    def send(self, name: str, payload: bytes = b"{}", **values: Any) -> str:
        """Invoke it asynchronously; the request id that the caller is told."""
        reply = self.client.invoke(FunctionName=name, InvocationType="Event", Payload=payload, **values)
        assert reply["StatusCode"] == 202
        identity: str = reply["ResponseMetadata"]["RequestId"]
        return identity

    def skip(self, seconds: float) -> None:
        """Set the clock forward, and the queue to work by it."""
        self.clock.skipped += seconds
        self.look()

    def attempts(self, request_id: str) -> int:
        return sum(run.id == request_id for run in self.runs)

    def row(self, request_id: str) -> EventRow | None:
        return self.store.find(request_id)

    def ended(self, request_id: str) -> EventRow:
        """The event, once nothing follows any more."""

        def found() -> EventRow | None:
            row = self.row(request_id)
            return row if row is not None and row.state.is_ended else None

        return eventually(found, lambda: self.row(request_id))

    def records(self, name: str, number: int = 1) -> list[dict[str, Any]]:
        """The lines of a file destination, once there are so many."""
        path = self.results / name

        def found() -> list[dict[str, Any]] | None:
            text = path.read_text() if path.exists() else ""
            lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
            return lines if len(lines) >= number else None

        return eventually(found, lambda: self.store.numbers())

    def rests(self) -> None:
        """Wait until every event of the test's own functions is through."""

        def going_on() -> dict[str, EventState]:
            return {name: state for name, state in self.store.numbers() if name in self.answers and not state.is_ended}

        eventually(lambda: not going_on(), going_on, within=20)

    def events_of(self, name: str) -> list[EventRow]:
        """Oldest first."""
        return sorted(self.store.list(EventFilter(limit=100_000, lane=name)), key=lambda row: row.id)


@contextmanager
def event_bench(
    folder: Path,
    *,
    scale: float = SCALE,
    endpoint: str = "http://127.0.0.1:9",
    limits: QueueLimits | None = None,
) -> Iterator[EventBench]:
    """A server whose events wait `scale` times as long as they should; `endpoint` is that of the cloud's services."""
    clock, results = Clock(), folder / "results"
    store = SqliteEventStore(str(folder / "events.db"))
    made: list[tuple[EventQueue, asyncio.AbstractEventLoop]] = []

    def queue(dispatcher: FakeDispatcher, loop: asyncio.AbstractEventLoop) -> EventQueue:
        courier = Couriers(CloudServices(endpoint), WebRequests(WEB_KEY, clock), ResultFiles(results))
        made.append((EventQueue(store, dispatcher, courier, clock, loop, limits), loop))  # type: ignore[arg-type]
        return made[0][0]

    def look() -> None:
        queue, loop = made[0]
        loop.call_soon_threadsafe(lambda: [queue.pump(lane) for lane in list(queue.lanes.values())])
        loop.call_soon_threadsafe(queue.deliveries.poke)

    settings = AwsSettings(keys=KEYS, event_wait_scale=scale)
    try:
        with serving(folder / "code", settings, events=queue) as server:
            bench = EventBench(server, store, results, clock, server.client(), look)
            server.dispatcher.run = bench.answer
            yield bench
            bench.client.close()
    finally:
        store.close()


def function_of(invocation: Invocation) -> str:
    return invocation.resource.split(":")[6]


def to_file(name: str, *, on: tuple[str, ...] = ("OnSuccess", "OnFailure")) -> dict[str, Any]:
    """Event settings with a file of the server as destination."""
    return {"DestinationConfig": {each: {"Destination": f"file:{name}"} for each in on}}


def step_words(row: EventRow) -> list[str]:
    """An event's history, in short."""
    return [step.what for step in row.progress.steps]


def waits(row: EventRow) -> list[float]:
    """How long the event waited before each further attempt, by its history."""
    return [step.seconds for step in row.progress.steps if step.what == "wait"]


def is_queued(row: EventRow | None) -> bool:
    return row is not None and row.state is EventState.QUEUED


def eventually(read: Callable[[], Value | None], shown: Callable[[], object], *, within: float = 10.0) -> Value:
    """The first true value; when there is none in time, the failure tells what `shown` gives."""
    deadline = time.monotonic() + within
    while not (value := read()):
        assert time.monotonic() < deadline, shown()
        time.sleep(0.005)
    return value

"""An event queue over a real store, with functions and destinations that a test has in its hand."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torpor.model.errors import NotFound, TargetDown, Throttled, TorporError
from torpor.model.event import Event, EventState, Owed, Progress, Result
from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus
from torpor.model.parcel import Parcel, ToWeb
from torpor.scheduling.retries import Condition, RetryPolicy, Verdict
from torpor.service.events.lanes import QueueLimits
from torpor.service.events.port import Run
from torpor.service.events.queue import EventQueue
from torpor.store.events import SqliteEventStore
from torpor.store.ports import EventFilter, EventRow

Done = Callable[[Outcome | TorporError], None]
GOOD = Outcome(status=OutcomeStatus.SUCCESS, payload=b'"good"', version="1", environment="e")
BAD = Outcome(status=OutcomeStatus.ERROR, payload=b'{"errorMessage":"bad"}', error_type="Unhandled", version="1")
SENT_FOR_A_SECOND = RetryPolicy(
    retries=0, waits=(), max_age=3600, first_back_off=0.01, longest_back_off=0.05, refused_for=1.0
)


class Clock:
    """Goes on by itself; `jump` sets its wall time."""

    def __init__(self) -> None:
        self.jumped = 0.0

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time() + self.jumped


class Functions:
    """A dispatcher: runs are answered by `answer`, or held back until a test ends them."""

    def __init__(self, answer: Callable[[Invocation], Outcome | TorporError | None] = lambda _: GOOD) -> None:
        """`answer` may return None: then the run goes on until `end`."""
        self.answer = answer
        self.running: dict[str, Done] = {}
        self.begun: list[str] = []
        self.most = 0

    def submit(self, version: FunctionVersion, invocation: Invocation, reserved: int | None, done: Done) -> Any:
        self.begun.append(invocation.id)
        self.running[invocation.id] = done
        self.most = max(self.most, len(self.running))
        answer = self.answer(invocation)
        if isinstance(answer, Throttled):
            self.end(invocation.id, answer)
        elif answer is not None:
            asyncio.get_running_loop().call_soon(self.end, invocation.id, answer)
        return invocation.id

    def cancel(self, request: Any) -> None:
        self.end(request, BAD)

    def end(self, identity: str, result: Outcome | TorporError = GOOD) -> None:
        if identity in self.running:
            self.running.pop(identity)(result)


@dataclass
class Rules:
    """A contract that does what a test says."""

    retries: int = 2
    wait: float = 0.01
    max_age: float = 3600.0
    back_off: float = 0.02
    barred: Condition | None = None
    gone: bool = False
    targets: tuple[str, ...] = ()
    most: int = 1000
    delivery: RetryPolicy = field(default_factory=lambda: SENT_FOR_A_SECOND)

    def kept_as(self, event: Event) -> tuple[str, float]:
        return event.task, 0.0

    def policy(self, event: Event) -> RetryPolicy:
        return RetryPolicy(
            retries=self.retries,
            waits=(self.wait, self.wait * 2),
            max_age=self.max_age,
            first_back_off=self.back_off,
            longest_back_off=1.0,
        )

    def bar(self, event: Event) -> Condition | None:
        return self.barred

    def run(self, event: Event, progress: Progress) -> Run:
        if self.gone:
            raise NotFound("The function is gone.")
        invocation = Invocation(
            id=event.request_id, payload=event.payload, resource=event.function, attempt=progress.errors, is_kept=True
        )
        return Run(version=version(event.function), invocation=invocation, reserved=None)

    def judged(self, event: Event, result: Outcome | TorporError) -> Result:
        if isinstance(result, Throttled):
            return Result(verdict=Verdict.THROTTLED, refusal=str(result))
        if isinstance(result, TorporError):
            return Result(verdict=Verdict.SYSTEM, refusal=str(result))
        verdict = Verdict.SUCCESS if result.status is OutcomeStatus.SUCCESS else Verdict.ERROR
        return Result(verdict=verdict, payload=result.payload, error_type=result.error_type)

    def owed(self, event: Event, progress: Progress) -> tuple[Owed, ...]:
        return tuple(Owed(target=target, role="destination") for target in self.targets)

    def parcel(self, event: Event, progress: Progress, owed: Owed) -> Parcel:
        return ToWeb(url=owed.target, identity=event.request_id, body=progress.condition.encode())


@dataclass
class Mail:
    """A courier that keeps what it is given; `failing` says which urls fail, and how."""

    sent: list[ToWeb] = field(default_factory=list)
    failing: Callable[[ToWeb], TorporError | None] = lambda _: None
    tried: int = 0

    async def send(self, parcel: Parcel) -> None:
        assert isinstance(parcel, ToWeb)
        self.tried += 1
        error = self.failing(parcel)
        if error is not None:
            raise error
        self.sent.append(parcel)


def down(_: ToWeb) -> TorporError:
    return TargetDown("It is down.")


def version(function: str) -> FunctionVersion:
    code = CodeRef(digest="0" * 64, packed_bytes=1, unpacked_bytes=1)
    return FunctionVersion(
        function=function,
        version="1",
        resource=function,
        revision="r",
        contract="rules",
        runtime="x",
        handler="h",
        code=code,
    )


@dataclass
class Bench:
    """One life of a queue."""

    queue: EventQueue
    store: SqliteEventStore
    functions: Functions
    mail: Mail
    rules: Rules
    clock: Clock
    numbers: int = 0

    async def accept(self, function: str = "f", payload: bytes = b"{}", **options: Any) -> str:
        """Its request id, once it is on the disk. Raises what refuses it."""
        waiting = self.accept_later(function, payload, **options)
        return await waiting

    def accept_later(
        self, function: str = "f", payload: bytes = b"{}", task: str = "", **options: Any
    ) -> "asyncio.Future[str]":
        self.numbers += 1
        identity = f"{function}-{self.numbers}"
        event = Event(
            request_id=identity,
            function=function,
            contract="rules",
            payload=payload,
            task=task,
            accepted=self.clock.wall(),
        )
        waiting: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def done(error: TorporError | None, twice: bool) -> None:
            if error is not None:
                waiting.set_exception(error)
            else:
                waiting.set_result("twice" if twice else identity)

        self.queue.intake.accept(event, done, **options)
        return waiting

    async def until(self, holds: Callable[[], Any], timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        while not holds():
            assert time.monotonic() < deadline, self.states()
            await asyncio.sleep(0.005)

    async def ends(self, number: int = 1, timeout: float = 10.0) -> list[EventRow]:
        """The ended events, oldest first, once there are so many."""
        await self.until(lambda: len(self.ended()) >= number, timeout)
        return self.ended()

    def ended(self) -> list[EventRow]:
        return sorted((row for row in self.rows() if row.state.is_ended), key=lambda row: row.id)

    def rows(self) -> list[EventRow]:
        return list(self.store.list(EventFilter(limit=100_000)))

    def states(self) -> dict[EventState, int]:
        counted: dict[EventState, int] = {}
        for (_, state), number in self.store.numbers().items():
            counted[state] = counted.get(state, 0) + number
        return counted


@asynccontextmanager
async def running(
    folder: Path,
    functions: Functions | None = None,
    mail: Mail | None = None,
    rules: Rules | None = None,
    clock: Clock | None = None,
    limits: QueueLimits | None = None,
) -> AsyncIterator[Bench]:
    """A queue that ends in order."""
    functions, mail, rules, clock = functions or Functions(), mail or Mail(), rules or Rules(), clock or Clock()
    store = SqliteEventStore(str(folder / "events.db"))
    queue = EventQueue(store, functions, mail, clock, asyncio.get_running_loop(), limits)
    queue.start({"rules": rules})
    ticking = asyncio.create_task(queue.tick())
    try:
        yield Bench(queue, store, functions, mail, rules, clock)
    finally:
        ticking.cancel()
        await queue.close()
        store.close()

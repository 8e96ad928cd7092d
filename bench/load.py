"""A lean HTTP client: callers that each wait for their answer (closed loop), or a fixed rate (open loop).

At a fixed rate a request's time counts from when it was due, not from when a connection was free for it, so a server
that falls behind cannot hide it. `python -m bench.load --help` uses it on any server.
"""

import argparse
import asyncio
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_FUNCTION_ERROR = b"x-amz-function-error"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a load gave. Latencies in seconds, ascending, of good answers only."""

    latencies: tuple[float, ...]
    errors: int
    seconds: float
    busy: float = 0.0
    """CPU seconds that the load itself cost."""

    def percentile(self, share: float) -> float:
        """Seconds; not a number if nothing was answered."""
        if not self.latencies:
            return float("nan")
        return self.latencies[min(int(len(self.latencies) * share / 100), len(self.latencies) - 1)]

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return len(self.latencies) / self.seconds

    @property
    def ceiling(self) -> float:
        """Answers a second beyond which this load cannot go, whatever answers it."""
        return (len(self.latencies) + self.errors) / self.busy if self.busy else float("inf")

    def __str__(self) -> str:
        tiers = ", ".join(f"p{share} {self.percentile(share) * 1e6:,.0f} µs" for share in (50, 95, 99))
        return f"{len(self.latencies):,} answers, {self.errors:,} errors, {self.rate:,.0f}/s, {tiers}"


def invocation(function: str, payload: bytes = b'{"a":1}', *, version: str = "") -> bytes:
    """A synchronous invocation as it goes over the wire."""
    query = f"?Qualifier={version}" if version else ""
    return request("POST", f"/2015-03-31/functions/{function}/invocations{query}", payload)


def request(method: str, target: str, body: bytes = b"", *, host: str = "localhost") -> bytes:
    """A whole HTTP/1.1 request."""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    )
    return f"{head}\r\n\r\n".encode() + body


class _Caller(asyncio.Protocol):
    """One connection, one request at a time; tells of each answer whether it was good."""

    def __init__(self, answered: Callable[["_Caller", bool], None], good: bytes = b"200") -> None:
        """`good` is the status of a good answer."""
        self._answered = answered
        self._status = good
        self._input = b""
        self._wanted = -1
        self._good = False
        self.sent = 0.0
        self.busy = False
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self, data: bytes, due: float | None = None) -> None:
        """Send; `due` is when it should have been sent."""
        self.busy = True
        self.sent = time.perf_counter() if due is None else due
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._input += data
        if self._wanted < 0:
            end = self._input.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._input[:end]
            found = _LENGTH.search(head)
            self._wanted = end + 4 + (int(found[1]) if found else 0)
            self._good = head[9:12] == self._status and _FUNCTION_ERROR not in head.lower()
        if len(self._input) >= self._wanted:
            self.body = self._input[self._input.find(b"\r\n\r\n") + 4 : self._wanted]
            self._finish(self._good)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.busy:
            self._finish(False)

    def _finish(self, good: bool) -> None:
        self._input, self._wanted, self.busy = b"", -1, False
        self._answered(self, good)


async def _connect(port: int, answered: Callable[[_Caller, bool], None], good: bytes = b"200") -> _Caller:
    loop = asyncio.get_running_loop()
    _, caller = await loop.create_connection(lambda: _Caller(answered, good), "127.0.0.1", port)
    return caller


class _Tally:
    """Collects answers until `count` are in."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.latencies: list[float] = []
        self.errors = 0
        self.done = asyncio.Event()
        self.begin()

    def begin(self) -> None:
        """Time counts from now."""
        self.began = time.perf_counter()
        self._busy = time.process_time()

    def note(self, caller: _Caller, good: bool) -> None:
        if good:
            self.latencies.append(time.perf_counter() - caller.sent)
        else:
            self.errors += 1
        self.left -= 1
        if self.left <= 0:
            self.done.set()

    def outcome(self) -> Outcome:
        busy = time.process_time() - self._busy
        return Outcome(tuple(sorted(self.latencies)), self.errors, time.perf_counter() - self.began, busy)


async def closed_loop(ports: Sequence[int], requests: Sequence[bytes], count: int, good: bytes = b"200") -> Outcome:
    """One caller per port and request, each asking again as soon as it is answered; `count` answers in all, of which
    those with the status `good` are good."""
    tally = _Tally(count)
    unsent = count
    asks: dict[_Caller, bytes] = {}

    def answered(caller: _Caller, good: bool) -> None:
        nonlocal unsent
        tally.note(caller, good)
        if unsent > 0 and not caller.transport.is_closing():
            unsent -= 1
            caller.ask(asks[caller])
        elif not any(other.busy for other in asks):
            tally.done.set()

    for port, data in zip(ports, requests, strict=True):
        asks[await _connect(port, answered, good)] = data
    tally.begin()
    for caller, data in asks.items():
        unsent -= 1
        caller.ask(data)
    await tally.done.wait()
    outcome = tally.outcome()
    for caller in asks:
        caller.transport.abort()
    return outcome


async def steady(port: int, data: bytes, *, rate: float, seconds: float, connections: int = 64) -> Outcome:
    """`rate` requests a second for some seconds, whatever the answers take, over at most so many connections."""
    count = int(rate * seconds)
    tally = _Tally(count)
    free: deque[_Caller] = deque()
    late: deque[float] = deque()

    def answered(caller: _Caller, good: bool) -> None:
        tally.note(caller, good)
        if caller.transport.is_closing():
            return
        if late:
            caller.ask(data, late.popleft())
        else:
            free.append(caller)

    free.extend([await _connect(port, answered) for _ in range(connections)])
    tally.begin()
    began = tally.began
    sent = 0
    while sent < count:
        due = began + sent / rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        if free:
            free.popleft().ask(data, due)
        else:
            late.append(due)
        sent += 1
        if sent % 64 == 0:
            await asyncio.sleep(0)
    await asyncio.wait_for(tally.done.wait(), 60)
    outcome = tally.outcome()
    for caller in free:
        caller.transport.abort()
    return outcome


async def once(port: int, data: bytes) -> tuple[bytes, float]:
    """One request on a new connection: body and seconds. Raises RuntimeError if the answer is not good."""
    answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answered(caller: _Caller, good: bool) -> None:
        if not answer.done():
            answer.set_result(good)

    began = time.perf_counter()
    caller = await _connect(port, answered)
    caller.ask(data)
    good = await answer
    took = time.perf_counter() - began
    caller.transport.abort()
    if not good:
        raise RuntimeError(f"no good answer on port {port}: {caller.body[:300]!r}")
    return caller.body, took


class Line:
    """One kept connection, asked now and then."""

    def __init__(self, caller: _Caller, good: "asyncio.Queue[bool]") -> None:
        self._caller = caller
        self._good = good

    @classmethod
    async def to(cls, port: int) -> "Line":
        """Connect."""
        good: asyncio.Queue[bool] = asyncio.Queue()
        return cls(await _connect(port, lambda _, answer: good.put_nowait(answer)), good)

    async def ask(self, data: bytes) -> float:
        """Seconds until the answer. Raises RuntimeError if it is not good."""
        began = time.perf_counter()
        self._caller.ask(data)
        good = await self._good.get()
        took = time.perf_counter() - began
        if not good:
            raise RuntimeError(f"no good answer: {self._caller.body[:300]!r}")
        return took

    def close(self) -> None:
        """Break the connection off."""
        self._caller.transport.abort()


def main() -> int:
    """Load any server from the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="Load one HTTP server on this machine.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--function", help="invoke this function")
    parser.add_argument("--path", default="/", help="or send a body to this path")
    parser.add_argument("--callers", type=int, default=1)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=0, help="requests a second instead of callers")
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    data = invocation(given.function) if given.function else request("POST", given.path, b"x" * 20)
    if given.rate:
        print(uvloop.run(steady(given.port, data, rate=given.rate, seconds=given.seconds)))
    else:
        print(uvloop.run(closed_loop([given.port] * given.callers, [data] * given.callers, given.count)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

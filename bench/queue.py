"""The queue of asynchronous events: how fast it accepts, how long an event waits, how fast a backlog is worked off."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from urllib.request import Request, urlopen

import uvloop

from bench import measures
from bench.load import Outcome, closed_loop, request
from bench.machine import rss_bytes
from bench.report import Row
from bench.server import Server
from bench.sizes import Sizes
from bench.yardstick import Yardstick

ACCEPTED = 2000.0
"""Events a second with one caller on each of 16 connections."""
CONNECTIONS = 16
DRAIN_SHARE = 0.85
"""Of the rate at which as many callers get synchronous answers of the same function."""
WAIT = 5.0
"""Milliseconds from an event's acceptance to its start, where nothing waits."""
FALL = 0.8
"""Of the rate at which an empty queue accepts, that one with a backlog must keep."""
GROWTH = 64.0
"""MiB by which the server may grow with a backlog: what it holds of it in memory at most."""
_MIB = 1024 * 1024

_BETWEEN = 0.4
"""Seconds between two looks at how far the queue is: looking takes the server a moment."""
_SLOWEST = 1000
"""Events a second that any machine accepts."""
_HELD = 3000
"""Seconds for which the function that accepts without running is kept busy."""


def queue(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """Every figure with events of 7 bytes; one of each function runs at once unless it is said otherwise."""
    waits = _waits(server, sizes.warm // 20)
    drained, synchronous, spread = _drained(server, sizes)
    with _busy(server, "busy") as name:
        empty = _accept(server, name, sizes.warm)
        before = rss_bytes(server.process.pid)
        filling = _accept(server, name, sizes.backlog)
        full = _accept(server, name, sizes.warm)
        grown = (rss_bytes(server.process.pid) - before) / _MIB
    return [
        Row(
            what=f"events accepted, {CONNECTIONS} connections",
            value=empty.rate,
            unit="/s",
            target=ACCEPTED,
            more_is_better=True,
            note=f"on the disk before the answer; p50 {empty.percentile(50) * 1e3:.1f} ms, "
            f"p99 {empty.percentile(99) * 1e3:.1f} ms, {empty.errors} errors",
        ),
        Row(
            what=f"the same, with {sizes.backlog:,} events in the queue",
            value=full.rate,
            unit="/s",
            target=FALL * empty.rate,
            rule=f"{FALL:g}x",
            more_is_better=True,
            beside=empty.rate,
            yardstick="an empty queue",
            note=f"{filling.rate:,.0f}/s while they came, {filling.errors + full.errors} errors",
        ),
        Row(
            what=f"server's growth with {sizes.backlog:,} events in the queue",
            value=grown,
            unit="MiB",
            target=GROWTH,
        ),
        Row(
            what="events worked off",
            value=drained,
            unit="/s",
            target=DRAIN_SHARE * synchronous,
            rule=f"{DRAIN_SHARE:g}x",
            more_is_better=True,
            beside=synchronous,
            yardstick=f"{CONNECTIONS} callers that wait",
            note=spread,
        ),
        Row(
            what="from acceptance to start, idle queue, p50",
            value=median(waits) * 1e3,
            unit="ms",
            target=WAIT,
            note=f"p95 {waits[int(len(waits) * 0.95)] * 1e3:.1f} ms; one event at a time, a warm environment",
        ),
    ]


def _event(function: str, payload: bytes = b'{"a":1}') -> bytes:
    made = request("POST", f"/2015-03-31/functions/{function}/invocations", payload)
    return made.replace(b"\r\n\r\n", b"\r\nX-Amz-Invocation-Type: Event\r\n\r\n", 1)


def _accept(server: Server, function: str, count: int) -> Outcome:
    asks = [_event(function)] * CONNECTIONS
    return uvloop.run(closed_loop([server.port] * CONNECTIONS, asks, count, good=b"202"))


@contextmanager
def _busy(server: Server, name: str) -> Iterator[str]:
    """A function that may run once at a time and does so all along: its events are accepted and wait."""
    server.deploy(name, "handler.hold")
    server.client.update_function_configuration(FunctionName=name, Timeout=900)
    _hold(server, name, _HELD)
    yield name
    server.remove(name)


def _hold(server: Server, name: str, seconds: float) -> None:
    """From now on only one may run at once, and that one does, for so long."""
    server.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    threading.Thread(target=_run_for, args=(server.port, name, seconds), daemon=True).start()
    server.until(lambda: any(each["phase"] == "serving" for each in server.environments(name)), f"{name} being busy")


def _run_for(port: int, name: str, seconds: float) -> None:
    body = json.dumps({"hold": seconds}).encode()
    asked = Request(f"http://127.0.0.1:{port}/2015-03-31/functions/{name}/invocations", body, method="POST")
    try:
        urlopen(asked, timeout=_HELD).close()
    except OSError:  # the function is removed when all is measured
        return


def _drained(server: Server, sizes: Sizes) -> tuple[float, float, str]:
    """Events a second and synchronous answers a second, in turns; and how both varied."""
    server.deploy("drain", "handler.hold")
    measures.warm(server, "drain", CONNECTIONS, sizes.warm)
    events, answers = [], []
    for _ in range(sizes.rounds):
        answers.append(measures.warm(server, "drain", CONNECTIONS, sizes.managed).rate)
        events.append(_drain(server, 2 * sizes.managed))
    spread = f"{min(events):,.0f}–{max(events):,.0f}/s; synchronous {min(answers):,.0f}–{max(answers):,.0f}/s"
    return median(events), median(answers), spread


def _drain(server: Server, count: int) -> float:
    """Events a second out of a backlog that nothing is added to, once a tenth of it is gone."""
    first = _done(server)
    _hold(server, "drain", count / _SLOWEST + 1)
    _accept(server, "drain", count)
    server.client.delete_function_concurrency(FunctionName="drain")
    readings = [(time.perf_counter(), _done(server))]
    while readings[-1][1] < first + count * 9 // 10:
        time.sleep(_BETWEEN)
        readings.append((time.perf_counter(), _done(server)))
    counted = [each for each in readings if each[1] >= first + count // 10]
    (began, before), (ended, after) = counted[0], counted[-1]
    return (after - before) / (ended - began)


def _numbers(server: Server) -> dict[str, int]:
    found = server.send("GET", "/_torpor/events", b"")["functions"]
    return next((each for each in found if each["function"] == "drain"), {})


def _done(server: Server) -> int:
    return int(_numbers(server).get("counters", {}).get("succeeded", 0))


def _waits(server: Server, count: int) -> list[float]:
    """Seconds from acceptance to start, ascending, of events that come one by one."""
    server.deploy("idle", "handler.handler")
    measures.warm(server, "idle", 1, 100)
    for _ in range(count):
        uvloop.run(closed_loop([server.port], [_event("idle")], 1, good=b"202"))
        time.sleep(0.01)
    server.until(lambda: len(_succeeded(server, count)) == count, "the events being run")
    return sorted(_wait(server, identity) for identity in _succeeded(server, count))


def _succeeded(server: Server, count: int) -> list[int]:
    found = server.send("GET", f"/_torpor/events/list?function=idle&state=succeeded&limit={count}", b"")
    return [each["id"] for each in found["events"]]


def _wait(server: Server, identity: int) -> float:
    history = server.send("GET", f"/_torpor/events/{identity}", b"")["history"]
    return next(step["waited"] for step in history if step["what"] == "run")

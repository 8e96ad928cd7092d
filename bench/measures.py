"""What is measured of a running server. Each function returns plain figures; what they mean stands in `report`."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass

import uvloop

from bench.load import Outcome, closed_loop, invocation, once, steady
from bench.machine import available_bytes, pss_bytes, rss_bytes
from bench.server import Server

_FILLING = 20_000
"""Invocations after which nothing that the server keeps for a while can get more."""
_BETWEEN_COLD_STARTS = 0.3
"""Seconds; a cold start is rare, and prepared sandboxes are made anew meanwhile."""


def warm(server: Server, function: str, callers: int, count: int) -> Outcome:
    """Closed loop on warm environments."""
    ports, asks = [server.port] * callers, [invocation(function)] * callers
    uvloop.run(closed_loop(ports, asks, max(count // 10, callers * 20)))
    return uvloop.run(closed_loop(ports, asks, count))


def cold(server: Server, function: str, samples: int) -> Outcome:
    """First answers of new revisions, one after another; the time is the caller's."""
    began, took = time.perf_counter(), []
    for number in range(samples):
        server.renew(function, number)
        time.sleep(_BETWEEN_COLD_STARTS)
        took.append(uvloop.run(once(server.port, invocation(function)))[1])
    return Outcome(tuple(sorted(took)), 0, time.perf_counter() - began)


def steadily(server: Server, function: str, rate: float, seconds: float) -> Outcome:
    """Open loop at a fixed rate on warm environments."""
    uvloop.run(steady(server.port, invocation(function), rate=rate / 2, seconds=1))
    return uvloop.run(steady(server.port, invocation(function), rate=rate, seconds=seconds))


def growth(server: Server, function: str, count: int) -> tuple[int, int]:
    """The server's resident bytes before and after so many warm invocations by 8 callers.

    What the server keeps of the latest events (lines of log, phases) is full by then."""
    warm(server, function, 8, _FILLING)
    before = rss_bytes(server.process.pid)
    outcome = uvloop.run(closed_loop([server.port] * 8, [invocation(function)] * 8, count))
    if outcome.errors:
        raise RuntimeError(f"{outcome.errors} of {count} invocations failed")
    return before, rss_bytes(server.process.pid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Many environments alive at once. Bytes and seconds."""

    wanted: int
    alive: int
    same: int
    """Answered a second time from the environment of the first."""
    pss_each: float
    """Proportional set size of all processes, per environment."""
    host_each: float
    """What the host has less to give, per environment: kernel memory and file systems included."""
    seconds: float
    """To have all of them alive, by 8 callers."""
    again: Outcome


def crowd(server: Server, wanted: int) -> Crowd:
    """One environment for each of `wanted` functions: made, left idle, weighed, and asked again."""
    names = [f"crowd-{number}" for number in range(wanted)]
    for name in names:
        server.deploy(name, "handler.identify", memory_mb=128)
    free = available_bytes()
    began = time.perf_counter()
    first, _ = uvloop.run(_ask_all(server, names))
    seconds = time.perf_counter() - began
    time.sleep(1.0)
    host = free - available_bytes()
    alive = server.environments("crowd-")
    pss = sum(pss_bytes(pid) for entry in alive for pid in entry["pids"])
    again, outcome = uvloop.run(_ask_all(server, names))
    return Crowd(
        wanted=wanted,
        alive=len(alive),
        same=sum(one == other for one, other in zip(first, again, strict=True)),
        pss_each=pss / max(len(alive), 1),
        host_each=host / max(len(alive), 1),
        seconds=seconds,
        again=outcome,
    )


async def _ask_all(server: Server, names: Sequence[str]) -> tuple[list[str], Outcome]:
    turns = asyncio.Semaphore(8)
    took: list[float] = []
    began = time.perf_counter()

    async def ask(name: str) -> str:
        async with turns:
            body, seconds = await once(server.port, invocation(name))
        took.append(seconds)
        return str(json.loads(body)["environment"])

    found = await asyncio.gather(*[ask(name) for name in names])
    return list(found), Outcome(tuple(sorted(took)), 0, time.perf_counter() - began)

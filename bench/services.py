"""Web services: the relay beside nginx and a direct call, waking from frozen, and starting from zero."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

import uvloop

from bench.backends import ASGI, BARE, BUILD, PYTHON, Backend, archived, staged
from bench.load import Line, Outcome, closed_loop, once, request
from bench.machine import cpu_seconds
from bench.outside import answering, built, nginx, started
from bench.report import Row
from bench.rounds import Turns, in_turns
from bench.server import WHOLE_CPU_MB, Server
from bench.sizes import Sizes
from bench.stages import stages
from bench.yardstick import Yardstick

CALLERS = 32
OF_NGINX = 0.6
"""Of its throughput."""
ADDED = 150.0
"""Microseconds over a direct call."""
WAKE = 2.0
"""Milliseconds over a warm call."""
START_SHARE = 1.15
"""Of the server's own start."""
_MEMORY_MB = WHOLE_CPU_MB * 2
"""Two CPUs: outside, nothing limits the server."""
_REST = 0.05
"""Seconds without a request; a service is frozen a millisecond after its last."""
_AFTER_END = 0.3
"""Seconds; a start from zero is rare, and sandboxes are prepared anew meanwhile."""
_LONG_REST = 1.5
"""Seconds after which its kept connections are not trusted any more."""
_LONG_RESTS = 5
_SLOW_SHARE = 5
"""A server of a framework is asked so many times less."""


def _request(name: str) -> bytes:
    return request("GET", "/", host=f"{name}.localhost")


def _deploy(server: Server, backend: Backend, folder: Path) -> None:
    settings = {
        "build": f"{PYTHON} {BUILD}",
        "start": f"{PYTHON} server.py",
        "memory": _MEMORY_MB,
        "environment": {"PYTHONPATH": "/app"},
    }
    server.deploy_service(backend.name, archived(folder), settings)
    built(folder)


# -- the relay ---------------------------------------------------------------------------------------------------------


def relay(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """Throughput with many callers and what one caller waits longer, for a bare server and for a framework's."""
    rows = []
    for backend, share in ((BARE, 1), (ASGI, _SLOW_SHARE)):
        try:
            with staged(backend) as folder:
                _deploy(server, backend, folder)
                rows += _relay(server, backend, folder, sizes.rounds, sizes.relayed // share)
        except LookupError as error:
            rows.append(Row(what=f"relay, {backend.title}", value=None, unit="/s", note=str(error)))
    return rows


def _relay(server: Server, backend: Backend, folder: Path, rounds: int, count: int) -> list[Row]:
    data, missing = _request(backend.name), ""
    with ExitStack() as stack:
        direct = stack.enter_context(answering(folder, data))
        ports = {"torpor": server.port, "direct": direct.port}
        processes = {"torpor": [server.process.pid]}
        try:
            front = stack.enter_context(nginx(direct.port, data))
            ports["nginx"], processes["nginx"] = front.port, front.workers()
        except LookupError as error:
            missing = f"; {error}"
        uvloop.run(once(server.port, data))
        many, costs = _many(ports, processes, data, rounds, count)
        one = in_turns(rounds, {name: _loading(port, data, 1, count // 5) for name, port in ports.items()})
    return [_throughput(backend, many, costs, missing), _added(backend, one)]


def _many(
    ports: Mapping[str, int], processes: Mapping[str, list[int]], data: bytes, rounds: int, count: int
) -> tuple[dict[str, Turns], dict[str, float]]:
    """Outcomes by turns, and CPU seconds that each relay spent on a request."""
    for port in ports.values():
        _loading(port, data, CALLERS, count // 2)()
    before = {name: sum(map(cpu_seconds, pids)) for name, pids in processes.items()}
    found = in_turns(rounds, {name: _loading(port, data, CALLERS, count) for name, port in ports.items()})
    spent = {name: sum(map(cpu_seconds, pids)) - before[name] for name, pids in processes.items()}
    return found, {name: seconds / (found[name].answers + found[name].errors) for name, seconds in spent.items()}


def _loading(port: int, data: bytes, callers: int, count: int) -> Callable[[], Outcome]:
    return partial(_load, port, data, callers, max(count, callers))


def _load(port: int, data: bytes, callers: int, count: int) -> Outcome:
    return uvloop.run(closed_loop([port] * callers, [data] * callers, count))


def _throughput(backend: Backend, found: Mapping[str, Turns], costs: Mapping[str, float], missing: str) -> Row:
    own, direct, other = found["torpor"], found["direct"], found.get("nginx")
    spent = ", ".join(f"{name} {seconds * 1e6:,.0f} µs" for name, seconds in costs.items())
    compared = f", nginx {other.spread()}" if other else missing
    return Row(
        what=f"relay, {backend.title}, {CALLERS} callers",
        value=own.rate,
        unit="/s",
        target=OF_NGINX * other.rate if other else None,
        rule=f"{OF_NGINX:g}x",
        more_is_better=True,
        beside=other.rate if other else None,
        yardstick="nginx",
        note=f"{own.spread()}{compared}, direct {direct.rate:,.0f}/s ({direct.spread()}); {own.errors} errors; CPU of "
        f"the relay for each request: {spent}; load alone could do {direct.ceiling:,.0f}/s",
    )


def _added(backend: Backend, found: Mapping[str, Turns]) -> Row:
    own, direct, other = found["torpor"], found["direct"], found.get("nginx")
    note = f"p50 {own.percentile(50) * 1e6:,.0f} µs, direct {direct.percentile(50) * 1e6:,.0f} µs"
    return Row(
        what=f"relay, {backend.title}, 1 caller: p50 over a direct call",
        value=own.above(direct) * 1e6,
        unit="µs",
        target=ADDED,
        beside=other.above(direct) * 1e6 if other else None,
        yardstick="nginx",
        note=f"{note}, nginx {other.percentile(50) * 1e6:,.0f} µs" if other else note,
    )


# -- waking ------------------------------------------------------------------------------------------------------------


def wake(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """The first call after a rest beside the one right after it; the same server outside rests without being frozen."""
    data = _request(BARE.name)
    with staged(BARE) as folder:
        _deploy(server, BARE, folder)
        with answering(folder, data) as direct:
            ports = {"torpor": server.port, "direct": direct.port}
            found = uvloop.run(_rests(ports, data, sizes.wakes, _REST))
            server.until(lambda: _phases(server) == {"frozen"}, "freezing of the service")
            long = uvloop.run(_rests(ports, data, _LONG_RESTS, _LONG_REST))
    return [_woken(found, long)]


def _phases(server: Server) -> set[str]:
    return {str(entry["phase"]) for entry in server.environments(f"web/{BARE.name}")}


_Rests = Mapping[str, tuple[list[float], list[float]]]
"""By who was asked: seconds of the calls after a rest, and of those right after them."""


async def _rests(ports: Mapping[str, int], data: bytes, count: int, rest: float) -> _Rests:
    lines = {name: await Line.to(port) for name, port in ports.items()}
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ports}
    for line in lines.values():
        await line.ask(data)
    for _ in range(count):
        for name, line in lines.items():
            await asyncio.sleep(rest)
            for times in found[name]:
                times.append(await line.ask(data))
    for line in lines.values():
        line.close()
    return found


def _over(times: tuple[list[float], list[float]]) -> float:
    """Milliseconds that the calls after a rest took longer: the medians' difference."""
    return (median(times[0]) - median(times[1])) * 1e3


def _woken(found: _Rests, long: _Rests) -> Row:
    first, second = found["torpor"]
    return Row(
        what="wake of a frozen service: p50 over a warm call",
        value=_over(found["torpor"]),
        unit="ms",
        target=WAKE,
        beside=_over(found["direct"]),
        yardstick="the same rest, not frozen",
        note=f"{_REST * 1e3:.0f} ms without a request; {median(first) * 1e3:.2f} ms, p95 "
        f"{sorted(first)[len(first) * 95 // 100] * 1e3:.2f} ms; right after it {median(second) * 1e3:.2f} ms; after "
        f"{_LONG_REST:g} s, with a new connection, {_over(long['torpor']):.2f} ms over a warm call",
    )


# -- from zero ---------------------------------------------------------------------------------------------------------


def zero(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """The first answer of a service that has no environment, beside the start of the same server outside."""
    rows = []
    for backend in (BARE, ASGI):
        try:
            with staged(backend) as folder:
                _deploy(server, backend, folder)
                rows.append(_from_zero(server, backend, folder, sizes.starts))
        except LookupError as error:
            rows.append(Row(what=f"from zero, {backend.title}", value=None, unit="ms", note=str(error)))
    return rows


def _from_zero(server: Server, backend: Backend, folder: Path, count: int) -> Row:
    data = _request(backend.name)
    server.configure_service(backend.name, {"idle_timeout": 1})
    _start_inside(server, backend, data)
    _start_outside(folder, data)
    measures = {"own": partial(_start_outside, folder, data), "torpor": partial(_start_inside, server, backend, data)}
    found = in_turns(count, measures)
    own, inside = found["own"], found["torpor"]
    return Row(
        what=f"from zero, {backend.title}: p50",
        value=inside.percentile(50) * 1e3,
        unit="ms",
        target=START_SHARE * own.percentile(50) * 1e3,
        rule=f"{START_SHARE:g}x",
        beside=own.percentile(50) * 1e3,
        yardstick="its own start",
        note=f"{_range(inside)}, outside {_range(own)}; {stages(server, f'web/{backend.name}')}",
    )


def _start_inside(server: Server, backend: Backend, data: bytes) -> Outcome:
    """The first answer once the service has no environment any more."""
    server.until(lambda: not server.environments(f"web/{backend.name}"), f"{backend.name} scaling to zero")
    time.sleep(_AFTER_END)
    return _single(uvloop.run(once(server.port, data))[1])


def _start_outside(folder: Path, data: bytes) -> Outcome:
    """From the start of the process to its first answer."""
    began = time.perf_counter()
    server = started(folder)
    try:
        uvloop.run(server.first_answer(data))
        return _single(time.perf_counter() - began)
    finally:
        server.stop()


def _single(seconds: float) -> Outcome:
    return Outcome((seconds,), 0, seconds)


def _range(turns: Turns) -> str:
    times = [outcome.seconds * 1e3 for outcome in turns.outcomes]
    return f"{min(times):,.0f}–{max(times):,.0f} ms"

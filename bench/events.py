"""Function Compute's event functions: cold starts with their stages, and warm invocations."""

import base64
import io
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.load import Outcome, closed_loop, once, request
from bench.report import Row
from bench.server import Server
from bench.sizes import Sizes
from bench.stages import stages
from bench.yardstick import Yardstick

COLD = 1000.0
"""Milliseconds."""
_HANDLERS = Path(__file__).parent / "handlers"
_API = "/2023-03-30/functions"
_JSON = {"Content-Type": "application/json"}
_MEMORY_MB = 1536
"""Size that comes with one whole CPU."""
_BETWEEN = 0.3
"""Seconds; a cold start is rare, and prepared sandboxes are made anew meanwhile."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One language: the runtimes to try, best first, and the folder of the function."""

    title: str
    runtimes: tuple[str, ...]
    code: str


_KINDS = (
    _Kind("Python", ("python3.12", "python3.10"), "events_python"),
    _Kind("Node.js", ("nodejs20",), "events_node"),
)


def events(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """A small function of each language."""
    return [row for kind in _KINDS for row in _measure(server, kind, sizes)]


def _measure(server: Server, kind: _Kind, sizes: Sizes) -> list[Row]:
    try:
        runtime = _create(server, kind)
    except LookupError as error:
        return [Row(what=f"event function, {kind.title}", value=None, unit="ms", target=COLD, note=str(error))]
    data = request("POST", f"{_API}/{kind.code}/invocations", b'{"a":1}')
    cold = _cold(server, kind.code, data, sizes.cold)
    told = stages(server, f"fc/{kind.code}")
    warm = _warm(server.port, data, sizes.warm // 2)
    return [
        Row(
            what=f"event function, {kind.title}: cold start, p50",
            value=cold.percentile(50) * 1e3,
            unit="ms",
            target=COLD,
            note=f"{runtime}; p95 {cold.percentile(95) * 1e3:.0f} ms; {told}",
        ),
        Row(
            what=f"event function, {kind.title}: warm, 1 caller, p50",
            value=warm.percentile(50) * 1e6,
            unit="µs",
            note=f"p99 {warm.percentile(99) * 1e6:,.0f} µs, {warm.errors} errors",
        ),
    ]


def _create(server: Server, kind: _Kind) -> str:
    """Create the function with the first runtime that is here. LookupError if none is."""
    reason = ""
    for runtime in kind.runtimes:
        wanted = {
            "functionName": kind.code,
            "runtime": runtime,
            "handler": "index.handler",
            "memorySize": _MEMORY_MB,
            "cpu": 1,
            "timeout": 60,
            "code": {"zipFile": _package(kind.code)},
        }
        try:
            server.send("POST", _API, json.dumps(wanted).encode(), _JSON)
            return runtime
        except RuntimeError as error:
            reason = str(error)
    raise LookupError(reason)


def _package(folder: str) -> str:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in (_HANDLERS / folder).glob("index.*"):
            file.write(path, path.name)
    return base64.b64encode(archive.getvalue()).decode()


def _cold(server: Server, name: str, data: bytes, samples: int) -> Outcome:
    """First answers of new revisions, one after another; the time is the caller's."""
    began, took = time.perf_counter(), []
    for number in range(samples):
        changed = {"environmentVariables": {"SAMPLE": str(number)}}
        server.send("PUT", f"{_API}/{name}", json.dumps(changed).encode(), _JSON)
        time.sleep(_BETWEEN)
        took.append(uvloop.run(once(server.port, data))[1])
    return Outcome(tuple(sorted(took)), 0, time.perf_counter() - began)


def _warm(port: int, data: bytes, count: int) -> Outcome:
    uvloop.run(closed_loop([port], [data], max(count // 10, 20)))
    return uvloop.run(closed_loop([port], [data], count))

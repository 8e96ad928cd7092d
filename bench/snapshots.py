"""Environments from snapshots: how soon they answer, and what each of them costs."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import uvloop

from bench.load import Outcome, invocation, once
from bench.machine import pss_bytes
from bench.report import Row
from bench.server import Server
from bench.sizes import Sizes
from bench.yardstick import Yardstick

RESTORE_P50 = 15.0
"""Milliseconds from the request to the answer."""
CLONE_MEMORY = 10.0
"""MiB that each further environment adds."""
_FUNCTION = "heavy"
_MEMORY_MB = 1769
_RUNTIMES = ("python3.13", "python3.12", "python3.14")
_CLONES = 20
_HELD = 3.0
"""Seconds that environments are kept busy so that they are all there at once."""
_PAUSE = 0.3
_MIB = 1024 * 1024


def restore(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """First answers of environments that each serve once; needs a server that uses them so."""
    number = _published(server)
    took = []
    for _ in range(sizes.cold):
        time.sleep(_PAUSE)
        took.append(uvloop.run(once(server.port, invocation(_FUNCTION, b"{}", version=number)))[1])
    outcome = Outcome(tuple(sorted(took)), 0, sum(took))
    return [
        Row(
            what="restore, 200 MB of state: p50",
            value=outcome.percentile(50) * 1e3,
            unit="ms",
            target=RESTORE_P50,
            note=f"p95 {outcome.percentile(95) * 1e3:.1f} ms; its Init takes 2 s",
        ),
        _memory(server, number),
    ]


def _published(server: Server) -> str:
    runtime = next(name for name in _RUNTIMES if name in server.runtimes())
    server.deploy(_FUNCTION, "heavy.handler", memory_mb=_MEMORY_MB, snap_start=runtime)
    return server.publish(_FUNCTION)


def _memory(server: Server, number: str) -> Row:
    """What one and many at once take together: the difference is what each adds."""
    one, many = (_held(server, number, count) for count in (1, 1 + _CLONES))
    return Row(
        what="memory of a restored environment",
        value=(many - one) / _CLONES / _MIB,
        unit="MiB",
        target=CLONE_MEMORY,
        note=f"proportional set size of {1 + _CLONES} at once less that of one; all of them share the snapshot",
    )


def _held(server: Server, number: str, count: int) -> int:
    event = json.dumps({"hold": _HELD})

    def call(_: int) -> None:
        server.client.invoke(FunctionName=_FUNCTION, Qualifier=number, Payload=event)["Payload"].read()

    with ThreadPoolExecutor(count) as callers:
        calls = [callers.submit(call, each) for each in range(count)]
        server.until(lambda: len(_serving(server)) == count, f"{count} environments serving")
        time.sleep(0.2)
        size = sum(pss_bytes(pid) for pids in _serving(server) for pid in pids)
        for each in calls:
            each.result()
    server.until(lambda: not server.environments(_FUNCTION), "their end")
    return size


def _serving(server: Server) -> list[list[int]]:
    found = server.environments(_FUNCTION)
    return [entry["pids"] for entry in found if entry["phase"] == "serving"]

"""Managed instances beside the emulator's own multi-concurrent mode: the same interpreter, client and handler."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import uvloop

from bench.emulator import MANAGED_RUNTIME, managed_emulator
from bench.load import Outcome, closed_loop, invocation
from bench.report import Row
from bench.rounds import Turns, in_turns
from bench.server import Server
from bench.sizes import Sizes
from bench.yardstick import Yardstick

WORKERS = 8
TIMES = 2.0
"""Of the emulator's answered invocations a second."""
_NAME = "managed"
_OVER = WORKERS * 2
"""Twice as many callers as there are workers."""
_SETTLING = 1.0


def managed(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """Callers as many as workers, and twice as many."""
    version = server.deploy_managed(_NAME, "handler.handler", runtime=MANAGED_RUNTIME, workers=WORKERS)
    targets = {"torpor": (server.port, invocation(_NAME, version=version))}
    with ExitStack() as stack:
        if yardstick.program is None:
            return _rows(_measure(sizes, targets), "")
        try:
            emulator = stack.enter_context(managed_emulator(yardstick.program, WORKERS))
        except (LookupError, OSError, RuntimeError) as error:
            return _rows(_measure(sizes, targets), f"; without the emulator, which did not start: {error}")
        return _rows(_measure(sizes, {**targets, "emulator": (emulator.port, invocation("function"))}), "")


def _measure(sizes: Sizes, targets: dict[str, tuple[int, bytes]]) -> dict[str, Turns]:
    for port, data in targets.values():
        _load(port, data, WORKERS, sizes.managed // 2)
    time.sleep(_SETTLING)
    measures: dict[str, Callable[[], Outcome]] = {
        f"{name}-{callers}": partial(_load, port, data, callers, sizes.managed)
        for callers in (WORKERS, _OVER)
        for name, (port, data) in targets.items()
    }
    return in_turns(sizes.rounds, measures)


def _load(port: int, data: bytes, callers: int, count: int) -> Outcome:
    return uvloop.run(closed_loop([port] * callers, [data] * callers, count))


def _rows(found: dict[str, Turns], missing: str) -> list[Row]:
    return [_throughput(found, WORKERS, missing), _refused(found), _throughput(found, _OVER, missing)]


def _throughput(found: dict[str, Turns], callers: int, missing: str) -> Row:
    own, other = found[f"torpor-{callers}"], found.get(f"emulator-{callers}")
    note = f"{_told(own)}; load alone could do {own.ceiling:,.0f}/s"
    return Row(
        what=f"managed, {WORKERS} workers, {callers} callers: answered",
        value=own.rate,
        unit="/s",
        target=TIMES * other.rate if other else None,
        rule=f"{TIMES:g}x",
        more_is_better=True,
        beside=other.rate if other else None,
        note=f"{note}; emulator: {_told(other)}" if other else note + missing,
    )


def _told(turns: Turns) -> str:
    share = turns.errors / (turns.answers + turns.errors)
    return f"{turns.spread()}, p50 {turns.percentile(50) * 1e6:,.0f} µs, {share:.1%} refused"


def _refused(found: dict[str, Turns]) -> Row:
    other = found.get(f"emulator-{WORKERS}")
    return Row(
        what=f"managed, {WORKERS} workers, {WORKERS} callers: refused",
        value=float(found[f"torpor-{WORKERS}"].errors),
        unit="",
        target=0.0,
        beside=float(other.errors) if other else None,
    )

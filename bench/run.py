"""`make bench`: the emulator first, then a real server, then the table. `--quick` takes about four minutes."""

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.emulator import binary

from bench import emulator, measures
from bench.events import events
from bench.extended import extended
from bench.load import Outcome
from bench.machine import describe
from bench.managed import managed
from bench.queue import queue
from bench.report import Row, keep, show
from bench.server import Server, serving
from bench.services import relay, wake, zero
from bench.sizes import FULL, QUICK, Sizes
from bench.snapshots import restore
from bench.yardstick import Yardstick

_MIB = 1024 * 1024
_ROOMY = ("--memory-budget-mb", "1000000", "--idle-timeout", "3600")
"""Idle environments are to stay, whatever memory their functions are configured with."""
_RATE = 1000.0

# What is to be met. Times in milliseconds, sizes in MiB, shares of the emulator's own figure in the same run.
WARM_SHARE = 0.6
EIGHT_TIMES = 3.0
COLD_P50 = 12.0
COLD_P95 = 30.0
COLD_SHARE = 0.15
STEADY_P99 = 10.0
IDLE_MEMORY = 6.0
GROWTH = 2.0
"""What a server may differ by for reasons other than a leak."""


def main() -> int:
    """Run everything; exit status 1 if a target was missed."""
    given = _arguments()
    sizes = QUICK if given.quick else FULL
    notes: list[str] = []
    machine = describe()
    yardstick = Yardstick() if given.no_emulator else _measure_emulator(given, sizes, notes)
    rows = _measure_server(sizes, yardstick, notes, given.only)
    print("\n" + show(machine, rows, notes))
    if not given.only:
        keep(machine, rows, notes, quick=given.quick)
    return 1 if any(row.met is False for row in rows) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Torpor beside the cloud's emulator.")
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--emulator", default="", type=_program, help="the emulator's binary; fetched if not given")
    parser.add_argument("--no-emulator", action="store_true", help="measure Torpor alone")
    parser.add_argument("--only", nargs="*", choices=sorted(_PARTS), help="some parts only; nothing is written")
    return parser.parse_args()


def _program(path: str) -> str:
    if path and not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path


def _measure_emulator(given: argparse.Namespace, sizes: Sizes, notes: list[str]) -> Yardstick:
    try:
        program = binary(given.emulator)
    except (OSError, subprocess.SubprocessError) as error:
        notes.append(f"Without the emulator, which could not be fetched: {error}.")
        return Yardstick()
    if given.only and not _BESIDE_EMULATOR & set(given.only):
        return Yardstick(program=program)
    _say("emulator: warm")
    warm = emulator.warm(program, callers=1, processes=1, count=sizes.warm)
    eight = emulator.warm(program, callers=8, processes=8, count=sizes.warm)
    together = _all_at_once(program)
    _say("emulator: cold")
    cold = emulator.cold(program, sizes.cold)
    notes.append(
        "Emulator: the same interpreter, runtime client and handler, without a container or sandbox; cold is the start "
        "of its process to the first answer. Eight callers have an emulator each (one emulator, sent 8 invocations at "
        f"once, gave {len(together.latencies)} answers and {together.errors} errors)."
    )
    return Yardstick(program=program, warm=warm, eight=eight, cold=cold)


def _all_at_once(program: Path) -> Outcome:
    """Eight callers on one emulator, which may end itself on the way."""
    try:
        return emulator.warm(program, callers=8, processes=1, count=80)
    except OSError:
        return Outcome((), 8, math.inf)


def _measure_server(sizes: Sizes, yardstick: Yardstick, notes: list[str], only: Sequence[str] | None) -> list[Row]:
    rows: list[Row] = []
    for name, part in _PARTS.items():
        if only and name not in only:
            continue
        _say(f"Torpor: {name}")
        with serving(*_ROOMY, *_FLAGS.get(name, ())) as server:
            rows += part(server, sizes, yardstick)
            isolation, code = server.isolation(), server.code()
        if name in _HOW:
            notes.append(_HOW[name])
    notes.append(
        f"Torpor: {code}, isolation `{isolation}`, a new server for each part, freeze after every invocation, 0.2 ms "
        "of busy polling, one CPU for each environment if nothing else is said."
    )
    return rows


def _warm(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    server.deploy("echo", "handler.handler")
    one = measures.warm(server, "echo", 1, sizes.warm)
    eight = measures.warm(server, "echo", 8, sizes.warm)
    alive = len(server.environments("echo"))
    return [
        _time("warm, 1 caller, p50", one, 50, _times(WARM_SHARE, yardstick.warm), yardstick.warm, "µs"),
        _time("warm, 1 caller, p99", one, 99, None, yardstick.warm, "µs"),
        Row(
            what="8 callers, 8 environments",
            value=eight.rate,
            unit="/s",
            target=EIGHT_TIMES * yardstick.warm.rate or None,
            rule=f"{EIGHT_TIMES:g}x",
            more_is_better=True,
            beside=yardstick.warm.rate or None,
            note=f"{alive} environments served; p50 {eight.percentile(50) * 1e6:,.0f} µs, {eight.errors} errors; "
            f"eight emulators side by side, one caller each: {yardstick.eight.rate:,.0f}/s",
        ),
    ]


def _cold(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    server.deploy("cold", "handler.handler")
    outcome = measures.cold(server, "cold", sizes.cold)
    return [
        _time("cold start, p50", outcome, 50, _cold_target(yardstick.cold), yardstick.cold, "ms"),
        _time("cold start, p95", outcome, 95, COLD_P95, yardstick.cold, "ms"),
    ]


def _steady(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    server.deploy("steady", "handler.handler")
    outcome = measures.steadily(server, "steady", _RATE, sizes.steady)
    note = f"p50 {outcome.percentile(50) * 1e3:.1f} ms, {outcome.rate:,.0f}/s answered, {outcome.errors} errors"
    return [Row(what="p99 at 1,000/s", value=outcome.percentile(99) * 1e3, unit="ms", target=STEADY_P99, note=note)]


def _growth(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    server.deploy("growth", "handler.handler")
    before, after = measures.growth(server, "growth", sizes.growth)
    note = f"{before / _MIB:.1f} MiB before, {after / _MIB:.1f} MiB after"
    what = f"server's growth over {sizes.growth:,} invocations"
    return [Row(what=what, value=(after - before) / _MIB, unit="MiB", target=GROWTH, note=note)]


def _crowd(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    found = measures.crowd(server, sizes.crowd)
    made = (
        f"all made in {found.seconds:.1f} s by 8 callers; thawed answers p50 {found.again.percentile(50) * 1e3:.1f} ms"
    )
    return [
        Row(
            what=f"{found.wanted} environments, each answering again",
            value=float(min(found.same, found.alive)),
            unit="",
            target=float(found.wanted),
            more_is_better=True,
            note=made,
        ),
        Row(
            what="memory of an idle environment (PSS)",
            value=found.pss_each / _MIB,
            unit="MiB",
            target=IDLE_MEMORY,
            note=f"the host has {found.host_each / _MIB:.1f} MiB less for each",
        ),
    ]


_BESIDE_EMULATOR = {"warm", "cold"}
_PARTS: dict[str, Callable[[Server, Sizes, Yardstick], list[Row]]] = {
    "warm": _warm,
    "cold": _cold,
    "steady": _steady,
    "growth": _growth,
    "crowd": _crowd,
    "managed": managed,
    "relay": relay,
    "wake": wake,
    "zero": zero,
    "events": events,
    "queue": queue,
    "restore": restore,
    "extended": extended,
}
_FLAGS = {"restore": ("--single-use",)}
"""What the server of a part is told beside the rest."""
_HOW = {
    "managed": "Managed: the emulator's multi-concurrent mode (`AWS_LAMBDA_MAX_CONCURRENCY`), the same interpreter, "
    "client and handler; one environment with all CPUs of this machine; measured in turns, medians of all turns beside "
    "the lowest and highest. A refused caller asks again at once, on both sides.",
    "relay": "Relay: the same program, interpreter and files in a service (serverless, two CPUs) and outside, where "
    "nginx (one worker, kept connections, no access log) and the direct calls reach it; in turns. Load, relay and "
    "server share this machine's CPUs, which brings the rates closer together than they are: the CPU time of each "
    "relay is the steadier figure.",
    "zero": "From zero: the service has been ended for idleness; outside, the same files are started by Bash and asked "
    "every millisecond. Both have compiled Python files and warm file caches.",
}
"""What a reader must know of how a part is measured."""
_UNITS = {"µs": 1e6, "ms": 1e3}


def _time(what: str, own: Outcome, share: float, target: float | None, other: Outcome, unit: str) -> Row:
    beside = other.percentile(share) * _UNITS[unit] if other.latencies else None
    note = f"{own.errors} errors" if own.errors else ""
    return Row(
        what=what, value=own.percentile(share) * _UNITS[unit], unit=unit, target=target, beside=beside, note=note
    )


def _times(share: float, other: Outcome) -> float | None:
    return share * other.percentile(50) * 1e6 if other.latencies else None


def _cold_target(other: Outcome) -> float:
    return min(COLD_P50, COLD_SHARE * other.percentile(50) * 1e3) if other.latencies else COLD_P50


def _say(text: str) -> None:
    print(f"measuring {text} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

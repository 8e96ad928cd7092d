"""The stages of cold starts, as the server's own history tells them."""

from collections import defaultdict
from statistics import median

from bench.server import Server

_START = ("fetch", "start", "init")
_NAMES = {"fetch": "code", "start": "sandbox", "invoke": "first invocation"}


def stages(server: Server, function: str) -> str:
    """The median of each stage that a function's environments went through up to their first answer."""
    times: dict[str, list[float]] = defaultdict(list)
    for entry in server.phases(function):
        if entry["phase"] in _START or entry["cold"]:
            times[_NAMES.get(entry["phase"], entry["phase"])].append(entry["duration"])
    return ", ".join(f"{name} {median(durations) * 1e3:.1f} ms" for name, durations in times.items())

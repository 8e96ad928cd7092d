"""What two extensions cost a warm invocation: the same function without and with them, in turns."""

from pathlib import Path
from statistics import median

from bench import measures
from bench.report import Row
from bench.server import Server
from bench.sizes import Sizes
from bench.yardstick import Yardstick

TIMES = 1.3
"""Of the median without them."""
_SOURCE = Path(__file__).parent / "extensions" / "waits.py"


def extended(server: Server, sizes: Sizes, yardstick: Yardstick) -> list[Row]:
    """Each asks for its next event at once."""
    server.deploy("alone", "handler.handler")
    layer = server.publish_layer({f"extensions/{name}": _SOURCE.read_bytes() for name in ("first", "second")})
    server.deploy("accompanied", "handler.handler", layers=[layer])
    found: dict[str, list[float]] = {"alone": [], "accompanied": []}
    for _ in range(sizes.rounds):
        for name, medians in found.items():
            medians.append(measures.warm(server, name, 1, sizes.warm // sizes.rounds).percentile(50) * 1e6)
    without, beside = median(found["alone"]), median(found["accompanied"])
    return [
        Row(
            what="warm with two extensions, 1 caller, p50",
            value=beside,
            unit="µs",
            target=TIMES * without,
            rule=f"{TIMES:g}x",
            beside=without,
            yardstick="alone",
            note="beside: the same function without them; the next call waits until both have asked for more",
        )
    ]

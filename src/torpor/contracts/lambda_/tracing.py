"""Trace headers, and which invocations the platform records segments of (contract 7, row X-Ray).

`PassThrough` hands a header on as it came. `Active` puts the platform's own segment in between: its new id becomes the
parent that the function sees, and whether the trace is recorded is decided here if the caller has not decided it.
"""

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torpor.contracts.lambda_.identifiers import new_trace_root, random_digits

ACTIVE = "Active"
RESERVOIR = 1.0
"""Seconds in which the first undecided request is always recorded."""
RATE = 0.05
"""Share of the further ones that is."""
_ROOT = re.compile(r"1-[0-9a-f]{8}-[0-9a-f]{24}")
_SEGMENT = re.compile(r"[0-9a-f]{16}")
_FUNCTIONS_MAX = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceHeader:
    """The parts of a trace header. `sampled` is None if nobody has decided yet."""

    root: str = ""
    parent: str = ""
    sampled: bool | None = None
    lineage: str = ""

    @property
    def text(self) -> str:
        parts = [f"Root={self.root}"]
        if self.parent:
            parts.append(f"Parent={self.parent}")
        if self.sampled is not None:
            parts.append(f"Sampled={int(self.sampled)}")
        if self.lineage:
            parts.append(f"Lineage={self.lineage}")
        return ";".join(parts)


def read_trace(text: str) -> TraceHeader:
    """The parts of a header; those that are missing or malformed are left empty."""
    parts: Mapping[str, str] = {
        name.strip(): value.strip() for name, _, value in (part.partition("=") for part in text.split(";"))
    }
    root, parent = parts.get("Root", ""), parts.get("Parent", "")
    return TraceHeader(
        root=root if _ROOT.fullmatch(root) else "",
        parent=parent if _SEGMENT.fullmatch(parent) else "",
        sampled={"1": True, "0": False}.get(parts.get("Sampled", "")),
        lineage=parts.get("Lineage", ""),
    )


def new_trace(now: float) -> str:
    """A trace header for a request that came without one; `now` is in seconds since the epoch."""
    return f"Root={new_trace_root(now)};Parent={random_digits(16)};Sampled=0"


class Sampling:
    """Decides which invocations with active tracing are recorded: the first of a second, and a share of the others."""

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._taken: dict[str, float] = {}

    def step(self, given: str, function: str, now: float) -> tuple[str, str]:
        """The header to hand to the function, and the one before it if the invocation is recorded, else nothing.

        `given` is the caller's header or empty, `now` is in seconds since the epoch."""
        header = read_trace(given)
        sampled = self._decides(function, now) if header.sampled is None else header.sampled
        before = TraceHeader(
            root=header.root or new_trace_root(now),
            parent=header.parent if header.root else "",
            sampled=sampled,
            lineage=header.lineage,
        )
        own = TraceHeader(root=before.root, parent=random_digits(16), sampled=sampled, lineage=header.lineage)
        return own.text, before.text if sampled else ""

    def _decides(self, function: str, now: float) -> bool:
        if 0 <= now - self._taken.get(function, -RESERVOIR) < RESERVOIR:
            return self._chance() < RATE
        if len(self._taken) >= _FUNCTIONS_MAX:
            self._taken.clear()
        self._taken[function] = now
        return True

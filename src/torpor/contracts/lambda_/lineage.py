"""Functions that call themselves in a circle: told by the part of the trace header that counts (contract 10)."""

import hashlib
import re
from functools import lru_cache

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.tracing import read_trace

_NEWER = "1:"
_COUNTED = re.compile(r"([0-9A-Za-z]+):(\d{1,6})(?![0-9A-Za-z:])")


def stepped(trace: str, resource: str) -> str:
    """The header with this function counted once more; `resource` is its unqualified ARN. A header that carries no
    count begins one: it came from a call before this one."""
    header = read_trace(trace)
    if not header.root:
        return trace
    own, counts = _mark(resource), _counts(header.lineage)
    counts[own] = counts.get(own, 0) + 1
    lineage = _NEWER + "|".join(f"{mark}:{number}" for mark, number in counts.items())
    rest = ";".join(part for part in trace.split(";") if not part.strip().startswith("Lineage="))
    return f"{rest};Lineage={lineage}"


def is_circle(trace: str, resource: str) -> bool:
    """Has the function been called too often in this chain?"""
    return counted(trace, resource) >= limits.RECURSION_MAX


def counted(trace: str, resource: str) -> int:
    """How often the function has been called in this chain."""
    if "Lineage=" not in trace:
        return 0
    return _counts(read_trace(trace).lineage).get(_mark(resource), 0)


@lru_cache(maxsize=1024)
def _mark(resource: str) -> str:
    return hashlib.sha256(resource.encode()).hexdigest()[:8]


def _counts(lineage: str) -> dict[str, int]:
    return {mark: int(number) for mark, number in _COUNTED.findall(lineage.removeprefix(_NEWER))}

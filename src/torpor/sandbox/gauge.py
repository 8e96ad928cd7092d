"""What processes use, as `/proc` tells it: for rungs and hosts without control groups that count."""

import contextlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torpor.sandbox.port import SandboxStatistics

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What some processes use together."""

    resident: int = 0
    """Bytes now."""
    peak: int = 0
    """Bytes, the sum of each one's own peak."""
    cpu_seconds: float = 0.0


class Gauge:
    """The memory of one sandbox's processes, looked at now and then. Shared pages count once for each process."""

    def __init__(self) -> None:
        self.peak = 0
        """Bytes: the largest sum of the processes' own peaks that was seen."""

    def note(self, peak: int) -> None:
        """A process's own peak, told when it ended; in bytes."""
        self.peak = max(self.peak, peak)

    def look(self, pids: Sequence[int], cpu_of_ended: float = 0.0) -> SandboxStatistics:
        """What these living processes use; `cpu_of_ended`, in seconds, is added to their CPU time."""
        usage = measure(pids)
        self.note(usage.peak)
        return SandboxStatistics(
            memory_bytes=usage.resident,
            memory_peak_bytes=self.peak,
            cpu_seconds=cpu_of_ended + usage.cpu_seconds,
            processes=tuple(pids),
        )


def family(pids: Iterable[int]) -> list[int]:
    """These processes and all their living descendants."""
    found: dict[int, None] = {}
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found[pid] = None
            waiting.extend(_children(pid))
    return list(found)


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/children", "rb") as file:
                children += [int(number) for number in file.read().split()]
    return children


def measure(pids: Sequence[int]) -> Usage:
    """Read `/proc` for these processes; one that is gone counts nothing."""
    resident, peak = 0, 0
    for pid in pids:
        status = _status(pid)
        resident += status.get(b"VmRSS", 0)
        peak += status.get(b"VmHWM", 0)
    return Usage(resident=resident, peak=peak, cpu_seconds=sum(map(_cpu_seconds, pids)))


def _status(pid: int) -> dict[bytes, int]:
    """The memory lines of a process's status, in bytes."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return {}
    parts = [line.split() for line in lines if line.startswith(b"Vm")]
    return {part[0].rstrip(b":"): int(part[1]) * 1024 for part in parts}


def cpu_of_reaped(pid: int) -> float:
    """Seconds of CPU that the children used which this process has waited for, with theirs."""
    return sum(_times(pid)[2:])


def _cpu_seconds(pid: int) -> float:
    return sum(_times(pid))


def _times(pid: int) -> list[float]:
    """User and system time, its own, then that of children it has waited for: fields 14 to 17 of proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return []
    return [int(field) / TICKS for field in fields[11:15]]

"""One started process, and what `/proc` says about it and its descendants."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to execute, in host terms."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    cwd: str
    output: int
    """Descriptor for stdout and stderr."""
    inherited: tuple[int, ...] = ()
    files: int = 1024


class PlainProcess:
    """A session leader, watched through its process descriptor."""

    def __init__(self, name: str, process: "subprocess.Popen[bytes]") -> None:
        self.name = name
        self.pid = process.pid
        self.exit_code: int | None = None
        """The exit status, or minus the signal's number; None while it runs."""
        self.cpu_seconds = 0.0
        """What it and its reaped children used, once it is reaped."""
        self._process = process
        self._handle = os.pidfd_open(process.pid)

    def watch(self, loop: asyncio.AbstractEventLoop, ended: Callable[["PlainProcess"], None]) -> None:
        """Reap the process when it ends, then call `ended` from the loop."""

        def reap() -> None:
            loop.remove_reader(self._handle)
            self._reap()
            ended(self)

        loop.add_reader(self._handle, reap)

    def _reap(self) -> None:
        os.close(self._handle)
        _, status, usage = os.wait4(self.pid, 0)
        self.exit_code = self._process.returncode = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime

    def signal_group(self, number: int) -> None:
        """Signal the process and its group, if it still runs."""
        if self.exit_code is None:
            with contextlib.suppress(OSError):
                os.killpg(self.pid, number)


def spawn(name: str, command: Command) -> PlainProcess:
    """Execute a command as the leader of a new session. Raises OSError or ValueError if it cannot be executed."""
    process = subprocess.Popen(
        command.argv,
        cwd=command.cwd,
        env=command.environment,
        stdin=subprocess.DEVNULL,
        stdout=command.output,
        stderr=command.output,
        pass_fds=command.inherited,
        start_new_session=True,
    )
    _limit_files(process.pid, command.files)
    return PlainProcess(name, process)


def _limit_files(pid: int, files: int) -> None:
    # No thread-safe moment before exec is open to us, so the limit follows a few microseconds later.
    with contextlib.suppress(OSError, ValueError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, most))


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


def outside_groups(pids: Iterable[int], groups: Iterable[int]) -> list[int]:
    """Those of the processes that are in none of the groups."""
    known = set(groups)
    return [pid for pid in pids if _group(pid) not in known]


def _group(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return -1


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Signal each process that still runs."""
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What some processes use together."""

    resident: int = 0
    """Bytes now."""
    peak: int = 0
    """Bytes, the sum of each one's own peak."""
    cpu_seconds: float = 0.0


def measure(pids: Sequence[int]) -> Usage:
    """Read `/proc` for these processes; one that is gone counts nothing. Shared pages count once for each process."""
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


def _cpu_seconds(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    # User and system time, its own and that of children it has waited for: fields 14 to 17 of proc(5).
    return sum(map(int, fields[11:15])) / TICKS

"""Processes of the server's own user: one started, and signals to those it left behind."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass


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

"""What one environment occupies on the host, noted while it lives and looked for when it should be gone."""

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.server import Function, TorporServer, eventually

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Processes by pid and start time, control groups, and the loop devices of `/tmp` with the files behind them."""

    processes: frozenset[tuple[int, str]]
    groups: frozenset[Path]
    loops: frozenset[tuple[Path, str]]

    def processes_left(self) -> list[int]:
        return sorted(pid for pid, started in self.processes if _started(pid) == started)

    def left(self) -> list[str]:
        """Everything of it that is still there."""
        loops = [f"{device} with {file}" for device, file in self.loops if _text(device) == file]
        groups = [f"group {group}" for group in self.groups if group.is_dir()]
        return [*(f"process {pid}" for pid in self.processes_left()), *groups, *loops]


def footprint(function: Function) -> Footprint:
    """What the environments of a function occupy now; fails if they have no process."""
    pids = [pid for entry in function.environments() for pid in entry["pids"]]
    if not pids and not function.environments()[0]["memory_bytes"]:
        pytest.skip("without control groups the server cannot list a sandbox's processes")
    assert pids, "there is no process to look for"
    return Footprint(
        processes=frozenset((pid, _started(pid)) for pid in pids),
        groups=frozenset(_groups(function.server, pids)),
        loops=frozenset(loop for pid in pids for loop in _loops(pid)),
    )


def wait_until_gone(noted: Iterable[Footprint], *, within: float = 10.0) -> None:
    """Fail if anything of the footprints is left after `within` seconds."""
    kept = list(noted)
    left: list[str] = []

    def gone() -> bool:
        left[:] = [item for one in kept for item in one.left()]
        return not left

    eventually(gone, within=within, what=f"the end of {left}")


def memory_of(pid: int) -> int:
    """Bytes of memory that a process holds now."""
    fields = dict(line.split(":", 1) for line in _text(Path(f"/proc/{pid}/status")).splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) * 1024


def descriptors_of(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def _groups(server: TorporServer, pids: Iterable[int]) -> set[Path]:
    wanted = {str(pid) for pid in pids}
    found = set()
    for folder, _, files in os.walk(_CONTROL_GROUPS):
        if "cgroup.procs" in files and any(home in folder for home in server.homes):
            members = set(_text(Path(folder, "cgroup.procs")).split())
            if members & wanted:
                found.add(Path(folder))
    return found


def _loops(pid: int) -> set[tuple[Path, str]]:
    devices = {
        Path(line.rpartition(" - ")[2].split()[1]).name
        for line in _text(Path(f"/proc/{pid}/mountinfo")).splitlines()
        if line.split()[4] == "/tmp"
    }
    backing = [Path(f"/sys/block/{name}/loop/backing_file") for name in devices if name.startswith("loop")]
    return {(path, _text(path)) for path in backing}


def _started(pid: int) -> str:
    stat = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return "" if not stat or stat[0] == "Z" else stat[19]


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(errors="replace")
    return ""

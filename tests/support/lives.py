"""Several lives of a server with one data folder: killed, ended or replaced, and what each of them left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.server import TorporServer, eventually

PATIENCE = 5.0
"""Seconds after which nothing of a killed server may run any more."""
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_LOOPS = Path("/sys/block")


class Lives:
    """One data folder and the servers that use it one after another. `close` kills those that still run."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.data = base / "data"
        self._servers: list[TorporServer] = []

    def start(self, **settings: object) -> TorporServer:
        """A server on the data folder. Fails if anything of an earlier life is left once it serves."""
        earlier = [home for server in self._servers for home in server.homes]
        server = TorporServer(self.base / f"life-{len(self._servers)}", **{"data": self.data, **settings})
        server.data = self.data
        server.homes = [folder.name for folder in self._homes() if folder.name not in earlier]
        self._servers.append(server)
        eventually(lambda: not self.left_of(earlier), within=PATIENCE, what=f"clearing {self.left_of(earlier)}")
        return server

    def kill(self, server: TorporServer) -> None:
        """SIGKILL; fails if a process below it outlives it."""
        family = descendants(server.process.pid)
        server.process.kill()
        server.process.wait()
        self._release(server)
        wait_until_ended(family)

    def terminate(self, server: TorporServer, number: int = signal.SIGTERM) -> int:
        """Tell it to stop; the exit code. Fails if anything but the data is left."""
        family = descendants(server.process.pid)
        server.process.send_signal(number)
        code = server.process.wait(60)
        self._release(server)
        wait_until_ended(family)
        left = [*self.left_of(server.homes), *(str(path) for path in (server.base / "tmp").iterdir())]
        assert not left, f"left behind: {left}"
        return code

    def left_of(self, homes: list[str]) -> list[str]:
        """Control groups, mounts, loop devices and folders of these lives."""
        found = []
        for _, folders, _ in os.walk(_CONTROL_GROUPS) if homes else ():
            found += [f"control group {name}" for name in folders if any(home in name for home in homes)]
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            found += [f"mount {line}" for home in homes if home in line]
        for backing in _LOOPS.glob("loop*/loop/backing_file"):
            found += [f"loop device {backing}" for home in homes if home in text_of(backing)]
        return found + [f"folder {folder}" for folder in self._homes() if folder.name in homes]

    def errors_of(self, server: TorporServer) -> str:
        """What a server wrote to its error output."""
        return (server.base / "errors.txt").read_text(errors="replace")

    def close(self) -> None:
        """End what still runs."""
        for server in self._servers:
            if server.process.poll() is None:
                self.terminate(server)

    def _homes(self) -> list[Path]:
        return [folder for folder in (self.data / "sandboxes").glob("linux-*") if folder.is_dir()]

    def _release(self, server: TorporServer) -> None:
        server.client.close()
        assert server.process.stdout is not None
        server.process.stdout.close()


@contextmanager
def lives(base: Path) -> Iterator[Lives]:
    """A data folder for several lives; nothing runs afterwards."""
    made = Lives(base)
    try:
        yield made
    finally:
        made.close()


def refused(*flags: str, within: float = 30.0, prefix: tuple[str, ...] = ()) -> str:
    """What `torpor serve` writes to its error output when it does not start; fails if it does, or is long-winded."""
    command = [*prefix, sys.executable, "-m", "torpor", "serve", "--port=0", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TORPOR_")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=within, env=environment)
    assert done.returncode not in (0, -signal.SIGKILL), done.stdout
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def descendants(parent: int) -> dict[int, str]:
    """Every process below `parent`, with the time it was started."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _fields(int(folder.name))
        if fields:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found: dict[int, str] = {}
    waiting = [parent]
    while waiting:
        for child in children.get(waiting.pop(), ()):
            found[child] = started(child)
            waiting.append(child)
    return found


def children(parent: int) -> dict[int, str]:
    """The direct children of a process, with their command lines."""
    mine = [pid for pid in descendants(parent) if (fields := _fields(pid)) and int(fields[1]) == parent]
    return {pid: text_of(Path(f"/proc/{pid}/cmdline")).replace("\0", " ") for pid in mine}


def started(pid: int) -> str:
    """When a process was started; empty if there is none, or only its exit code is left."""
    fields = _fields(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def wait_until_ended(family: dict[int, str]) -> None:
    """Fail if one of these processes still runs after a short while."""

    def running() -> list[str]:
        pids = [pid for pid, since in family.items() if since and started(pid) == since]
        return [f"{pid} {text_of(Path(f'/proc/{pid}/cmdline'))}" for pid in pids]

    deadline = time.monotonic() + PATIENCE
    while left := running():
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.02)


def text_of(path: Path) -> str:
    """What a file holds; nothing if it is gone."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _fields(pid: int) -> list[str]:
    return text_of(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()

"""Death of a keeper, a launcher or the server: nothing is left, and nothing of another server is touched."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from tests.support.linux_sandbox import images, is_root, open_linux, places, run_shell, shell
from tests.support.sandboxes import TICK, alive

from torpor.sandbox.linux import LinuxProvider
from torpor.sandbox.linux.home import GROUP_PREFIX

pytestmark = [pytest.mark.privileged, pytest.mark.skipif(not is_root(), reason="needs root")]
REPOSITORY = Path(__file__).parents[2]
PATIENCE = 10.0

SERVER = """
import asyncio, sys
from pathlib import Path
from tests.support.linux_sandbox import PROVIDED, Linux, images, shell
from tests.support.listener import RecordingListener
from torpor.sandbox.linux import LinuxProvider

async def main(folder):
    provider = LinuxProvider(str(folder / "state"), str(folder / "code"), images(), prepared_target=1)
    await provider.open()
    linux = Linux(provider, folder)
    for frozen in (False, True):
        sandbox, listener = await linux.make()
        sandbox.start(shell("setsid sleep 600 & sleep 600 & echo up; wait"))
        await listener.wait_text("up")
        print(*sandbox.statistics().processes)
        if frozen:
            sandbox.freeze()
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1])))
"""


@contextmanager
def server(folder: Path) -> Iterator[tuple["subprocess.Popen[str]", list[int], list[int]]]:
    """A server with two sandboxes, one frozen: its process, the processes inside, and its launchers and keepers."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'src'}"}
    command = [sys.executable, "-c", SERVER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as started:
        try:
            assert started.stdout is not None
            inside: list[int] = []
            for line in started.stdout:
                if line == "ready\n":
                    break
                inside += map(int, line.split())
            yield started, inside, descendants(started.pid)
        finally:
            started.kill()


def descendants(pid: int) -> list[int]:
    """All processes started by this one, directly or not."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
    found = [pid]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found[1:]


def eventually(what: Callable[[], bool]) -> bool:
    """Whether this comes true within a while."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def groups(folder: Path) -> list[str]:
    """Control groups of servers whose state folder this is."""
    names = [entry.name for entry in (folder / "state").glob("linux-*") if entry.is_dir()]
    return [at for at, _, _ in os.walk("/sys/fs/cgroup") for name in names if f"{GROUP_PREFIX}{name}" in at]


def loops(folder: Path) -> list[str]:
    """Loop devices backed by a file below this folder."""
    files = Path("/sys/block").glob("loop*/loop/backing_file")
    return [str(file) for file in files if str(folder) in file.read_text()]


async def test_server_killed_everything_ends_by_itself() -> None:
    with places() as folder, server(folder) as (process, inside, below):
        assert len(inside) >= 6
        assert groups(folder)
        process.kill()
        process.wait()
        assert eventually(lambda: not any(map(alive, inside + below)))
        assert eventually(lambda: not groups(folder))
        assert eventually(lambda: not loops(folder))


async def test_server_and_stopped_launcher_killed_the_next_open_clears_up() -> None:
    with places() as folder:
        with server(folder) as (process, inside, below):
            launchers = [pid for pid in below if pid in children(process.pid)]
            for pid in launchers:
                os.kill(pid, signal.SIGSTOP)
            process.kill()
            process.wait()
            assert groups(folder)
            old = sorted((folder / "state").glob("linux-*/"))
            async with open_linux_at(folder):
                assert eventually(lambda: not any(map(alive, inside + below)))
                assert not any(path.exists() for path in old if path.is_dir())
        assert not groups(folder)


async def test_live_server_is_not_touched_by_another_with_the_same_folder() -> None:
    with places() as folder, server(folder) as (process, inside, below):
        async with open_linux_at(folder) as provider:
            assert provider.statistics().live == 0
        assert all(map(alive, inside + below))
        assert process.poll() is None


async def test_keeper_killed_the_death_is_told_once_and_calls_are_calm() -> None:
    async with open_linux() as linux:
        sandbox, listener = await linux.make()
        sandbox.start(shell("echo up; sleep 600"))
        await listener.wait_text("up")
        inside = sandbox.statistics().processes
        os.kill(parent(inside[0]), signal.SIGKILL)
        await listener.wait_for(lambda: listener.deaths)
        sandbox.start(shell("true"))
        sandbox.kill_all()
        sandbox.freeze()
        sandbox.thaw()
        sandbox.drain_output()
        await sandbox.destroy()
        assert len(listener.deaths) == 1
        assert listener.exits == []
        assert not any(map(alive, inside))


async def test_launcher_killed_sandboxes_die_and_the_next_create_works() -> None:
    async with open_linux() as linux:
        sandbox, listener = await linux.make()
        sandbox.start(shell("echo up; sleep 600"))
        await listener.wait_text("up")
        os.kill(parent(parent(sandbox.statistics().processes[0])), signal.SIGKILL)
        await listener.wait_for(lambda: listener.deaths)
        other, others = await linux.make()
        assert await run_shell(other, others, "echo works") == "works\n"


async def test_provider_closed_nothing_is_left() -> None:
    others = set(descendants(os.getpid()))
    with places() as folder:
        async with open_linux_at(folder) as provider:
            await provider.warm("provided.al2023")
            made = set(descendants(os.getpid())) - others
            assert made
        assert not any(map(alive, made))
        assert groups(folder) == []
        assert loops(folder) == []
        assert [path.name for path in (folder / "state").iterdir()] == ["linux.lock"]


@pytest.mark.parametrize("moment", [0.0, 0.02, 0.1, 0.3])
async def test_provider_closed_while_it_prepares_nothing_is_left(moment: float) -> None:
    others = set(descendants(os.getpid()))
    runtimes = images().present()
    with places() as folder:
        async with open_linux_at(folder) as provider:
            warming = [
                asyncio.create_task(provider.warm(runtime, restored=restored))
                for runtime in runtimes
                for restored in (False, True)
            ]
            await asyncio.sleep(moment)
        await asyncio.gather(*warming, return_exceptions=True)
        assert set(descendants(os.getpid())) <= others
        assert groups(folder) == []
        assert [path.name for path in (folder / "state").iterdir()] == ["linux.lock"]


def children(pid: int) -> list[int]:
    return [child for child in descendants(pid) if parent(child) == pid]


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@asynccontextmanager
async def open_linux_at(folder: Path) -> AsyncIterator[LinuxProvider]:
    """An open provider with its state in an existing folder."""
    provider = LinuxProvider(str(folder / "state"), str(folder / "code"), images(), prepared_target=1)
    await provider.open()
    try:
        yield provider
    finally:
        await provider.close()

"""What only the `process` rung promises: death with its server, clean-up after a crash, host paths."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop
from tests.support.listener import RecordingListener
from tests.support.sandboxes import RUNTIME, TICK, Workplace, make_provider, process

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.gauge import family
from torpor.sandbox.plain import guard
from torpor.sandbox.plain.folders import PathTranslation, merge_layers
from torpor.sandbox.port import ProcessSpec, SandboxSpec

SERVER = """
import asyncio, sys
from torpor.sandbox.images import ImageCatalog
from torpor.sandbox.plain import PlainProvider
from torpor.sandbox.port import ProcessSpec, SandboxSpec

class Listener:
    def process_exited(self, exit): print("exit", exit, flush=True)
    def output(self, stream, data): print(data.decode(), end="", flush=True)
    def worker_output(self, connection, data): print(connection, data.decode(), flush=True)
    def worker_closed(self, connection): print("closed", connection, flush=True)
    def sandbox_died(self, reason): print("died", reason, flush=True)

async def serve(state, code):
    provider = PlainProvider(state, ImageCatalog(state + "/runtimes", ()))
    await provider.open()
    sandbox = await provider.create(SandboxSpec(name="box", runtime="provided.al2023", code=code), Listener())
    loose = "setsid sh -c 'echo loose $$; exec sleep 300' & echo leader $$; exec sleep 300"
    sandbox.start(ProcessSpec(name="runtime", argv=("/bin/sh", "-c", loose), environment={"PATH": "/usr/bin:/bin"}))
    await asyncio.sleep(300)

asyncio.run(serve(*sys.argv[1:]))
"""
PATIENCE = 10.0


class Server:
    """A server in a process of its own, with one sandbox and two processes in different sessions."""

    def __init__(self, place: Workplace) -> None:
        source = Path(__file__).parents[2] / "src"
        command = [sys.executable, "-c", SERVER, str(place.state), str(place.code)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(source)}, text=True)
        assert self.process.stdout is not None
        words = [self.process.stdout.readline().split() for _ in range(2)]
        self.inside = [int(number) for _, number in words]
        self.folder = next(place.state.glob("plain-*"))

    def guard_pid(self) -> int:
        own = family([self.process.pid])
        return next(pid for pid in own if b"guard.py" in Path(f"/proc/{pid}/cmdline").read_bytes())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def server(place: Workplace) -> Iterator[Server]:
    started = Server(place)
    yield started
    started.kill()
    for pid in started.inside:
        if guard.identity(pid):
            os.kill(pid, signal.SIGKILL)


def wait_until_gone(pids: list[int], folder: Path | None = None) -> None:
    last = time.monotonic() + PATIENCE
    while any(guard.identity(pid) for pid in pids) or (folder is not None and folder.exists()):
        assert time.monotonic() < last, f"left behind: {pids} {folder}"
        time.sleep(0.01)


def test_server_killed_its_processes_end_and_its_folder_goes(server: Server) -> None:
    assert all(guard.identity(pid) for pid in server.inside)
    server.kill()
    wait_until_gone(server.inside, server.folder)


async def test_server_and_guard_killed_the_next_open_cleans_up(server: Server, place: Workplace) -> None:
    # Without its guard nobody notices the server's death at once.
    watching = server.guard_pid()
    os.kill(watching, signal.SIGKILL)
    wait_until_gone([watching])
    server.kill()
    assert all(guard.identity(pid) for pid in server.inside)
    provider = make_provider("plain", place)
    await provider.open()
    await provider.close()
    wait_until_gone(server.inside, server.folder)


async def test_open_beside_a_live_server_leaves_it_alone(server: Server, place: Workplace) -> None:
    provider = make_provider("plain", place)
    await provider.open()
    await provider.close()
    assert all(guard.identity(pid) for pid in server.inside)
    assert server.folder.is_dir()


async def test_child_in_a_session_of_its_own_is_frozen_and_killed(place: Workplace) -> None:
    provider = make_provider("plain", place)
    await provider.open()
    try:
        listener = RecordingListener()
        sandbox = await provider.create(SandboxSpec(name="box", runtime=RUNTIME, code=str(place.code)), listener)
        script = f"setsid /var/task/ticks & while :; do sleep {TICK}; done"
        script = script.replace("/var/task", sandbox.paths["task"])
        sandbox.start(ProcessSpec(name="r", argv=("/bin/sh", "-c", script), environment={"PATH": "/usr/bin:/bin"}))
        await listener.wait_text("tick 2\n")
        sandbox.freeze()
        await asyncio.sleep(0.05)
        sandbox.drain_output()
        before = listener.text
        await asyncio.sleep(5 * TICK)
        sandbox.drain_output()
        assert listener.text == before
        sandbox.thaw()
        await listener.wait_for(lambda: len(listener.text) > len(before))
        sandbox.kill_all()
        await listener.wait_exit("r")
        await asyncio.sleep(0.05)
        assert guard.find(str(place.state), ()) == []
    finally:
        await provider.close()


def test_on_uvloop_output_and_exit_are_told(place: Workplace) -> None:
    async def run() -> RecordingListener:
        provider = make_provider("plain", place)
        await provider.open()
        listener = RecordingListener()
        sandbox = await provider.create(SandboxSpec(name="box", runtime=RUNTIME, code=str(place.code)), listener)
        sandbox.start(process(sandbox, "hello"))
        await listener.wait_exit("runtime")
        sandbox.start(process(sandbox, "ticks", name="ticks"))
        await listener.wait_text("tick 1\n")
        await provider.close()
        return listener

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        listener = runner.run(run())
    assert listener.text.startswith("one\ntwo\nthree\n")
    assert [exit.code for exit in listener.exits] == [0]


async def test_provider_not_open_refuses(place: Workplace) -> None:
    provider = make_provider("plain", place)
    with pytest.raises(SandboxUnavailable):
        await provider.create(SandboxSpec(name="box", runtime=RUNTIME, code=str(place.code)), RecordingListener())


async def test_name_in_use_is_refused_and_the_first_one_lives_on(place: Workplace) -> None:
    provider = make_provider("plain", place)
    await provider.open()
    try:
        spec, listener = SandboxSpec(name="box", runtime=RUNTIME, code=str(place.code)), RecordingListener()
        sandbox = await provider.create(spec, listener)
        with pytest.raises(SandboxUnavailable):
            await provider.create(spec, RecordingListener())
        sandbox.start(process(sandbox, "hello"))
        assert (await listener.wait_exit("runtime")).code == 0
    finally:
        await provider.close()


SAME = "unchanged"
PATHS = {"task": "/tmp/state/code", "opt": "/tmp/state/opt", "runtime": "/r", "lang": "/usr", "tmp": "/tmp/state/tmp"}


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("/var/task", "/tmp/state/code"),
        ("/var/task/app.py", "/tmp/state/code/app.py"),
        ("/var/taskforce", "/var/taskforce"),
        ("/var/lang/bin/python3.12", "/usr/bin/python3.12"),
        ("/tmp/x", "/tmp/state/tmp/x"),
        ("/tmp/state/code/app.py", "/tmp/state/code/app.py"),
        ("--file=/tmp/x", "--file=/tmp/state/tmp/x"),
        (
            "cd /var/task && exec '/opt/bin/run' >/tmp/log",
            "cd /tmp/state/code && exec '/tmp/state/opt/bin/run' >/tmp/state/tmp/log",
        ),
        ("/opt/a:/usr/lib:/opt", "/tmp/state/opt/a:/usr/lib:/tmp/state/opt"),
        ('curl http://host:80/tmp $HOME/tmp ${X}/opt "$X"/opt ./tmp -I/opt /tmp.d', SAME),
        ("", ""),
    ],
)
def test_path_translation_moves_fixed_paths_and_leaves_host_paths(value: str, host: str) -> None:
    assert PathTranslation(PATHS).translate(value) == (value if host is SAME else host)


@pytest.mark.parametrize(
    ("given", "told"),
    [({}, "/tmp/state/tmp"), ({"TMPDIR": "/tmp/mine"}, "/tmp/state/tmp/mine"), ({"TMPDIR": "/mnt"}, "/mnt")],
)
def test_environment_tmpdir_is_private_unless_it_names_its_own_place(given: dict[str, str], told: str) -> None:
    found = PathTranslation(PATHS).translate_environment({"A": "/tmp", **given}, PATHS["tmp"])
    assert found == {"A": "/tmp", "TMPDIR": told}


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("PYTHONPATH", "/code/lib:/mnt/lib:/opt/python", "/tmp/state/code/lib:/mnt/lib:/tmp/state/opt/python"),
        ("HOME", "/tmp", "/tmp/state/tmp"),
        ("HOME", "/root", "/tmp/state/tmp"),
        ("HOME", "/home/ada", "/home/ada"),
        ("SCRIPT_NAME", "/code", "/code"),
    ],
)
def test_environment_places_that_programs_are_searched_by_are_moved(name: str, given: str, told: str) -> None:
    found = PathTranslation(PATHS, "/code").translate_environment({name: given}, PATHS["tmp"])
    assert found == {name: told, "TMPDIR": PATHS["tmp"]}


def test_merge_layers_files_folders_and_links_the_later_one_wins(tmp_path: Path) -> None:
    first, second, merged = (tmp_path / name for name in ("first", "second", "merged"))
    (first / "lib").mkdir(parents=True)
    (first / "lib" / "kept").write_text("kept")
    (first / "folder-then-file").mkdir()
    (first / "file-then-folder").write_text("file")
    (first / "link").symlink_to("lib/kept")
    (second / "lib").mkdir(parents=True)
    (second / "folder-then-file").write_text("file")
    (second / "file-then-folder").mkdir()
    (second / "link").symlink_to("elsewhere")
    merge_layers([str(first), str(second)], str(merged))
    assert (merged / "lib" / "kept").read_text() == "kept"
    assert (merged / "folder-then-file").read_text() == "file"
    assert (merged / "file-then-folder").is_dir()
    assert os.readlink(merged / "link") == "elsewhere"
    assert (first / "file-then-folder").read_text() == "file"


def test_remove_tree_folder_its_owner_cannot_write_goes_too(tmp_path: Path) -> None:
    locked = tmp_path / "box" / "locked"
    locked.mkdir(parents=True)
    (locked / "file").write_text("")
    locked.chmod(0o500)
    guard.remove_tree(str(tmp_path / "box"))
    assert not (tmp_path / "box").exists()

"""The sandbox port's promises, asked of every rung."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from tests.support.listener import RecordingListener
from tests.support.sandboxes import BASIC_ENVIRONMENT, BIG, HELD, TICK, process

from torpor.model.errors import RuntimeMissing
from torpor.sandbox.port import Isolation, ProcessExit, ProcessSpec, Sandbox, SandboxStatistics, Stream

SETTLE = 0.05
"""Seconds in which a stop has certainly taken effect and what was under way has been written."""
WHILE = 0.2
"""Seconds in which a running program would certainly have made progress."""
MIB = 1024 * 1024


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def host_pids(rig, sandbox: Sandbox) -> tuple[int, ...]:
    """Process numbers that mean something to this host."""
    return () if rig.rung == "memory" else sandbox.statistics().processes


def leftovers(rig, name: str) -> list[str]:
    """Folders and cgroups that carry a sandbox's name."""
    roots = (rig.place.state, Path("/sys/fs/cgroup"))
    return [str(path) for root in roots for path in root.rglob(f"*{name}*")]


async def progress(sandbox: Sandbox, listener: RecordingListener, during: float = WHILE) -> int:
    """Bytes written during this time by programs that tick."""
    sandbox.drain_output()
    before = len(listener.text)
    await asyncio.sleep(during)
    sandbox.drain_output()
    return len(listener.text) - before


# Starting, output, exits


async def test_program_that_writes_and_ends_output_is_whole_in_order_and_before_the_exit(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "hello"))
    exit = await listener.wait_exit("runtime")
    assert exit == ProcessExit(name="runtime", code=0)
    assert listener.text == "one\ntwo\nthree\n"
    assert listener.log[-1] == exit


async def test_output_beyond_the_pipe_size_arrives_whole_in_small_pieces(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "big"))
    assert (await listener.wait_exit("runtime")).code == 0
    assert listener.text == "x" * BIG
    assert listener.largest <= 64 * 1024


async def test_program_that_fails_its_exit_status_is_told(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "exit-7"))
    assert await listener.wait_exit("runtime") == ProcessExit(name="runtime", code=7)


async def test_program_ended_by_a_signal_the_signal_is_told(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "kill-self"))
    assert await listener.wait_exit("runtime") == ProcessExit(name="runtime", signal=signal.SIGKILL)


@pytest.mark.parametrize("program", ["missing", "not-executable"])
async def test_program_that_cannot_be_started_the_reason_is_told_later(rig, program: str) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, program))
    assert listener.log == []
    exit = await listener.wait_exit("runtime")
    assert exit.start_error
    assert (exit.code, exit.signal, exit.out_of_memory) == (None, None, False)
    assert listener.log == [exit]


async def test_program_named_by_its_fixed_path_is_found(rig) -> None:
    sandbox, listener = await rig.make()
    spec = ProcessSpec(name="runtime", argv=("/var/task/hello",), environment=BASIC_ENVIRONMENT)
    sandbox.start(spec)
    await listener.wait_exit("runtime")
    assert listener.text == "one\ntwo\nthree\n"


async def test_several_processes_at_once_each_exit_is_told_once(rig) -> None:
    sandbox, listener = await rig.make()
    for name in ("one", "two", "three"):
        sandbox.start(process(sandbox, "exit-7", name=name))
    for name in ("one", "two", "three"):
        assert (await listener.wait_exit(name)).code == 7
    assert len(listener.exits) == 3


async def test_framed_log_pipe_arrives_as_its_own_stream(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "frames", log="LOG_FD"))
    assert (await listener.wait_exit("runtime")).code == 0
    assert bytes(listener.data[Stream.FRAMED]) == b"frame-1frame-2"
    assert listener.text == "plain"


async def test_drain_output_what_is_written_is_told_before_it_returns(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 1\n")
    sandbox.freeze()
    await asyncio.sleep(SETTLE)
    sandbox.drain_output()
    told = len(listener.log)
    sandbox.drain_output()
    assert len(listener.log) == told


# What a process finds inside


async def test_environment_is_exactly_what_was_given(rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SECRET", "not for functions")
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "environment", FIRST="1", EMPTY=""))
    await listener.wait_exit("runtime")
    found = dict(entry.split("=", 1) for entry in listener.text.split("\0") if entry)
    expected = {**BASIC_ENVIRONMENT, "FIRST": "1", "EMPTY": ""}
    if rig.provider.isolation is Isolation.PROCESS:
        expected["TMPDIR"] = sandbox.paths["tmp"]
    assert found == expected


async def test_code_folder_is_visible_and_the_working_folder(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "where", name="list", FOLDER=sandbox.paths["task"]))
    await listener.wait_exit("list")
    assert {"hello", "message"} <= set(listener.text.split())
    sandbox.start(process(sandbox, "cwd", name="cat"))
    await listener.wait_exit("cat")
    assert listener.text.endswith("from the code folder\n")


async def test_code_folder_of_an_isolated_sandbox_cannot_be_written(rig) -> None:
    if rig.provider.isolation is Isolation.PROCESS:
        pytest.skip("this rung does not isolate")
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "write-code", TASK_AT=sandbox.paths["task"]))
    await listener.wait_exit("runtime")
    assert listener.text == "refused\n"
    assert not (rig.place.code / "intruder").exists()


async def test_layers_later_ones_win(rig) -> None:
    if rig.rung == "memory":
        pytest.skip("memory programs have no /opt")
    layers = [rig.place.code_root / name for name in ("layer-1", "layer-2")]
    for layer in layers:
        (layer / "lib").mkdir(parents=True)
        (layer / "message").write_text(f"{layer.name}\n")
        (layer / "lib" / f"only-{layer.name}").write_text("")
    sandbox, listener = await rig.make(layers=tuple(map(str, layers)))
    opt = sandbox.paths["opt"]
    show = ("/bin/sh", "-c", f"cat {opt}/message; ls {opt}/lib")
    sandbox.start(ProcessSpec(name="runtime", argv=show, environment=BASIC_ENVIRONMENT))
    await listener.wait_exit("runtime")
    assert listener.text.split() == ["layer-2", "only-layer-1", "only-layer-2"]
    assert (layers[0] / "message").read_text() == "layer-1\n"


async def test_tmp_survives_kill_all_and_is_private(rig) -> None:
    sandbox, listener = await rig.make()
    other, other_listener = await rig.make()
    tmp = sandbox.paths["tmp"]
    sandbox.start(process(sandbox, "write-tmp", name="write", TMP_AT=tmp, WORD="kept"))
    await listener.wait_text("written\n")
    sandbox.kill_all()
    await listener.wait_exit("write")
    sandbox.start(process(sandbox, "read-tmp", name="read", TMP_AT=tmp))
    await listener.wait_exit("read")
    assert listener.text == "written\nkept\n"
    other.start(process(other, "read-tmp", TMP_AT=other.paths["tmp"]))
    await other_listener.wait_exit("runtime")
    assert other_listener.text == "nothing\n"


async def test_api_socket_answers_a_process_inside_at_its_address(rig) -> None:
    sandbox, listener = await rig.make()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ping = await reader.readexactly(4)
        writer.write(b"answer to " + ping + b"\n")
        await writer.drain()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(answer, sock=sandbox.api_socket)
    try:
        sandbox.start(process(sandbox, "call-api", API=sandbox.api_address))
        await listener.wait_exit("runtime")
        assert listener.text == "answer to ping\n"
    finally:
        server.close()
        await server.wait_closed()


async def test_open_files_are_limited_as_asked(rig) -> None:
    sandbox, listener = await rig.make(files=77)
    sandbox.start(process(sandbox, "files-limit"))
    await listener.wait_exit("runtime")
    assert listener.text == "77\n"


# Freezing


async def test_freeze_stops_progress_and_thaw_lets_it_go_on(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 3\n")
    sandbox.freeze()
    sandbox.freeze()
    await asyncio.sleep(SETTLE)
    assert await progress(sandbox, listener) == 0
    reached = listener.text.split()[-1]
    sandbox.thaw()
    sandbox.thaw()
    await listener.wait_text(f"tick {int(reached) + 3}\n")
    assert listener.exits == []


async def test_freeze_stops_children_too(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "forker"))
    await listener.wait_text("child")
    sandbox.freeze()
    await asyncio.sleep(SETTLE)
    assert await progress(sandbox, listener) == 0
    sandbox.thaw()
    children = listener.text.count("child")
    await listener.wait_for(lambda: listener.text.count("child") > children)


async def test_freeze_and_thaw_again_and_again_loses_nothing(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 1\n")
    for _ in range(20):
        sandbox.freeze()
        await asyncio.sleep(0.002)
        sandbox.thaw()
        await asyncio.sleep(0.002)
    count = listener.text.count("\n")
    await listener.wait_text(f"tick {count + 2}\n")
    assert listener.text == "".join(f"tick {n}\n" for n in range(1, listener.text.count("\n") + 1))


async def test_one_sandbox_frozen_another_runs_on(rig) -> None:
    sandbox, listener = await rig.make()
    other, other_listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    other.start(process(other, "ticks"))
    await listener.wait_text("tick 1\n")
    await other_listener.wait_text("tick 1\n")
    sandbox.freeze()
    await asyncio.sleep(SETTLE)
    reached = other_listener.text.count("\n")
    assert await progress(sandbox, listener) == 0
    await other_listener.wait_text(f"tick {reached + 2}\n")


async def test_limit_cpu_on_and_off_the_process_lives(rig) -> None:
    sandbox, listener = await rig.make(cpu_share=0.5)
    sandbox.start(process(sandbox, "ticks"))
    sandbox.limit_cpu(True)
    await listener.wait_text("tick 2\n")
    sandbox.limit_cpu(False)
    await listener.wait_text("tick 4\n")


# Signals and killing


async def test_signal_reaches_the_named_process_only(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "trap-term", name="trapping"))
    sandbox.start(process(sandbox, "ticks", name="ticking"))
    await listener.wait_text("ready\n")
    sandbox.signal("nobody", signal.SIGTERM)
    sandbox.signal("trapping", signal.SIGTERM)
    assert await listener.wait_exit("trapping") == ProcessExit(name="trapping", code=3)
    assert "got TERM\n" in listener.text
    assert await progress(sandbox, listener, 5 * TICK) > 0
    assert len(listener.exits) == 1


async def test_signal_without_a_handler_ends_the_process(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 1\n")
    sandbox.signal("runtime", signal.SIGTERM)
    assert await listener.wait_exit("runtime") == ProcessExit(name="runtime", signal=signal.SIGTERM)


@pytest.mark.parametrize("frozen", [False, True])
async def test_kill_all_ends_processes_and_the_children_they_forked(rig, frozen: bool) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "forker", name="one"))
    sandbox.start(process(sandbox, "ticks", name="two"))
    await listener.wait_text("child")
    await listener.wait_text("tick 1\n")
    pids = host_pids(rig, sandbox)
    if frozen:
        sandbox.freeze()
    sandbox.kill_all()
    for name in ("one", "two"):
        assert (await listener.wait_exit(name)).signal == signal.SIGKILL
    await asyncio.sleep(SETTLE)
    assert await progress(sandbox, listener, 5 * TICK) == 0
    assert [pid for pid in pids if alive(pid)] == []
    sandbox.start(process(sandbox, "hello", name="next"))
    assert (await listener.wait_exit("next")).code == 0
    assert listener.text.endswith("one\ntwo\nthree\n")
    assert listener.deaths == []


async def test_kill_all_ends_a_child_whose_parent_is_gone(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "orphan-maker"))
    assert (await listener.wait_exit("runtime")).code == 0
    assert await progress(sandbox, listener) > 0
    sandbox.freeze()
    await asyncio.sleep(SETTLE)
    assert await progress(sandbox, listener) == 0
    sandbox.thaw()
    sandbox.kill_all()
    await asyncio.sleep(SETTLE)
    assert await progress(sandbox, listener, 5 * TICK) == 0


async def test_kill_all_with_nothing_inside_is_calm(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.kill_all()
    sandbox.start(process(sandbox, "hello"))
    assert (await listener.wait_exit("runtime")).code == 0


# Figures


async def test_memory_in_use_shows_in_the_figures(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "hold-memory"))
    await listener.wait_text(f"holding {HELD}\n")
    figures = sandbox.statistics()
    assert len(figures.processes) >= 1
    peak = sandbox.memory_peak()
    if figures.memory_bytes is not None:
        assert HELD <= figures.memory_bytes < 128 * MIB
        assert figures.memory_bytes <= peak < 128 * MIB
    sandbox.kill_all()
    await listener.wait_exit("runtime")
    assert sandbox.memory_peak() >= peak > 0


async def test_provider_statistics_count_live_sandboxes(rig) -> None:
    assert rig.provider.statistics().live == 0
    sandbox, _ = await rig.make()
    await rig.make()
    assert rig.provider.statistics().live == 2
    await sandbox.destroy()
    assert rig.provider.statistics().live == 1
    assert rig.provider.statistics().isolation is rig.provider.isolation


async def test_capabilities_each_says_what_it_found(rig) -> None:
    capabilities = rig.provider.capabilities()
    assert capabilities
    assert all(capability.name and capability.detail for capability in capabilities)


# The end


async def test_destroy_leaves_no_process_and_no_folder(rig) -> None:
    sandbox, listener = await rig.make("traceable")
    sandbox.start(process(sandbox, "forker"))
    sandbox.start(process(sandbox, "write-tmp", name="writer", TMP_AT=sandbox.paths["tmp"], WORD="gone"))
    await listener.wait_text("child")
    await listener.wait_text("written")
    pids = host_pids(rig, sandbox)
    assert rig.rung == "memory" or pids
    await sandbox.destroy()
    assert [pid for pid in pids if alive(pid)] == []
    assert leftovers(rig, "traceable") == []
    assert rig.place.code.is_dir()


async def test_destroy_of_a_frozen_sandbox_works(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "forker"))
    await listener.wait_text("child")
    pids = host_pids(rig, sandbox)
    sandbox.freeze()
    await sandbox.destroy()
    assert [pid for pid in pids if alive(pid)] == []


async def test_destroyed_sandbox_every_call_is_calm_and_nothing_more_is_told(rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 1\n")
    await asyncio.gather(sandbox.destroy(), sandbox.destroy())
    told = len(listener.log)
    sandbox.start(process(sandbox, "hello", name="late"))
    sandbox.signal("runtime", signal.SIGTERM)
    for call in (sandbox.freeze, sandbox.kill_all, sandbox.thaw, sandbox.drain_output):
        call()
    sandbox.limit_cpu(True)
    assert sandbox.memory_peak() >= 0
    assert isinstance(sandbox.statistics(), SandboxStatistics)
    assert sandbox.statistics().processes == ()
    assert sandbox.name and isinstance(sandbox.api_address, str)
    await sandbox.destroy()
    await asyncio.sleep(SETTLE)
    assert len(listener.log) == told


async def test_name_of_a_destroyed_sandbox_can_be_used_again(rig) -> None:
    first, _ = await rig.make("again")
    await first.destroy()
    second, listener = await rig.make("again")
    second.start(process(second, "hello"))
    assert (await listener.wait_exit("runtime")).code == 0


async def test_create_with_an_unknown_runtime_is_refused(rig) -> None:
    with pytest.raises(RuntimeMissing):
        await rig.make(runtime="cobol60")
    with pytest.raises(RuntimeMissing):
        await rig.provider.warm("cobol60")
    assert rig.provider.statistics().live == 0


async def test_close_destroys_every_sandbox_and_can_be_repeated(rig) -> None:
    made = [await rig.make(f"closing-{n}") for n in range(2)]
    for sandbox, listener in made:
        sandbox.start(process(sandbox, "ticks"))
        await listener.wait_text("tick 1\n")
    pids = [pid for sandbox, _ in made for pid in host_pids(rig, sandbox)]
    await rig.provider.close()
    await rig.provider.close()
    assert [pid for pid in pids if alive(pid)] == []
    assert leftovers(rig, "closing-") == []
    assert rig.provider.statistics().live == 0
    assert os.path.isdir(rig.place.code)

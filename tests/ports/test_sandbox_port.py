"""The sandbox port's promises, asked of every rung: starting, what is found inside, output, exits and figures."""

import asyncio
import signal
import time

import pytest
from tests.support.sandboxes import BASIC_ENVIRONMENT, BIG, HELD, TICK, Rig, process

from torpor.sandbox.port import Isolation, ProcessExit, ProcessSpec, Stream

MIB = 1024 * 1024


# Starting, output, exits


async def test_program_that_writes_and_ends_output_is_whole_in_order_and_before_the_exit(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "hello"))
    exit = await listener.wait_exit("runtime")
    assert exit == ProcessExit(name="runtime", code=0)
    assert listener.text == "one\ntwo\nthree\n"
    assert listener.log[-1] == exit


async def test_output_beyond_the_pipe_size_arrives_whole_in_small_pieces(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "big"))
    assert (await listener.wait_exit("runtime")).code == 0
    assert listener.text == "x" * BIG
    assert listener.largest <= 64 * 1024


async def test_program_that_fails_its_exit_status_is_told(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "exit-7"))
    assert await listener.wait_exit("runtime") == ProcessExit(name="runtime", code=7)


async def test_program_ended_by_a_signal_the_signal_is_told(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "kill-self"))
    assert await listener.wait_exit("runtime") == ProcessExit(name="runtime", signal=signal.SIGKILL)


@pytest.mark.parametrize("program", ["missing", "not-executable"])
async def test_program_that_cannot_be_started_the_reason_is_told_later(rig: Rig, program: str) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, program))
    assert listener.log == []
    exit = await listener.wait_exit("runtime")
    assert exit.start_error
    assert (exit.code, exit.signal, exit.out_of_memory) == (None, None, False)
    assert listener.log == [exit]


async def test_program_named_by_its_fixed_path_is_found(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    spec = ProcessSpec(name="runtime", argv=("/var/task/hello",), environment=BASIC_ENVIRONMENT)
    sandbox.start(spec)
    await listener.wait_exit("runtime")
    assert listener.text == "one\ntwo\nthree\n"


async def test_several_processes_at_once_each_exit_is_told_once(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    for name in ("one", "two", "three"):
        sandbox.start(process(sandbox, "exit-7", name=name))
    for name in ("one", "two", "three"):
        assert (await listener.wait_exit(name)).code == 7
    assert len(listener.exits) == 3


async def test_framed_log_pipe_arrives_as_its_own_stream(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "frames", log="LOG_FD"))
    assert (await listener.wait_exit("runtime")).code == 0
    assert bytes(listener.data[Stream.FRAMED]) == b"frame-1frame-2"
    assert listener.text == "plain"


async def test_process_with_an_output_of_its_own_is_told_apart(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "hello", name="one", own_output=True))
    sandbox.start(process(sandbox, "hello", name="two", own_output=True))
    sandbox.start(process(sandbox, "big", name="shared"))
    for name in ("one", "two", "shared"):
        assert (await listener.wait_exit(name)).code == 0
    assert listener.own == {"one": bytearray(b"one\ntwo\nthree\n"), "two": bytearray(b"one\ntwo\nthree\n")}
    assert listener.text == "x" * BIG


async def test_large_output_of_its_own_arrives_whole_before_the_exit_and_again_after_a_kill(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    for life in (1, 2):
        sandbox.start(process(sandbox, "big", name="one", own_output=True))
        await listener.wait_for(lambda life=life: len(listener.exits) == life)  # type: ignore[misc]
        assert len(listener.own["one"]) == life * BIG and not listener.text
        assert listener.largest <= 64 * 1024
        sandbox.kill_all()


async def test_own_output_and_framed_pipe_do_not_mix(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "frames", log="LOG_FD", own_output=True))
    assert (await listener.wait_exit("runtime")).code == 0
    assert bytes(listener.data[Stream.FRAMED]) == b"frame-1frame-2"
    assert bytes(listener.own["runtime"]) == b"plain"


async def test_drain_output_what_is_written_is_told_before_it_returns(rig: Rig) -> None:
    if rig.rung == "memory":
        pytest.skip("memory programs write only while the loop runs; see the memory rung's own tests")
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 1\n")
    before = len(listener.text)
    # The loop stands still on purpose: only the drain itself can deliver.
    time.sleep(5 * TICK)  # noqa: ASYNC251
    sandbox.drain_output()
    assert len(listener.text) > before


# What a process finds inside


async def test_environment_is_exactly_what_was_given(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SECRET", "not for functions")
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "environment", FIRST="1", EMPTY=""))
    await listener.wait_exit("runtime")
    found = dict(entry.split("=", 1) for entry in listener.text.split("\0") if entry)
    expected = {**BASIC_ENVIRONMENT, "FIRST": "1", "EMPTY": ""}
    if rig.provider.isolation is Isolation.PROCESS:
        expected["TMPDIR"] = sandbox.paths["tmp"]
    assert found == expected


async def test_code_folder_is_visible_and_the_working_folder(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "where", name="list", FOLDER=sandbox.paths["task"]))
    await listener.wait_exit("list")
    assert {"hello", "message"} <= set(listener.text.split())
    sandbox.start(process(sandbox, "cwd", name="cat"))
    await listener.wait_exit("cat")
    assert listener.text.endswith("from the code folder\n")


async def test_code_folder_of_an_isolated_sandbox_cannot_be_written(rig: Rig) -> None:
    if rig.provider.isolation is Isolation.PROCESS:
        pytest.skip("this rung does not isolate")
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "write-code", TASK_AT=sandbox.paths["task"]))
    await listener.wait_exit("runtime")
    assert listener.text == "refused\n"
    assert not (rig.place.code / "intruder").exists()


async def test_layers_later_ones_win(rig: Rig) -> None:
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


async def test_tmp_survives_kill_all_and_is_private(rig: Rig) -> None:
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


async def test_api_socket_answers_a_process_inside_at_its_address(rig: Rig) -> None:
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


async def test_open_files_are_limited_as_asked(rig: Rig) -> None:
    sandbox, listener = await rig.make(files=77)
    sandbox.start(process(sandbox, "files-limit"))
    await listener.wait_exit("runtime")
    assert listener.text == "77\n"


# Figures


async def test_memory_in_use_shows_in_the_figures(rig: Rig) -> None:
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


async def test_memory_without_end_ends_the_process_and_is_told_apart(rig: Rig) -> None:
    sandbox, listener = await rig.make(memory_mb=64)
    sandbox.start(process(sandbox, "fill-memory"))
    exit = await listener.wait_exit("runtime")
    assert (exit.signal, exit.out_of_memory) == (signal.SIGKILL, True)
    sandbox.start(process(sandbox, "hello", name="next"))
    again = await listener.wait_exit("next")
    assert (again.code, again.out_of_memory, listener.deaths) == (0, False, [])


async def test_killed_process_is_not_taken_for_one_out_of_memory(rig: Rig) -> None:
    sandbox, listener = await rig.make(memory_mb=64)
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 1\n")
    sandbox.kill_all()
    exit = await listener.wait_exit("runtime")
    assert (exit.signal, exit.out_of_memory) == (signal.SIGKILL, False)


async def test_provider_statistics_count_live_sandboxes(rig: Rig) -> None:
    assert rig.provider.statistics().live == 0
    sandbox, _ = await rig.make()
    await rig.make()
    assert rig.provider.statistics().live == 2
    await sandbox.destroy()
    assert rig.provider.statistics().live == 1
    assert rig.provider.statistics().isolation is rig.provider.isolation


async def test_capabilities_each_says_what_it_found(rig: Rig) -> None:
    capabilities = rig.provider.capabilities()
    assert capabilities
    assert all(capability.name and capability.detail for capability in capabilities)

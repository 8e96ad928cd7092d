"""What only the memory rung offers: its programs' system calls and the figures a simulation sets."""

import asyncio
import signal

import pytest
from tests.support.listener import RecordingListener

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.memory import MemoryProcess, MemoryProvider, MemorySandbox, Program
from torpor.sandbox.port import ProcessExit, ProcessSpec, SandboxSpec, Stream

MIB = 1024 * 1024


async def run(program: Program, **settings: int) -> tuple[MemorySandbox, RecordingListener]:
    """A sandbox in which the program has been started as `main`."""
    provider = MemoryProvider({"/main": program})
    await provider.open()
    listener = RecordingListener()
    sandbox = await provider.create(SandboxSpec(name="box", runtime="any", code="/", **settings), listener)
    sandbox.start(ProcessSpec(name="main", argv=("/main",), environment={}))
    return sandbox, listener


async def test_program_that_raises_exits_1_with_the_traceback_in_its_output() -> None:
    def program(process: MemoryProcess) -> None:
        raise LookupError("nothing there")

    sandbox, listener = await run(program)
    assert await listener.wait_exit("main") == ProcessExit(name="main", code=1)
    assert "LookupError: nothing there" in listener.text
    await sandbox.destroy()


async def test_program_beyond_the_memory_limit_is_ended_out_of_memory() -> None:
    async def program(process: MemoryProcess) -> None:
        process.use_memory(100 * MIB)
        process.use_memory(129 * MIB)
        await asyncio.sleep(60)

    sandbox, listener = await run(program, memory_mb=128)
    assert await listener.wait_exit("main") == ProcessExit(name="main", signal=signal.SIGKILL, out_of_memory=True)
    assert sandbox.memory_peak() == 129 * MIB
    assert sandbox.statistics().memory_bytes == 0
    await sandbox.destroy()


async def test_drain_output_what_is_written_is_told_before_it_returns() -> None:
    sandbox, listener = await run(lambda process: None)
    await listener.wait_exit("main")
    sandbox.write(Stream.OUTPUT, b"written")
    assert listener.text == ""
    sandbox.drain_output()
    assert listener.text == "written"
    await sandbox.destroy()


async def test_base_memory_counts_in_the_figures() -> None:
    sandbox, _ = await run(lambda process: None)
    sandbox.base_memory = 5 * MIB
    assert sandbox.memory_peak() == 5 * MIB
    sandbox.base_memory = MIB
    assert sandbox.statistics().memory_bytes == MIB
    assert sandbox.memory_peak() == 5 * MIB
    await sandbox.destroy()


async def test_time_out_of_a_frozen_program_reaches_it_after_the_thaw() -> None:
    async def program(process: MemoryProcess) -> None:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            process.write(b"timed out")

    sandbox, listener = await run(program)
    await asyncio.sleep(0)
    sandbox.freeze()
    await asyncio.sleep(0.05)
    sandbox.drain_output()
    assert listener.log == []
    sandbox.thaw()
    assert (await listener.wait_exit("main")).code == 0
    assert listener.text == "timed out"
    await sandbox.destroy()


async def test_kill_of_a_program_that_resists_ends_it_all_the_same() -> None:
    async def program(process: MemoryProcess) -> None:
        while True:
            try:
                await asyncio.sleep(60)
            finally:
                process.write(b"resisting")
                await asyncio.sleep(60)

    sandbox, listener = await run(program)
    await asyncio.sleep(0)
    sandbox.kill_all()
    assert (await listener.wait_exit("main")).signal == signal.SIGKILL
    await sandbox.destroy()


async def test_signal_to_a_frozen_program_waits_for_the_thaw() -> None:
    async def program(process: MemoryProcess) -> None:
        await asyncio.sleep(60)

    sandbox, listener = await run(program)
    sandbox.freeze()
    sandbox.signal("main", signal.SIGTERM)
    await asyncio.sleep(0.01)
    assert listener.log == []
    sandbox.thaw()
    assert (await listener.wait_exit("main")).signal == signal.SIGTERM
    await sandbox.destroy()


async def test_end_of_a_process_breaks_its_connections() -> None:
    async def program(process: MemoryProcess) -> None:
        await process.connect()
        process.write(b"connected")
        await asyncio.sleep(60)

    sandbox, listener = await run(program)
    loop = asyncio.get_running_loop()
    connection, _ = await loop.sock_accept(sandbox.api_socket)
    await listener.wait_text("connected")
    sandbox.kill_all()
    await listener.wait_exit("main")
    with connection:
        assert await loop.sock_recv(connection, 1) == b""
    await sandbox.destroy()


async def test_death_is_told_later_and_nothing_else_is() -> None:
    async def program(process: MemoryProcess) -> None:
        await asyncio.sleep(60)

    sandbox, listener = await run(program)
    sandbox.die("host failed")
    assert listener.log == []
    await listener.wait_for(lambda: listener.deaths)
    await sandbox.destroy()
    assert listener.log == ["host failed"]


async def test_framed_log_without_a_pipe_is_an_error_inside() -> None:
    def program(process: MemoryProcess) -> None:
        process.write_framed(b"frame")

    sandbox, listener = await run(program)
    assert (await listener.wait_exit("main")).code == 1
    await sandbox.destroy()


async def test_name_in_use_is_refused() -> None:
    provider = MemoryProvider({})
    await provider.open()
    spec = SandboxSpec(name="box", runtime="any", code="/")
    await provider.create(spec, RecordingListener())
    with pytest.raises(SandboxUnavailable):
        await provider.create(spec, RecordingListener())
    await provider.close()

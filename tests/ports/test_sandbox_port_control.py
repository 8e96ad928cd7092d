"""The sandbox port's promises, asked of every rung: freezing, signals, killing and the end."""

import asyncio
import os
import signal

import pytest
from tests.support.sandboxes import TICK, Rig, alive, process, progress

from torpor.model.errors import RuntimeMissing
from torpor.sandbox.port import ProcessExit, SandboxStatistics

SETTLE = 0.05
"""Seconds in which a stop has certainly taken effect and what was under way has been written."""


# Freezing


async def test_freeze_stops_progress_and_thaw_lets_it_go_on(rig: Rig) -> None:
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


async def test_freeze_stops_children_too(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "forker"))
    await listener.wait_text("child")
    sandbox.freeze()
    await asyncio.sleep(SETTLE)
    assert await progress(sandbox, listener) == 0
    sandbox.thaw()
    children = listener.text.count("child")
    await listener.wait_for(lambda: listener.text.count("child") > children)


async def test_freeze_and_thaw_again_and_again_loses_nothing(rig: Rig) -> None:
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


async def test_one_sandbox_frozen_another_runs_on(rig: Rig) -> None:
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


async def test_limit_cpu_on_and_off_the_process_lives(rig: Rig) -> None:
    sandbox, listener = await rig.make(cpu_share=0.5)
    sandbox.start(process(sandbox, "ticks"))
    sandbox.limit_cpu(True)
    await listener.wait_text("tick 2\n")
    sandbox.limit_cpu(False)
    await listener.wait_text("tick 4\n")


# Signals and killing


async def test_signal_reaches_the_named_process_only(rig: Rig) -> None:
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


async def test_signal_without_a_handler_ends_the_process(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "ticks"))
    await listener.wait_text("tick 1\n")
    sandbox.signal("runtime", signal.SIGTERM)
    assert await listener.wait_exit("runtime") == ProcessExit(name="runtime", signal=signal.SIGTERM)


@pytest.mark.parametrize("frozen", [False, True])
async def test_kill_all_ends_processes_and_the_children_they_forked(rig: Rig, frozen: bool) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "forker", name="one"))
    sandbox.start(process(sandbox, "ticks", name="two"))
    await listener.wait_text("child")
    await listener.wait_text("tick 1\n")
    pids = rig.host_pids(sandbox)
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


async def test_kill_all_ends_a_child_whose_parent_is_gone(rig: Rig) -> None:
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


async def test_kill_all_with_nothing_inside_is_calm(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.kill_all()
    sandbox.start(process(sandbox, "hello"))
    assert (await listener.wait_exit("runtime")).code == 0


# The end


async def test_destroy_leaves_no_process_and_no_folder(rig: Rig) -> None:
    sandbox, listener = await rig.make("traceable")
    sandbox.start(process(sandbox, "forker"))
    sandbox.start(process(sandbox, "write-tmp", name="writer", TMP_AT=sandbox.paths["tmp"], WORD="gone"))
    await listener.wait_text("child")
    await listener.wait_text("written")
    pids = rig.host_pids(sandbox)
    assert rig.rung == "memory" or pids
    await sandbox.destroy()
    assert [pid for pid in pids if alive(pid)] == []
    assert rig.leftovers("traceable") == []
    assert rig.place.code.is_dir()


async def test_destroy_of_a_frozen_sandbox_works(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(process(sandbox, "forker"))
    await listener.wait_text("child")
    pids = rig.host_pids(sandbox)
    sandbox.freeze()
    await sandbox.destroy()
    assert [pid for pid in pids if alive(pid)] == []


async def test_destroyed_sandbox_every_call_is_calm_and_nothing_more_is_told(rig: Rig) -> None:
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


async def test_name_of_a_destroyed_sandbox_can_be_used_again(rig: Rig) -> None:
    first, _ = await rig.make("again")
    await first.destroy()
    second, listener = await rig.make("again")
    second.start(process(second, "hello"))
    assert (await listener.wait_exit("runtime")).code == 0


async def test_create_with_an_unknown_runtime_is_refused(rig: Rig) -> None:
    with pytest.raises(RuntimeMissing):
        await rig.make(runtime="cobol60")
    with pytest.raises(RuntimeMissing):
        await rig.provider.warm("cobol60")
    assert rig.provider.statistics().live == 0


async def test_close_destroys_every_sandbox_and_can_be_repeated(rig: Rig) -> None:
    made = [await rig.make(f"closing-{n}") for n in range(2)]
    for sandbox, listener in made:
        sandbox.start(process(sandbox, "ticks"))
        await listener.wait_text("tick 1\n")
    pids = [pid for sandbox, _ in made for pid in rig.host_pids(sandbox)]
    await rig.provider.close()
    await rig.provider.close()
    assert [pid for pid in pids if alive(pid)] == []
    assert rig.leftovers("closing-") == []
    assert rig.provider.statistics().live == 0
    assert os.path.isdir(rig.place.code)

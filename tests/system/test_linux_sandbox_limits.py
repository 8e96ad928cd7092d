"""Memory, disk, processes and freezing of a real sandbox."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.support.linux_sandbox import Linux, open_linux, run_shell, shell
from tests.support.sandboxes import TICK, progress

from torpor.sandbox.launcher import cgroups, tmpdisk
from torpor.sandbox.port import ProcessExit, ProcessSpec

pytestmark = pytest.mark.privileged
MIB = 1024 * 1024
TICKS = f"while :; do echo tick; sleep {TICK}; done"
HUNGRY = "echo up; exec tail /dev/zero"
ON_DISK = tmpdisk.formatter() is not None
needs_groups = pytest.mark.skipif(cgroups.detect().kind == "none", reason="needs control groups")
needs_disk = pytest.mark.skipif(not ON_DISK, reason="needs mke2fs")


@pytest_asyncio.fixture
async def linux() -> AsyncIterator[Linux]:
    async with open_linux() as opened:
        yield opened


@needs_groups
async def test_process_over_the_memory_limit_is_told_apart_from_a_killed_one(linux: Linux) -> None:
    sandbox, listener = await linux.make(memory_mb=64)
    sandbox.start(shell(HUNGRY, "hungry"))
    exit = await listener.wait_exit("hungry", 30.0)
    assert (exit.signal, exit.out_of_memory) == (9, True)
    sandbox.start(shell("kill -9 $$", "killed"))
    assert await listener.wait_exit("killed") == ProcessExit(name="killed", signal=9)


@needs_groups
async def test_out_of_memory_in_one_sandbox_leaves_it_usable_and_others_alone(linux: Linux) -> None:
    other, others = await linux.make()
    other.start(shell(TICKS, "ticks"))
    sandbox, listener = await linux.make(memory_mb=64)
    sandbox.start(shell(HUNGRY, "hungry"))
    await listener.wait_exit("hungry", 30.0)
    assert await run_shell(sandbox, listener, "echo alive") == "alive\n"
    assert await progress(other, others) > 0
    assert listener.deaths == []


@needs_groups
async def test_number_of_processes_is_limited(linux: Linux) -> None:
    sandbox, listener = await linux.make(processes=10)
    sandbox.start(shell("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 60 & done; echo done"))
    exit = await listener.wait_exit("shell")
    assert exit.code != 0
    assert "fork" in listener.text


@needs_disk
@pytest.mark.parametrize("megabytes", [512, 600, 1024, 10240])
async def test_tmp_has_the_size_asked_for(linux: Linux, megabytes: int) -> None:
    text = await linux.shell("df --output=avail -k /tmp | tail -1; stat -c %a /tmp; ls -A /tmp", tmp_mb=megabytes)
    available, mode = text.split()
    assert megabytes - 5 <= int(available) / 1024 <= megabytes + 8
    assert mode == "1777"


@needs_disk
@needs_groups
async def test_tmp_that_is_full_says_so_and_is_not_charged_to_memory(linux: Linux) -> None:
    sandbox, listener = await linux.make(memory_mb=64)
    assert sandbox.tmp_kind == "disk"
    text = await run_shell(sandbox, listener, "head -c 500M /dev/zero > /tmp/big && echo fits; df --output=iused /tmp")
    assert "fits" in text
    text = await run_shell(sandbox, listener, "head -c 100M /dev/zero 2>&1 >> /tmp/big | cat; exit 0", "more")
    assert "No space left on device" in text
    assert all(not exit.out_of_memory for exit in listener.exits)


async def test_rootless_tmp_is_limited_too() -> None:
    async with open_linux(rootless=True) as linux:
        sandbox, listener = await linux.make(tmp_mb=20)
        assert sandbox.tmp_kind == "memory"
        text = await run_shell(sandbox, listener, "head -c 30M /dev/zero 2>&1 > /tmp/big | cat; exit 0")
        assert "No space left on device" in text


async def test_freeze_stops_background_processes_too_and_thaw_lets_them_go_on(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    sandbox.start(shell(f"({TICKS}) & echo $!; wait"))
    await listener.wait_text("tick")
    sandbox.freeze()
    sandbox.freeze()
    await asyncio.sleep(2 * TICK)
    assert await progress(sandbox, listener) == 0
    sandbox.thaw()
    assert await progress(sandbox, listener) > 0


async def test_kill_all_of_a_frozen_sandbox_ends_everything_and_new_processes_run(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    sandbox.start(shell(f"({TICKS}) & {TICKS}", "ticks"))
    await listener.wait_text("tick")
    sandbox.freeze()
    sandbox.kill_all()
    sandbox.start(shell("echo fresh", "fresh"))
    assert await listener.wait_exit("ticks") == ProcessExit(name="ticks", signal=9)
    assert await listener.wait_exit("fresh") == ProcessExit(name="fresh", code=0)
    assert await progress(sandbox, listener) == 0


async def test_destroy_of_a_frozen_sandbox_leaves_no_process(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    sandbox.start(shell(TICKS, "ticks"))
    await listener.wait_text("tick")
    sandbox.freeze()
    await asyncio.wait_for(sandbox.destroy(), 5)
    assert sandbox.statistics().processes == ()
    assert listener.exits == []


@needs_groups
async def test_cpu_limit_slows_a_busy_process_down(linux: Linux) -> None:
    sandbox, _ = await linux.make(cpu_share=0.1)
    sandbox.limit_cpu(True)
    sandbox.start(shell("while :; do :; done", "busy"))
    await asyncio.sleep(0.8)
    used = sandbox.statistics().cpu_seconds
    assert used is not None
    assert used < 0.3
    sandbox.limit_cpu(False)
    await asyncio.sleep(0.5)
    later = sandbox.statistics().cpu_seconds
    assert later is not None
    assert later - used > 0.15


async def test_large_environment_arrives_whole(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    values = {f"X{number}": "x" * 50_000 for number in range(3)}
    command = ("/bin/sh", "-c", "echo ${#X0} ${#X1} ${#X2}")
    sandbox.start(ProcessSpec(name="big", argv=command, environment=values))
    assert await listener.wait_exit("big") == ProcessExit(name="big", code=0)
    assert listener.text == "50000 50000 50000\n"


async def test_arguments_beyond_a_packet_are_refused_with_a_reason(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    sandbox.start(ProcessSpec(name="big", argv=("/bin/true",), environment={"X": "x" * 300_000}))
    assert re.search("too large", (await listener.wait_exit("big")).start_error)

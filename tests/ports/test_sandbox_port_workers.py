"""The sandbox port's promises about the output of a process's workers, asked of every rung."""

import asyncio
import os
import signal
from dataclasses import replace

import pytest
from tests.support.listener import RecordingListener
from tests.support.sandboxes import Rig, process

from torpor.sandbox.port import ProcessSpec, Sandbox

pytestmark = pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="the program inside is Python")
WORKERS = 5


def spec(sandbox: Sandbox, *, stay: bool = False, name: str = "runtime", count: int = WORKERS) -> ProcessSpec:
    made = process(sandbox, "workers", name=name, WORKERS=str(count), STAY="yes" if stay else "")
    return replace(made, worker_log_variable="WORKER_LOGS")


def texts(listener: RecordingListener) -> list[str]:
    return sorted(bytes(data).decode() for data in listener.workers.values())


def expected(count: int) -> list[str]:
    return sorted(f"{stream} {worker}\n" for stream in ("out", "err") for worker in range(count))


async def test_each_stream_of_each_worker_comes_by_a_connection_of_its_own(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(spec(sandbox))
    assert (await listener.wait_exit("runtime")).code == 0
    assert texts(listener) == expected(WORKERS)
    assert sorted(listener.ended_workers) == sorted(listener.workers) == list(range(1, 2 * WORKERS + 1))
    assert listener.text == "parent\n"


async def test_connections_of_living_workers_stay_open_and_end_with_them(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(spec(sandbox, stay=True))
    await listener.wait_for(lambda: texts(listener) == expected(WORKERS))
    assert listener.ended_workers == []
    sandbox.kill_all()
    assert (await listener.wait_exit("runtime")).signal == signal.SIGKILL
    await listener.wait_for(lambda: len(listener.ended_workers) == 2 * WORKERS)


async def test_next_process_has_a_socket_again_and_new_numbers(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    for name in ("runtime", "second", "runtime"):
        earlier = len(listener.exits)
        sandbox.start(spec(sandbox, name=name, count=1))
        await listener.wait_for(lambda earlier=earlier: len(listener.exits) > earlier)
    assert texts(listener) == ["err 0\n"] * 3 + ["out 0\n"] * 3
    assert sorted(listener.workers) == [1, 2, 3, 4, 5, 6]


async def test_connections_beyond_the_limit_wait_for_their_turn(rig: Rig) -> None:
    if rig.rung == "memory":
        pytest.skip("memory programs are refused instead")
    sandbox, listener = await rig.make()
    sandbox.start(replace(spec(sandbox, count=8), worker_connections=3))
    assert (await listener.wait_exit("runtime")).code == 0
    await listener.wait_for(lambda: texts(listener) == expected(8))


async def test_process_without_the_variable_has_no_socket(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(replace(spec(sandbox), worker_log_variable=""))
    assert (await listener.wait_exit("runtime")).code == 1
    assert listener.workers == {}


async def test_destroyed_sandbox_tells_nothing_of_its_connections(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    sandbox.start(spec(sandbox, stay=True))
    await listener.wait_for(lambda: texts(listener) == expected(WORKERS))
    await sandbox.destroy()
    await asyncio.sleep(0.05)
    assert listener.ended_workers == []

"""A saved process goes on in other sandboxes, with its memory and files, and without what no two may share."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from tests.support.linux_sandbox import (
    PYTHON,
    Linux,
    answer,
    is_root,
    open_linux,
    python_missing,
    python_process,
    pythons,
)
from tests.support.listener import RecordingListener

from torpor.model.errors import NotSavable
from torpor.sandbox.linux.sandbox import LinuxSandbox
from torpor.sandbox.port import ProcessImage

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(not is_root(), reason="needs root"),
    pytest.mark.skipif(python_missing(), reason="the Python runtime's client is not installed"),
]
SAVED = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
LOOK = """
import os, random, socket, ssl, threading, time, uuid
token, table = os.urandom(8).hex(), list(range(200_000))
open("/tmp/disk", "w").write("of the snapshot")
log = open("/tmp/log", "a+"); log.write("begun "); log.flush()
reader, writer = os.pipe()
peer = socket.socketpair()
ticks = [0]
def tick():
    while True:
        time.sleep(0.005)
        ticks[0] += 1
THREADS
print("loaded", flush=True)
def handler(event, context):
    log.write("on"); log.flush()
    os.write(writer, b"through the pipe")
    before = ticks[0]; time.sleep(0.05)
    return {
        "token": token, "sum": sum(table), "disk": open("/tmp/disk").read(), "log": open("/tmp/log").read(),
        "pipe": os.read(reader, 100).decode(), "peer": peer[0].recv(1).decode(), "pid": os.getpid(),
        "random": random.random(), "tls": ssl.RAND_bytes(8).hex(), "uuid": str(uuid.uuid4()), "time": time.time(),
        "ticks": ticks[0] - before, "name": socket.gethostname(), "descriptors": len(os.listdir("/proc/self/fd")),
    }
"""


@pytest_asyncio.fixture
async def linux() -> AsyncIterator[Linux]:
    async with open_linux() as opened:
        yield opened


async def _asked(sandbox: LinuxSandbox, reply: bytes) -> None:
    """Let the runtime ask whether it is restored, and answer it if there is an answer."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        connection, _ = await loop.sock_accept(sandbox.api_socket)
        with connection:
            connection.setblocking(False)
            data = await loop.sock_recv(connection, 65536)
            assert data.startswith(b"GET /2018-06-01/runtime/restore/next"), data
            if not reply:
                _open.append(connection.dup())
            else:
                await loop.sock_sendall(connection, reply)


_open: list[object] = []


async def _saved(linux: Linux, source: str, *, clone: bool = True, runtime: str = PYTHON) -> tuple[ProcessImage, str]:
    sandbox, listener = await linux.python(source, clone=clone, runtime=runtime, **SAVED)
    await _asked(sandbox, b"")
    await asyncio.sleep(0.05)
    image = await sandbox.checkpoint("runtime")
    text = listener.text
    await sandbox.destroy()
    return image, text


async def _restored(
    linux: Linux, image: ProcessImage, code: str, runtime: str = PYTHON
) -> tuple[LinuxSandbox, RecordingListener]:
    sandbox, listener = await linux.make(runtime, code=code, restored=True)
    sandbox.start(replace(python_process(sandbox, clone=True, runtime=runtime, **SAVED), image=image))
    await _asked(sandbox, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    return sandbox, listener


@pytest.mark.parametrize("threads", ["", "threading.Thread(target=tick, daemon=True).start()"], ids=["one", "threads"])
@pytest.mark.parametrize("runtime", pythons())
async def test_a_saved_function_goes_on_in_other_sandboxes(linux: Linux, runtime: str, threads: str) -> None:
    image, text = await _saved(linux, LOOK.replace("THREADS", threads), runtime=runtime)
    assert text == "loaded\n"

    found = []
    for _ in range(2):
        sandbox, listener = await _restored(linux, image, linux.code("python-0", {}), runtime)
        found.append(json.loads(await answer(sandbox)))
        assert listener.text == ""  # it is not loaded again
        await sandbox.destroy()

    first, second = found
    assert first["token"] == second["token"]
    assert first["sum"] == second["sum"] == sum(range(200_000))
    assert first["disk"] == second["disk"] == "of the snapshot"
    assert first["log"] == second["log"] == "begun on"  # a file of each one's own
    assert first["pipe"] == "through the pipe"
    assert first["peer"] == ""
    for each in ("random", "tls", "uuid", "time"):
        assert first[each] != second[each], each
    assert (first["ticks"] > 0) == bool(threads)


async def test_a_process_with_children_is_not_saved(linux: Linux) -> None:
    source = "import subprocess\nsubprocess.Popen(['sleep', '60'])\ndef handler(event, context): pass\n"

    with pytest.raises(NotSavable, match="1 child processes"):
        await _saved(linux, source)


async def test_a_booted_interpreter_is_saved_and_restored_too(linux: Linux) -> None:
    image, _ = await _saved(linux, LOOK.replace("THREADS", ""), clone=False)

    sandbox, _ = await _restored(linux, image, linux.code("python-0", {}))
    assert json.loads(await answer(sandbox))["disk"] == "of the snapshot"

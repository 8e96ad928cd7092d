"""Sockets handed out of a real sandbox reach that sandbox and nothing else."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.support.linux_sandbox import Linux, open_linux, shell
from tests.support.sandboxes import SCRIPTS

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.linux.sandbox import LinuxSandbox
from torpor.sandbox.port import ProcessSpec

pytestmark = pytest.mark.privileged
PORT = 8080


@pytest_asyncio.fixture(params=[False, True], ids=["root", "rootless"])
async def linux(request: pytest.FixtureRequest) -> AsyncIterator[Linux]:
    async with open_linux(rootless=request.param) as opened:
        yield opened


async def reach(sandbox: LinuxSandbox, address: str, port: int) -> str:
    """How a connection attempt from inside ends."""
    with await sandbox.open_socket() as client:
        try:
            async with asyncio.timeout(5):
                await asyncio.get_running_loop().sock_connect(client, (address, port))
        except OSError as error:
            return type(error).__name__
        return "connected"


async def serving(linux: Linux) -> LinuxSandbox:
    sandbox, listener = await linux.make(code=linux.code("server", {"serve": SCRIPTS["serve"]}))
    variables = {"HOST": "0.0.0.0", "PORT": str(PORT)}
    sandbox.start(ProcessSpec(name="server", argv=("/var/task/serve",), environment=variables))
    await listener.wait_text("listening")
    return sandbox


async def test_servers_of_the_host_and_of_other_sandboxes_are_not_reached(linux: Linux) -> None:
    with socket.create_server(("0.0.0.0", 0)) as host:
        port = host.getsockname()[1]
        sandbox, _ = await linux.make()
        await serving(linux)
        for address in ("127.0.0.1", sandbox.address):
            assert await reach(sandbox, address, port) == "ConnectionRefusedError"
            assert await reach(sandbox, address, PORT) == "ConnectionRefusedError"
        host.setblocking(False)
        with pytest.raises(BlockingIOError):
            host.accept()


async def test_egress_does_not_take_connections_to_the_sandboxs_own_server(linux: Linux) -> None:
    sandbox = await serving(linux)
    assert await reach(sandbox, sandbox.address, PORT) == "connected"
    assert await reach(sandbox, sandbox.address, PORT + 1) == "ConnectionRefusedError"


async def test_server_whose_backlog_is_full_the_attempt_waits_without_blocking_the_loop(linux: Linux) -> None:
    source = "import socket,time\ns = socket.create_server(('0.0.0.0', 8080), backlog=0)\nprint('up', flush=True)\n"
    sandbox, listener = await linux.make(code=linux.code("deaf", {"deaf.py": source + "time.sleep(60)\n"}))
    sandbox.start(shell("exec /usr/bin/python3 /var/task/deaf.py"))
    await listener.wait_text("up")
    outcomes = []
    for _ in range(4):
        client = await sandbox.open_socket()
        outcomes.append(client.connect_ex((sandbox.address, PORT)))
        client.close()
    assert set(outcomes) <= {0, 115}


async def test_sandbox_that_dies_the_waiting_are_told(linux: Linux) -> None:
    sandbox, listener = await linux.make()
    takers = [asyncio.create_task(sandbox.open_socket()) for _ in range(50)]
    await asyncio.sleep(0)
    await sandbox.destroy()
    for outcome in await asyncio.wait_for(asyncio.gather(*takers, return_exceptions=True), 5):
        assert isinstance(outcome, SandboxUnavailable | socket.socket)
        if isinstance(outcome, socket.socket):
            outcome.close()
    assert listener.deaths == []

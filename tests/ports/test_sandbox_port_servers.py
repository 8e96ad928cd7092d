"""The sandbox port's promises about servers inside, asked of every rung: sockets into a sandbox and port numbers."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.listener import RecordingListener
from tests.support.sandboxes import Rig, process

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.port import Isolation, Sandbox

PORT = 18_080
needs_python = pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="the server inside is Python")


async def serve(rig: Rig, host: str = "0.0.0.0", name: str = "") -> tuple[Sandbox, RecordingListener, int]:
    """A sandbox in which a server listens; its listener and port."""
    sandbox, listener = await rig.make(name)
    port = sandbox.server_port(PORT)
    sandbox.start(process(sandbox, "serve", HOST=host, PORT=str(port)))
    await listener.wait_text("listening\n")
    return sandbox, listener, port


@asynccontextmanager
async def connected(sandbox: Sandbox, port: int) -> AsyncIterator[socket.socket]:
    """A connection to a server inside. Raises OSError."""
    with await sandbox.open_socket() as client:
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_connect(client, (sandbox.address, port))
        yield client


async def ask(client: socket.socket, words: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, words)
    async with asyncio.timeout(5):
        return await loop.sock_recv(client, 100)


@needs_python
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_server_on_all_interfaces_answers_at_the_sandboxs_address(rig: Rig, host: str) -> None:
    sandbox, _, port = await serve(rig, host)
    for words in (b"one", b"two"):
        async with connected(sandbox, port) as client:
            assert await ask(client, words) == b"answer to " + words


@needs_python
async def test_server_on_loopback_only_is_refused_at_the_address_and_answers_at_loopback(rig: Rig) -> None:
    sandbox, _, port = await serve(rig, "127.0.0.1")
    with pytest.raises(ConnectionRefusedError):
        async with connected(sandbox, port):
            pass
    with await sandbox.open_socket() as client:
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", port))
        assert await ask(client, b"one") == b"answer to one"


async def test_port_where_nobody_listens_is_refused_at_once(rig: Rig) -> None:
    sandbox, _ = await rig.make()
    with pytest.raises(ConnectionRefusedError):
        async with connected(sandbox, sandbox.server_port(PORT)):
            pass


async def test_sockets_are_new_unconnected_and_not_inherited(rig: Rig) -> None:
    sandbox, _ = await rig.make()
    sockets = await asyncio.gather(*(sandbox.open_socket() for _ in range(20)))
    try:
        assert len({item.fileno() for item in sockets}) == 20
        for item in sockets:
            assert (item.family, item.type) == (socket.AF_INET, socket.SOCK_STREAM)
            assert item.gettimeout() == 0.0
            assert not item.get_inheritable()
            with pytest.raises(OSError, match="not connected"):
                item.getpeername()
    finally:
        for item in sockets:
            item.close()


@needs_python
async def test_frozen_server_takes_the_connection_and_answers_after_the_thaw(rig: Rig) -> None:
    sandbox, _, port = await serve(rig)
    sandbox.freeze()
    async with connected(sandbox, port) as client:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, b"late")
        answer = loop.create_task(loop.sock_recv(client, 100))
        await asyncio.sleep(0.1)
        assert not answer.done()
        sandbox.thaw()
        assert await asyncio.wait_for(answer, 5) == b"answer to late"


@needs_python
async def test_servers_of_two_sandboxes_want_the_same_port_and_each_is_reached(rig: Rig) -> None:
    one, _, first = await serve(rig)
    other, _, second = await serve(rig)
    isolated = rig.provider.isolation in (Isolation.ROOT, Isolation.ROOTLESS)
    assert (first == second == PORT) is isolated
    for sandbox, port in ((one, first), (other, second)):
        async with connected(sandbox, port) as client:
            assert await ask(client, b"hello") == b"answer to hello"


async def test_server_port_is_the_same_each_time_and_free_again_after_destroy(rig: Rig) -> None:
    sandbox, _ = await rig.make()
    port = sandbox.server_port(PORT)
    assert sandbox.server_port(PORT) == port
    await sandbox.destroy()
    again, _ = await rig.make()
    assert again.server_port(PORT) == port


async def test_server_killed_its_connections_end(rig: Rig) -> None:
    sandbox, listener, port = await serve(rig)
    async with connected(sandbox, port) as client:
        sandbox.kill_all()
        await listener.wait_exit("runtime")
        async with asyncio.timeout(5):
            with pytest.raises((ConnectionError, EOFError)):
                if not await asyncio.get_running_loop().sock_recv(client, 100):
                    raise EOFError


async def test_api_sockets_port_is_free_for_a_server_once_it_is_closed(rig: Rig) -> None:
    sandbox, listener = await rig.make()
    port = int(sandbox.api_address.rpartition(":")[2])
    sandbox.api_socket.close()
    sandbox.start(process(sandbox, "serve", HOST="0.0.0.0", PORT=str(port)))
    await listener.wait_text("listening\n")


async def test_destroyed_sandbox_has_no_sockets(rig: Rig) -> None:
    sandbox, _ = await rig.make()
    (await sandbox.open_socket()).close()
    await sandbox.destroy()
    with pytest.raises(SandboxUnavailable):
        await sandbox.open_socket()

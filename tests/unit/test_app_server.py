"""The server as a whole: what a start that fails leaves behind, and what a stop ends."""

import asyncio
import socket
from pathlib import Path

import pytest

from torpor.app.server import Server
from torpor.settings import Settings


def settings(folder: Path) -> Settings:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Settings(data=folder, port=port, isolation="process")


async def answers(server: Server) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", server.settings.port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.02)
    return True


async def test_a_start_that_fails_late_leaves_no_port_no_task_and_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(settings(tmp_path))
    names = iter(("first",))

    def failing(*_: object) -> list[str]:
        raise ZeroDivisionError(next(names, "again"))

    before = asyncio.all_tasks()
    with monkeypatch.context() as patched:
        patched.setattr("torpor.app.server.Functions.names", failing)
        with pytest.raises(ZeroDivisionError):
            await server.start()
    assert await answers(server)
    await server.abandon()
    await asyncio.sleep(0)
    assert not await answers(server)
    assert asyncio.all_tasks() <= before

    again = Server(server.settings)
    await again.start()
    assert await answers(again)
    await again.stop()
    assert not await answers(again)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before

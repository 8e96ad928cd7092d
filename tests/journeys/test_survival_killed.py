"""A server killed at any moment: nothing that it confirmed is lost, and nothing of it is left."""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from tests.support.functions import PYTHON, Package, python
from tests.support.lives import Lives, lives
from tests.support.server import ROLE, Function, TorporServer

NAMES = ("one", "two", "three", "four")
FAST = ("idle", "cold", "running", "changes", "changes", "cold", "running", "changes")
SETTINGS = {"drain_timeout": 2}
Kept = dict[str, tuple[str, str]]
"""Name to the mark in the code and the mark in the configuration."""


def marked(mark: str) -> Package:
    return python(f"""
    def handler(event, context):
        time.sleep(event.get("hold", 0))
        return [{mark!r}, os.environ["MARK"]]
    """)


@dataclass
class Ledger:
    """What a server has confirmed, and the change under way whose fate is open."""

    kept: Kept = field(default_factory=dict)
    open: Kept | None = None

    def change(self, name: str, marks: tuple[str, str] | None, call: Callable[[], Any]) -> None:
        """Make one change and note that it was confirmed."""
        rest = {other: kept for other, kept in self.kept.items() if other != name}
        self.open = rest if marks is None else {**rest, name: marks}
        call()
        self.kept, self.open = self.open, None

    def settle(self, found: Kept) -> None:
        """After a restart: all that was confirmed is there, with or without the change under way."""
        assert found in ([self.kept] if self.open is None else [self.kept, self.open])
        self.kept, self.open = found, None


def create(server: TorporServer, name: str, mark: str) -> None:
    server.client.create_function(
        FunctionName=name,
        Role=ROLE,
        Runtime=PYTHON,
        Handler="app.handler",
        Timeout=20,
        Code={"ZipFile": marked(mark).archive},
        Environment={"Variables": {"MARK": mark}},
    )


def random_change(server: TorporServer, ledger: Ledger, choose: random.Random) -> None:
    client, name, mark = server.client, choose.choice(NAMES), uuid.uuid4().hex
    if name not in ledger.kept:
        ledger.change(name, (mark, mark), lambda: create(server, name, mark))
        return
    code, configuration = ledger.kept[name]
    action = choose.choice(("code", "configuration", "delete"))
    if action == "code":
        archive = marked(mark).archive
        ledger.change(
            name, (mark, configuration), lambda: client.update_function_code(FunctionName=name, ZipFile=archive)
        )
    elif action == "configuration":
        variables = {"Variables": {"MARK": mark}}
        ledger.change(
            name,
            (code, mark),
            lambda: client.update_function_configuration(FunctionName=name, Environment=variables),
        )
    else:
        ledger.change(name, None, lambda: client.delete_function(FunctionName=name))


def keep_changing(server: TorporServer, ledger: Ledger, choose: random.Random) -> None:
    with suppress(BotoCoreError, ClientError):
        while True:
            random_change(server, ledger, choose)


def keep_invoking(server: TorporServer, name: str, hold: float) -> None:
    with suppress(BotoCoreError, ClientError):
        while True:
            Function(server, name).invoke({"hold": hold})


def busy(server: TorporServer, kind: str, ledger: Ledger, choose: random.Random) -> Iterator[threading.Thread]:
    """Threads that keep the server at work until it dies."""
    if kind == "changes":
        yield threading.Thread(target=keep_changing, args=(server, ledger, choose))
    elif kind != "idle":
        hold = 5.0 if kind == "running" else 0.05
        for name in ledger.kept:
            for _ in range(2):
                yield threading.Thread(target=keep_invoking, args=(server, name, hold))


def configured(server: TorporServer) -> set[str]:
    return {found["FunctionName"] for found in server.client.list_functions()["Functions"]}


def answers(server: TorporServer) -> Kept:
    """What every function that the server knows answers when it is invoked."""
    replies = {name: Function(server, name).invoke() for name in configured(server)}
    assert not [reply for reply in replies.values() if reply.error]
    return {name: (reply.payload[0], reply.payload[1]) for name, reply in replies.items()}


def survive(life: Lives, server: TorporServer, kind: str, ledger: Ledger, choose: random.Random) -> TorporServer:
    """Kill the server at a random moment of this kind and see what the next one knows."""
    if "one" not in ledger.kept:
        ledger.change("one", ("x", "x"), lambda: create(server, "one", "x"))
    threads = list(busy(server, kind, ledger, choose))
    for thread in threads:
        thread.start()
    time.sleep(choose.uniform(0.02, 0.6))
    life.kill(server)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    after = life.start(**SETTINGS)
    ledger.settle(answers(after))
    return after


def rounds(base: Path, kinds: tuple[str, ...], seed: int) -> None:
    choose, ledger = random.Random(seed), Ledger()
    with lives(base) as life:
        server = life.start(**SETTINGS)
        for kind in kinds:
            server = survive(life, server, kind, ledger, choose)
        assert life.terminate(server) == 0


@pytest.mark.privileged
@pytest.mark.timeout(240)
def test_server_killed_at_random_moments_keeps_what_it_confirmed_and_leaves_nothing(tmp_path: Path) -> None:
    rounds(tmp_path, FAST, seed=1)


@pytest.mark.slow
@pytest.mark.privileged
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(2, 8))
def test_server_killed_many_times_keeps_what_it_confirmed_and_leaves_nothing(tmp_path: Path, seed: int) -> None:
    rounds(tmp_path, FAST * 3, seed=seed)

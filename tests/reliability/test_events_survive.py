"""Nothing that was accepted is lost: the server killed again and again under load, disks full, files read-only,
destinations that fail half of the time. `--slow` does the long form."""

import json
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from tests.support.functions import PYTHON, python
from tests.support.inbox import inbox
from tests.support.lives import Lives, refused
from tests.support.server import ROLE, TorporServer, eventually, needs_root

SETTINGS = {"event_wait_scale": 0.001, "event_history": 100_000}
CODE = """
import time

def handler(event, context):
    time.sleep(event.get("seconds", 0))
    if event.get("fails"):
        raise ValueError("no")
    return event["number"]
"""
KINDS: tuple[dict[str, Any], ...] = ({}, {"fails": True}, {"seconds": 0.05}, {"seconds": 0.3})


def deploy(server: TorporServer, url: str) -> None:
    package = python(CODE)
    server.client.create_function(
        FunctionName="load",
        Role=ROLE,
        Runtime=PYTHON,
        Handler=package.handler,
        Code={"ZipFile": package.archive},
        Timeout=10,
    )
    server.client.put_function_event_invoke_config(
        FunctionName="load",
        DestinationConfig={"OnSuccess": {"Destination": url}, "OnFailure": {"Destination": url}},
    )


class Senders:
    """Callers that send events of all kinds until they are told to stop, and know which were accepted."""

    def __init__(self, callers: int = 4) -> None:
        self.accepted: list[int] = []
        self.refused: list[str] = []
        self._callers = callers
        self._next = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    @contextmanager
    def sending(self, server: TorporServer) -> Iterator[None]:
        """While the block runs."""
        self._stop.clear()
        threads = [threading.Thread(target=self._send, args=(server,)) for _ in range(self._callers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _send(self, server: TorporServer) -> None:
        client = server.new_client()
        while not self._stop.is_set():
            with self._lock:
                number, self._next = self._next, self._next + 1
            payload = json.dumps({"number": number, **KINDS[number % len(KINDS)]})
            try:
                client.invoke(FunctionName="load", InvocationType="Event", Payload=payload)
            except ClientError as error:
                self.refused.append(str(error))
                time.sleep(0.02)
            except BotoCoreError:  # the server was killed: it may or may not have been accepted
                time.sleep(0.02)
            else:
                self.accepted.append(number)
        client.close()


def numbers(server: TorporServer) -> dict[str, Any]:
    functions = server._admin("events")["functions"]
    return functions[0] if functions else {}


def settle(server: TorporServer, within: float = 120.0) -> dict[str, Any]:
    """Once nothing is under way any more, how many events stand where."""

    def still() -> bool:
        found = numbers(server)
        return bool(found) and not (found["queued"] or found["running"] or found["delivering"])

    eventually(still, within=within, what="all events being through")
    return numbers(server)


def interrupted(server: TorporServer) -> int:
    """How often events were under way when a server ended."""
    listed, before = [], None
    while True:
        query = {"limit": "1000"} | ({"before": str(before)} if before else {})
        page = server._admin("events/list", **query)
        listed += page["events"]
        before = page.get("before")
        if not before:
            break
    return sum(entry["interruptions"] for entry in listed)


def test_a_server_killed_at_any_moment_loses_nothing_that_it_accepted(data: Lives, rounds: int) -> None:
    dice, senders = random.Random(7), Senders()
    with inbox(share=0.5) as results:
        server = data.start(**SETTINGS)
        deploy(server, results.url)
        for _ in range(rounds):
            with senders.sending(server):
                time.sleep(dice.uniform(0.2, 1.5))
                data.kill(server)
            server = data.start(**SETTINGS)
        found = settle(server)
        redone = interrupted(server)

    assert len(senders.accepted) > rounds
    assert set(senders.accepted) <= set(results.taken)
    assert found["dead"] == 0
    assert results.twice <= redone, f"{results.twice} results twice, {redone} events under way at {rounds} kills"


def test_a_server_that_is_stopped_and_started_runs_what_it_accepted_once(data: Lives, rounds: int) -> None:
    senders = Senders()
    with inbox() as results:
        server = data.start(**SETTINGS, drain_timeout=5)
        deploy(server, results.url)
        for _ in range(max(rounds // 4, 2)):
            with senders.sending(server):
                time.sleep(0.5)
            data.terminate(server)
            server = data.start(**SETTINGS, drain_timeout=5)
        settle(server)

    assert set(senders.accepted) == set(results.taken)
    assert results.twice == 0


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own on this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_root
@pytest.mark.privileged
def test_a_full_disk_refuses_events_in_one_clear_sentence_and_loses_none(tmp_path: Path) -> None:
    with small_disk(tmp_path / "data", 48), inbox() as results:
        server = TorporServer(tmp_path / "server", data=tmp_path / "data", **SETTINGS)
        senders = Senders()
        deploy(server, results.url)
        with senders.sending(server):
            eventually(lambda: len(senders.accepted) > 50, what="events being accepted")
            filler = tmp_path / "data" / "filler"
            _fill(filler)
            eventually(lambda: senders.refused, what="events being refused", within=30)
            filler.unlink()
            before = len(senders.accepted)
            eventually(lambda: len(senders.accepted) > before + 50, what="events being accepted again", within=30)
        settle(server)
        server.stop()

    assert set(senders.accepted) <= set(results.taken)
    assert {"ServiceException" in refused and "disk is full" in refused for refused in senders.refused} == {True}


@needs_root
@pytest.mark.privileged
def test_a_database_that_is_made_read_only_costs_no_event(data: Lives) -> None:
    """What has the file open may go on to write it; the next life says what is wrong, the one after it goes on."""
    senders = Senders()
    with inbox() as results:
        server = data.start(**SETTINGS)
        deploy(server, results.url)
        with senders.sending(server):
            eventually(lambda: len(senders.accepted) > 50, what="events being accepted")
            with immutable(data.data):
                time.sleep(0.5)
                data.kill(server)
                told = refused(f"--data={data.data}")
        server = data.start(**SETTINGS)
        settle(server)

    assert set(senders.accepted) <= set(results.taken)
    assert "events.db" in told or "torpor.db" in told
    assert "read-only" in told or "cannot be opened" in told or "writable" in told


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65_536)
        except OSError:
            pass
        try:
            while True:
                file.write(b"x" * 512)
        except OSError:
            return


@contextmanager
def immutable(folder: Path) -> Iterator[None]:
    """The queue's files cannot be written, not even by root, which their modes do not keep from it."""
    files = [str(path) for path in folder.glob("events.db*")]
    if subprocess.run(["chattr", "+i", *files], stderr=subprocess.PIPE, check=False).returncode:
        pytest.skip("this file system knows no immutable files")
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


def test_results_reach_a_destination_that_fails_half_of_the_time(data: Lives) -> None:
    senders = Senders(callers=2)
    with inbox(share=0.5) as results:
        server = data.start(**SETTINGS)
        deploy(server, results.url)
        with senders.sending(server):
            eventually(lambda: len(senders.accepted) > 300, within=30)
        found = settle(server)
        data.terminate(server)

    assert set(senders.accepted) == set(results.taken)
    assert results.refused > 100
    assert found["dead"] == 0

"""A server told to stop finishes what runs, refuses what comes, leaves nothing, and touches no other."""

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from tests.support.functions import PYTHON, python
from tests.support.lives import Lives, children, lives, refused
from tests.support.server import ROLE, Function, Reply, TorporServer, eventually, needs_root

HOLDING = python("""
def handler(event, context):
    time.sleep(event.get("hold", 0))
    return BOOT
""")
REACHING = python("""
import socket
def handler(event, context):
    with socket.create_connection(("host.torpor.internal", event["port"]), timeout=3) as connection:
        connection.sendall(b"?")
        return connection.recv(10).decode()
""")

HEARING = python("""
import socket
def hear(port):
    with socket.create_connection(("host.torpor.internal", port), timeout=3) as connection:
        return connection.recv(10).decode()
def handler(event, context):
    return [hear(event["port"]) for _ in range(event["times"])]
""")


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Lives]:
    with lives(tmp_path) as made:
        yield made


def made(server: TorporServer) -> Function:
    """A function that is kept when the server ends."""
    name = f"kept-{uuid.uuid4().hex[:8]}"
    code = {"ZipFile": HOLDING.archive}
    server.client.create_function(
        FunctionName=name, Role=ROLE, Runtime=PYTHON, Handler=HOLDING.handler, Code=code, Timeout=30
    )
    return Function(server, name)


def is_running(server: TorporServer) -> bool:
    statistics = json.loads(fetch(f"{server.url}/_torpor/statistics"))
    return bool(statistics["pool"]["running"])


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        body: bytes = answer.read()
        return body


def running(function: Function, hold: float) -> Future[Reply]:
    """An invocation that has reached the handler's side of the server."""
    reply = function.start({"hold": hold})
    eventually(lambda: is_running(function.server), what="the invocation running")
    return reply


def refusal(server: TorporServer, function: Function) -> urllib.error.HTTPError:
    """What a new invocation is answered."""
    request = urllib.request.Request(f"{server.url}/2015-03-31/functions/{function.name}/invocations", data=b"{}")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    return refused.value


def test_a_server_stopped_while_it_prepares_sandboxes_ends_well_and_leaves_nothing(life: Lives) -> None:
    first = life.start()
    name = made(first).name
    first.client.update_function_configuration(FunctionName=name, SnapStart={"ApplyOn": "PublishedVersions"})
    first.client.publish_version(FunctionName=name)
    first.client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")
    life.terminate(first)
    for pause in (0.0, 0.03, 0.1, 0.2, 0.4):
        server = life.start()
        time.sleep(pause)
        assert life.terminate(server) == 0
        assert life.errors_of(server) == ""


def test_server_told_to_stop_answers_what_runs_and_refuses_what_comes(life: Lives) -> None:
    server = life.start()
    function = made(server)
    boot = function.invoke().payload
    reply = running(function, 1.5)
    stopping = server.submit(lambda: life.terminate(server))
    time.sleep(0.3)
    answer = refusal(server, function)
    assert answer.code == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert json.loads(answer.read())["Type"] == "Service"
    assert reply.result(20).payload == boot
    assert stopping.result(20) == 0
    assert "Traceback" not in life.errors_of(server)


def test_invocation_longer_than_the_drain_timeout_is_ended(life: Lives) -> None:
    server = life.start(drain_timeout=1)
    function = made(server)
    reply = running(function, 15)
    begun = time.monotonic()
    assert life.terminate(server) == 0
    assert 0.9 < time.monotonic() - begun < 6
    assert reply.exception(10) is not None
    assert "Traceback" not in life.errors_of(server)


def test_second_interrupt_ends_what_runs_at_once(life: Lives) -> None:
    server = life.start(drain_timeout=30)
    reply = running(made(server), 25)
    server.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert server.process.poll() is None
    begun = time.monotonic()
    assert life.terminate(server, signal.SIGINT) == 0
    assert time.monotonic() - begun < 6
    assert reply.exception(10) is not None
    assert "Traceback" not in life.errors_of(server)


def test_interrupt_from_the_keyboard_ends_it_well(life: Lives) -> None:
    server = life.start()
    made(server).invoke()
    assert life.terminate(server, signal.SIGINT) == 0


def test_server_stopped_and_started_again_knows_its_functions_and_their_logs(life: Lives) -> None:
    server = life.start()
    function = made(server)
    request_id = function.invoke().request_id
    assert life.terminate(server) == 0
    again = Function(life.start(), function.name)
    assert any(line.startswith(f"REPORT RequestId: {request_id}") for line in again.lines())
    assert not again.invoke().error
    later = [line for line in again.lines() if line.startswith("REPORT")]
    assert len(later) == 2


def test_second_server_on_the_same_folder_is_refused(life: Lives) -> None:
    server = life.start()
    assert "stop it, or name another with --data" in refused(f"--data={life.data}")
    function = made(server)
    assert not function.invoke().error


def test_server_on_another_folder_serves_while_one_is_killed_and_restarted(tmp_path: Path) -> None:
    with lives(tmp_path / "a") as one, lives(tmp_path / "b") as other:
        steady = made(other.start())
        boot = steady.invoke().payload
        server = one.start()
        function = made(server)
        function.invoke()
        reply = steady.start({"hold": 2})
        one.kill(server)
        server = one.start()
        assert not Function(server, function.name).invoke().error
        assert one.terminate(server) == 0
        assert reply.result(20).payload == boot
        assert steady.invoke().payload == boot


@pytest.mark.privileged
def test_launchers_killed_by_hand_the_next_invocations_work(life: Lives) -> None:
    server = life.start()
    function = made(server)
    before = function.invoke().payload
    killed = [pid for pid, command in children(server.process.pid).items() if "linux.relay" not in command]
    assert killed
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not function.environments(), within=2, what="the loss being noticed")
    after = [function.invoke() for _ in range(3)]
    assert not [reply for reply in after if reply.error]
    assert before not in [reply.payload for reply in after]


@needs_root
@pytest.mark.privileged
def test_launcher_killed_during_an_invocation_its_caller_is_told_and_the_next_works(life: Lives) -> None:
    server = life.start()
    function = made(server)
    reply = running(function, 10)
    eventually(lambda: [entry for entry in function.environments() if entry["pids"]], what="a process")
    time.sleep(0.5)
    for pid, command in children(server.process.pid).items():
        if "linux.relay" not in command:
            os.kill(pid, signal.SIGKILL)
    error = reply.exception(5)
    assert getattr(error, "response", {})["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert not function.invoke().error


@pytest.mark.privileged
def test_egress_relay_killed_by_hand_functions_reach_the_outside_again(life: Lives) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        server = life.start(host_ports=port)

        def serve() -> None:
            for _ in range(2):
                connection, _ = listener.accept()
                connection.recv(1)
                connection.sendall(b"hello")
                connection.close()

        served = server.submit(serve)
        with server.deployed(REACHING) as function:
            assert function.invoke({"port": port}).payload == "hello"
            relays = [pid for pid, command in children(server.process.pid).items() if "linux.relay" in command]
            assert len(relays) == 1
            os.kill(relays[0], signal.SIGKILL)
            eventually(
                lambda: [pid for pid, line in children(server.process.pid).items() if "linux.relay" in line] != relays,
                what="another relay",
            )
            assert function.invoke({"port": port}).payload == "hello"
        served.result(5)


@pytest.mark.privileged
def test_outside_that_speaks_and_closes_at_once_is_heard(life: Lives) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        port = listener.getsockname()[1]
        server = life.start(host_ports=port)

        def serve() -> None:
            for _ in range(10):
                connection, _ = listener.accept()
                connection.sendall(b"hello")
                connection.close()

        served = server.submit(serve)
        with server.deployed(HEARING) as function:
            assert function.invoke({"port": port, "times": 10}).payload == ["hello"] * 10
        served.result(5)


def test_data_folder_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    line = refused(f"--data={tmp_path / 'file' / 'data'}")
    assert "cannot be used (Not a directory); name another with --data" in line


@needs_root
@pytest.mark.privileged
def test_data_folder_on_a_read_only_disk_is_told_in_one_line(tmp_path: Path) -> None:
    with lives(tmp_path) as life:
        life.terminate(life.start())
    mounted = f'mount -t tmpfs none {tmp_path} && mount -o remount,ro {tmp_path} && exec "$@"'
    line = refused(f"--data={tmp_path / 'new'}", prefix=("unshare", "-m", "sh", "-c", mounted, "sh"))
    assert "Read-only file system" in line
    bound = f'mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} && exec "$@"'
    line = refused(f"--data={tmp_path / 'data'}", prefix=("unshare", "-m", "sh", "-c", bound, "sh"))
    assert "Read-only file system" in line or "read-only" in line.lower()


@needs_root
@pytest.mark.privileged
@pytest.mark.parametrize("kilobytes", (8, 40))
def test_data_folder_on_a_full_disk_is_told_in_one_line(tmp_path: Path, kilobytes: int) -> None:
    mounted = f'mount -t tmpfs -o size={kilobytes}k none {tmp_path} && exec "$@"'
    line = refused(
        f"--data={tmp_path / 'data'}", "--isolation=process", prefix=("unshare", "-m", "sh", "-c", mounted, "sh")
    )
    assert str(tmp_path) in line
    assert "No space left" in line or "full" in line

"""How long an environment is used, and what code may and may not rely on meanwhile."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import python
from tests.support.server import Function, eventually

from torpor.settings import Settings

SHOWING = python("""
counter = 0
before = os.listdir("/tmp")
def handler(event, context):
    global counter
    counter += 1
    with open("/tmp/counter", "a") as file:
        file.write("x")
    time.sleep(event.get("hold", 0))
    return {"boot": BOOT, "counter": counter, "file": os.path.getsize("/tmp/counter"), "before": before}
""")
CONNECTING = python("""
import socket

ADDRESS = ("host.torpor.internal", int(os.environ["AT"]))
connection = socket.create_connection(ADDRESS, timeout=5)

def is_open():
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        connection.settimeout(5)

def handler(event, context):
    global connection
    lost = not is_open()
    if lost:
        connection = socket.create_connection(ADDRESS, timeout=5)
    connection.sendall(b"?")
    return {"lost": lost, "port": connection.getsockname()[1], "answer": connection.recv(1).decode()}
""")


class Database:
    """A TCP server on the loopback interface that answers each byte and counts its connections."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.connections.append(connection)
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while connection.recv(1):
                connection.sendall(b"!")

    def drop(self) -> None:
        """End every connection."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def close(self) -> None:
        self.drop()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._thread.join()


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    database = Database()
    yield database
    database.close()


def _keeps_then_ends_when_idle(function: Function, pause: float, idle: float) -> None:
    first = function.invoke()
    time.sleep(pause)
    second = function.invoke()
    eventually(lambda: not function.environments(), within=idle + 10, what="the idle environment ending")
    ended = time.time()
    third = function.invoke()

    assert second.payload["boot"] == first.payload["boot"] != third.payload["boot"]
    assert [reply.payload["counter"] for reply in (first, second, third)] == [1, 2, 1]
    assert ended - second.received >= idle - 0.2
    assert "shutdown" in [entry["phase"] for entry in function.phases()]


@pytest.mark.fact("L-072")
@pytest.mark.privileged
def test_environment_is_kept_for_a_time_and_ended_when_idle(deploy: Deploy, make_server: MakeServer) -> None:
    assert Settings().idle_timeout == 600.0

    _keeps_then_ends_when_idle(deploy(SHOWING, on=make_server(idle_timeout=2)), 1.0, 2.0)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.fact("L-072")
@pytest.mark.privileged
def test_environment_is_kept_for_half_a_minute_and_ended_after_a_whole(deploy: Deploy, make_server: MakeServer) -> None:
    _keeps_then_ends_when_idle(deploy(SHOWING, on=make_server(idle_timeout=60)), 30.0, 60.0)


def _busy_function_gets_new_environments(function: Function, every: float, lasting: float) -> None:
    boots = set()
    until = time.monotonic() + lasting
    while time.monotonic() < until:
        reply = function.invoke()
        assert reply.error == ""
        boots.add(reply.payload["boot"])
        time.sleep(every)

    assert len(boots) >= 3
    assert [entry["phase"] for entry in function.phases()].count("shutdown") >= 2


@pytest.mark.fact("L-073")
@pytest.mark.privileged
def test_environment_of_a_busy_function_ends_at_its_maximum_age(deploy: Deploy, make_server: MakeServer) -> None:
    assert 3_600 <= Settings().max_age <= 86_400

    _busy_function_gets_new_environments(deploy(SHOWING, on=make_server(max_age=1)), 0.05, 3.5)


@pytest.mark.slow
@pytest.mark.fact("L-073")
@pytest.mark.privileged
def test_environment_of_a_busy_function_ends_at_twenty_seconds(deploy: Deploy, make_server: MakeServer) -> None:
    _busy_function_gets_new_environments(deploy(SHOWING, on=make_server(max_age=20)), 1.0, 60.0)


@pytest.fixture
def connecting(deploy: Deploy, make_server: MakeServer, database: Database) -> Function:
    """A function that connects to the database when its module is loaded."""
    server = make_server(host_ports=database.port)
    return deploy(CONNECTING, on=server, Environment={"Variables": {"AT": str(database.port)}})


@pytest.mark.fact("L-075")
@pytest.mark.privileged
def test_connection_opened_once_is_used_by_later_invocations(connecting: Function, database: Database) -> None:
    connected = len(database.connections)

    replies = []
    for _ in range(3):
        replies.append(connecting.invoke().payload)
        connecting.wait_until_frozen()

    assert [reply["answer"] for reply in replies] == ["!", "!", "!"]
    assert [reply["lost"] for reply in replies] == [False] * 3
    assert len({reply["port"] for reply in replies}) == 1
    assert len(database.connections) == connected + 1


@pytest.mark.fact("L-076")
@pytest.mark.privileged
def test_connection_lost_in_the_freeze_is_noticed_and_made_again(connecting: Function, database: Database) -> None:
    connected = len(database.connections)
    first = connecting.invoke().payload
    connecting.wait_until_frozen()

    database.drop()
    second, third = connecting.invoke().payload, connecting.invoke().payload

    assert [reply["answer"] for reply in (first, second, third)] == ["!", "!", "!"]
    assert [reply["lost"] for reply in (first, second, third)] == [False, True, False]
    assert len(database.connections) == connected + 2


@pytest.mark.fact("L-082")
@pytest.mark.privileged
def test_background_work_that_is_awaited_is_done_in_the_same_invocation(deploy: Deploy) -> None:
    function = deploy(
        python("""
        import threading
        def work():
            time.sleep(0.5)
            with open("/tmp/done", "w") as file:
                file.write("done")
        def handler(event, context):
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            with open("/tmp/done") as file:
                return file.read()
        """)
    )

    reply = function.invoke()

    assert reply.payload == "done"
    assert 500 <= float(reply.report.partition("Duration: ")[2].split()[0]) < 2_000


@pytest.mark.fact("L-084")
@pytest.mark.privileged
def test_one_invocation_per_environment_shows_that_code_is_stateless(deploy: Deploy, make_server: MakeServer) -> None:
    stateless = python("def handler(event, context): return sorted(event['values'])")
    single = make_server(single_use=True)
    showing, sorting, usual = deploy(SHOWING, on=single), deploy(stateless, on=single), deploy(stateless)
    events = [{"values": [number, 2, 1]} for number in range(3)]

    replies = [showing.invoke().payload for _ in range(3)]

    assert len({reply["boot"] for reply in replies}) == 3
    assert [(reply["counter"], reply["file"], reply["before"]) for reply in replies] == [(1, 1, [])] * 3
    assert [sorting.invoke(event).payload for event in events] == [usual.invoke(event).payload for event in events]


@pytest.mark.fact("L-085")
@pytest.mark.privileged
def test_counters_are_separate_in_parallel_and_start_again_after_a_recycle(deploy: Deploy) -> None:
    function = deploy(SHOWING)

    parallel = [future.result().payload for future in [function.start({"hold": 1}) for _ in range(2)]]
    function.recycle()
    after = function.invoke().payload

    assert len({reply["boot"] for reply in (*parallel, after)}) == 3
    assert [(reply["counter"], reply["file"]) for reply in (*parallel, after)] == [(1, 1)] * 3

"""Services that break in every way a server can: callers are told, the service is replaced, nobody else notices."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.lives import lives
from tests.support.raw_service import SOURCE, START, RawService
from tests.support.remains import footprint, memory_of, wait_until_gone
from tests.support.server import Function, TorporServer, eventually
from tests.support.web_services import Service, asked, service

MIB = 1 << 20
Serve = Callable[..., Service]


@pytest.fixture
def serve(server: TorporServer, tmp_path: Path) -> Iterator[Serve]:
    """Deploys services that are deleted after the test; by default one that does what it is asked."""
    with ExitStack() as stack:

        def serve(
            *options: str, start: str = START[1], source: str = "", on: TorporServer | None = None, starts: bool = True
        ) -> Service:
            files = {"server.py": source} if source else asked()
            options = ("--start", start, *options)
            return stack.enter_context(service(on or server, tmp_path, files, *options, starts=starts))

        yield serve


STARTS = {
    "no such program": ("exec nothing-like-this", "exit status 127"),
    "not to be executed": ("exec ./server.py", "exit status 126"),
    "ends at once": ("true", "exit status 0"),
    "ends with an error": ("echo broken >&2; exit 3", "exit status 3"),
    "kills itself": ("kill -KILL $$", "SIGKILL"),
    "syntax error": ("if then", "exit status 2"),
    "leaves a child behind": ("python server.py & exit 0", "exit status 0"),
}


@pytest.mark.parametrize("case", STARTS)
@pytest.mark.parametrize("kind", ["serverless", "persistent"])
def test_a_start_that_fails_is_told_with_what_to_do(serve: Serve, case: str, kind: str) -> None:
    command, reason = STARTS[case]
    options, starts = (["--persistent"], False) if kind == "persistent" else ([], True)
    found = serve(*options, start=command, starts=starts)

    answer = found.request(timeout=20)

    assert answer.status == 502, answer.text
    assert answer.text.startswith("Port Some(8080) is not being listened to by the service\n")
    assert reason in answer.text
    assert "build command" in answer.text or "/tmp" in answer.text
    eventually(lambda: all(entry["phase"] != "serving" for entry in found.environments()))


@pytest.mark.parametrize(
    "source", ["import time; time.sleep(60)", SOURCE.replace("SEEN.append(head)", "time.sleep(60)")]
)
def test_a_server_that_never_answers_its_first_question_is_ended(
    make_server: MakeServer, serve: Serve, source: str
) -> None:
    found = serve(source=source, on=make_server(web_start_limit=2))
    began = time.monotonic()

    answer = found.request()

    assert answer.status == 502
    assert "Within 2 s" in answer.text
    assert 1.9 < time.monotonic() - began < 5
    eventually(lambda: not found.environments(), what="the instance's end")


GARBAGE = "import os, socket\nlistener = socket.create_server(('', int(os.environ['PORT'])))\nwhile True:\n    SAY"


@pytest.mark.parametrize(
    "say", ["listener.accept()[0].close()", "c = listener.accept()[0]; c.sendall(b'SSH-2.0-x\\r\\n'); c.close()"]
)
def test_a_server_of_another_protocol_never_becomes_ready(make_server: MakeServer, serve: Serve, say: str) -> None:
    server = make_server(web_start_limit=2)
    found = serve(source=GARBAGE.replace("SAY", say), on=server)

    assert found.request().status == 502
    assert "Within 2 s" in found.request().text


def test_a_persistent_service_that_cannot_start_is_tried_again_ever_more_slowly(serve: Serve) -> None:
    found = serve("--persistent", start="echo started anew; exit 7", starts=False)
    time.sleep(6)

    starts = len([line for line in found.log().splitlines() if line.endswith("started anew")])

    assert 2 <= starts <= 8
    assert found.request().status == 502


def test_a_server_that_stops_listening_is_told_and_comes_back_when_it_does(serve: Serve) -> None:
    found = serve(source=SOURCE.replace("while True:\n    threading", LISTENS))
    raw = RawService(found)
    assert raw.works()
    raw.run("listener.shutdown(socket.SHUT_RDWR); say(conn, b''); conn.close()")

    answer = found.request()

    assert answer.status == 502
    assert "without an answer" in answer.text
    eventually(lambda: found.request().text == "up", within=15, what="the server listening again")


LISTENS = """while True:
    try:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
        continue
    except OSError:
        time.sleep(2)
        listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])), backlog=1000)
    threading"""


@pytest.mark.parametrize("close", ["say(conn, b'up'); conn.close(); return", "conn.sendall(b'HTTP/1.1 200 OK\\r\\n"
    "Content-Length: 2\\r\\nConnection: close\\r\\n\\r\\nup'); conn.close(); return"])  # fmt: skip
def test_servers_that_close_connections_lose_no_request(serve: Serve, close: str) -> None:
    found = serve(source=SOURCE.replace('say(conn, b"up")', close))

    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(lambda _: found.request().text, range(200)))

    assert texts == ["up"] * 200


DEATHS = {
    "before it answers": "os._exit(9)",
    "within its length": "conn.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 999999\\r\\n\\r\\n' + b'x' * 99999)"
    "; os._exit(9)",
    "within its chunks": "conn.sendall(b'HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5\\r\\nhello'"
    "b'\\r\\n')"
    "; os._exit(9)",
    "before an end that closing tells": "conn.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhello'); os._exit(9)",
    "by a signal": "conn.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhello'); os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.mark.parametrize("case", DEATHS)
def test_a_server_that_dies_within_its_answer_never_looks_as_if_it_were_through(serve: Serve, case: str) -> None:
    found = serve(source=SOURCE)
    raw = RawService(found)
    assert raw.works()
    first = found.environments()[0]["id"]

    reply = raw.run(DEATHS[case])

    if reply.status == 200:
        assert not reply.whole
    else:
        assert reply.status == 502
        assert "exit status 9" in reply.text or "SIGKILL" in reply.text
        assert "torpor logs" in reply.text
    assert raw.works()
    assert found.environments()[0]["id"] != first


def test_all_requests_in_flight_fail_with_their_server_and_the_next_one_works(serve: Serve) -> None:
    found = serve("--persistent")
    found.ask("result = 1")
    with ThreadPoolExecutor(20) as threads:
        sleeping = [threads.submit(found.request, "POST", "/", b"time.sleep(30)\nimport time") for _ in range(1)]
        sleeping += [threads.submit(found.request, "POST", "/", b"import time; time.sleep(30)") for _ in range(19)]
        time.sleep(0.5)
        assert found.request("POST", "/", b"import os; os._exit(4)").status == 502
        answers = [running.result() for running in sleeping]

    assert {answer.status for answer in answers[1:]} == {502}
    assert all("exit status 4" in answer.text for answer in answers[1:])
    assert eventually(lambda: found.request().status == 200, what="the next instance")


@pytest.mark.privileged
@pytest.mark.parametrize("kind", ["serverless", "persistent"])
def test_a_service_that_uses_too_much_memory_is_told_and_replaced(serve: Serve, kind: str) -> None:
    found = serve("--memory", "128", *(["--persistent"] if kind == "persistent" else []))
    found.ask("result = 1")

    answer = found.request("POST", "/", b"x = bytearray(1 << 30)")

    assert answer.status == 502
    assert "more than its 128 MB of memory" in answer.text
    assert eventually(lambda: found.request().text == "up", what="the next instance")


@pytest.mark.privileged
def test_a_full_tmp_is_the_services_own(serve: Serve) -> None:
    found = serve()
    fill = "f = open('/tmp/full', 'wb')\nwhile True: f.write(bytes(1 << 20))"

    assert "No space left" in found.error(fill)
    assert found.ask("import os; os.unlink('/tmp/full'); open('/tmp/x', 'w').write('y'); result = 1") == 1


@pytest.mark.parametrize("kind", ["serverless", "persistent"])
def test_a_flood_of_output_leaves_the_server_bounded_and_answering(
    server: TorporServer, serve: Serve, kind: str
) -> None:
    found, other = serve(*(["--persistent"] if kind == "persistent" else [])), serve()
    other.ask("result = 1")
    before = memory_of(server.process.pid)
    flood = b"import sys\nfor _ in range(100 << 10): sys.stdout.write('x' * 1023 + '\\n')\nresult = 2"
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(found.request, "POST", "/", flood)
        slowest, largest = 0.0, before
        while not running.done():
            began = time.monotonic()
            other.ask("result = 1")
            slowest = max(slowest, time.monotonic() - began)
            largest = max(largest, memory_of(server.process.pid))
        assert running.result().json == 2

    assert slowest < 2.0
    assert largest - before < 64 * MIB
    stored = [path for path in (server.data / "logs").rglob("*") if found.name in str(path) and path.is_file()]
    assert sum(path.stat().st_size for path in stored) < 64 * MIB


STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
import subprocess
subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 600 & sleep 600"])
"""


@pytest.mark.privileged
def test_a_service_that_ignores_its_end_is_killed_with_all_its_children(serve: Serve, tmp_path: Path) -> None:
    found = serve("--persistent", source=asked(STUBBORN)["server.py"])
    found.ask("result = 1")
    noted = footprint(Function(found.server, f"web/{found.name}"))
    assert len(noted.processes) >= 3

    found.server.command("delete", found.name)

    wait_until_gone([noted], within=15)
    assert found.deploy(tmp_path / found.name).code == 0  # so that it can be deleted again


@pytest.mark.privileged
def test_children_of_a_service_that_ended_are_gone(serve: Serve) -> None:
    found = serve()
    found.ask("import subprocess; subprocess.Popen(['sleep', '600'], start_new_session=True); result = 1")
    noted = footprint(Function(found.server, f"web/{found.name}"))

    assert found.request("POST", "/", b"import os; os._exit(0)").status == 502

    wait_until_gone([noted])
    assert found.request().text == "up"


def test_requests_beyond_the_only_instance_queue_and_are_then_told_to_come_again(serve: Serve) -> None:
    found = serve("--concurrency", "1")
    found.configure(max_instances=1)
    found.ask("result = 1")
    with ThreadPoolExecutor(300) as threads:
        began = time.monotonic()
        running = [threads.submit(found.request, "POST", "/", b"import time; time.sleep(0.1); result = 1")
                   for _ in range(300)]  # fmt: skip
        answers = [one.result() for one in running]
    took = time.monotonic() - began

    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 429}
    assert 50 <= statuses.count(200) <= took / 0.1  # one after the other
    assert took < 13
    refused = next(answer for answer in answers if answer.status == 429)
    assert "waited 10 s" in refused.text and "--concurrency" in refused.text
    assert refused.fields["Retry-After"] == "1"
    assert found.request().text == "up"


def test_a_service_named_like_anothers_beginning_is_its_own(server: TorporServer, serve: Serve) -> None:
    one = serve(source=SOURCE)
    longer = Service(server, one.name + "-more")
    folder = server.base / "longer"
    folder.mkdir(exist_ok=True)
    (folder / "server.py").write_text(SOURCE.replace('b"up"', 'b"longer"'))
    assert longer.deploy(folder, *START).code == 0
    try:
        assert (one.request().text, longer.request().text) == ("up", "longer")
        assert one.log() != longer.log()
    finally:
        server.command("delete", longer.name)
    assert one.request().text == "up"
    assert longer.request().status == 404


def test_requests_under_way_end_well_while_their_service_is_replaced_and_deleted(serve: Serve, tmp_path: Path) -> None:
    found = serve("--concurrency", "4")
    found.ask("result = 1")
    slow = b"import time; time.sleep(2); result = 'old'"
    with ThreadPoolExecutor(60) as threads:
        running = [threads.submit(found.request, "POST", "/", slow) for _ in range(8)]
        time.sleep(0.5)
        deploying = threads.submit(found.deploy, tmp_path / found.name)
        others = []
        while not deploying.done():
            others.append(threads.submit(found.request))
            time.sleep(0.02)
        assert deploying.result().code == 0
        assert {one.result().status for one in others} == {200}
        assert [one.result().json for one in running] == ["old"] * 8

        running = [threads.submit(found.request, "POST", "/", slow) for _ in range(8)]
        time.sleep(0.5)
        found.server.command("delete", found.name)
        assert found.request().status == 404
        assert [one.result().json for one in running] == ["old"] * 8
    eventually(lambda: not found.environments(), what="the deleted service's instances ending")
    assert found.deploy(tmp_path / found.name, *START).code == 0  # so that it can be deleted again


def test_a_persistent_service_is_replaced_without_losing_a_request(serve: Serve, tmp_path: Path) -> None:
    found = serve("--persistent")
    found.ask("result = 1")
    with ThreadPoolExecutor(60) as threads:
        running = threads.submit(found.request, "POST", "/", b"import time; time.sleep(3); result = 'old'")
        time.sleep(0.2)
        deploying = threads.submit(found.deploy, tmp_path / found.name, "--env", "A=b")
        statuses = []
        while not deploying.done():
            statuses.append(found.request().status)
        for _ in range(20):
            statuses.append(found.request().status)
        assert deploying.result().code == 0
        assert set(statuses) == {200}
        assert running.result().json == "old"
    assert found.ask("import os; result = os.environ['A']") == "b"


def test_a_persistent_service_serves_on_while_its_new_deployment_does_not_start(serve: Serve, tmp_path: Path) -> None:
    found = serve("--persistent")
    folder = tmp_path / found.name

    failed = found.deploy(folder, "--start", "echo broken; exit 3")
    assert failed.code == 1
    assert "does not start" in failed.errors and "deployment before it goes on serving" in failed.errors
    assert [found.request().text for _ in range(10)] == ["up"] * 10

    assert found.deploy(folder, *START, "--env", "A=b").code == 0
    assert found.ask("import os; result = os.environ['A']") == "b"
    eventually(lambda: len(found.environments()) == 1, what="the old instance's end")


@pytest.mark.privileged
def test_a_killed_server_leaves_no_service_behind_and_brings_them_back(tmp_path: Path) -> None:
    with lives(tmp_path / "server") as life:
        server = life.start()
        one, other = Service(server, "always"), Service(server, "wanted")
        folder = tmp_path / "source"
        folder.mkdir()
        (folder / "server.py").write_text(asked()["server.py"])
        assert one.deploy(folder, *START, "--persistent").code == 0
        assert other.deploy(folder, *START).code == 0
        assert (one.request().text, other.request().text) == ("up", "up")
        life.kill(server)

        server = life.start()
        one, other = Service(server, "always"), Service(server, "wanted")
        eventually(one.environments, what="the persistent service coming back by itself")
        assert (one.request().text, other.request().text) == ("up", "up")
        assert len(other.environments()) == 1

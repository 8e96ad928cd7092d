"""Requests of web services: how long, how large, and what belongs to the persistent kind."""

import http.client
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from tests.journeys.conftest import MakeServer
from tests.support.objects import PLAIN, object_store
from tests.support.server import TorporServer, eventually
from tests.support.web_services import Service, asked, cpu_seconds, service, until, vendored, write_source
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

START = ("--start", "exec python server.py")
LIMIT = 6_291_456
SLEEP = "import time; time.sleep({0}); result = {0}"
ECHO = {
    "server.py": """
import asyncio, os
from websockets.asyncio.server import serve

async def echo(connection):
    async for message in connection:
        await connection.send(message)

async def main():
    async with serve(echo, "0.0.0.0", int(os.environ["PORT"])) as server:
        await server.serve_forever()

asyncio.run(main())
"""
}
TICKING = """
def tick():
    while True:
        STATE.setdefault("ticks", []).append(time.time())
        time.sleep(0.1)

threading.Thread(target=tick, daemon=True).start()
"""


@pytest.fixture
def made(server: TorporServer, tmp_path: Path) -> Iterator[Service]:
    """A serverless service."""
    with service(server, tmp_path, asked(), *START) as found:
        yield found


def persistent(found: Service, folder: Path) -> None:
    """Deploy the same source again as the other kind."""
    assert found.deploy(folder / found.name, "--persistent").code == 0


@pytest.mark.fact("W-010")
def test_websocket_belongs_to_the_persistent_kind(server: TorporServer, tmp_path: Path) -> None:
    source = write_source(tmp_path / "echo", ECHO)
    vendored(source, "websockets")
    with service(server, tmp_path, asked(), *START) as found:
        assert found.deploy(source).code == 0
        with pytest.raises(InvalidStatus) as refused, found.connect() as peer:
            connect(f"ws://{found.host}/", sock=peer)
        assert refused.value.response.status_code == 426
        assert b"persistent" in (refused.value.response.body or b"")

        assert found.deploy(source, "--persistent").code == 0
        with found.connect() as peer, connect(f"ws://{found.host}/", sock=peer) as session:
            for number in range(100):
                session.send(f"message {number}")
                assert session.recv() == f"message {number}"
            session.send(bytes(1_000_000))
            assert session.recv() == bytes(1_000_000)


@pytest.mark.fact("W-011")
def test_a_request_may_take_fifteen_minutes(made: Service) -> None:
    assert made.shown()["timeout"] == 900


@pytest.mark.fact("W-011", "W-012")
def test_a_longer_request_is_ended_unless_the_service_is_persistent(server: TorporServer, tmp_path: Path) -> None:
    with service(server, tmp_path, asked(), *START, "--timeout", "5") as found:
        assert found.ask(SLEEP.format(4)) == 4
        began = time.monotonic()
        ended = found.request("POST", "/", SLEEP.format(6).encode())
        assert ended.status == 504
        assert time.monotonic() - began < 5.9
        assert "5 s" in ended.text and "persistent" in ended.text
        assert found.request().text == "up"

        persistent(found, tmp_path)
        assert found.ask(SLEEP.format(6)) == 6


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.fact("W-011")
def test_a_request_over_fifteen_minutes_is_ended(made: Service) -> None:
    began = time.monotonic()

    assert made.request("POST", "/", SLEEP.format(910).encode(), timeout=1000).status == 504
    assert 899 < time.monotonic() - began < 909


@pytest.mark.privileged
@pytest.mark.fact("W-013", "W-014")
def test_an_idle_instance_gets_no_processor_and_runs_no_background_task(server: TorporServer, tmp_path: Path) -> None:
    with service(server, tmp_path, asked(TICKING), *START) as found:
        found.ask("result = len(STATE['ticks'])")
        found.wait_until_frozen()
        begin, wall = time.monotonic(), time.time()
        pids = found.environments()[0]["pids"]
        used = cpu_seconds(pids)
        until(begin + 10)
        assert cpu_seconds(pids) == used
        after = time.time()
        ticks = found.ask("import time; time.sleep(0.5); result = STATE['ticks']")
        assert [tick for tick in ticks if wall + 0.2 < tick < after - 0.1] == []
        assert [tick for tick in ticks if tick > after]

        persistent(found, tmp_path)
        found.ask("result = 1")
        begin, wall = time.monotonic(), time.time()
        until(begin + 10)
        ticks = found.ask("result = STATE['ticks']")
        assert 80 <= len([tick for tick in ticks if wall < tick < wall + 10]) <= 101


@pytest.mark.fact("W-015")
def test_both_kinds_stand_side_by_side_and_are_listed(server: TorporServer, tmp_path: Path) -> None:
    with (
        service(server, tmp_path, asked(), *START) as one,
        service(server, tmp_path, asked(), *START, "--persistent") as other,
    ):
        assert (one.shown()["kind"], other.shown()["kind"]) == ("serverless", "persistent")
        listed = {line.split()[0]: line.split()[1] for line in server.command("list").splitlines() if line}
        assert (listed[one.name], listed[other.name]) == ("serverless", "persistent")
        eventually(other.environments, what="the persistent service running without a request")
        assert one.environments() == []
        if server.isolation != "process":  # without isolation nothing is read-only
            assert "Read-only" in one.error("open('a', 'w')")
        assert other.ask("open('a', 'w').write('1'); result = 1") == 1


@pytest.mark.fact("W-023")
def test_an_answer_of_six_megabytes_passes_and_one_byte_more_does_not(made: Service) -> None:
    whole = made.request("POST", "/", f"result = bytes({LIMIT})".encode())
    assert (whole.status, len(whole.body)) == (200, LIMIT)

    more = made.request("POST", "/", f"result = bytes({LIMIT + 1})".encode())
    assert more.status == 502
    assert more.text.startswith("Response is bigger than the maximum allowed size")
    assert made.logged("Response is bigger than the maximum allowed size")


CHUNKED = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        left = int(self.path[1:]) if self.path[1:].isdigit() else 0
        while left:
            piece = bytes(min(left, 65536))
            self.wfile.write(b"%x\\r\\n%b\\r\\n" % (len(piece), piece))
            left -= len(piece)
        self.wfile.write(b"0\\r\\n\\r\\n")

http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.mark.fact("W-023")
def test_an_answer_of_unknown_size_over_the_limit_never_looks_complete(server: TorporServer, tmp_path: Path) -> None:
    with service(server, tmp_path, {"server.py": CHUNKED}, *START) as found:
        assert len(found.request("GET", f"/{LIMIT}").body) == LIMIT
        with pytest.raises((http.client.HTTPException, OSError)):
            found.request("GET", f"/{LIMIT + 1}")
        assert found.logged("Response is bigger than the maximum allowed size")


UPLOAD = """
import urllib.request
request = urllib.request.Request({url!r}, data=bytes(range(256)) * 78125, method="PUT",
                                 headers={{"Content-Type": "application/octet-stream"}})
urllib.request.urlopen(request).read()
result = {public!r}
"""


@pytest.mark.privileged
@pytest.mark.fact("W-024")
def test_larger_data_goes_to_an_object_store_and_its_address_to_the_caller(
    make_server: MakeServer, tmp_path: Path
) -> None:
    with object_store() as store:
        port = store.rpartition(":")[2]
        server = make_server(host_ports=port)
        client = boto3.client("s3", endpoint_url=store, **PLAIN)
        client.create_bucket(Bucket="data")
        inside = f"http://169.254.100.2:{port}"  # a name's first part would be taken for a bucket
        upload = boto3.client("s3", endpoint_url=inside, **PLAIN).generate_presigned_url(
            "put_object", {"Bucket": "data", "Key": "large"}
        )
        public = client.generate_presigned_url("get_object", {"Bucket": "data", "Key": "large"})
        with service(server, tmp_path, asked(), *START) as found:
            assert found.ask(UPLOAD.format(url=upload, public=public)) == public
        with urllib.request.urlopen(public, timeout=30) as answer:
            assert answer.read() == bytes(range(256)) * 78125


@pytest.mark.parametrize("example", ["web-fastapi", "web-flask"])
def test_the_python_examples_work_with_what_is_installed(server: TorporServer, tmp_path: Path, example: str) -> None:
    source = tmp_path / example
    shutil.copytree(Path(__file__).parents[2] / "examples" / example, source)
    vendored(source, *(["fastapi", "uvicorn"] if example == "web-fastapi" else ["flask", "gunicorn"]))
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"  # whose compiled modules these are
    start = {
        "web-fastapi": f"{python} -m uvicorn main:app --host 0.0.0.0 --port $PORT",
        "web-flask": f"{python} -m gunicorn -b :$PORT --threads 8 app:app",
    }[example]
    with service(server, tmp_path, asked(), *START) as found:
        deployed = found.deploy(source, "--build", "", "--start", start)
        assert deployed.code == 0, deployed.errors
        assert found.request().json["framework"] == example.removeprefix("web-")


def test_the_static_example_is_served_as_it_is(server: TorporServer, tmp_path: Path) -> None:
    source = Path(__file__).parents[2] / "examples" / "web-static"
    with service(server, tmp_path, asked(), *START) as found:
        deployed = found.deploy(source, "--start", "python -m http.server $PORT")
        assert deployed.code == 0, deployed.errors
        assert "<h1>It works</h1>" in found.request().text

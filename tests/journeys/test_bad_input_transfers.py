"""Bodies and sessions that dawdle, break off or are huge: the other side notices, and the server stays small."""

import socket
import struct
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.raw_service import SOURCE, START, Caller, RawService
from tests.support.remains import memory_of
from tests.support.server import TorporServer, eventually
from tests.support.web_services import Service, service, write_source

MIB = 1 << 20
HUGE = 50 * MIB
SMALL = 24 * MIB
UPGRADE = "Connection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZQ=="


@pytest.fixture(scope="module", params=["serverless", "persistent"])
def either(
    request: pytest.FixtureRequest, server: TorporServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RawService]:
    """A service of each kind that takes one request at a time."""
    options = ["--persistent"] if request.param == "persistent" else []
    with service(server, tmp_path_factory.mktemp("raw"), {"server.py": SOURCE}, *START, "--concurrency", "1",
                 *options) as found:  # fmt: skip
        if request.param == "serverless":
            found.configure(max_instances=1)
        yield RawService(found)


@pytest.fixture(scope="module")
def raw(server: TorporServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RawService]:
    """A persistent service."""
    with service(server, tmp_path_factory.mktemp("raw"), {"server.py": SOURCE}, *START, "--persistent") as found:
        yield RawService(found)


@pytest.fixture(autouse=True)
def _unharmed(server: TorporServer) -> Iterator[None]:
    """Whatever broke off leaves no connection behind."""
    yield
    port = int(server.url.rpartition(":")[2])

    def is_quiet() -> bool:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return not [line for line in lines if line[1].endswith(f":{port:04X}") and line[3] in ("01", "08")]

    eventually(is_quiet, what="the end of all connections")


def vanish(caller: Caller) -> None:
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.socket.close()


def instance(found: RawService) -> str:
    assert found.works()
    (entry,) = found.service.environments()
    return str(entry["id"])


class Watch:
    """The most memory that the server held while something ran."""

    def __init__(self, server: TorporServer) -> None:
        self.pid = server.process.pid
        self.before = self.most = memory_of(self.pid)

    def look(self) -> None:
        self.most = max(self.most, memory_of(self.pid))

    @property
    def grown(self) -> int:
        return self.most - self.before


@pytest.mark.parametrize("framing", ["Content-Length: 20", "Transfer-Encoding: chunked"])
def test_an_upload_in_drops_arrives_whole(raw: RawService, framing: str) -> None:
    chunked = framing.startswith("T")
    code = b"say(conn, b'dropped')" if not chunked else b""
    with raw.caller() as caller:
        if chunked:
            caller.send(raw.request(f"POST /chunks HTTP/1.1\n{framing}"))
            for piece in (b"3\r\n", b"abc", b"\r", b"\n1", b"\r\nd\r\n0\r\n", b"\r\n"):
                time.sleep(0.1)
                caller.send(piece)
        else:
            caller.send(raw.request(f"POST /run HTTP/1.1\nContent-Length: {len(code)}"))
            for number in range(len(code)):
                time.sleep(0.02)
                caller.send(code[number : number + 1])
        reply = caller.reply()
        assert (reply.status, reply.body) == (200, b"up" if chunked else b"dropped")


@pytest.mark.parametrize("orderly", [True, False])
def test_an_upload_that_breaks_off_is_noticed_and_its_slot_is_free(either: RawService, orderly: bool) -> None:
    first, seen = instance(either), either.seen().count("upload broke off")
    with either.caller() as caller:
        caller.send(either.request(f"POST /count HTTP/1.1\nContent-Length: {MIB}", b"x" * 100_000))
        time.sleep(0.3)
        caller.socket.close() if orderly else vanish(caller)

    assert either.works()
    eventually(lambda: either.seen().count("upload broke off") > seen, what="the service noticing")
    assert instance(either) == first


ENDLESS = """
conn.sendall(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
try:
    while True:
        conn.sendall(b"2710\\r\\n" + bytes(10000) + b"\\r\\n")
        time.sleep(0.001)
finally:
    SEEN.append(b"download broke off")
"""


@pytest.mark.parametrize("orderly", [True, False])
def test_a_download_that_breaks_off_is_noticed_and_its_slot_is_free(either: RawService, orderly: bool) -> None:
    first, seen = instance(either), either.seen().count("download broke off")
    with either.caller() as caller:
        caller.send(either.running(ENDLESS))
        assert len(caller.take(50_000)) == 50_000
        caller.socket.close() if orderly else vanish(caller)

    assert either.works()
    eventually(lambda: either.seen().count("download broke off") > seen, what="the service noticing")
    assert instance(either) == first


WAITING = """
try:
    conn.recv(1)
finally:
    SEEN.append(b"given up")
"""


def test_a_caller_that_gives_up_waiting_is_noticed_and_its_slot_is_free(either: RawService) -> None:
    first = instance(either)
    with either.caller() as caller:
        caller.send(either.running(WAITING))
        time.sleep(0.2)
        vanish(caller)

    assert either.works()
    eventually(lambda: "given up" in either.seen(), what="the service noticing")
    assert instance(either) == first


def test_a_huge_upload_streams_through_a_small_server(server: TorporServer, raw: RawService) -> None:
    watch = Watch(server)
    with raw.caller() as caller:
        caller.send(raw.request(f"POST /count HTTP/1.1\nContent-Length: {HUGE}"))
        for _ in range(HUGE // MIB):
            caller.send(bytes(MIB))
            watch.look()
        assert caller.reply().body == str(HUGE).encode()

    assert watch.grown < SMALL


def test_an_upload_that_the_service_does_not_read_waits_with_its_sender(server: TorporServer, raw: RawService) -> None:
    watch = Watch(server)
    with raw.caller() as caller:
        caller.send(raw.request(f"POST /deaf HTTP/1.1\nContent-Length: {HUGE}"))
        caller.socket.settimeout(1.0)
        with pytest.raises(TimeoutError):
            for _ in range(HUGE // MIB):
                caller.send(bytes(MIB))
        watch.look()
        assert raw.works()

    assert watch.grown < SMALL


def test_a_slow_reader_of_a_huge_download_is_waited_for_by_a_small_server(
    server: TorporServer, raw: RawService
) -> None:
    watch = Watch(server)
    with raw.caller() as caller:
        caller.send(raw.running(f"say(conn, bytes({HUGE}))"))
        for _ in range(20):
            time.sleep(0.1)
            watch.look()
        assert raw.works()
        reply = caller.reply()
        watch.look()

    assert (len(reply.body), reply.whole) == (HUGE, True)
    assert watch.grown < SMALL


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_reader_that_reads_nothing_is_given_up_and_its_slot_is_free(either: RawService) -> None:
    first, seen = instance(either), either.seen().count("download broke off")
    with either.caller() as caller:
        caller.send(either.running(ENDLESS))
        began = time.monotonic()
        eventually(either.works, within=60, what="the server giving the reader up")
        assert time.monotonic() - began > 25
    eventually(lambda: either.seen().count("download broke off") > seen, what="the service noticing")
    assert instance(either) == first


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_an_upload_over_the_serverless_limit_is_refused(either: RawService, framing: str) -> None:
    if "persistent" in either.service.shown()["kind"]:
        pytest.skip("a persistent service has no limit")
    first = instance(either)
    with either.caller() as caller:
        if framing == "length":
            caller.send(either.request(f"POST /count HTTP/1.1\nContent-Length: {33 * MIB}"))
        else:
            caller.send(either.request("POST /sink HTTP/1.1\nTransfer-Encoding: chunked"))
            with suppress(OSError):
                for _ in range(33):
                    caller.send(b"100000\r\n" + bytes(MIB) + b"\r\n")
        reply = caller.reply()
        assert reply.status == 413
        assert "object storage" in reply.text
    assert instance(either) == first


def test_a_session_passes_bytes_both_ways_and_each_death_is_told_to_the_other(raw: RawService) -> None:
    first, seen = instance(raw), raw.seen().count("echo ended")
    with raw.caller() as caller:
        assert opened(raw, caller)
        for number in range(50):
            caller.send(b"%d" % number)
            assert caller.socket.recv(100) == b"%d" % number
        caller.socket.shutdown(socket.SHUT_WR)
        assert caller.ended()
    with raw.caller() as caller:
        assert opened(raw, caller)
        vanish(caller)
    eventually(lambda: raw.seen().count("echo ended") == seen + 2, what="the service noticing both ends")
    assert instance(raw) == first

    with raw.caller() as caller, raw.caller() as other:
        assert opened(raw, caller)
        assert opened(raw, other)
        began = time.monotonic()
        caller.send(b"die")
        assert caller.ended()
        assert other.ended()
        assert time.monotonic() - began < 2
    eventually(raw.works, what="the next instance")
    assert instance(raw) != first


def test_a_session_is_refused_to_the_serverless_kind(either: RawService) -> None:
    if "persistent" in either.service.shown()["kind"]:
        pytest.skip("a persistent service has sessions")
    reply = either.ask(f"GET /echo HTTP/1.1\n{UPGRADE}")

    assert reply.status == 426
    assert "--persistent" in reply.text
    assert reply.fields("upgrade")


@pytest.mark.parametrize("offer", ["Upgrade: h2c\nHTTP2-Settings: AAMAAABk", "Upgrade: websocket-x", "Upgrade:"])
def test_other_protocols_are_not_offered_to_a_service(raw: RawService, offer: str) -> None:
    assert raw.ask(f"GET /offer HTTP/1.1\nConnection: Upgrade, HTTP2-Settings\n{offer}").body == b"up"

    head = next(head for head in reversed(raw.seen()) if head.startswith("GET /offer"))
    assert "pgrade" not in head
    assert "HTTP2-Settings" not in head


def test_a_session_over_a_path_is_the_services_too(raw: RawService) -> None:
    place = raw.service.server.url.partition("//")[2]
    with raw.caller() as caller:
        target = f"/services/{raw.service.name}/echo"
        fields = UPGRADE.replace("\n", "\r\n")
        caller.send(f"GET {target} HTTP/1.1\r\nHost: {place}\r\n{fields}\r\n\r\n".encode())
        assert caller.reply_head().startswith("HTTP/1.1 101 ")
        caller.send(b"over a path")
        assert caller.take(11) == b"over a path"


def test_a_service_that_declines_a_session_answers_as_usual(raw: RawService) -> None:
    with raw.caller() as caller:
        caller.send(raw.request(f"GET /plain HTTP/1.1\n{UPGRADE}"))
        assert caller.reply().body == b"up"
        caller.send(raw.request("GET / HTTP/1.1"))
        assert caller.reply().body == b"up"


def test_a_server_stops_in_time_with_sessions_uploads_and_downloads_open(
    make_server: MakeServer, tmp_path: Path
) -> None:
    server = make_server(drain_timeout=1)
    with ExitStack() as stack:
        raw = RawService(Service(server, "closing"))
        source = write_source(tmp_path / "closing", {"server.py": SOURCE})
        assert raw.service.deploy(source, *START, "--persistent").code == 0
        session, upload, download = (stack.enter_context(raw.caller()) for _ in range(3))
        assert opened(raw, session)
        upload.send(raw.request(f"POST /count HTTP/1.1\nContent-Length: {MIB}", b"x"))
        download.send(raw.running(ENDLESS))
        time.sleep(0.3)
        began = time.monotonic()
        with ThreadPoolExecutor(1) as threads:
            stopping = threads.submit(server.stop)
            assert session.ended()
            assert not download.reply().whole
            stopping.result()
        assert time.monotonic() - began < 12


def opened(raw: RawService, caller: Caller) -> bool:
    """Has the service changed the protocol?"""
    caller.send(raw.request(f"GET /echo HTTP/1.1\n{UPGRADE}"))
    return caller.reply_head().startswith("HTTP/1.1 101 ")

"""Requests that are no requests, peers that dawdle or vanish: each gets a clear answer, everybody else goes on."""

import json
import re
import select
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import ClassVar

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import shell
from tests.support.remains import descriptors_of, memory_of
from tests.support.server import Function, TorporServer, eventually

MIB = 1 << 20
ECHO = shell('while next; do sleep 0; respond "$event"; done')
HEAD_TIMEOUT = 15.0
BODY_TIMEOUT = 30.0
_ESTABLISHED = ("01", "08")
_ERRORS = {400: "invalidrequestcontentexception", 505: "serviceexception"}
NO_REQUESTS = {
    "garbage": b"GARBAGE\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "length that is no number": b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
    "negative length": b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "endless chunk size": b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    "NUL in a header": b"GET / HTTP/1.1\r\nA: b\x00c\r\n\r\n",
    "header without a colon": b"GET / HTTP/1.1\r\nnonsense\r\n\r\n",
    "space before the colon": b"GET / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
}


class Peer:
    """A bare connection."""

    ports: ClassVar[set[int]] = set()

    def __init__(self, server: TorporServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", _port(server)), timeout=60)
        self.ports.add(self.socket.getsockname()[1])

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Vanish without a good-bye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def received(self) -> bytes:
        """Everything until the server closes."""
        found = b""
        while block := self.socket.recv(65_536):
            found += block
        return found

    def refusal(self) -> tuple[int, str, str]:
        """Status, error type and text of an answer in the API's form, after which the server has closed."""
        head, _, body = self.received().partition(b"\r\n\r\n")
        fields = dict(re.findall(r"(?m)^([\w-]+): (.*?)\r?$", head.decode().lower()))
        assert uuid.UUID(fields["x-amzn-requestid"])
        told = json.loads(body)
        return int(head.split()[1]), fields["x-amzn-errortype"], told.get("message") or told["Message"]


@contextmanager
def _peer(server: TorporServer) -> Iterator[Peer]:
    peer = Peer(server)
    try:
        yield peer
    finally:
        peer.socket.close()


@pytest.fixture
def echo(deploy: Deploy) -> Function:
    function = deploy(ECHO)
    assert function.invoke({"n": 0}).payload == {"n": 0}
    return function


@pytest.fixture(autouse=True)
def no_connection_is_lost(server: TorporServer) -> Iterator[None]:
    """Whatever a test does, the server holds no connection of its peers afterwards, and answers."""
    Peer.ports.clear()
    yield
    eventually(lambda: not _held(server), what="the server letting go of the peers that have gone")
    assert server.client.list_functions()["Functions"] is not None


def _port(server: TorporServer) -> int:
    return int(server.url.rpartition(":")[2])


def _held(server: TorporServer) -> list[int]:
    """Ports of peers whose connection the server still has."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if state in _ESTABLISHED and int(local[9:], 16) == _port(server) and int(remote[9:], 16) in Peer.ports:
            found.append(int(remote[9:], 16))
    return found


def _invoke(function: Function, size: int) -> bytes:
    path = f"/2015-03-31/functions/{function.name}/invocations"
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n".encode()


@pytest.mark.parametrize("kind", NO_REQUESTS)
def test_malformed_request_is_refused_in_the_apis_form(server: TorporServer, kind: str) -> None:
    with _peer(server) as peer:
        peer.send(NO_REQUESTS[kind])
        status, error, text = peer.refusal()

    assert (status, error) == (505 if kind == "version" else 400, _ERRORS[505 if kind == "version" else 400])
    assert text


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: x\r\n" * 5_000 + b"\r\n", 431),
    ],
    ids=["target", "one field", "many fields"],
)
def test_head_that_is_too_large_is_refused_in_the_apis_form(server: TorporServer, head: bytes, status: int) -> None:
    with _peer(server) as peer:
        peer.send(head)
        refused = peer.refusal()

    assert refused[:2] == (status, "invalidrequestcontentexception")


@pytest.mark.parametrize(
    "body", [b"{", b"nonsense", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b"{}{}"], ids=lambda body: repr(body[:9])
)
def test_event_that_is_no_json_never_reaches_the_function(server: TorporServer, echo: Function, body: bytes) -> None:
    with pytest.raises(server.client.exceptions.InvalidRequestContentException) as refused:
        server.client.invoke(FunctionName=echo.name, Payload=body)

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert _invocations(echo) == 1


@pytest.mark.parametrize("size", [6 * MIB + 1, 13 * MIB])
def test_event_that_is_too_large_never_reaches_the_function(server: TorporServer, echo: Function, size: int) -> None:
    with pytest.raises(server.client.exceptions.RequestTooLargeException) as refused:
        server.client.invoke(FunctionName=echo.name, Payload=b'"' + b"x" * (size - 2) + b'"')

    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413
    assert refused.value.response["Error"]["Message"]
    assert _invocations(echo) == 1
    assert echo.invoke({"n": 1}).payload == {"n": 1}


def test_body_that_claims_a_terabyte_is_refused_at_once(server: TorporServer, echo: Function) -> None:
    before = memory_of(server.process.pid)
    with _peer(server) as peer:
        peer.send(_invoke(echo, 1 << 40) + b"x" * 1000)
        assert peer.refusal()[:2] == (413, "requesttoolargeexception")

    assert memory_of(server.process.pid) < before + 16 * MIB
    assert _invocations(echo) == 1


def test_endless_chunks_are_cut_off(server: TorporServer, echo: Function) -> None:
    before = memory_of(server.process.pid)
    with _peer(server) as peer:
        peer.send(_invoke(echo, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
        with suppress(ConnectionError):
            for _ in range(64):
                peer.send(b"100000\r\n" + b"x" * MIB + b"\r\n")
        with suppress(ConnectionResetError):
            assert peer.refusal()[:2] == (413, "requesttoolargeexception")

    assert memory_of(server.process.pid) < before + 40 * MIB
    assert _invocations(echo) == 1


def test_client_that_vanishes_mid_request_starts_nothing(server: TorporServer, echo: Function) -> None:
    for sent in (_invoke(echo, 100)[:20], _invoke(echo, 100), _invoke(echo, 100) + b'{"n": 1'):
        for way in (Peer.reset, lambda peer: peer.socket.close()):
            peer = Peer(server)
            peer.send(sent)
            way(peer)

    eventually(lambda: not _held(server))
    assert echo.invoke({"n": 2}).payload == {"n": 2}
    assert _invocations(echo) == 2


def test_client_that_vanishes_while_its_function_runs_does_not_stop_it(server: TorporServer, deploy: Deploy) -> None:
    function = deploy(shell('while next; do sleep 1; echo "finished $event"; respond 1; done'))
    body = b'{"n":1}'
    peer = Peer(server)
    peer.send(_invoke(function, len(body)) + body)
    eventually(lambda: [line for line in function.lines() if line.startswith("START ")])
    peer.reset()

    eventually(lambda: 'finished {"n":1}' in function.lines())

    eventually(lambda: [line for line in function.lines() if line.startswith("REPORT ")])
    assert [line for line in function.lines() if "Status: " in line] == []
    function.wait_until_frozen()
    assert function.invoke().error == ""
    assert len(function.environments()) == 1


def test_slow_and_idle_clients_hold_up_nobody(server: TorporServer, echo: Function) -> None:
    before = descriptors_of(server.process.pid)
    with ExitStack() as stack:
        slow = stack.enter_context(_peer(server))
        began = time.monotonic()
        slow.send(b"GET /")
        idle = [stack.enter_context(_peer(server)) for _ in range(200)]
        eventually(lambda: descriptors_of(server.process.pid) >= before + 200)
        assert all(echo.invoke({"n": n}).elapsed < 2.0 for n in range(10))
        while not _readable(slow.socket, 0.5):
            slow.send(b"x")
            assert time.monotonic() - began < 2 * HEAD_TIMEOUT
        waited = time.monotonic() - began

        assert slow.refusal()[:2] == (408, "invalidrequestcontentexception")
        assert HEAD_TIMEOUT - 0.1 <= waited < HEAD_TIMEOUT + 5.0
        assert echo.invoke({"n": 1}).payload == {"n": 1}
        silent = idle[0].received()
        assert silent == b"" or silent.startswith(b"HTTP/1.1 408 ")
    eventually(lambda: descriptors_of(server.process.pid) <= before + 20)


@pytest.mark.slow
def test_body_that_stops_arriving_is_given_up(server: TorporServer, echo: Function) -> None:
    with _peer(server) as peer:
        began = time.monotonic()
        peer.send(_invoke(echo, 100) + b"{")

        assert peer.refusal()[:2] == (408, "invalidrequestcontentexception")
        assert BODY_TIMEOUT - 0.1 <= time.monotonic() - began < BODY_TIMEOUT + 5.0
    assert _invocations(echo) == 1


def test_client_that_reads_nothing_holds_up_nobody(server: TorporServer, echo: Function) -> None:
    with _peer(server) as peer:
        peer.socket.setblocking(False)
        with suppress(BlockingIOError):
            for _ in range(2_000):
                peer.socket.send(b"GET /2015-03-31/functions HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        before = memory_of(server.process.pid)

        assert all(echo.invoke({"n": n}).elapsed < 2.0 for n in range(5))
        assert memory_of(server.process.pid) < before + 16 * MIB


def _invocations(function: Function) -> int:
    return len([line for line in function.lines() if line.startswith("START ")])


def _readable(peer: socket.socket, within: float) -> bool:
    return bool(select.select([peer], [], [], within)[0])

"""Requests that are no requests, peers that dawdle or vanish: each gets a clear answer, everybody else goes on."""

import json
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import Package, shell
from tests.support.remains import descriptors_of, memory_of
from tests.support.server import Function, TorporServer, eventually

MIB = 1 << 20
ECHO = shell('while next; do sleep 0; respond "$event"; done')
HEAD_TIMEOUT = 15.0
BODY_TIMEOUT = 30.0
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

    def __init__(self, server: TorporServer) -> None:
        self.socket = socket.create_connection(("127.0.0.1", _port(server)), timeout=60)

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
def no_descriptor_is_lost(server: TorporServer) -> Iterator[None]:
    """Whatever a test does, the server holds no connection of it afterwards, and answers."""
    yield
    eventually(
        lambda: not _connections(server), within=10.0, what=f"connections of peers closing: {_connections(server)}"
    )
    assert server.client.list_functions()["Functions"] is not None


def _port(server: TorporServer) -> int:
    return int(server.url.rpartition(":")[2])


def _connections(server: TorporServer) -> list[str]:
    """Connections to the server's port but those of the SDK's pool, which this process holds open."""
    port = f":{_port(server):04X}"
    lines = [line.split() for line in open("/proc/net/tcp").read().splitlines()[1:]]
    held = server.client.meta.client if False else None
    return [fields[2] for fields in lines if fields[1].endswith(port) and fields[3] in ("01", "08") and held]


def _invoke(function: Function, size: int) -> bytes:
    path = f"/2015-03-31/functions/{function.name}/invocations"
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()


@pytest.mark.parametrize("kind", NO_REQUESTS)
def test_malformed_request_is_refused_in_the_apis_form(server: TorporServer, kind: str) -> None:
    with _peer(server) as peer:
        peer.send(NO_REQUESTS[kind])
        status, error, text = peer.refusal()

    assert (status, error) == (400, "invalidrequestcontentexception")
    assert text

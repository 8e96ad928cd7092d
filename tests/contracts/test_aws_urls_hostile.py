"""Callers of function URLs who send what is no request, dawdle or vanish: everybody else goes on."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from tests.contracts.aws_support import KEYS
from tests.contracts.url_support import Done, UrlServer, eventually, open_url, serving_urls

from torpor.api.aws import AwsSettings
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus

SUCCESS = Outcome(status=OutcomeStatus.SUCCESS, payload=b"")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UrlServer]:
    with serving_urls(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS)) as running:
        yield running


@pytest.fixture(scope="module")
def url(server: UrlServer) -> str:
    return open_url(server.client(), "open")


@pytest.fixture(scope="module")
def streamed(server: UrlServer) -> str:
    return open_url(server.client(), "streamed", InvokeMode="RESPONSE_STREAM")


@pytest.fixture(autouse=True)
def goes_on(server: UrlServer, url: str) -> Iterator[None]:
    """After each test the next caller is served."""
    server.runner.script = None
    server.runner.seen.clear()
    yield
    server.runner.script = None
    assert server.call(url).status == 200


def sent(server: UrlServer, request: bytes) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    peer.sendall(request)
    return peer


def received(peer: socket.socket) -> bytes:
    """Everything until the server closes."""
    found = b""
    with suppress(ConnectionResetError):
        while block := peer.recv(65_536):
            found += block
    peer.close()
    return found


def vanish(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()


def head(server: UrlServer, url: str, *lines: bytes, method: bytes = b"GET", target: bytes = b"/") -> bytes:
    first = b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (method, target, server.host(url).encode())
    return first + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


@pytest.mark.parametrize(
    ("lines", "target", "status"),
    [
        ([b"X: " + b"a" * 70_000], b"/", 431),
        ([b"X%d: a" % number for number in range(300)], b"/", 431),
        ([], b"/" + b"a" * 70_000, 4),  # the target's own status or that of the head, by how it arrives
        ([], b"/\xff\xfe", 400),
        ([b"Host: other"], b"/", 400),
        ([b"A: b\0c"], b"/", 400),
        ([], b"/a\0b", 400),
        ([], b"/a b", 400),
        ([b"Content-Length: 1", b"Content-Length: 2"], b"/", 400),
        ([b"Content-Length: -1"], b"/", 400),
        ([b"Content-Length: 1", b"Transfer-Encoding: chunked"], b"/", 400),
        ([b"Transfer-Encoding: gzip"], b"/", 501),
    ],
)
def test_what_is_no_request_never_reaches_the_function(
    server: UrlServer, url: str, lines: list[bytes], target: bytes, status: int
) -> None:
    answer = received(sent(server, head(server, url, *lines, target=target)))

    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert server.runner.seen == []


@pytest.mark.parametrize("target", [b"/%00", b"/%", b"/%zz%2", b"/../../etc/passwd", b"//", b"/;a=b?%26&=&"])
def test_strange_paths_reach_the_function_as_they_are(server: UrlServer, url: str, target: bytes) -> None:
    answer = received(sent(server, head(server, url, b"Connection: close", target=target)))

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert server.runner.event["rawPath"] == target.decode().partition("?")[0]


def test_a_body_that_does_not_arrive_is_waited_for_no_longer_than_the_limit(server: UrlServer, url: str) -> None:
    dawdling = sent(server, head(server, url, b"Content-Length: 10", method=b"POST") + b"abc")

    assert received(dawdling).startswith(b"HTTP/1.1 408 ")
    assert server.runner.seen == []


@pytest.mark.parametrize("framing", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
def test_a_caller_who_vanishes_within_the_body_invokes_nothing(server: UrlServer, url: str, framing: bytes) -> None:
    vanish(sent(server, head(server, url, framing, method=b"POST") + b"5\r\nabcde\r\n"))
    assert server.call(url).status == 200

    assert len(server.runner.seen) == 1


def test_leave_to_send_a_body_is_given_only_to_who_may_send_it(server: UrlServer, url: str) -> None:
    lines = [b"Content-Length: 5", b"Expect: 100-continue", b"Connection: close", b"Content-Type: text/plain"]
    peer = sent(server, head(server, url, *lines, method=b"POST"))
    assert peer.recv(100).startswith(b"HTTP/1.1 100 Continue")
    peer.sendall(b"hello")
    assert received(peer).startswith(b"HTTP/1.1 200 ")
    assert server.runner.event["body"] == "hello"
    unknown = received(sent(server, head(server, "a" * 32, *lines, method=b"POST")))
    assert unknown.startswith(b"HTTP/1.1 403 ")
    too_large = [b"Content-Length: 99999999", *lines[1:]]
    assert received(sent(server, head(server, url, *too_large, method=b"POST"))).startswith(b"HTTP/1.1 413 ")


def test_a_function_goes_on_when_its_caller_has_gone(server: UrlServer, url: str) -> None:
    waiting: list[Done] = []
    server.runner.script = lambda invocation, done: waiting.append(done)
    vanish(sent(server, head(server, url)))
    eventually(lambda: waiting)

    waiting[0](SUCCESS)


def test_a_stream_goes_no_faster_than_it_is_read_and_ends_when_its_reader_has_gone(
    server: UrlServer, streamed: str
) -> None:
    left, ended, refused = [bytes(256 * 1024)] * 64, threading.Event(), threading.Event()

    def script(invocation: Invocation, done: Done) -> None:
        sink = invocation.sink
        assert sink is not None
        sink.begin("text/plain")

        def go_on() -> None:
            while left:
                left.pop()
                if not sink.data(bytes(256 * 1024)):
                    refused.set()
                    sink.on_writable = go_on
                    return
            ended.set()
            done(SUCCESS)

        go_on()

    server.runner.script = script
    peer = sent(server, head(server, streamed))
    assert refused.wait(5)
    assert len(left) > 16
    assert not ended.is_set()
    vanish(peer)
    assert ended.wait(5)


def test_offers_to_change_the_protocol_are_passed_over(server: UrlServer, url: str) -> None:
    for offer in (b"h2c", b"websocket"):
        lines = [b"Connection: Upgrade", b"Upgrade: " + offer, b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
        peer = sent(server, head(server, url, *lines))
        assert peer.recv(1000).startswith(b"HTTP/1.1 200 ")
        peer.close()
        assert "upgrade" not in server.runner.event["headers"]


def test_requests_of_one_connection_are_answered_in_order(server: UrlServer, url: str) -> None:
    first = head(server, url, b"Content-Length: 3", b"Content-Type: text/plain", method=b"POST") + b"one"
    peer = sent(server, first + head(server, url, b"Connection: close", target=b"/two"))
    answers = received(peer)

    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert answers.index(b'"body":"one"') < answers.index(b'"rawPath":"/two"')

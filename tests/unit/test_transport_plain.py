"""The plain reader against the full parser: whatever it takes, the parser reads the same way."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from torpor.transport import parser as parsing
from torpor.transport.exchange import Exchange
from torpor.transport.limits import HttpLimits
from torpor.transport.parser import Refusal, RequestParser
from torpor.transport.plain import read_plain

LIMITS = HttpLimits(body_bytes=64, header_bytes=300, header_count=6)


class _Sink:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def received(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def continue_wanted(self) -> None:
        raise AssertionError("a plain request announces nothing")


def _fully_read(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Exchange], Refusal | None]:
    with monkeypatch.context() as patch:
        patch.setattr(parsing, "read_plain", lambda *_: None)
        sink = _Sink()
        refusal = RequestParser(LIMITS, sink).feed(data)
    return sink.exchanges, refusal


def _facts(exchange: Exchange) -> tuple[object, ...]:
    fields = list(exchange.headers.items())
    framing = (exchange.keep_alive, exchange.http10)
    return exchange.method, exchange.target, exchange.path, exchange.query, fields, exchange.body, framing


_NAMES = st.sampled_from(
    ["Host", "host", "Content-Length", "CONTENT-LENGTH", "Transfer-Encoding", "Connection", "Expect", "Upgrade", "X-A"]
) | st.text("aZ-_ :\t\r\n\0é", min_size=0, max_size=3)
_VALUES = st.sampled_from(
    ["0", "3", "03", "+3", "3, 3", "", " 3 ", "-1", "0x3", "chunked", "keep-alive", "close", "upgrade", "100-continue"]
) | st.text("a b:\t\r\n\0é", max_size=4)
_REQUESTS = st.builds(
    lambda method, target, version, fields, gap, body: "".join(
        [f"{method} {target} HTTP/{version}\r\n", *(f"{name}:{gap}{value}\r\n" for name, value in fields), "\r\n", body]
    ).encode("latin-1"),
    st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "CONNECT", "post", "PRI"]),
    st.sampled_from(["/", "/a?b=c", "*", "//a", "http://h/a", "/a b", "/a#b", "/%41/é", ""]),
    st.sampled_from(["1.1", "1.1", "1.1", "1.0", "2.0", "1.1 "]),
    st.lists(st.tuples(_NAMES, _VALUES), max_size=8),
    st.sampled_from([" ", "", "  ", "\t"]),
    st.sampled_from(["", "abc", "abcd", "x" * 65, "GET / HTTP/1.1\r\n\r\n", "0\r\n\r\n"]),
)


@given(data=_REQUESTS)
@example(data=b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc")
@example(data=b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc")
@example(data=b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc")
@example(data=b"POST / HTTP/1.1\r\nContent-Length : 3\r\n\r\nabc")
@example(data=b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n")
def test_a_request_taken_as_plain_is_read_by_the_parser_as_the_same_one(data: bytes) -> None:
    exchange = read_plain(data, LIMITS)
    with pytest.MonkeyPatch.context() as monkeypatch:
        exchanges, refusal = _fully_read(data, monkeypatch)
    if exchange is not None:
        assert refusal is None
        assert [_facts(known) for known in exchanges] == [_facts(exchange)]


@pytest.mark.parametrize(
    "data",
    [
        b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nAccept: */*\r\n\r\n",
        b"POST /a?b HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_usual_requests_are_taken_as_plain(data: bytes) -> None:
    assert read_plain(data, LIMITS) is not None


@pytest.mark.parametrize(
    "data",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 65\r\n\r\n" + b"x" * 65,
        b"GET / HTTP/1.1\r\nA: " + b"x" * 300 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: x\r\n" % number for number in range(7)) + b"\r\n",
        b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab",
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
    ],
)
def test_requests_beyond_a_bound_or_not_alone_are_left_to_the_parser(data: bytes) -> None:
    assert read_plain(data, LIMITS) is None


def test_a_parser_that_has_read_its_last_request_takes_no_plain_one() -> None:
    sink = _Sink()
    parser = RequestParser(LIMITS, sink)
    parser.feed(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    parser.feed(b"GET / HTTP/1.1\r\n\r\n")
    assert len(sink.exchanges) == 1

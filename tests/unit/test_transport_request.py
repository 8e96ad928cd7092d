"""Requests as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.model.errors import InvalidRequest
from torpor.transport import HttpLimits, encode_request
from torpor.transport.exchange import Exchange
from torpor.transport.parser import RequestParser


class Sink:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def received(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def continue_wanted(self) -> None:
        raise AssertionError("no leave is asked for")


def test_request_carries_its_fields_and_its_length() -> None:
    head = encode_request("POST", "/a%20b?c", [("Host", "x"), ("A", "1")], 5)
    assert head == b"POST /a%20b?c HTTP/1.1\r\nHost: x\r\nA: 1\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "length", "line"),
    [
        ("GET", 0, b""),
        ("DELETE", 0, b""),
        ("POST", 0, b"Content-Length: 0\r\n"),
        ("PUT", None, b"Transfer-Encoding: chunked\r\n"),
        ("GET", 7, b"Content-Length: 7\r\n"),
    ],
)
def test_framing_says_what_body_follows(method: str, length: int | None, line: bytes) -> None:
    assert encode_request(method, "/", (), length) == method.encode() + b" / HTTP/1.1\r\n" + line + b"\r\n"


def test_framing_and_offers_among_the_fields_are_left_out() -> None:
    names = ("Content-Length", "transfer-encoding", "CONNECTION", "keep-alive", "Expect", "Upgrade")
    assert encode_request("GET", "/", [(name, "x") for name in names], 0) == b"GET / HTTP/1.1\r\n\r\n"


def test_offer_to_change_the_protocol_is_written_whole() -> None:
    head = encode_request("GET", "/", [("Upgrade", "other")], 0, upgrade="websocket")
    assert head == b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


def test_method_that_is_none_is_refused() -> None:
    for method in ("", "GET /x", "GET\r\n", "É"):
        with pytest.raises(InvalidRequest):
            encode_request(method, "/", (), 0)
    assert encode_request("PROPFIND", "/", (), 0).startswith(b"PROPFIND / ")


@given(st.text(), st.lists(st.tuples(st.text(), st.text())), st.text())
def test_any_target_and_fields_stay_one_request(target: str, fields: list[tuple[str, str]], upgrade: str) -> None:
    head = encode_request("GET", "/" + target, fields, 0, upgrade=upgrade)
    first, *lines = head[:-4].split(b"\r\n")
    assert head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1
    assert first.count(b" ") == 2 and first.isascii()
    own = {"content-length", "transfer-encoding", "connection", "keep-alive", "expect", "upgrade"}
    assert len(lines) == sum(name.lower() not in own for name, _ in fields) + 2 * bool(upgrade)
    assert all(b"\n" not in line and b"\r" not in line and b"\0" not in line for line in lines)


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_target_as_callers_send_it_comes_through_as_it_is(target: str) -> None:
    sink = Sink()
    RequestParser(HttpLimits(), sink).feed(encode_request("GET", "/" + target, [("Host", "x")], 0))
    assert [exchange.target for exchange in sink.exchanges] == ["/" + target]

"""Bytes to requests and refusals, without a socket."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torpor.transport import Exchange, HttpLimits
from torpor.transport.parser import Reading, Refusal, RequestParser

SMALL = HttpLimits(header_bytes=1024, header_count=10, body_bytes=1000)


class Sink:
    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.leaves = 0

    def received(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)

    def continue_wanted(self) -> None:
        self.leaves += 1


def parse(*pieces: bytes, limits: HttpLimits = SMALL) -> tuple[list[Exchange], Refusal | None]:
    sink = Sink()
    parser = RequestParser(limits, sink)
    for piece in pieces:
        refusal = parser.feed(piece)
        if refusal is not None:
            return sink.exchanges, refusal
    return sink.exchanges, None


def only(*pieces: bytes, limits: HttpLimits = SMALL) -> Exchange:
    exchanges, refusal = parse(*pieces, limits=limits)
    assert refusal is None
    (exchange,) = exchanges
    return exchange


def status(data: bytes, limits: HttpLimits = SMALL) -> int:
    refusal = parse(data, limits=limits)[1]
    return refusal.status if refusal is not None else 0


def test_request_complete_has_all_its_parts() -> None:
    exchange = only(b"POST /a%2Fb?c=d%20e&f HTTP/1.1\r\nHost: x\r\nA: 1 \r\na: 2\r\nContent-Length: 3\r\n\r\nabc")
    assert (exchange.method, exchange.target) == ("POST", "/a%2Fb?c=d%20e&f")
    assert (exchange.path, exchange.query, exchange.body) == ("/a%2Fb", "c=d%20e&f", b"abc")
    assert exchange.headers.get("A") == "1" and exchange.headers.get_all("a") == ["1", "2"]
    assert exchange.headers.get("none", "else") == "else" and "HOST" in exchange.headers
    assert next(exchange.headers.items()) == ("Host", "x") and len(exchange.headers) == 4


def test_chunked_body_with_extension_and_trailer_is_joined() -> None:
    data = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    exchange = only(data)
    assert exchange.body == b"abcde" and "trailer" not in exchange.headers


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://host:1/a?b", "/a", "b"),
        (b"http://host", "/", ""),
        (b"http://host?b=/c", "/", "b=/c"),
        (b"*", "*", ""),
        (b"/a?b?c", "/a", "b?c"),
    ],
)
def test_target_in_any_form_gives_path_and_query(target: bytes, path: str, query: str) -> None:
    exchange = only(b"OPTIONS " + target + b" HTTP/1.1\r\n\r\n")
    assert (exchange.path, exchange.query) == (path, query)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"BREW / HTTP/1.1\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nA: b\n\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nExpect: 100-continue\r\nexpect: other\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"GET / HTTP/3.0\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: wonders\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 413),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 11 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 1100 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 1100, 431),
        (b"GET /" + b"a" * 1100, 414),
        (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\n\r\n", 414),
        (b"CONNECT a:1 HTTP/1.1\r\n\r\n", 501),
    ],
)
def test_request_not_served_is_refused_with_its_status(data: bytes, wanted: int) -> None:
    exchanges, refusal = parse(data)
    assert exchanges == [] and refusal is not None
    assert refusal.status == wanted and refusal.reason.endswith(".")


def test_limits_exactly_reached_are_served() -> None:
    assert only(b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000).body == b"x" * 1000
    assert len(only(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10 + b"\r\n").headers) == 10


def test_body_limit_may_differ_by_route() -> None:
    asked: list[tuple[str, str]] = []

    def limit(method: str, path: str) -> int:
        asked.append((method, path))
        return 10 if path == "/big" else 1

    limits = HttpLimits(body_bytes=limit)
    body = b"PUT %b?q HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde"
    assert only(body % b"/big", limits=limits).body == b"abcde"
    assert status(body % b"/small", limits) == 413
    assert asked == [("PUT", "/big"), ("PUT", "/small")]


def test_head_larger_than_allowed_is_refused_however_it_is_split() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"".join(b"A%d: %b\r\n" % (number, b"x" * 300) for number in range(5))
    for size in (1, 7, 100, 5000):
        pieces = [head[at : at + size] for at in range(0, len(head), size)]
        exchanges, refusal = parse(*pieces)
        assert exchanges == [] and refusal is not None and refusal.status == 431


def test_pipelined_small_requests_do_not_add_up_to_a_large_head() -> None:
    exchanges, refusal = parse(b"GET / HTTP/1.1\r\nA: b\r\n\r\n" * 200)
    assert refusal is None and len(exchanges) == 200


def test_chunks_of_framing_alone_are_refused() -> None:
    opening = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;"
    sink = Sink()
    parser = RequestParser(SMALL, sink)
    assert parser.feed(opening) is None
    refusals = [refusal for _ in range(40) if (refusal := parser.feed(b"x" * 1000)) is not None][:1]
    assert [refusal.status for refusal in refusals] == [400]


def test_body_of_one_byte_chunks_is_served() -> None:
    limits = HttpLimits(header_bytes=1024, body_bytes=20_000)
    pieces = [b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 20_000, b"0\r\n\r\n"]
    assert only(*pieces, limits=limits).body == b"x" * 20_000


def test_expectation_asks_for_leave_once_and_only_with_a_body() -> None:
    sink = Sink()
    parser = RequestParser(SMALL, sink)
    parser.feed(b"GET / HTTP/1.1\r\nExpect: 100-continue\r\n\r\n")
    assert sink.leaves == 0
    parser.feed(b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n")
    assert sink.leaves == 1 and parser.reading is Reading.BODY
    parser.feed(b"abc")
    assert sink.exchanges[1].body == b"abc"


@pytest.mark.parametrize(
    "body", [b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"]
)
def test_offer_to_upgrade_is_declined_and_the_body_kept(body: bytes) -> None:
    first = b"POST /a HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n" + body
    exchanges, refusal = parse(first + b"GET /b HTTP/1.1\r\n\r\n")
    assert refusal is None and [exchange.path for exchange in exchanges] == ["/a", "/b"]
    assert exchanges[0].body == b"abc" and exchanges[0].keep_alive
    assert exchanges[0].headers.get("upgrade") == "h2c" and "upgrade" not in exchanges[1].headers


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_keep_alive_follows_version_and_connection_field(head: bytes, keep_alive: bool) -> None:
    exchange = only(head)
    assert exchange.keep_alive is keep_alive and exchange.http10 is (b"1.0" in head)


def test_bytes_after_the_last_request_are_ignored() -> None:
    assert only(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET /b HTTP/1.1\r\n\r\n").path == "/"


PIECES = st.sampled_from(
    [
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /b?q HTTP/1.1\r\nContent-Length: 5\r\n\r\nabcde",
        b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n1;e=f\r\nx\r\n0\r\nT: r\r\n\r\n",
        b"POST /d HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
        b"GET /e HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"\r\n",
        b"HEAD /f HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"POST /g HTTP/1.1\r\nContent-Length: 5000\r\n\r\n",
        b"bad\r\n\r\n",
    ]
)


@settings(max_examples=200)
@given(st.lists(PIECES, max_size=6).map(b"".join), st.lists(st.integers(0, 600), max_size=12))
def test_requests_read_alike_however_they_are_split(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    whole, refusal = parse(data)
    split, split_refusal = parse(*[data[start:end] for start, end in pairwise(edges)])
    shape = [(e.method, e.target, e.body, e.keep_alive, list(e.headers.items())) for e in whole]
    assert shape == [(e.method, e.target, e.body, e.keep_alive, list(e.headers.items())) for e in split]
    assert refusal == split_refusal


POLL = b"GET /next HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n"
OTHERS = (
    b"GET /else HTTP/1.1\r\nHost: y\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab",
    b"PUT /b?c HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\ncd",
    b"GET /other HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n",
    b"HEAD /next HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n",
    b"GET http://h/p HTTP/1.1\r\nHost: x\r\nA: 1\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /up HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    b"\r\n" + POLL,
    POLL + POLL,
)


@given(st.lists(st.sampled_from((POLL, *OTHERS)), max_size=12), st.integers(1, 9))
def test_requests_that_come_again_are_read_as_at_first_however_they_are_cut(requests: list[bytes], cut: int) -> None:
    whole, cut_up = parse(*requests)[0], b"".join(requests)
    pieces = [cut_up[start : start + cut] for start in range(0, len(cut_up), cut)]

    def told(exchanges: list[Exchange]) -> list[object]:
        return [(e.method, e.target, e.body, e.keep_alive, [*e.headers.items()]) for e in exchanges]

    assert told(whole) == told(parse(*pieces)[0])
    assert len(set(map(id, whole))) == len(whole)


@pytest.mark.parametrize(
    "again",
    [
        b"BREW / HTTP/1.1", b"GET / HTTP/2.0", b"GET / x HTTP/1.1", b"GET /\x80 HTTP/1.1", b"GET /\n HTTP/1.1",
        b"GET /", b"", b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip", b"GET / HTTP/1.1\r\nB\0: 1",
        b"CONNECT h:1 HTTP/1.1",
    ],
)  # fmt: skip
def test_known_fields_behind_another_first_line_are_refused_as_at_first(again: bytes) -> None:
    fields = b"\r\nHost: x\r\nA: 1\r\n\r\n"
    alone = parse(again + fields)
    exchanges, refusal = parse(b"GET / HTTP/1.1" + fields, again + fields)
    assert refusal == alone[1] and refusal is not None
    assert len(exchanges) == 1 + len(alone[0])


def test_known_fields_share_what_was_made_of_them_but_not_the_body_limit() -> None:
    def limits(method: str, path: str) -> int:
        return 1 if path == "/little" else 10

    head = b" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab"
    exchanges, refusal = parse(
        b"POST /a" + head, b"POST /b" + head, b"POST /little" + head, limits=HttpLimits(body_bytes=limits)
    )
    assert [exchange.target for exchange in exchanges] == ["/a", "/b"]
    assert exchanges[0].headers is exchanges[1].headers
    assert refusal is not None and refusal.status == 413


def test_requests_that_take_turns_are_each_known_again_whatever_comes_in_between() -> None:
    ask, tell = b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n", b"POST /r HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    exchanges, refusal = parse(ask, tell + b"ab", ask, tell, b"cd", ask, tell + b"ef")
    asked, told = exchanges[::2], exchanges[1::2]
    assert refusal is None and [exchange.body for exchange in told] == [b"ab", b"cd", b"ef"]
    assert asked[0].headers is asked[1].headers is asked[2].headers
    assert told[0].headers is told[2].headers


def test_last_request_of_a_connection_is_not_taken_for_one_that_comes_again() -> None:
    last = b"GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    exchanges, refusal = parse(last, last)
    assert len(exchanges) == 1 and refusal is None


def test_head_of_very_many_fields_is_refused_before_it_ends() -> None:
    roomy = HttpLimits(header_bytes=1 << 20, header_count=10)
    assert status(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 10, roomy) == 0
    assert status(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 12, roomy) == 431

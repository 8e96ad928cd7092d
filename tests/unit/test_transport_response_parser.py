"""Bytes to answers and losses, without a socket."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.transport import ClientLimits, Loss, LossKind
from torpor.transport.response_parser import ResponseParser

SMALL = ClientLimits(header_bytes=1024, header_count=10)


def read(
    *pieces: bytes, head_only: bool = False, upgrade: bool = False, end: bool = False
) -> tuple[ResponseParser, bytes, Loss | None]:
    parser = ResponseParser(SMALL)
    parser.begin(head_only=head_only, upgrade=upgrade)
    body = b""
    for piece in pieces:
        loss = parser.feed(piece)
        body += parser.take()
        if loss is not None:
            return parser, body, loss
    return parser, body, parser.finish() if end else None


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("data", "body", "reusable"),
    [
        (OK + b"Content-Length: 3\r\n\r\nabc", b"abc", True),
        (OK + b"Content-Length: 0\r\n\r\n", b"", True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nA: b\r\n\r\n", b"abcd", True),
        (OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", b"abc", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 30\r\n\r\n", b"", True),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 E\r\nLink: a\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\na",
            b"a",
            True,
        ),
        (b"HTTP/1.1 999\r\nContent-Length: 1\r\n\r\na", b"a", True),
        (OK + b"Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", b"abc", False),
        (OK + b"Content-Length: 3\r\n\r\nabcnonsense", b"abc", False),
        (OK + b"Connection: close\r\nContent-Length: 3\r\n\r\nabcnonsense", b"abc", False),
    ],
)
def test_whole_answer_is_read_and_says_if_another_may_follow(data: bytes, body: bytes, reusable: bool) -> None:
    for pieces in ((data,), [data[at : at + 1] for at in range(len(data))]):
        parser, found, loss = read(*pieces) if reusable else read(data)
        assert loss is None and parser.done and found == body and parser.headed
        assert parser.keep_alive is reusable


def test_fields_of_the_head_are_those_of_the_final_answer() -> None:
    parser, _, _ = read(
        b"HTTP/1.1 103 E\r\nA: 1\r\n\r\n" + OK + b"B: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nC: 3\r\n\r\n"
    )
    assert (
        parser.headers
        and parser.headers.pairs == [(b"B", b"2"), (b"Transfer-Encoding", b"chunked")]
        and parser.status == 200
    )


def test_answer_to_a_head_request_has_no_body_whatever_it_says() -> None:
    for fields in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"):
        parser, body, loss = read(OK + fields + b"\r\n", head_only=True)
        assert loss is None and parser.done and body == b"" and parser.keep_alive
        parser.begin(head_only=False, upgrade=False)
        assert parser.feed(OK + b"Content-Length: 2\r\n\r\nab") is None and parser.done and parser.take() == b"ab"
    parser, body, loss = read(OK + b"Content-Length: 5\r\n\r\nhello", head_only=True)
    assert loss is None and parser.done and body == b"" and not parser.keep_alive


def test_answer_without_a_length_ends_with_the_connection() -> None:
    parser, body, loss = read(OK + b"\r\nabc", b"def", end=True)
    assert loss is None and parser.done and body == b"abcdef" and not parser.keep_alive


@pytest.mark.parametrize(
    ("data", "kind", "started"),
    [
        (b"", LossKind.CLOSED, False),
        (b"HTTP/1.1 2", LossKind.BROKEN, True),
        (b"HTTP/1.1 100 Continue\r\n\r\n", LossKind.BROKEN, True),
        (OK + b"Content-Length: 3\r\n\r\nab", LossKind.BROKEN, True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", LossKind.BROKEN, True),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", LossKind.BROKEN, True),
    ],
)
def test_end_within_an_answer_is_a_loss(data: bytes, kind: LossKind, started: bool) -> None:
    _, _, loss = read(*([data] if data else []), end=True)
    assert loss is not None and (loss.kind, loss.started) == (kind, started) and loss.reason.endswith(".")


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"nonsense\r\n\r\n", LossKind.GARBAGE),
        (b"\x16\x03\x01\x02", LossKind.GARBAGE),
        (b"SSH-2.0-OpenSSH\r\n", LossKind.GARBAGE),
        (b"HTTP/2.0 200 OK\r\n\r\n", LossKind.GARBAGE),
        (b"HTTP/1.1 099 OK\r\n\r\n", LossKind.GARBAGE),
        (b"HTTP/1.1 101 Switch\r\n\r\n", LossKind.GARBAGE),
        (b"HTTP/1.1 101 Switch\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", LossKind.GARBAGE),
        (OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", LossKind.GARBAGE),
        (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", LossKind.GARBAGE),
        (OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", LossKind.GARBAGE),
        (OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", LossKind.GARBAGE),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", LossKind.GARBAGE),
        (OK + b"A: b\x00\r\n\r\n", LossKind.GARBAGE),
        (OK + b"A: " + b"b" * 1100, LossKind.HEAD_TOO_LARGE),
        (OK + b"A: " + b"b" * 1100 + b"\r\n\r\n", LossKind.HEAD_TOO_LARGE),
        (OK + b"A: b\r\n" * 11 + b"\r\n", LossKind.HEAD_TOO_LARGE),
        (b"HTTP/1.1 103 E\r\n\r\n" * 100, LossKind.HEAD_TOO_LARGE),
    ],
)
def test_answer_that_cannot_be_used_is_a_loss(data: bytes, kind: LossKind) -> None:
    _, _, loss = read(data)
    assert loss is not None and loss.kind is kind and loss.started


def test_body_may_be_larger_than_the_head_is_allowed_to_be() -> None:
    parser, body, loss = read(OK + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000)
    assert loss is None and parser.done and len(body) == 5000


@pytest.mark.parametrize("flood", [b"x" * 500, b"A: b\r\n" * 100])
def test_framing_without_content_is_bounded(flood: bytes) -> None:
    beginning = b"1\r\nx\r\n1;" if flood[:1] == b"x" else b"1\r\nx\r\n0\r\n"
    pieces = [OK + b"Transfer-Encoding: chunked\r\n\r\n", b"a0000\r\n" + b"x" * 0xA0000 + b"\r\n", beginning]
    _, _, loss = read(*pieces, *[flood] * 200)
    assert loss is not None and loss.kind is LossKind.GARBAGE


def test_body_of_one_byte_chunks_is_read() -> None:
    parser, body, loss = read(OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n"] * 20_000, b"0\r\n\r\n")
    assert loss is None and parser.done and body == b"x" * 20_000


def test_changed_protocol_keeps_what_follows_the_head() -> None:
    data = b"HTTP/1.1 101 Switch\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly\r\n"
    parser, body, loss = read(data, upgrade=True)
    assert loss is None and parser.switched and parser.status == 101 and parser.rest == b"early\r\n" and body == b""
    parser, body, loss = read(OK + b"Content-Length: 2\r\n\r\nno", upgrade=True)
    assert loss is None and parser.done and not parser.switched and body == b"no"


@given(st.lists(st.integers(1, 60), max_size=8))
def test_answers_read_alike_however_they_are_split(cuts: list[int]) -> None:
    data = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n1;e=f\r\nx\r\n0\r\nT: r\r\n\r\n"
    pieces, rest = [], data
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    parser, body, loss = read(*[piece for piece in (*pieces, rest) if piece])
    assert loss is None and parser.done and body == b"abcdex" and parser.keep_alive


ANSWERS = (
    OK + b"Content-Length: 3\r\nA: 1\r\n\r\nabc",
    OK + b"Content-Length: 3\r\nA: 1\r\n\r\ndef",
    OK + b"Content-Length: 3\r\nA: 2\r\n\r\nabc",
    OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\nA: 1\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
)


@given(st.lists(st.sampled_from(ANSWERS), max_size=12))
def test_answers_that_come_again_are_read_as_at_first(answers: list[bytes]) -> None:
    parser = ResponseParser(SMALL)
    for answer in answers:
        alone, body, _ = read(answer)
        parser.begin(head_only=False, upgrade=False)
        assert parser.feed(answer) is None and parser.take() == body and parser.done and parser.headed
        assert parser.headers and alone.headers and parser.headers.pairs == alone.headers.pairs
        assert (parser.status, parser.keep_alive) == (alone.status, True)


def test_answers_with_the_same_head_share_their_fields() -> None:
    parser, _, _ = read(ANSWERS[0])
    first = parser.headers
    for answer, shares in ((ANSWERS[1], True), (ANSWERS[2], False)):
        parser.begin(head_only=False, upgrade=False)
        parser.feed(answer)
        assert (parser.headers is first) is shares
    parser.begin(head_only=True, upgrade=False)
    assert parser.feed(ANSWERS[2][:-3]) is None and parser.done

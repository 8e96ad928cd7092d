"""The prelude of responses that are made for HTTP: bytes in whatever pieces, a head or a refusal out."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.lambda_.http_prelude import MalformedPrelude, Prelude, PreludeReader

END = bytes(8)
TOLD = {"statusCode": 201, "headers": {"X-A": "1", "content-type": "text/plain"}, "cookies": ["a=1", "b=2; Secure"]}
READ = Prelude(status=201, headers=(("X-A", "1"), ("content-type", "text/plain")), cookies=("a=1", "b=2; Secure"))


def read(*pieces: bytes, limit: int = 1000) -> tuple[Prelude, bytes] | None:
    reader = PreludeReader(limit)
    for number, piece in enumerate(pieces, 1):
        found = reader.feed(piece)
        if found is not None:
            return found[0], b"".join((found[1], *pieces[number:]))
    return None


@given(body=st.binary(max_size=30), cuts=st.sets(st.integers(1, 150), max_size=12))
def test_prelude_and_body_are_found_wherever_the_pieces_are_cut(body: bytes, cuts: set[int]) -> None:
    data = json.dumps(TOLD).encode() + END + body
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    assert read(*(data[start:end] for start, end in pairwise(places))) == (READ, body)


@pytest.mark.parametrize(
    ("told", "prelude"),
    [
        ({}, Prelude()),
        ({"statusCode": "404"}, Prelude(status=404)),
        ({"statusCode": None, "headers": None, "cookies": None, "more": 1}, Prelude()),
        ({"headers": {"a": 1, "b": True, "c": "ü"}}, Prelude(headers=(("a", "1"), ("b", "true"), ("c", "ü")))),
    ],
)
def test_what_is_left_out_has_its_usual_value(told: Any, prelude: Prelude) -> None:
    assert read(json.dumps(told).encode() + END) == (prelude, b"")


def test_more_is_awaited_until_the_last_of_eight_nul_bytes() -> None:
    assert read(b"{}" + bytes(7)) is None
    assert read(b"{}", bytes(7), bytes(1)) == (Prelude(), b"")
    assert read(b"{}" + bytes(9)) == (Prelude(), bytes(1))


@pytest.mark.parametrize(
    "data",
    [
        b"no json" + END,
        b"[]" + END,
        b"null" + END,
        END,
        b"[" * 900 + END,
        b"{}" + bytes(7) + b"x",
        b'{"a":"' + bytes(1) + b'"}' + END,
        b'{"statusCode":99}' + END,
        b'{"statusCode":600}' + END,
        b'{"statusCode":true}' + END,
        b'{"statusCode":200.5}' + END,
        b'{"statusCode":"ok"}' + END,
        b'{"headers":[]}' + END,
        b'{"headers":{"a b":"1"}}' + END,
        b'{"headers":{"":"1"}}' + END,
        b'{"headers":{"a":"1\\r\\nb: 2"}}' + END,
        b'{"headers":{"a":["1"]}}' + END,
        b'{"headers":{"a":null}}' + END,
        b'{"cookies":"a=1"}' + END,
        b'{"cookies":["a\\u0000"]}' + END,
        b'{"cookies":[{}]}' + END,
        b"\xff" + END,
    ],
)
def test_what_is_no_prelude_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedPrelude):
        read(data)


@pytest.mark.parametrize("pieces", [(b"x" * 1001,), (b"x" * 600, b"x" * 401), (b"x" * 1001 + END,)])
def test_no_more_is_kept_than_a_prelude_may_have(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(MalformedPrelude, match="larger than 1000 bytes"):
        read(*pieces)


def test_a_response_that_ends_within_its_prelude_has_none() -> None:
    reader = PreludeReader()
    assert reader.feed(b"{}") is None
    with pytest.raises(MalformedPrelude):
        reader.finish()

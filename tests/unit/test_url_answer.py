"""What a function's result becomes for the caller of its URL."""

import base64
import json
from typing import Any

import pytest

from torpor.contracts.lambda_.http_prelude import CONTENT_TYPE, MalformedPrelude, Prelude
from torpor.contracts.lambda_.url_answer import head_fields, url_answer

JSON = ("Content-Type", "application/json")


def answered(result: Any, content_type: str = "application/json") -> tuple[int, list[tuple[str, str]], bytes]:
    return tuple(url_answer(result if isinstance(result, bytes) else json.dumps(result).encode(), content_type))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("result", "body"),
    [
        (b'"hello"', b"hello"),
        (b'"h\\u00e4 \\n\\""', 'hä \n"'.encode()),
        (b'"half \\ud83d"', b"half ?"),
        (b'{"message": "hi",  "n": 1}', b'{"message": "hi",  "n": 1}'),
        (b'{"statuscode": 201}', b'{"statuscode": 201}'),
        (b"null", b"null"),
        (b"42", b"42"),
        (b"true", b"true"),
        (b'[{"statusCode": 201}]', b'[{"statusCode": 201}]'),
        (b'{"n": NaN}', b'{"n": NaN}'),
        (b"", b""),
        (b"no json", b"no json"),
        (b'{"broken": ', b'{"broken": '),
        (b"[" * 100_000, b"[" * 100_000),
        (b'{"a":' * 50_000, b'{"a":' * 50_000),
    ],
)
def test_anything_but_an_answer_is_the_body_of_one(result: bytes, body: bytes) -> None:
    assert answered(result) == (200, [JSON], body)


def test_a_runtime_that_names_another_type_is_believed_unless_it_answers_json() -> None:
    assert answered(b"\x89PNG", "image/png") == (200, [("Content-Type", "image/png")], b"\x89PNG")
    assert answered(b'{"statusCode": 204}', "application/octet-stream") == (204, [JSON], b"")
    assert answered(b"", "") == (200, [JSON], b"")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"statusCode": 201, "body": "made"}, (201, [JSON], b"made")),
        ({"statusCode": "404"}, (404, [JSON], b"")),
        ({"statusCode": 200, "body": None, "headers": None, "cookies": None}, (200, [JSON], b"")),
        ({"statusCode": 200, "body": {"a": "ä"}}, (200, [JSON], '{"a":"ä"}'.encode())),
        ({"statusCode": 200, "body": 7}, (200, [JSON], b"7")),
        ({"statusCode": 200, "body": base64.b64encode(b"\0\xff").decode(), "isBase64Encoded": True},
         (200, [JSON], b"\0\xff")),
        ({"statusCode": 200, "body": "aGk=", "isBase64Encoded": False}, (200, [JSON], b"aGk=")),
        ({"statusCode": 200, "headers": {"content-type": "text/html", "X-A": "b"}, "body": "<p>"},
         (200, [("content-type", "text/html"), ("X-A", "b")], b"<p>")),
        ({"statusCode": 200, "headers": {"x-n": 1, "x-t": True, "x-f": 1.5, "x-l": ["a", "b"], "x-0": None}},
         (200, [JSON, ("x-n", "1"), ("x-t", "true"), ("x-f", "1.5"), ("x-l", "a,b")], b"")),
        ({"statusCode": 302, "headers": {"Location": "/x"}, "cookies": ["a=1; Path=/", "b=2"]},
         (302, [JSON, ("Location", "/x"), ("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2")], b"")),
        ({"statusCode": 200, "headers": {"Connection": "close", "Content-Length": 9, "Date": "x",
                                         "WWW-Authenticate": "Basic"}},
         (200, [JSON, ("x-amzn-Remapped-Connection", "close"), ("x-amzn-Remapped-Content-Length", "9"),
                ("x-amzn-Remapped-Date", "x"), ("x-amzn-Remapped-WWW-Authenticate", "Basic")], b"")),
        ({"statusCode": 200, "headers": {"Transfer-Encoding": "chunked", "Upgrade": "x", "TE": "x", "Trailer": "x",
                                         "Keep-Alive": "x", "Proxy-Authenticate": "x", "X-Amzn-RequestId": "x",
                                         "x-amzn-trace-id": "x"}},
         (200, [JSON], b"")),
    ],
)  # fmt: skip
def test_an_object_with_a_status_code_is_an_answer(answer: dict[str, Any], told: Any) -> None:
    assert answered(answer) == told


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": None},
        {"statusCode": "many"},
        {"statusCode": ""},
        {"statusCode": True},
        {"statusCode": 99},
        {"statusCode": 100},
        {"statusCode": 199},
        {"statusCode": 600},
        {"statusCode": 200.5},
        {"statusCode": -200},
        {"statusCode": 10**400},
        {"statusCode": [200]},
        {"statusCode": 200, "headers": "x: y"},
        {"statusCode": 200, "headers": ["x"]},
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"": "c"}},
        {"statusCode": 200, "headers": {"a": "b\r\nSet-Cookie: c=d"}},
        {"statusCode": 200, "headers": {"a\r\nb": "c"}},
        {"statusCode": 200, "headers": {"a": {"b": "c"}}},
        {"statusCode": 200, "headers": {"a": [1]}},
        {"statusCode": 200, "cookies": "a=b"},
        {"statusCode": 200, "cookies": [{}]},
        {"statusCode": 200, "cookies": ["a=b\nX: y"]},
        {"statusCode": 200, "body": "no base64!", "isBase64Encoded": True},
        {"statusCode": 200, "body": "ä", "isBase64Encoded": True},
    ],
)
def test_an_answer_that_cannot_be_sent_is_none(answer: dict[str, Any]) -> None:
    with pytest.raises(MalformedPrelude):
        answered(answer)


def test_a_collected_stream_begins_with_its_prelude() -> None:
    streamed = b'{"statusCode": 201, "headers": {"x-a": "b"}, "cookies": ["c=d"]}' + b"\0" * 8 + b"\0\xffbody"
    binary = ("Content-Type", "application/octet-stream")

    assert answered(streamed, CONTENT_TYPE) == (201, [binary, ("x-a", "b"), ("Set-Cookie", "c=d")], b"\0\xffbody")
    for broken in (b"", b"{}", b"{}" + b"\0" * 7, b"[]" + b"\0" * 8, b'{"statusCode": 101}' + b"\0" * 8):
        with pytest.raises(MalformedPrelude):
            answered(broken, CONTENT_TYPE)


def test_the_type_of_a_head_is_named_once() -> None:
    named = Prelude(headers=(("CONTENT-TYPE", "a/b"),))

    assert head_fields(named, "c/d") == [("CONTENT-TYPE", "a/b")]
    assert head_fields(Prelude(), "c/d") == [("Content-Type", "c/d")]

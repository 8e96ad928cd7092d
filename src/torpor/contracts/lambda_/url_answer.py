"""The answer of a function behind a URL: what its result becomes for whoever called (9.10, 2.7)."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from torpor.contracts.forwarding import HOP_BY_HOP
from torpor.contracts.http import JSON
from torpor.contracts.lambda_.http_prelude import CONTENT_TYPE, MalformedPrelude, Prelude, PreludeReader, head_of

BINARY = "application/octet-stream"
_REMAPPED = frozenset({"connection", "content-length", "date", "www-authenticate"})
"""Fields that are the platform's own to send: what a function says goes out under another name."""
_REMAPPED_AS = "x-amzn-Remapped-"
_OWN = "x-amzn-"
_FIRST_FINAL = 200
_decode = msgspec.json.Decoder().decode
Fields = list[tuple[str, str]]


class UrlAnswer(NamedTuple):
    """A whole answer."""

    status: int
    fields: Fields
    body: bytes


def url_answer(result: bytes, content_type: str) -> UrlAnswer:
    """The answer out of a function's whole result, of the type that its runtime named. Raises MalformedPrelude.

    An object with a `statusCode` is an answer; of a text its characters are the body; all else is the body itself.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == CONTENT_TYPE:
        return _with_prelude(result)
    value = _parsed(result)
    if isinstance(value, dict) and "statusCode" in value:
        return _told(value)
    body = value.encode("utf-8", "replace") if isinstance(value, str) else result
    is_json = kind in ("", JSON) or value is not None
    return UrlAnswer(200, [("Content-Type", JSON if is_json else content_type)], body)


def head_fields(head: Prelude, default_type: str) -> Fields:
    """The fields of an answer with this head: those of the platform and of single connections stay behind."""
    fields = [field for name, value in head.headers if (field := _passed(name, value))]
    if not any(name.lower() == "content-type" for name, _ in fields):
        fields.insert(0, ("Content-Type", default_type))
    return fields + [("Set-Cookie", cookie) for cookie in head.cookies]


def check_status(head: Prelude) -> None:
    """Refuse a status that ends no exchange. Raises MalformedPrelude."""
    if head.status < _FIRST_FINAL:
        raise MalformedPrelude("The answer's status is one that another answer follows.")


def _passed(name: str, value: str) -> tuple[str, str] | None:
    lower = name.lower()
    if lower in _REMAPPED:
        return _REMAPPED_AS + name, value
    dropped = lower in HOP_BY_HOP or lower.startswith(("proxy-", _OWN))
    return None if dropped else (name, value)


def _with_prelude(result: bytes) -> UrlAnswer:
    reader = PreludeReader()
    read = reader.feed(result)
    if read is None:
        raise MalformedPrelude("The response ends before its prelude does.")
    head, body = read
    check_status(head)
    return UrlAnswer(head.status, head_fields(head, BINARY), body)


def _parsed(result: bytes) -> Any:
    """The result if it is an object or a text; None if it is anything else, which nobody needs to read."""
    if result.lstrip()[:1] not in (b"{", b'"'):
        return None
    try:
        return _decode(result)
    except (msgspec.DecodeError, RecursionError):
        return _parsed_leniently(result)


def _parsed_leniently(result: bytes) -> Any:
    # The fast reader refuses NaN and halves of surrogate pairs, which runtimes write all the same.
    try:
        return json.loads(result)
    except (ValueError, RecursionError):
        return None


def _told(answer: Mapping[str, Any]) -> UrlAnswer:
    status = answer["statusCode"]
    if status is None:
        raise MalformedPrelude("The answer's statusCode is null.")
    head = head_of({"statusCode": status, "headers": _headers(answer.get("headers")), "cookies": answer.get("cookies")})
    check_status(head)
    return UrlAnswer(head.status, head_fields(head, JSON), _body(answer))


def _headers(told: object) -> object:
    """A field without a value is left out, one with several is a list of them."""
    if not isinstance(told, dict):
        return told
    return {name: _value(value) for name, value in told.items() if value is not None}


def _value(value: object) -> object:
    listed = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return ",".join(value) if listed and isinstance(value, list) else value


def _body(answer: Mapping[str, Any]) -> bytes:
    body = answer.get("body")
    if body is None:
        return b""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    if not answer.get("isBase64Encoded"):
        return text.encode("utf-8", "replace")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedPrelude("The answer's body is not the Base64 that it says it is.") from error

"""The prelude of a streamed response that is made for HTTP: one JSON object, eight NUL bytes, then the body (2.7)."""

import re
from collections.abc import Mapping

import msgspec

from torpor.contracts.lambda_ import limits
from torpor.model.errors import FunctionError

CONTENT_TYPE = "application/vnd.awslambda.http-integration-response"
_NUL = b"\0"
_SEPARATOR = 8 * _NUL
_STATUSES = range(100, 600)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[^\x00-\x1f\x7f]*")


class MalformedPrelude(FunctionError):
    """What a function sent ahead of its body is no prelude, or too much of one."""


class Prelude(msgspec.Struct, frozen=True, kw_only=True):
    """What the answer's head is made of; each cookie is the value of a `Set-Cookie` field of its own."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    cookies: tuple[str, ...] = ()


class PreludeReader:
    """Takes the bytes of a streamed response until its prelude is complete."""

    def __init__(self, limit: int = limits.PRELUDE_MAX) -> None:
        self._limit = limit
        self._held = bytearray()

    def feed(self, data: bytes) -> tuple[Prelude, bytes] | None:
        """The prelude and what has come of the body; None while more of the prelude is to come.

        Not to be called again after that. Raises MalformedPrelude."""
        searched = max(len(self._held) - len(_SEPARATOR), 0)
        self._held += data
        end = self._held.find(_NUL, searched)
        if (len(self._held) if end < 0 else end) > self._limit:
            raise MalformedPrelude(f"The response's prelude is larger than {self._limit} bytes.")
        if end < 0:
            return None
        separator = self._held[end : end + len(_SEPARATOR)]
        if separator.strip(_NUL):
            raise MalformedPrelude("The response's prelude does not end in eight NUL bytes.")
        if len(separator) < len(_SEPARATOR):
            return None
        return _read(bytes(self._held[:end])), bytes(self._held[end + len(_SEPARATOR) :])

    def finish(self) -> None:
        """The response has ended before its prelude was complete. Raises MalformedPrelude."""
        raise MalformedPrelude("The response ends before its prelude does.")


def _read(text: bytes) -> Prelude:
    try:
        told = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedPrelude(f"The response's prelude is no JSON: {error}") from error
    if not isinstance(told, dict):
        raise MalformedPrelude("The response's prelude is no JSON object.")
    return head_of(told)


def head_of(told: Mapping[str, object]) -> Prelude:
    """The head that a JSON object tells. Raises MalformedPrelude."""
    return Prelude(
        status=_status(told.get("statusCode")),
        headers=_headers(told.get("headers")),
        cookies=_cookies(told.get("cookies")),
    )


def _status(told: object) -> int:
    status = 200 if told is None else int(told) if isinstance(told, str) and told.isdecimal() else told
    if not isinstance(status, int) or status not in _STATUSES or isinstance(status, bool):
        raise MalformedPrelude("The prelude's statusCode is no HTTP status.")
    return status


def _headers(told: object) -> tuple[tuple[str, str], ...]:
    if told is None:
        return ()
    if not isinstance(told, Mapping):
        raise MalformedPrelude("The prelude's headers are no object.")
    return tuple((_name(name), _value(value)) for name, value in told.items())


def _cookies(told: object) -> tuple[str, ...]:
    if told is None:
        return ()
    if not isinstance(told, list):
        raise MalformedPrelude("The prelude's cookies are no list.")
    return tuple(_value(value) for value in told)


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise MalformedPrelude("The prelude names a header that is none.")
    return name


def _value(value: object) -> str:
    """Numbers and truth values are told as JSON spells them."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if not isinstance(value, str | int | float) or not _VALUE.fullmatch(text):
        raise MalformedPrelude("A header or cookie of the prelude is no text of one line.")
    return text

"""Requests to a server inside, as bytes."""

import re
from collections.abc import Sequence
from urllib.parse import quote

from torpor.model.errors import InvalidRequest
from torpor.transport.response import header_lines, to_bytes

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_UNSAFE = re.compile(r"[^!-~]+")
_OFFERS = frozenset({"upgrade", "expect"})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_PLAIN_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def encode_request(
    method: str, target: str, fields: Sequence[tuple[str, str]] | bytes, length: int | None, *, upgrade: str = ""
) -> bytes:
    """Request line and header fields up to the empty line.

    `length` is the body's in bytes, None if it comes in chunks; 0 is not said for methods that mean no body by it.
    Framing is written here, so the fields about it are left out of `fields`, and so are offers that the sender makes
    itself: Expect, and Upgrade but for `upgrade`; whoever gives `fields` as bytes has done so. Line breaks in a field
    become blanks, what may not stand in a target is percent-encoded. Raises InvalidRequest if the method is none.
    """
    if method not in _PLAIN_METHODS and _TOKEN.fullmatch(method) is None:
        raise InvalidRequest("The request's method is no HTTP method; use one such as GET or POST.")
    if _UNSAFE.search(target) is not None:
        target = _UNSAFE.sub(_percent, target)
    if not isinstance(fields, bytes):
        fields = header_lines([field for field in fields if field[0].lower() not in _OFFERS])
    if length is None:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length or method in _WITH_BODY:
        framing = b"Content-Length: %d\r\n" % length
    else:
        framing = b""
    if upgrade:
        framing += b"Connection: Upgrade\r\n" + header_lines((("Upgrade", upgrade),))
    return b"%b%b%b\r\n" % (to_bytes(f"{method} {target} HTTP/1.1\r\n"), fields, framing)


def _percent(found: re.Match[str]) -> str:
    try:
        return quote(found[0].encode("latin-1"), safe="")
    except UnicodeEncodeError:
        return quote(found[0], safe="")

"""The plainest request, read in one step: complete, in one piece, and with nothing in it that could be read in two ways.

Almost every request is one. What is not, however slightly, is left to the full parser, which alone decides what is
refused: this file only ever says yes, and to nothing that the full parser would read otherwise.
"""

import re

from torpor.transport.exchange import Exchange, Headers
from torpor.transport.limits import HttpLimits

_HEAD = re.compile(
    rb"(GET|POST|PUT|DELETE) (/[A-Za-z0-9/_.~%:$@!&'()*+,;=?-]*+) HTTP/1\.1\r\n"
    rb"(?:[A-Za-z0-9_-]++:[ -~]*+\r\n)*+\r\n"
)
_FIELD = re.compile(rb"\r\n([^:\r]++): *+([^\r]*+)")
_UNUSUAL = frozenset(
    {b"transfer-encoding", b"expect", b"upgrade", b"proxy-connection", b"http2-settings", b"te", b"trailer"}
)
_LENGTH_DIGITS = 9


def read_plain(data: bytes, limits: HttpLimits) -> Exchange | None:
    """The one request that `data` is, whole and nothing beside it; None if that is not beyond doubt."""
    head = _HEAD.match(data)
    if head is None:
        return None
    end = head.end()
    raw = _FIELD.findall(data, head.end(2), end)
    headers = Headers(raw)
    first = headers.first
    if len(first) != len(raw) or len(raw) > limits.header_count or end > limits.header_bytes:
        return None
    if not _UNUSUAL.isdisjoint(first) or first.get(b"connection", b"keep-alive") != b"keep-alive":
        return None
    method, target = head[1].decode(), head[2].decode()
    size = len(data) - end
    if _length(first.get(b"content-length", b"0")) != size:
        return None
    if not size:
        return Exchange(method, target, headers, b"")
    longest = limits.body_bytes
    if not isinstance(longest, int):
        longest = longest(method, target.partition("?")[0])
    return Exchange(method, target, headers, data[end:]) if size <= longest else None


def _length(text: bytes) -> int:
    """The declared length; -1 for anything but a few digits."""
    return int(text) if text.isdigit() and len(text) <= _LENGTH_DIGITS else -1

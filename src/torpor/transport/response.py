"""Answers as bytes."""

import json
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus

ErrorFace = Callable[[int, str], tuple[Sequence[tuple[str, str]], bytes]]
"""Shapes an error the server itself answers: status and reason in, headers and body out."""

_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive"})
_BEGINNINGS: dict[str, str] = {}
"""How the line of each field begins, by its name as it is given; empty for the server's own fields."""
_BEGINNINGS_MAX = 1000
_NAME_MAX = 64
"""Names of relayed fields are the callers': longer ones are not remembered."""
_NAME_MAX = 64
"""Names of relayed fields are the callers': longer ones are not remembered."""
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
BODILESS = frozenset({204, 304})
"""Statuses whose answers have no body."""
_UNKNOWN = -1
_UNSAFE = str.maketrans({"\r": " ", "\n": " ", "\0": " "})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def json_error(status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
    """The plain error: a JSON object with one `message`."""
    return (("Content-Type", "application/json"),), json.dumps({"message": reason}).encode()


class _DateLine:
    """The Date field, written anew once a second. Locale-free on purpose."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = b""

    def text(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            at = time.gmtime(second)
            clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
            day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year}"
            self._second, self._text = second, f"Date: {day} {clock} GMT\r\n".encode()
        return self._text


_date = _DateLine()


class FixedHeaders:
    """Header fields that many answers share: checked and put together once."""

    __slots__ = ("asked", "dated", "head", "lines")

    def __init__(self, headers: Sequence[tuple[str, str]]) -> None:
        self.lines = header_lines(headers)
        self.dated = _is_dated(self.lines)
        """Whether they say when the answer was made."""
        self.asked = (0, 0, False, False, b"")
        self.head = b""
        """The last head made with them, and for what: of short answers it is the same for a whole second."""


AnyHeaders = Sequence[tuple[str, str]] | FixedHeaders | bytes
"""Header fields as pairs; or as bytes, each with its line end, from whoever saw to framing and line breaks itself."""


def header_lines(headers: AnyHeaders) -> bytes:
    """Header lines without those that are the server's own. Line breaks in a name or value become blanks."""
    if isinstance(headers, bytes):
        return headers
    if isinstance(headers, FixedHeaders):
        return headers.lines
    known = _BEGINNINGS
    lines = []
    for name, value in headers:
        beginning = known.get(name)
        if beginning is None:
            beginning = _beginning(name)
        if beginning:
            lines.append(f"{beginning}{value}\r\n")
    fields = "".join(lines)
    if fields.count("\n") != len(lines) or fields.count("\r") != len(lines) or "\0" in fields:
        fields = "".join([line[:-2].translate(_UNSAFE) + "\r\n" for line in lines])
    return to_bytes(fields)


def _beginning(name: str) -> str:
    beginning = "" if name.lower() in _FRAMING else f"{name}: "
    if len(_BEGINNINGS) < _BEGINNINGS_MAX and len(name) <= _NAME_MAX:
        _BEGINNINGS[name] = beginning
    return beginning


def encode_head(
    status: int, headers: AnyHeaders, length: int, *, keep_alive: bool = True, http10: bool = False
) -> bytes:
    """Status line and header fields up to the empty line, for a body of `length` bytes.

    Line breaks in a name or value become blanks: a header can never start a second answer. A Date among the fields
    stays as it is.
    """
    if not isinstance(headers, FixedHeaders):
        lines = header_lines(headers)
        return _encode(status, lines, length, b"" if _is_dated(lines) else _date.text(), keep_alive, http10)
    asked = (status, length, keep_alive, http10, b"" if headers.dated else _date.text())
    if asked != headers.asked:
        headers.asked, headers.head = asked, _encode(status, headers.lines, length, asked[-1], keep_alive, http10)
    return headers.head


def encode_open_head(
    status: int, headers: AnyHeaders, length: int | None, *, keep_alive: bool = True, http10: bool = False
) -> bytes:
    """A head before its body is there: `length` is None if it is not known."""
    return encode_head(status, headers, _UNKNOWN if length is None else length, keep_alive=keep_alive, http10=http10)


def _is_dated(lines: bytes) -> bool:
    """Whoever made an answer with these fields may have said when."""
    return b"\nDate: " in lines or b"\ndate:" in b"\n" + lines.lower()  # mostly the first, which is quicker to see


def _encode(status: int, lines: bytes, length: int, date: bytes, keep_alive: bool, http10: bool) -> bytes:
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unknown\r\n" % status
    if status in BODILESS:
        size = b""
    elif length >= 0:
        size = b"Content-Length: %d\r\n" % length
    else:
        size = b"" if http10 else b"Transfer-Encoding: chunked\r\n"
    ending = (b"Connection: keep-alive\r\n" if http10 else b"") if keep_alive else b"Connection: close\r\n"
    return b"".join((line, lines, date, size, ending, b"\r\n"))


def to_bytes(text: str) -> bytes:
    """Text on the wire: Latin-1 as it came in, UTF-8 if it does not fit."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")


def encode_answer(
    status: int,
    headers: AnyHeaders,
    body: bytes,
    *,
    head_only: bool = False,
    keep_alive: bool = True,
    http10: bool = False,
) -> tuple[bytes, bytes]:
    """Head and body as they go out; the body is empty where HTTP allows none."""
    head = encode_head(status, headers, len(body), keep_alive=keep_alive, http10=http10)
    return head, b"" if head_only or status in BODILESS else body

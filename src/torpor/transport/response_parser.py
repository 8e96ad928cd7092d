"""Bytes to answers: llhttp does the grammar, this file the bounds and what an end means."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import httptools

_OVERHEAD_FACTOR = 8
"""Raw bytes read per byte of body at most, beside one head's worth: bounds chunk extensions."""
_SLACK = 16 * 1024
_CODING = b"transfer-encoding"
_LENGTH = b"content-length"
_KNOWN_MAX = 2048
"""Longest head in bytes that is kept to be recognised when it comes again."""


class LossKind(StrEnum):
    """Why an answer did not come, or not to its end."""

    REFUSED = "refused"
    """No connection could be made."""
    CLOSED = "closed"
    """The connection ended before a byte of the answer."""
    BROKEN = "broken"
    """The connection ended within the answer."""
    GARBAGE = "garbage"
    """What came is not HTTP."""
    HEAD_TOO_LARGE = "head too large"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Loss:
    """What is told instead of an answer or of its rest."""

    kind: LossKind
    reason: str
    started: bool
    """Whether any byte of the answer was seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLimits:
    """Bounds of one connection to a server. Sizes in bytes, times in seconds."""

    header_bytes: int = 64 * 1024
    """Status line and header fields together, those of interim answers included."""
    header_count: int = 200
    output_bytes: int = 64 * 1024
    """Output that the server has not taken above which `write` says so."""
    connect_timeout: float = 10.0
    silence_timeout: float = 0.0
    """Longest time in which the server neither sends nor takes anything; 0 for none. Runs while an answer is awaited
    and read."""


class AnswerFields:
    """Header fields of an answer as they came, in order. An answer with the same head shares this object."""

    __slots__ = ("kept", "pairs")

    def __init__(self) -> None:
        self.pairs: list[tuple[bytes, bytes]] = []
        self.kept: Any = None
        """Whatever their reader made of them, so that it need not be made again."""

    def content_length(self) -> int | None:
        """Bytes of the body as the fields say; None if they do not say it."""
        for name, value in self.pairs:
            if len(name) == len(_LENGTH) and name.lower() == _LENGTH:
                return int(value) if value.strip().isdigit() else None
        return None


class _Stop(Exception):
    """Leaves a parser callback: what came is enough."""


class ResponseParser:
    """The input side of a client's connection, one answer after the other.

    After each `feed` it says what is new: `headed` (the head has come), `piece` (of the body), `done` (the answer is
    whole). The reader resets the first two.
    """

    __slots__ = (
        "_body",
        "_fed",
        "_head_only",
        "_http",
        "_idle_bytes",
        "_in_head",
        "_interim",
        "_known",
        "_known_fields",
        "_known_length",
        "_known_status",
        "_loss",
        "_raw",
        "_size",
        "_upgrade",
        "done",
        "headed",
        "headers",
        "keep_alive",
        "limits",
        "rest",
        "status",
        "switched",
    )

    def __init__(self, limits: ClientLimits) -> None:
        self.limits = limits
        self._http: Any = httptools.HttpResponseParser(self)
        self._known = b""
        """The head of an answer that came whole in one piece. Servers say the same for as long as a second, so a head
        is read once; what it says is in the three below."""
        self._known_fields, self._known_status, self._known_length = AnswerFields(), 0, 0
        self.begin(head_only=False, upgrade=False)

    def begin(self, *, head_only: bool, upgrade: bool) -> None:
        """Expect the next answer: to a HEAD request, or to one that offers to change the protocol."""
        self._head_only = head_only
        self._upgrade = upgrade
        self._interim = self._in_head = False
        self._loss: Loss | None = None
        self._fed = self._size = self._idle_bytes = 0
        self._raw = AnswerFields()
        self._body: bytes | bytearray = b""
        self.headed = self.done = self.switched = self.keep_alive = False
        self.headers: AnswerFields | None = None
        """Of the final answer, once they have come."""
        self.status = 0
        self.rest = b""
        """What followed the head if the server has `switched` the protocol."""

    @property
    def started(self) -> bool:
        """Whether any byte of the answer has come."""
        return self._fed > 0

    def take(self) -> bytes:
        """The body's bytes that came since the last call."""
        body, self._body = self._body, b""
        return body if isinstance(body, bytes) else bytes(body)

    def feed(self, data: bytes) -> Loss | None:
        """Read on. After a loss the parser must not be fed again."""
        starts = not self._fed and not self._head_only and not self._upgrade
        self._fed += len(data)
        if starts and self._known and self._recognises(data):
            return None
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self.rest = data[stop.args[0] :]
        except httptools.HttpParserError as error:
            return self._explain(error, data)
        if not self.done:
            return self._check_unfinished(len(data))
        if starts and self.keep_alive:
            self._get_to_know(data)
        return None

    def _recognises(self, data: bytes) -> bool:
        """Whether this is a whole answer with the known head; then it has been read."""
        known = self._known
        if len(data) != len(known) + self._known_length or not data.startswith(known):
            return False
        self.status, self.headers = self._known_status, self._known_fields
        self._body = data[len(known) :]
        self.headed = self.done = self.keep_alive = True
        return True

    def _get_to_know(self, data: bytes) -> None:
        size, fields = self._size, self._raw
        head = len(data) - size
        if head <= _KNOWN_MAX and fields.content_length() == size and data.find(b"\r\n\r\n") == head - 4:
            self._known, self._known_fields = data[:head], fields
            self._known_status, self._known_length = self.status, size

    def finish(self) -> Loss | None:
        """The server has ended its side: that completes an answer without a length, and breaks any other."""
        if self.done:
            return None
        if self.headers is not None and not any(name.lower() in (_LENGTH, _CODING) for name, _ in self._raw.pairs):
            self.done = True
            return None
        if not self.started:
            return Loss(LossKind.CLOSED, "The server closed the connection without an answer.", False)
        return Loss(LossKind.BROKEN, "The server closed the connection within its answer.", True)

    def close(self) -> None:
        """Break the reference cycle with llhttp's wrapper, so that nothing waits for the collector."""
        self._http = None

    def _explain(self, error: Exception, data: bytes) -> Loss | None:
        if self._loss is not None:
            return self._loss
        if not self.done:
            return Loss(LossKind.GARBAGE, f"The server's answer is malformed: {error}.", True)
        if self._head_only and data.find(b"\r\n\r\n") == len(data) - 4:
            self._http = httptools.HttpResponseParser(self)
        else:
            self.keep_alive = False
        return None

    def _check_unfinished(self, count: int) -> Loss | None:
        limits = self.limits
        if self.headers is None:
            return self._too_large() if self._fed > limits.header_bytes else None
        self._idle_bytes = 0 if self._body else self._idle_bytes + count
        framing = self._fed - self._size
        bound = limits.header_bytes + _SLACK
        if framing > bound + _OVERHEAD_FACTOR * self._size or self._idle_bytes > bound:
            return Loss(LossKind.GARBAGE, "The answer's chunks carry more framing than content.", True)
        return None

    def _too_large(self) -> Loss:
        limits = self.limits
        reason = f"The answer's header is larger than {limits.header_bytes} bytes or {limits.header_count} fields."
        return Loss(LossKind.HEAD_TOO_LARGE, reason, True)

    def _refuse(self, loss: Loss) -> None:
        self._loss = loss
        raise _Stop

    def _malformed(self, what: str) -> None:
        self._refuse(Loss(LossKind.GARBAGE, f"The server's answer is malformed: {what}.", True))

    # Callbacks of llhttp. An exception in one of them stops the parser.

    def on_message_begin(self) -> None:
        if self.done:
            raise _Stop
        self._in_head = True
        self._raw = AnswerFields()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return
        self._raw.pairs.append((name, value))
        if len(self._raw.pairs) > self.limits.header_count:
            self._refuse(self._too_large())
        if len(name) == len(_CODING) and name.lower() == _CODING:
            self._check_coding(value)

    def on_headers_complete(self) -> None:
        http = self._http
        self._in_head = False
        if self._fed > self.limits.header_bytes:
            self._weigh_head()
        if http.get_http_version() not in ("1.1", "1.0"):
            self._malformed("only HTTP/1.1 and HTTP/1.0 are understood")
        status = http.get_status_code()
        if status < 200:
            self._interim = not self._switches(status)
            if self._interim:
                return
        self.status = status
        self.headers = self._raw
        self.headed = True
        self.keep_alive = http.should_keep_alive()
        if self._head_only:
            self.done = True
            raise _Stop

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if not self._body:
            self._body = data
        elif isinstance(self._body, bytearray):
            self._body += data
        else:
            self._body = bytearray(self._body) + data

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self.done = True

    # What the head means for reading on.

    def _switches(self, status: int) -> bool:
        """Whether this interim answer is the last of HTTP on this connection."""
        if status < 100:
            self._malformed(f"{status} is no status")
        if status != 101:
            return False
        if not self._upgrade or not self._http.should_upgrade():
            self._malformed("it changes the protocol unasked")
        self.switched = True
        return True

    def _check_coding(self, value: bytes) -> None:
        if value.strip().lower() != b"chunked":
            self._malformed("the only transfer coding understood is chunked")
        if sum(name.lower() == _CODING for name, _ in self._raw.pairs) > 1:
            self._malformed("it names its transfer coding twice")

    def _weigh_head(self) -> None:
        """Exactly, where a body may have come with it."""
        if sum(len(name) + len(value) + 4 for name, value in self._raw.pairs) > self.limits.header_bytes:
            self._refuse(self._too_large())

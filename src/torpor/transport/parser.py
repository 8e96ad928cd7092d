"""Bytes to requests: llhttp does the grammar, this file the bounds and the refusals."""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol, cast

import httptools

from torpor.transport.exchange import Exchange, Headers, RawHeaders
from torpor.transport.limits import HttpLimits


class Reading(Enum):
    """Where in a request the input stands."""

    BETWEEN = "between"
    HEAD = "head"
    BODY = "body"

    __hash__ = object.__hash__  # looked up on every request


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not served; the connection ends with it."""

    status: int
    reason: str


class RequestSink(Protocol):
    """Told what was read."""

    def received(self, exchange: Exchange) -> None:
        """A complete request. Must not raise."""
        ...

    def continue_wanted(self) -> None:
        """The peer waits for leave to send the body it announced."""
        ...


class _Gone:
    """The sink of a parser that has been closed."""

    def received(self, exchange: Exchange) -> None:
        """Nobody hears of it."""

    def continue_wanted(self) -> None:
        """Nobody hears of it."""


_GONE = _Gone()


class StreamSink(Protocol):
    """Told of requests that are served before their body is complete, and of offers to change the protocol."""

    def streams(self, method: str, path: str, headers: Headers) -> bool:
        """Whether this request is one of them."""
        ...

    def streamed(self, exchange: Exchange, length: int | None, expects: bool) -> None:
        """The head has come and the exchange's body begun; it has `length` bytes (None: chunks), and the peer may wait
        for leave to send it."""
        ...

    def arrived(self, piece: bytes, last: bool) -> None:
        """More of that body. Called from within the parser if it is the last."""
        ...

    def offered(self, exchange: Exchange, rest: bytes) -> None:
        """A request whose offer may be accepted, and what followed its head."""
        ...


class _Refused(Exception):
    """Leaves a parser callback; the refusal is kept on the parser."""


_OVERHEAD_FACTOR = 8
"""Raw bytes read per byte of body at most, beside one head's worth. Chunks of one byte need six."""
_SLACK = 16 * 1024
_BARREN = Refusal(400, "The request's chunks carry more framing than content.")
_KNOWN_MAX = 2048
"""Longest header fields in bytes that are kept to be recognised when they come again."""
_SPECIAL_FRAMING = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""Fields that make reading on less than plain."""
_LINE = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH) (/[!\"$-~]*) HTTP/1\.1")
"""The usual request line, as llhttp takes it too."""


class _Known(NamedTuple):
    """Header fields of a request that came whole, in one piece and with nothing else."""

    fields: bytes
    """From the end of the first line to the body."""
    length: int
    """Bytes of the body that they announce."""
    headers: Headers


class RequestParser:
    """The input side of one connection."""

    __slots__ = (
        "_body",
        "_body_limit",
        "_completed",
        "_expects",
        "_fed",
        "_flow",
        "_handed",
        "_headers",
        "_http",
        "_http10",
        "_in_head",
        "_keep_alive",
        "_known",
        "_length",
        "_limits",
        "_mark",
        "_method",
        "_offer",
        "_raw",
        "_refusal",
        "_replay",
        "_sink",
        "_special",
        "_streaming",
        "_target",
        "_trailers",
        "_url",
        "finished",
        "reading",
        "size",
    )

    def __init__(self, limits: HttpLimits, sink: RequestSink, flow: StreamSink | None = None) -> None:
        self._limits = limits
        self._sink = sink
        self._flow = flow
        self.reading = Reading.BETWEEN
        self.size = 0
        """Bytes of the current body so far."""
        self.finished = False
        """Whether the peer said that its last request was the last."""
        self._fed = 0
        self._refusal: Refusal | None = None
        self._completed = 0
        """Requests that the last input completed."""
        self._special = False
        """Whether the request ends otherwise than by being handed on whole."""
        self._streaming = False
        self._handed: Exchange | None = None
        """The request whose streamed body is being read, once it has been handed on."""
        self._trailers: RawHeaders = []
        self._length: int | None = None
        self._expects = False
        self._mark = 0
        """Raw bytes read when the last byte of a streamed body came."""
        self._offer = ""
        self._body: bytes | bytearray = b""
        self._replay: RawHeaders | None = None
        self._known: tuple[_Known, ...] = ()
        """Clients say much the same with every request, or take turns between two, so fields are read once: only the
        first line is new when they come again."""
        self._http: Any = httptools.HttpRequestParser(self)

    def feed(self, data: bytes | memoryview) -> Refusal | None:
        """Read on; complete requests go to the sink. After a refusal the parser must not be fed again."""
        starts = self.reading is Reading.BETWEEN and self._replay is None and isinstance(data, bytes)
        if starts and self._known and self._recognises(data):
            return None
        self._fed = len(data) + (0 if self.reading is Reading.BETWEEN else self._fed)
        self._completed = 0
        try:
            self._http.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            return self._read_past_upgrade(memoryview(data)[stop.args[0] :])
        except httptools.HttpParserError as error:
            return self._explain(error)
        if self.reading is not Reading.BETWEEN:
            return self._check_unfinished()
        if starts and self._completed == 1 and self._keep_alive:
            self._get_to_know(bytes(data))
        return None

    def _recognises(self, data: bytes | memoryview) -> bool:
        """Whether this is a whole request with known fields; then it has been handed on."""
        assert isinstance(data, bytes)
        for known in self._known:
            end = len(data) - known.length
            if data.endswith(known.fields, 0, end) and end <= self._limits.header_bytes:
                break
        else:
            return False
        line = _LINE.fullmatch(data, 0, end - len(known.fields))
        if line is None:
            return False
        method, target = line[1].decode(), line[2].decode()
        if known.length and known.length > self._body_max(method, target):
            return False
        self._sink.received(Exchange(method, target, known.headers, data[end:], keep_alive=True, http10=False))
        return True

    def _get_to_know(self, data: bytes) -> None:
        first, size = self._headers.first, self.size
        told = int(first.get(b"content-length", 0))
        if self._http10 or told != size or not _SPECIAL_FRAMING.isdisjoint(first):
            return
        end = data.find(b"\r\n")
        known = data[end : len(data) - size]
        if len(known) <= _KNOWN_MAX and _LINE.fullmatch(data, 0, end) is not None:
            self._known = (_Known(known, size, self._headers), *self._known[:1])

    def close(self) -> None:
        """Break the reference cycles with llhttp's wrapper and the sink, so that nothing waits for the collector."""
        self._http = self._flow = self._handed = None
        self._sink = _GONE

    def _explain(self, error: Exception) -> Refusal | None:
        if self._refusal is not None:
            return self._refusal
        if self.finished:
            return None
        if isinstance(error, httptools.HttpParserCallbackError):
            return Refusal(500, "The request could not be read.")
        text = str(error)
        if text in ("Invalid HTTP version", "Pause on PRI/Upgrade"):
            return Refusal(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        return Refusal(400, f"The request is malformed: {text}.")

    def _check_unfinished(self) -> Refusal | None:
        """Bounds on what llhttp has consumed without completing a request."""
        if self._streaming:
            return self._hand_on()
        if self._completed:
            # An earlier request filled part of this input; the next feed counts exactly.
            self._fed = 0
        elif self.reading is Reading.HEAD:
            if self._fed > self._limits.header_bytes:
                return self._head_too_large()
        elif self._fed - self.size > self._limits.header_bytes + _OVERHEAD_FACTOR * self.size + _SLACK:
            return _BARREN
        return None

    def _hand_on(self) -> Refusal | None:
        """What this input brought of a streamed body. Its size is not bounded, so silence between its bytes is."""
        piece, self._body = bytes(self._body), b""
        if self._completed:
            self._fed = 0
        if piece or self._handed is None:
            self._mark = self._fed
        bound = self._limits.header_bytes + _SLACK
        if self._fed - self._mark > bound or self._fed - self.size > bound + _OVERHEAD_FACTOR * self.size:
            return _BARREN
        flow = cast(StreamSink, self._flow)
        if self._handed is None:
            exchange = self._handed = self._exchange(piece)
            flow.streamed(exchange, self._length, self._expects)
        elif piece:
            flow.arrived(piece, False)
        return None

    def _head_too_large(self) -> Refusal:
        if not self._raw and len(self._url) > self._limits.header_bytes // 2:
            return Refusal(414, "The request target is too long.")
        return Refusal(431, f"The request header is larger than {self._limits.header_bytes} bytes.")

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _Refused

    # Callbacks of llhttp. An exception in one of them stops the parser.

    def on_message_begin(self) -> None:
        self.reading = Reading.HEAD
        self._url = b""
        self._raw: RawHeaders = []
        self._in_head = True
        self._body = b""
        self.size = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            self._raw.append((name, value))
            if len(self._raw) > self._limits.header_count:
                self._refuse(Refusal(431, f"The request has more than {self._limits.header_count} header fields."))
        elif self._streaming:
            self._trailers.append((name, value))
            if len(self._trailers) > self._limits.header_count:
                self._refuse(Refusal(400, f"The request has more than {self._limits.header_count} trailer fields."))

    def on_headers_complete(self) -> None:
        http, raw, limits = self._http, self._raw, self._limits
        self._in_head = False
        if self._fed > limits.header_bytes:
            self._weigh_head()
        version = http.get_http_version()
        self._http10 = version == "1.0"
        if version != "1.1" and not self._http10:
            self._refuse(Refusal(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here."))
        self._keep_alive = http.should_keep_alive()
        self._method = http.get_method().decode()
        if http.should_upgrade() and not self._weighs_offer():
            return
        self._target = self._origin_form()
        headers = self._headers = Headers(raw)
        self._read_framing(headers.first, len(raw))
        if self._replay is not None:
            self._headers, self._replay = Headers(self._replay), None

    def on_body(self, data: bytes) -> None:
        size = self.size = self.size + len(data)
        if size > self._body_limit:
            self._refuse(self._body_too_large())
        if not self._body:
            self._body = data
        elif isinstance(self._body, bytearray):
            self._body += data
        else:
            self._body = bytearray(self._body) + data

    def on_message_complete(self) -> None:
        if self._special and self._ends_specially():
            return
        self.reading = Reading.BETWEEN
        self._completed += 1
        self.finished = not self._keep_alive
        body, self._body = self._body, b""
        self._sink.received(self._exchange(body if isinstance(body, bytes) else bytes(body)))

    def _ends_specially(self) -> bool:
        if not self._streaming:
            return True
        self._special = self._streaming = False
        self.reading = Reading.BETWEEN
        self._completed += 1
        self.finished = not self._keep_alive
        body, handed = bytes(self._body), self._handed
        self._body = b""
        exchange = self._exchange(body) if handed is None else handed
        if self._trailers:
            exchange.trailers = Headers(self._trailers)
        if handed is None:  # all of it came at once: a request like any other
            self._sink.received(exchange)
        else:
            self._handed = None
            cast(StreamSink, self._flow).arrived(body, True)
        return True

    def _exchange(self, body: bytes) -> Exchange:
        return Exchange(
            self._method, self._target, self._headers, body, keep_alive=self._keep_alive, http10=self._http10
        )

    # What the header fields mean for reading on.

    def _weigh_head(self) -> None:
        weight = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._raw)
        if weight > self._limits.header_bytes:
            self._refuse(self._head_too_large())

    def _read_framing(self, first: Mapping[bytes, bytes], count: int) -> None:
        if len(first) < count:
            self._check_repeated()
        coding, expectation = first.get(b"transfer-encoding"), first.get(b"expect")
        chunked = coding is not None and self._check_coding(coding)
        expects = expectation is not None and self._check_expectation(expectation)
        length = int(first.get(b"content-length", 0))
        if length or chunked:
            self._begin_body(length, chunked, expects and not self._http10)

    def _check_repeated(self) -> None:
        """A second field of the same name must not say what the first does not. llhttp sees to Content-Length."""
        names = [name.lower() for name, _ in self._raw]
        if names.count(b"host") > 1:
            self._refuse(Refusal(400, "The request has more than one Host field."))
        for name, (_, value) in zip(names, self._raw, strict=True):
            if name == b"transfer-encoding":
                self._check_coding(value)
            elif name == b"expect":
                self._check_expectation(value)

    def _begin_body(self, length: int, chunked: bool, expects: bool) -> None:
        if self._flow is not None and self._flow.streams(self._method, self._target.partition("?")[0], self._headers):
            self._special = self._streaming = True
            self._handed, self._trailers = None, []
            self._body_limit = sys.maxsize
            self._length, self._expects = None if chunked else length, expects
            self.reading = Reading.BODY
            return
        limit = self._body_limit = self._body_max(self._method, self._target)
        if length > limit:
            self._refuse(self._body_too_large())
        self.reading = Reading.BODY
        if expects:
            self._sink.continue_wanted()

    def _body_max(self, method: str, target: str) -> int:
        limit = self._limits.body_bytes
        return limit if isinstance(limit, int) else limit(method, target.partition("?")[0])

    def _check_coding(self, value: bytes) -> bool:
        if self._http10:
            self._refuse(Refusal(400, "HTTP/1.0 knows no Transfer-Encoding."))
        if value.strip().lower() != b"chunked":
            self._refuse(Refusal(501, "The only transfer coding understood is chunked."))
        return True

    def _check_expectation(self, value: bytes) -> bool:
        if value.strip().lower() != b"100-continue":
            self._refuse(Refusal(417, "The only expectation understood is 100-continue."))
        return True

    def _body_too_large(self) -> Refusal:
        return Refusal(413, f"The request body is larger than {self._body_limit} bytes.")

    def _origin_form(self) -> str:
        """The target; an absolute one is cut down to it."""
        target = self._url.decode("latin-1")
        if target[:1] in ("/", "*"):
            return target
        rest = target.partition("://")[2] or target
        cuts = [place for place in (rest.find("/"), rest.find("?")) if place >= 0]
        tail = rest[min(cuts) :] if cuts else ""
        return tail if tail.startswith("/") else "/" + tail

    # An offer to change the protocol stands at the end of its request. One that is declined is read again without it,
    # body and all.

    def _weighs_offer(self) -> bool:
        """Whether to read on as a request; with False it is read again without its offer."""
        if self._method == "CONNECT":
            self._refuse(Refusal(501, "This server is no proxy: CONNECT is not offered."))
        self._special = True
        self._offer = self._acceptable_offer()
        return bool(self._offer)

    def _acceptable_offer(self) -> str:
        if self._flow is None or self._http10:
            return ""
        headers = Headers(self._raw)
        if "transfer-encoding" in headers or "expect" in headers or headers.get("content-length", "0") != "0":
            return ""
        wanted = self._flow.streams(self._method, self._origin_form().partition("?")[0], headers)
        return headers.get("upgrade").lower() if wanted else ""

    def _read_past_upgrade(self, rest: memoryview) -> Refusal | None:
        self._special = False
        method, version = self._method.encode(), self._http.get_http_version().encode()
        self._http = httptools.HttpRequestParser(self)
        self.reading = Reading.BETWEEN
        offer, self._offer = self._offer, ""
        if offer:
            self.finished = not self._keep_alive
            exchange = self._exchange(b"")
            exchange.upgrade = offer
            cast(StreamSink, self._flow).offered(exchange, bytes(rest))
            return None
        raw = self._replay = self._raw
        lines = [b"%b: %b\r\n" % field for field in raw if field[0].lower() != b"upgrade"]
        return self.feed(b"".join([method, b" ", self._url, b" HTTP/", version, b"\r\n", *lines, b"\r\n", rest]))

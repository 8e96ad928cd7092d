"""One request and the way to answer it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from torpor.model.invocation import BodySource
from torpor.transport.response import AnyHeaders

if TYPE_CHECKING:
    from torpor.transport.tunnel import Tunnel

RawHeaders = list[tuple[bytes, bytes]]
_KEYS: dict[str, bytes] = {}
"""Names that were asked for, as the dictionaries of fields are keyed."""
_KEYS_MAX = 1000


def _key(name: str) -> bytes:
    key = name.lower().encode("latin-1")
    if len(_KEYS) < _KEYS_MAX:
        _KEYS[name] = key
    return key


class Headers:
    """Header fields as they came, in order. Names are found in any case; values are decoded as Latin-1."""

    __slots__ = ("_raw", "first", "kept")

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw
        self.kept: Any = None
        """Whatever their reader made of them: requests that repeat the fields of the last one on their connection
        share this object, so that it need not be made again."""
        self.first = {name.lower(): value for name, value in reversed(raw)}
        """The first value of each name as it came, by lower-case name."""

    def get(self, name: str, default: str = "") -> str:
        """The first field of this name, or `default`."""
        value = self.first.get(_KEYS.get(name) or _key(name))
        return default if value is None else value.decode("latin-1").strip()

    def get_all(self, name: str) -> list[str]:
        """The values of every field of this name."""
        wanted = _key(name)
        return [value.decode("latin-1").strip() for key, value in self._raw if key.lower() == wanted]

    def items(self) -> Iterator[tuple[str, str]]:
        """Every field, names in the case they came in."""
        return ((key.decode("latin-1"), value.decode("latin-1").strip()) for key, value in self._raw)

    @property
    def raw(self) -> Sequence[tuple[bytes, bytes]]:
        """Every field as it came."""
        return self._raw

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, name: str) -> bool:
        return _key(name) in self.first


class AnswerStream(Protocol):
    """An answer that was begun, as its exchange sees it."""

    def write(self, data: bytes) -> bool: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...

    def lose(self) -> None: ...


class ReplySink(Protocol):
    """The connection as an exchange sees it."""

    @property
    def peer(self) -> str: ...

    def answer(self, exchange: "Exchange", status: int, headers: AnyHeaders, body: bytes) -> bool: ...

    def begin(
        self, exchange: "Exchange", status: int, fields: AnyHeaders, length: int | None
    ) -> AnswerStream | None: ...

    def break_off(self, exchange: "Exchange") -> None: ...

    def watch(self, lost: Callable[[], None]) -> None: ...


class Exchange:
    """A request, answered once: at once, or later if it is kept. Use it from the event loop's thread only.

    The answer is sent whole by `reply`, or begun by `begin`, followed by any number of `write` and ended by `finish`.
    """

    __slots__ = (
        "_sink",
        "_stream",
        "_switch",
        "body",
        "headers",
        "http10",
        "keep_alive",
        "method",
        "on_disconnect",
        "on_writable",
        "path",
        "query",
        "source",
        "target",
        "trailers",
        "upgrade",
    )

    source: BodySource | None
    """What follows `body`, if the request is served before its body is complete."""
    trailers: Headers | None
    """The fields behind a body in chunks, if the request is one that is served before its body is complete; there once
    the body is whole."""
    on_disconnect: Callable[[], None] | None
    """Called once if the peer goes away (or shuts its side down) before the answer is complete."""
    on_writable: Callable[[], None] | None
    """Called when the peer has caught up after `write` returned False."""
    _sink: ReplySink | None
    _stream: AnswerStream | None

    def __init__(
        self, method: str, target: str, headers: Headers, body: bytes, *, keep_alive: bool = True, http10: bool = False
    ) -> None:
        self.method = method
        self.target = target
        """Path and query as they came, percent-encoding kept."""
        if "?" in target:
            self.path, _, self.query = target.partition("?")
        else:
            self.path, self.query = target, ""
        self.headers = headers
        self.body = body
        self.upgrade = ""
        """The protocol the peer offers to change to, in lower case, if `tunnel` may accept it."""
        self.keep_alive = keep_alive
        self.http10 = http10
        self.source = self.trailers = self.on_disconnect = self.on_writable = self._sink = self._stream = None

    @property
    def peer(self) -> str:
        """The peer's IP address; empty on a Unix socket, and once the answer is begun or the exchange closed."""
        return self._sink.peer if self._sink is not None else ""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more: answered already, or the peer is gone."""
        return self._sink is None and self._stream is None

    @property
    def begun(self) -> bool:
        """Whether an answer is being sent piece by piece."""
        return self._stream is not None

    def reply(self, status: int, headers: AnyHeaders = (), body: bytes = b"") -> bool:
        """Send the whole answer; True once it is handed to the socket.

        False, with no effect, if the exchange was answered before or the peer is gone. Framing belongs to the server:
        Content-Length, Transfer-Encoding and Connection in `headers` are left out.
        """
        sink = self._sink
        if sink is None:
            return False
        self._sink = self.on_disconnect = None
        return sink.answer(self, status, headers, body)

    def begin(self, status: int, fields: AnyHeaders = (), length: int | None = None) -> bool:
        """Send the head of an answer whose body of `length` bytes follows; None if its length is not known.

        False, with no effect, if the exchange was answered before or the peer is gone. Framing belongs to the server,
        as in `reply`; the body of an answer that has none (to HEAD, 204, 304) is dropped.
        """
        sink = self._sink
        if sink is None:
            return False
        stream = self._stream = sink.begin(self, status, fields, length)
        if stream is None:
            return False
        self._sink = None
        return True

    def write(self, data: bytes) -> bool:
        """Send a piece of the body that was begun. False if the peer reads too slowly (then wait for `on_writable`;
        what is written all the same waits in memory), or if the exchange is closed.

        More than the announced length breaks the answer off.
        """
        stream = self._stream
        return stream.write(data) if stream is not None else False

    def finish(self) -> None:
        """End the body that was begun; less than the announced length breaks the answer off."""
        stream = self._stream
        if stream is not None:
            self._stream = self.on_disconnect = self.on_writable = None
            stream.finish()

    def abort(self) -> None:
        """Break the connection: an answer that was begun cannot be taken for complete, another is not given."""
        sink, stream = self._sink, self._stream
        self._sink = self._stream = self.on_disconnect = self.on_writable = None
        if stream is not None:
            stream.abort()
        elif sink is not None:
            sink.break_off(self)

    def watch_connection(self, lost: Callable[[], None]) -> None:
        """Call `lost` once this exchange's connection is gone, however long after the answer; the last call counts."""
        if self._sink is not None:
            self._sink.watch(lost)

    def tunnel(self, head: bytes) -> "Tunnel | None":
        """Accept the offer: send `head`, a whole answer with status 101, and take the connection over.

        None if the exchange was answered before or the peer is gone. Raises RuntimeError if nothing was offered.
        """
        if not self.upgrade:
            raise RuntimeError("The request offers no change of protocol.")
        if self._sink is None:
            return None
        self._sink = self.on_disconnect = self.on_writable = None
        return self._switch(head)

    def attach_switch(self, switch: Callable[[bytes], "Tunnel | None"]) -> None:
        """For the connection: what accepts the offer."""
        self._switch = switch

    def attach(self, sink: ReplySink) -> None:
        """For the connection: from now on this exchange can be answered."""
        self._sink = sink

    def caught_up(self) -> None:
        """For the connection: the peer has read enough of what was written."""
        told = self.on_writable
        if told is not None:
            told()

    def vanish(self) -> None:
        """For the connection: the peer is gone."""
        told, stream = self.on_disconnect, self._stream
        self._sink = self._stream = self.on_disconnect = self.on_writable = None
        if stream is not None:
            stream.lose()
        if told is not None:
            told()


Application = Callable[[Exchange], None]
"""Called with each complete request, and with those that are streamed once their head is read; answers at once or keeps
the exchange and answers later. Must not block."""
Streams = Callable[[str, str, Headers], bool]
"""Whether a request (method, raw path, fields) is served before its body is complete. Must not block."""

"""One request and the way to answer it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

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

    __slots__ = ("_raw", "first")

    def __init__(self, raw: RawHeaders) -> None:
        self._raw = raw
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

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, name: str) -> bool:
        return _key(name) in self.first


class ReplySink(Protocol):
    """The connection as an exchange sees it."""

    @property
    def peer(self) -> str: ...

    def answer(self, exchange: "Exchange", status: int, headers: Sequence[tuple[str, str]], body: bytes) -> bool: ...


class Exchange:
    """A complete request, answered once: at once, or later if it is kept. Use it from the event loop's thread only."""

    __slots__ = (
        "_sink",
        "body",
        "headers",
        "http10",
        "keep_alive",
        "method",
        "on_disconnect",
        "path",
        "query",
        "target",
    )

    def __init__(
        self, method: str, target: str, headers: Headers, body: bytes, *, keep_alive: bool = True, http10: bool = False
    ) -> None:
        self.method = method
        self.target = target
        """Path and query as they came, percent-encoding kept."""
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.body = body
        self.keep_alive = keep_alive
        self.http10 = http10
        self.on_disconnect: Callable[[], None] | None = None
        """Called once if the peer goes away (or shuts its side down) before the answer."""
        self._sink: ReplySink | None = None

    @property
    def peer(self) -> str:
        """The peer's IP address; empty on a Unix socket and once the exchange is closed."""
        return self._sink.peer if self._sink is not None else ""

    @property
    def closed(self) -> bool:
        """Whether nothing can be sent any more: answered already, or the peer is gone."""
        return self._sink is None

    def reply(self, status: int, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> bool:
        """Send the whole answer; True once it is handed to the socket.

        False, with no effect, if the exchange was answered before or the peer is gone. Framing belongs to the server:
        Content-Length, Transfer-Encoding and Connection in `headers` are left out.
        """
        sink = self._sink
        if sink is None:
            return False
        self._sink = self.on_disconnect = None
        return sink.answer(self, status, headers, body)

    def attach(self, sink: ReplySink) -> None:
        """For the connection: from now on this exchange can be answered."""
        self._sink = sink

    def vanish(self) -> None:
        """For the connection: the peer is gone."""
        told = self.on_disconnect
        self._sink = self.on_disconnect = None
        if told is not None:
            told()


Application = Callable[[Exchange], None]
"""Called with each complete request; answers at once or keeps the exchange and answers later. Must not block."""

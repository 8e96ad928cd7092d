"""Header fields on their way through (contract 5): what is meant for one connection only stays behind, and the server
inside is told who asked.

This is done for every request, so fields stay the bytes they came as, a name seen before is looked up instead of looked
at, and what is said of a caller is made once.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from torpor.contracts.forwarding import HOP_BY_HOP, LOCAL_PEERS, listed

WEBSOCKET = "websocket"
REQUEST_ID = "X-Request-Id"
_TOLD = frozenset(
    {"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-forwarded-proto", "x-request-id"}
)
_PLAIN = frozenset({"keep-alive", "Keep-Alive", "close"})
"""Values of `Connection` that name no other field."""
_ID = re.compile(r"[!-~]{1,128}")
_UNQUOTABLE = re.compile(r'["\\]')
_NAMES_MAX = 1024
_CALLERS_MAX = 1024
_HOST_LENGTH = 300
"""Characters of a Host field that is worth keeping."""
_DROP = b""
_LOOK = b"?"
_names: dict[bytes, bytes] = {}
"""Names of request fields as they came and how their lines begin, or `_DROP`, or `_LOOK` for those that need a closer
look."""
_answered: dict[bytes, bytes] = {}
"""The same for the names of response fields."""
_Raw = Iterable[tuple[bytes, bytes]]
_Special = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What the fields of a request become; the same for every request that has them and comes from the same caller."""

    lines: bytes
    """As they go on, each with its line end."""
    request_id: bytes
    """The id that the caller gave the request; empty if there is none."""
    prefix: str
    """What a proxy that is believed has taken off the path itself."""

    def of(self, request_id: str, prefix: str = "") -> bytes:
        """The lines of one request. `request_id` is the platform's, and `prefix` what it took off the path."""
        lines = b"%bX-Request-Id: %b\r\n" % (self.lines, self.request_id or request_id.encode())
        prefix = self.prefix + prefix
        return b"%bX-Forwarded-Prefix: %b\r\n" % (lines, prefix.encode("latin-1")) if prefix else lines


def request_lines(raw: _Raw, *, peer: str, scheme: str, host: str) -> Forwarded:
    """The fields of a request as the server inside gets them, framing left to whoever sends it.

    `raw` are the fields as they came, and `host` the Host field.
    """
    lines, special = _sorted(raw, _names, _TOLD)
    if not special:
        short = len(host) <= _HOST_LENGTH
        lines.append(_introduction(peer, scheme, host) if short else _introduced(peer, scheme, host, {}))
        return Forwarded(b"".join(lines), b"", "")
    told = _told(special)
    believed = told if peer in LOCAL_PEERS else {}
    lines = [*_without(lines, special), _introduced(peer, scheme, host, believed)]
    own = told.get("x-request-id", "")
    prefix = believed.get("x-forwarded-prefix", "").rstrip("/")
    return Forwarded(b"".join(lines), own.encode() if _ID.fullmatch(own) else b"", prefix)


def response_lines(raw: _Raw) -> bytes:
    """The fields of an answer as its caller gets them, framing left to whoever sends it."""
    lines, special = _sorted(raw, _answered, frozenset())
    return b"".join(_without(lines, special) if special else lines)


def _sorted(raw: _Raw, names: dict[bytes, bytes], told: frozenset[str]) -> tuple[list[bytes], _Special]:
    """The lines that go on, and the fields that need a closer look."""
    lines: list[bytes] = []
    special: _Special = []
    for key, value in raw:
        beginning = names.get(key)
        if beginning is None:
            beginning = _learn(key, names, told)
        if beginning is _LOOK:
            special.append((key.decode("latin-1").lower(), value.decode("latin-1").strip()))
        elif beginning:
            lines.append(b"%b%b\r\n" % (beginning, value.strip()))
    return lines, special


def wanted_upgrade(connection: str, upgrade: str) -> str:
    """The protocol that a caller wants to change to and a server may be asked for: `websocket` or none."""
    if not upgrade or "upgrade" not in listed(connection):
        return ""
    return WEBSOCKET if WEBSOCKET in listed(upgrade) else ""


def _learn(key: bytes, names: dict[bytes, bytes], told: frozenset[str]) -> bytes:
    """How a field's line begins, from now on known."""
    lower = key.decode("latin-1").lower()
    if lower in told or lower == "connection":
        beginning = _LOOK
    else:
        beginning = _DROP if lower in HOP_BY_HOP or lower.startswith("proxy-") else key + b": "
    if len(names) < _NAMES_MAX:
        names[key] = beginning
    return beginning


def _without(lines: list[bytes], special: _Special) -> list[bytes]:
    """The lines of the fields that no `Connection` field says belong to the connection."""
    named: set[bytes] = set()
    for name, value in special:
        if name == "connection" and value not in _PLAIN:
            named |= {word.encode("latin-1") for word in listed(value)}
    named.discard(b"host")  # without it the request would be none
    return [line for line in lines if line.partition(b":")[0].lower() not in named] if named else lines


def _told(special: _Special) -> dict[str, str]:
    """What the caller says about whom it speaks for, by name of field."""
    told: dict[str, str] = {}
    for name, value in special:
        if name != "connection":
            told[name] = f"{told[name]}, {value}" if name in told else value
    return told


@lru_cache(_CALLERS_MAX)
def _introduction(peer: str, scheme: str, host: str) -> bytes:
    return _introduced(peer, scheme, host, {})


def _introduced(peer: str, scheme: str, host: str, told: Mapping[str, str]) -> bytes:
    """What the server inside is told about the caller; `told` is what a proxy says that is believed."""
    address = f'"[{peer}]"' if ":" in peer else peer or "unknown"
    own = f'for={address};host="{_UNQUOTABLE.sub("", host)}";proto={scheme}'
    before, chain = told.get("x-forwarded-for", ""), told.get("forwarded", "")
    fields = (
        ("X-Forwarded-For", f"{before}, {peer}" if before else peer),
        ("X-Forwarded-Proto", told.get("x-forwarded-proto") or scheme),
        ("X-Forwarded-Host", told.get("x-forwarded-host") or host),
        ("Forwarded", f"{chain}, {own}" if chain else own),
    )
    return "".join([f"{name}: {value}\r\n" for name, value in fields]).encode("latin-1")

"""Header fields on their way through (contract 5): what is meant for one connection only stays behind, and the server
inside is told who asked.

This is done for every request, so a name seen before is looked up instead of looked at, and what is said of a caller is
made once.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

WEBSOCKET = "websocket"
REQUEST_ID = "X-Request-Id"
PREFIX = "X-Forwarded-Prefix"
_LOCAL = frozenset({"127.0.0.1", "::1", ""})
"""Whoever calls from this machine may be a proxy in front of the server, and says itself for whom it speaks."""
_HOP_BY_HOP = frozenset(
    {"connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
_SAID_ANEW = _HOP_BY_HOP | {"date"}
"""Of answers: the platform's own server dates what it sends."""
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
_DROP = ""
_LOOK = "?"
_names: dict[bytes, str] = {}
"""Names of request fields as they came and as they go on, or `_DROP`, or `_LOOK` for those that need a closer look."""
_answered: dict[bytes, str] = {}
"""The same for the names of response fields."""

_Pairs = list[tuple[str, str]]


def request_fields(
    raw: Iterable[tuple[bytes, bytes]],
    *,
    peer: str,
    scheme: str,
    host: str,
    request_id: str,
    prefix: str = "",
) -> _Pairs:
    """The fields of a request as the server inside gets them, framing left to whoever sends it.

    `raw` are the fields as they came, `host` the Host field, and `prefix` what was taken off the path.
    """
    names = _names
    kept: _Pairs = []
    special: _Pairs | None = None
    for key, value in raw:
        name = names.get(key)
        if name is None:
            name = _learn(key, names, _HOP_BY_HOP, _TOLD)
        if name == _LOOK:
            special = special or []
            special.append((key.decode("latin-1").lower(), value.decode("latin-1").strip()))
        elif name:
            kept.append((name, value.decode("latin-1").strip()))
    if special is None:
        kept += _introduction(peer, scheme, host) if len(host) <= _HOST_LENGTH else _introduced(peer, scheme, host, {})
    else:
        kept = _without(kept, special)
        told = _told(special)
        kept += _introduced(peer, scheme, host, told)
        request_id = told["x-request-id"] if _ID.fullmatch(told.get("x-request-id", "")) else request_id
        prefix = told.get("x-forwarded-prefix", "").rstrip("/") + prefix if peer in _LOCAL else prefix
    kept.append((REQUEST_ID, request_id))
    if prefix:
        kept.append((PREFIX, prefix))
    return kept


def response_fields(raw: Iterable[tuple[bytes, bytes]]) -> _Pairs:
    """The fields of an answer as its caller gets them, framing left to whoever sends it."""
    names = _answered
    kept: _Pairs = []
    special: _Pairs | None = None
    for key, value in raw:
        name = names.get(key)
        if name is None:
            name = _learn(key, names, _SAID_ANEW, frozenset())
        if name == _LOOK:
            special = special or []
            special.append((key.decode("latin-1").lower(), value.decode("latin-1").strip()))
        elif name:
            kept.append((name, value.decode("latin-1").strip()))
    return kept if special is None else _without(kept, special)


def wanted_upgrade(connection: str, upgrade: str) -> str:
    """The protocol that a caller wants to change to and a server may be asked for: `websocket` or none."""
    if not upgrade or "upgrade" not in _listed(connection):
        return ""
    return WEBSOCKET if WEBSOCKET in _listed(upgrade) else ""


def _learn(key: bytes, names: dict[bytes, str], dropped: frozenset[str], told: frozenset[str]) -> str:
    """How a field's name goes on, from now on known."""
    text = key.decode("latin-1")
    lower = text.lower()
    if lower in told or lower == "connection":
        name = _LOOK
    else:
        name = _DROP if lower in dropped or lower.startswith("proxy-") else text
    if len(names) < _NAMES_MAX:
        names[key] = name
    return name


def _without(kept: _Pairs, special: _Pairs) -> _Pairs:
    """The fields that no `Connection` field says belong to the connection."""
    named: set[str] = set()
    for name, value in special:
        if name == "connection" and value not in _PLAIN:
            named |= _listed(value)
    named.discard("host")  # without it the request would be none
    return [field for field in kept if field[0].lower() not in named] if named else kept


def _listed(value: str) -> set[str]:
    """The words of a list, in lower case."""
    return {word.strip().lower() for word in value.split(",")}


def _told(special: _Pairs) -> dict[str, str]:
    """What the caller says about whom it speaks for, by name of field."""
    told: dict[str, str] = {}
    for name, value in special:
        if name != "connection":
            told[name] = f"{told[name]}, {value}" if name in told else value
    return told


@lru_cache(_CALLERS_MAX)
def _introduction(peer: str, scheme: str, host: str) -> _Pairs:
    return _introduced(peer, scheme, host, {})


def _introduced(peer: str, scheme: str, host: str, told: Mapping[str, str]) -> _Pairs:
    """What the server inside is told about the caller. Only a proxy on this machine is believed what it tells."""
    told = told if peer in _LOCAL else {}
    address = f'"[{peer}]"' if ":" in peer else peer or "unknown"
    own = f'for={address};host="{_UNQUOTABLE.sub("", host)}";proto={scheme}'
    before, chain = told.get("x-forwarded-for", ""), told.get("forwarded", "")
    return [
        ("X-Forwarded-For", f"{before}, {peer}" if before else peer),
        ("X-Forwarded-Proto", told.get("x-forwarded-proto") or scheme),
        ("X-Forwarded-Host", told.get("x-forwarded-host") or host),
        ("Forwarded", f"{chain}, {own}" if chain else own),
    ]

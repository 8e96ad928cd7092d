"""What pages of other origins may do with a function URL: its CORS configuration, and what browsers are told (9.10)."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from torpor.contracts.forwarding import listed

_ANY = "*"
_CORS = "access-control-"
Fields = list[tuple[str, str]]


class Cors(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """A configuration as it was given. A list that holds `*` names all there are."""

    allow_credentials: bool | None = None
    allow_headers: tuple[str, ...] | None = None
    allow_methods: tuple[str, ...] | None = None
    allow_origins: tuple[str, ...] | None = None
    expose_headers: tuple[str, ...] | None = None
    max_age: int | None = None
    """Seconds for which a browser may remember the answer to its question."""

    def admits(self, origin: str) -> bool:
        """May pages of this origin read answers?"""
        allowed = self.allow_origins or ()
        return bool(origin) and (_ANY in allowed or origin.lower() in map(str.lower, allowed))


def read_cors(given: Mapping[str, Any] | None) -> Cors | None:
    """The configuration out of a call's checked values; None if it says nothing."""
    return msgspec.convert(given, Cors) if given else None


def preflight_fields(cors: Cors, origin: str, method: str, headers: str) -> Fields:
    """The answer to a browser's question whether it may send a request of this method with these header fields.

    An origin that may not is told nothing, which its browser takes for a no. Where credentials are allowed browsers do
    not know `*`, so what was asked for is named instead.
    """
    fields = answer_fields(cors, origin)
    if not cors.admits(origin):
        return fields
    by_name = bool(cors.allow_credentials)
    methods = _allowed(cors.allow_methods, [method] if method else [], by_name)
    names = _allowed(cors.allow_headers, sorted(listed(headers) - {""}), by_name)
    fields += [("Access-Control-Allow-Methods", methods)] if methods else []
    fields += [("Access-Control-Allow-Headers", names)] if names else []
    return [*fields, ("Access-Control-Max-Age", str(cors.max_age))] if cors.max_age is not None else fields


def answer_fields(cors: Cors, origin: str) -> Fields:
    """What every answer says to a page of this origin; it stands in place of whatever the function says."""
    anyone = _ANY in (cors.allow_origins or ()) and not cors.allow_credentials
    vary = [] if anyone else [("Vary", "Origin")]
    if not cors.admits(origin):
        return vary
    fields = [("Access-Control-Allow-Origin", _ANY if anyone else origin), *vary]
    if cors.allow_credentials:
        fields.append(("Access-Control-Allow-Credentials", "true"))
    if cors.expose_headers:
        fields.append(("Access-Control-Expose-Headers", ",".join(cors.expose_headers)))
    return fields


def without_cors(fields: Iterable[tuple[str, str]]) -> Fields:
    """A function's fields without those that the configuration speaks of."""
    return [field for field in fields if not field[0].lower().startswith(_CORS)]


def _allowed(configured: Iterable[str] | None, asked: list[str], by_name: bool) -> str:
    allowed = list(configured or ())
    return ",".join(asked if by_name and _ANY in allowed else allowed)

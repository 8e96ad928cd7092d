"""Signatures of the generated clients: ACS3-HMAC-SHA256 and the mode before it (3.3)."""

import base64
import hashlib
import hmac
import re
from typing import Protocol
from urllib.parse import parse_qsl, quote, unquote_plus

from torpor.contracts.function_compute.api_failures import MISMATCH, ApiFailure, invalid
from torpor.contracts.http import ApiRequest

ALGORITHM = "ACS3-HMAC-SHA256"
_CURRENT = re.compile(
    r"Credential=(?P<key>[^,\s]+)\s*,\s*SignedHeaders=(?P<headers>[^,\s]*)\s*,\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_MUST_BE_SIGNED = ("x-acs-date",)


class Scheme(Protocol):
    """One way of signing."""

    def read(self, text: str) -> tuple[str, str]:
        """Key id and signature out of the Authorization field, without the scheme's name. Raises ApiFailure."""
        ...

    def signatures(self, request: ApiRequest, secret: str, *, trigger: bool) -> list[str]:
        """The signatures that are right for the request. Raises ApiFailure."""
        ...


class CurrentScheme:
    """`Authorization: ACS3-HMAC-SHA256 Credential=…,SignedHeaders=…,Signature=…`."""

    def read(self, text: str) -> tuple[str, str]:
        found = _parsed(text)
        return found["key"], found["signature"]

    def signatures(self, request: ApiRequest, secret: str, *, trigger: bool) -> list[str]:
        authorization = request.headers.get("authorization").strip().partition(" ")[2]
        names = _parsed(authorization)["headers"].split(";")
        missing = [name for name in _MUST_BE_SIGNED if name not in names]
        if missing:
            raise invalid(f"the header {missing[0]} has to be signed")
        bodies = ["", _body_hash(request)] if trigger else [_body_hash(request)]
        path = request.path.replace("$", "%24") if trigger else request.path
        return [self._signature(request, path, names, body, secret) for body in bodies]

    def _signature(self, request: ApiRequest, path: str, names: list[str], body: str, secret: str) -> str:
        fields = "".join(f"{name}:{_field(request, name)}\n" for name in sorted(names))
        parts = (request.method, path, _query(request.query), fields, ";".join(names), body)
        digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return hmac.digest(secret.encode(), f"{ALGORITHM}\n{digest}".encode(), "sha256").hex()


class OldScheme:
    """`Authorization: acs <key id>:<signature>`, HMAC-SHA1."""

    def read(self, text: str) -> tuple[str, str]:
        key, separator, signature = text.strip().partition(":")
        if not separator or not key or not signature:
            raise invalid("the Authorization header has to be 'acs <access key id>:<signature>'")
        return key, signature

    def signatures(self, request: ApiRequest, secret: str, *, trigger: bool) -> list[str]:
        field = request.headers.get
        own = [(name.lower(), value) for name, value in request.headers.items() if name.lower().startswith("x-acs-")]
        fields = "".join(f"{name}:{value}\n" for name, value in sorted(own, key=lambda pair: pair[0]))
        head = (request.method, field("accept"), field("content-md5"), field("content-type"), field("date"))
        text = "\n".join(head) + "\n" + fields + request.path + _plain_query(request.query)
        return [base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()]


def _parsed(text: str) -> re.Match[str]:
    found = _CURRENT.fullmatch(text.strip())
    if found is None:
        raise invalid(f"the Authorization header has to be '{ALGORITHM} Credential=…,SignedHeaders=…,Signature=…'")
    return found


def _body_hash(request: ApiRequest) -> str:
    actual = hashlib.sha256(request.body).hexdigest()
    claimed = request.headers.get("x-acs-content-sha256")
    if claimed and not hmac.compare_digest(claimed.lower().encode(), actual.encode()):
        raise ApiFailure("SignatureNotMatch", MISMATCH)
    return actual


def _field(request: ApiRequest, wanted: str) -> str:
    values = [value.strip() for name, value in request.headers.items() if name.lower() == wanted]
    return ",".join(sorted(values))


def _query(query: str) -> str:
    """On the wire blanks arrive as `+`; what was signed had them percent-encoded."""
    pairs = sorted(parse_qsl(query, keep_blank_values=True), key=lambda pair: pair[0])
    return "&".join(f"{name}={quote(value, safe='~')}" for name, value in pairs)


def _plain_query(query: str) -> str:
    parts = sorted(unquote_plus(part) for part in query.split("&") if part)
    return "?" + "&".join(part.removesuffix("=") for part in parts) if parts else ""

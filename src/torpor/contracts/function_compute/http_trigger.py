"""HTTP triggers: their configuration, CORS, and the event of built-in runtimes (6)."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from torpor.contracts.function_compute.api_failures import invalid, not_built
from torpor.contracts.function_compute.server_wire import answered_fields
from torpor.contracts.http import JSON, ApiResponse

ANONYMOUS = "anonymous"
SIGNED = "function"
METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "PATCH", "OPTIONS"})
INTERNAL_ERROR = b"Internal Server Error"
_TEXT_TYPES = frozenset(
    {"application/json", "application/ld+json", "application/xhtml+xml", "application/xml", "application/atom+xml",
     "application/javascript"}
)  # fmt: skip


class CorsConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which pages of other origins may call. All lists may hold `*`."""

    allow_origins: list[str] = []
    allow_methods: list[str] = []
    allow_headers: list[str] = []
    expose_headers: list[str] = []
    allow_credentials: bool = False
    max_age: int | None = None


class HttpConfig(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An HTTP trigger's configuration."""

    auth_type: str = SIGNED
    methods: list[str] = []
    cors_config: CorsConfig | None = None
    disable_internet: bool | None = msgspec.field(default=None, name="disableURLInternet")

    def takes(self, method: str) -> bool:
        return not self.methods or method in self.methods


class CalledBy(msgspec.Struct, frozen=True, kw_only=True):
    """What an event says of the call that made it."""

    account: str
    domain: str
    method: str
    path: str
    """Percent-encoding kept."""
    query: str
    fields: Sequence[tuple[str, str]]
    body: bytes
    peer: str
    request_id: str
    wall: float
    """Seconds since the epoch."""


def http_config(document: object) -> HttpConfig:
    """Raises ApiFailure for fields that are wrong, or not built."""
    try:
        config = msgspec.convert(_without_nulls(document), HttpConfig)
    except msgspec.ValidationError as error:
        raise invalid(f"triggerConfig is not valid: {error}") from error
    if config.auth_type not in (ANONYMOUS, SIGNED):
        raise not_built(f"The authType {config.auth_type} of HTTP triggers")
    unknown = [method for method in config.methods if method not in METHODS]
    if unknown:
        raise invalid(f"the method '{unknown[0]}' is not supported by HTTP triggers")
    return config


def _without_nulls(document: object) -> object:
    if isinstance(document, Mapping):
        return {name: _without_nulls(value) for name, value in document.items() if value is not None}
    return document


def preflight(cors: CorsConfig, fields: Mapping[str, str]) -> list[tuple[str, str]] | None:
    """The answer's fields to a browser's question; None if it is none, or the configuration does not let it pass.

    `fields` are the request's, by lower-case name.
    """
    method = fields.get("access-control-request-method", "")
    allowed = cors_fields(cors, fields.get("origin", ""))
    if not method or not allowed or not _passes(cors.allow_methods, [method]):
        return None
    wanted = [name.strip() for name in fields.get("access-control-request-headers", "").split(",") if name.strip()]
    if not _passes(cors.allow_headers, wanted):
        return None
    answer = [*allowed, ("Access-Control-Allow-Methods", ",".join(cors.allow_methods))]
    if wanted:
        answer.append(("Access-Control-Allow-Headers", ",".join(wanted)))
    return [*answer, ("Access-Control-Max-Age", str(cors.max_age))] if cors.max_age is not None else answer


def cors_fields(cors: CorsConfig, origin: str) -> list[tuple[str, str]]:
    """What is added to the answer to a page of this origin; nothing if it may not read it."""
    if not origin or not _passes(cors.allow_origins, [origin]):
        return []
    anyone = "*" in cors.allow_origins and not cors.allow_credentials
    fields = [("Access-Control-Allow-Origin", "*" if anyone else origin)]
    if cors.allow_credentials:
        fields.append(("Access-Control-Allow-Credentials", "true"))
    if cors.expose_headers:
        fields.append(("Access-Control-Expose-Headers", ",".join(cors.expose_headers)))
    return fields


def _passes(allowed: Iterable[str], wanted: Iterable[str]) -> bool:
    known = {item.lower() for item in allowed}
    return "*" in known or all(item.lower() in known for item in wanted)


def http_event(call: CalledBy) -> bytes:
    """The event of a built-in runtime that is called by HTTP."""
    text = _is_text(call.fields) and bool(call.body)
    path = unquote(call.path)
    event = {
        "version": "v1",
        "rawPath": call.path,
        "body": call.body.decode(errors="replace") if text else base64.b64encode(call.body).decode(),
        "isBase64Encoded": not text,
        "headers": _joined((_canonical(name), value) for name, value in call.fields),
        "queryParameters": _joined(parse_qsl(call.query, keep_blank_values=True)),
        "requestContext": {
            "accountId": call.account,
            "domainName": call.domain,
            "domainPrefix": call.domain.partition(".")[0],
            "http": {
                "method": call.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": call.peer,
                "userAgent": _field(call.fields, "user-agent"),
            },
            "requestId": call.request_id,
            "time": datetime.fromtimestamp(call.wall, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "timeEpoch": str(int(call.wall * 1000)),
        },
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def http_answer(result: bytes) -> ApiResponse:
    """What the caller gets of a built-in runtime's result. Raises ApiFailure when its fields are too large."""
    document = _document(result)
    if document is None:
        return ApiResponse(status=200, headers=(("Content-Type", JSON),), body=result)
    body = document.get("body", "")
    body = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    content = _decoded(body) if document.get("isBase64Encoded") is True else body.encode()
    headers = tuple(answered_fields(list(_answer_fields(document.get("headers")))))
    return ApiResponse(status=document["statusCode"], headers=headers, body=content)


def function_error() -> ApiResponse:
    """The caller of a function that failed learns nothing more; the log has the details."""
    return ApiResponse(status=502, headers=(("Content-Type", JSON),), body=INTERNAL_ERROR)


def _document(result: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(result)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or "statusCode" not in document:
        return None
    try:
        status = int(document["statusCode"])
    except (TypeError, ValueError):
        return None
    return {**document, "statusCode": status} if 200 <= status <= 599 else None


def _answer_fields(headers: object) -> Iterable[tuple[str, str]]:
    if not isinstance(headers, Mapping):
        return
    for name, value in headers.items():
        for item in value if isinstance(value, list) else [value]:
            yield str(name), item if isinstance(item, str) else json.dumps(item)


def _decoded(body: str) -> bytes:
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return body.encode()


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _canonical(name: str) -> str:
    return "-".join(part[:1].upper() + part[1:].lower() for part in name.split("-"))


def _is_text(fields: Iterable[tuple[str, str]]) -> bool:
    kind = _field(fields, "content-type").partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind in _TEXT_TYPES


def _field(fields: Iterable[tuple[str, str]], wanted: str) -> str:
    return next((value for name, value in fields if name.lower() == wanted), "")

"""The event that a function behind a URL gets: the request in the payload format 2.0 (9.10)."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from torpor.contracts.arns import partition_of
from torpor.contracts.forwarding import HOP_BY_HOP, listed
from torpor.contracts.http import RequestHeaders
from torpor.contracts.lambda_.url_source import TOLD, Source

ANONYMOUS = "anonymous"
_ROUTE = "$default"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_TEXT_TYPES = frozenset(
    {"application/json", "application/xml", "application/javascript", "application/x-javascript",
     "application/ecmascript"}
)  # fmt: skip
_TEXT_SUFFIXES = ("+json", "+xml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who has signed a request to a URL that wants that."""

    access_key: str
    account: str
    region: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlRequest:
    """A request, and what is known of how it came."""

    identity: str
    """Of the URL."""
    domain: str
    method: str
    target: str
    """Path and query, percent-encoding kept."""
    headers: RequestHeaders
    body: bytes
    source: Source
    signer: Signer | None
    """None if the URL is open to all."""
    request_id: str
    trace: str
    now: float
    """Seconds since the epoch."""


def url_event(request: UrlRequest) -> bytes:
    """The event as JSON. What is empty of cookies, query and body is left out."""
    path, _, query = request.target.partition("?")
    event: dict[str, Any] = {"version": "2.0", "routeKey": _ROUTE, "rawPath": path, "rawQueryString": query}
    if cookies := _cookies(request.headers):
        event["cookies"] = cookies
    event["headers"] = _headers(request)
    if parameters := _joined(parse_qsl(query, keep_blank_values=True), ","):
        event["queryStringParameters"] = parameters
    event["requestContext"] = _context(request, path)
    if request.body:
        text = _text(request.body, request.headers.get("content-type"))
        event["body"] = base64.b64encode(request.body).decode() if text is None else text
        event["isBase64Encoded"] = text is None
    else:
        event["isBase64Encoded"] = False
    return msgspec.json.encode(event)


def _context(request: UrlRequest, path: str) -> dict[str, Any]:
    signer = request.signer
    context: dict[str, Any] = {
        "accountId": ANONYMOUS if signer is None else signer.account,
        "apiId": request.identity,
        "authentication": None,
    }
    if signer is not None:
        context["authorizer"] = {"iam": _iam(signer)}
    return context | {
        "domainName": request.domain,
        "domainPrefix": request.identity,
        "http": {
            "method": request.method,
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": request.source.address,
            "userAgent": request.headers.get("user-agent"),
        },
        "requestId": request.request_id,
        "routeKey": _ROUTE,
        "stage": _ROUTE,
        "time": _time(request.now),
        "timeEpoch": int(request.now * 1000),
    }


def _iam(signer: Signer) -> dict[str, Any]:
    """The server's keys are the account's own, so whoever signs with one is the account itself."""
    return {
        "accessKey": signer.access_key,
        "accountId": signer.account,
        "callerId": signer.account,
        "cognitoIdentity": None,
        "principalOrgId": None,
        "userArn": f"arn:{partition_of(signer.region)}:iam::{signer.account}:root",
        "userId": signer.account,
    }


def _time(now: float) -> str:
    """As web servers' logs have it, whatever the locale."""
    at = datetime.fromtimestamp(now, UTC)
    return f"{at.day:02}/{_MONTHS[at.month - 1]}/{at.year}:{at.hour:02}:{at.minute:02}:{at.second:02} +0000"


def _headers(request: UrlRequest) -> dict[str, str]:
    """In lower case and without what was meant for the connection; a signature is read by the platform only."""
    source, body = request.source, request.body
    given = [(name.lower(), value) for name, value in request.headers.items()]
    dropped = HOP_BY_HOP | {word for name, value in given if name == "connection" for word in listed(value)} - {"host"}
    if not source.believed:
        dropped |= TOLD
    if request.signer is not None:
        dropped |= {"authorization"}
    kept = [field for field in given if field[0] not in dropped and not field[0].startswith("proxy-")]
    headers = _joined((field for field in kept if field[0] != "cookie"), ",")
    headers |= _joined((field for field in kept if field[0] == "cookie"), "; ")
    if body:
        headers["content-length"] = str(len(body))
    return headers | {
        "x-amzn-trace-id": request.trace,
        "x-forwarded-for": source.chain,
        "x-forwarded-port": source.port,
        "x-forwarded-proto": source.scheme,
    }


def _cookies(headers: RequestHeaders) -> list[str]:
    fields = (value for name, value in headers.items() if name.lower() == "cookie")
    return [cookie for field in fields for part in field.split(";") if (cookie := part.strip())]


def _joined(pairs: Iterable[tuple[str, str]], glue: str) -> dict[str, str]:
    """Values of the same name become one."""
    collected: dict[str, list[str]] = {}
    for name, value in pairs:
        collected.setdefault(name, []).append(value)
    return {name: glue.join(values) for name, values in collected.items()}


def _text(body: bytes, content_type: str) -> str | None:
    """The body as text, if its type says that it is one and it is; None for everything else."""
    kind = content_type.partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(_TEXT_SUFFIXES)):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None

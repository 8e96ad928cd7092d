"""Signatures of the classic generation: in the Authorization field and in links (3.3)."""

import base64
import hmac
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote

from torpor.contracts.function_compute.api_failures import invalid
from torpor.contracts.http import ApiRequest

_LINK_SIGNATURE = "x-fc-signature"
_LINK_KEY = "x-fc-access-key-id"
_LINK_EXPIRES = "x-fc-expires"
_PROXY = "/proxy/"


class HeaderScheme:
    """`Authorization: FC <key id>:<signature>`."""

    def read(self, text: str) -> tuple[str, str]:
        """Key id and signature. Raises ApiFailure."""
        key, separator, signature = text.strip().partition(":")
        if not separator or not key or not signature:
            raise invalid("the Authorization header has to be 'FC <access key id>:<signature>'")
        return key, signature

    def signatures(self, request: ApiRequest, secret: str, *, trigger: bool) -> list[str]:
        """Those that are right: clients differ in whether they sort the lines of a query."""
        path = unquote(request.path)
        resources = [path]
        if trigger or _PROXY in path:
            resources = [f"{path}\n" + "\n".join(lines) for lines in _orders(_lines(request.query))]
        date = request.headers.get("date")
        return [_sign(request, secret, date, resource) for resource in resources]


class LinkScheme:
    """Everything in the query; the time at which the link ends takes the date's place."""

    def read(self, _text: str) -> tuple[str, str]:
        raise invalid("a signed link has no Authorization header")

    def signatures(self, request: ApiRequest, secret: str, *, trigger: bool) -> list[str]:
        expires = dict(parse_qsl(request.query)).get(_LINK_EXPIRES, "")
        lines = [line for line in _lines(request.query) if not line.startswith(f"{_LINK_SIGNATURE}=")]
        path = unquote(request.path)
        # The clients send none of the fields whose values they leave out of the signature, but proxies may add some.
        return [_sign(request, secret, expires, f"{path}\n" + "\n".join(order)) for order in _orders(lines)]


def authorization(request: ApiRequest, key: str, secret: str) -> str:
    """The Authorization field of a request that bears no query and has its Date field."""
    return f"FC {key}:{_sign(request, secret, request.headers.get('date'), unquote(request.path))}"


def has_link_signature(request: ApiRequest) -> bool:
    return f"{_LINK_SIGNATURE}=" in request.query


def read_link(request: ApiRequest) -> tuple[str, str, str]:
    """Key id, signature and end of a signed link. Raises ApiFailure."""
    values = dict(parse_qsl(request.query, keep_blank_values=True))
    try:
        return values[_LINK_KEY], values[_LINK_SIGNATURE], values[_LINK_EXPIRES]
    except KeyError as error:
        raise invalid(f"a signed URL needs the query parameter {error.args[0]}") from error


def _sign(request: ApiRequest, secret: str, date: str, resource: str) -> str:
    field = request.headers.get
    head = (request.method, field("content-md5"), field("content-type"), date, _own_fields(request) + resource)
    digest = hmac.digest(secret.encode(), "\n".join(head).encode(), "sha256")
    return base64.b64encode(digest).decode()


def _own_fields(request: ApiRequest) -> str:
    own = [(name.lower(), value) for name, value in request.headers.items() if name.lower().startswith("x-fc-")]
    return "".join(f"{name}:{value}\n" for name, value in sorted(own, key=lambda pair: pair[0]))


def _lines(query: str) -> list[str]:
    """The query's parts, decoded, in the order they came in."""
    lines = []
    for part in filter(None, query.split("&")):
        name, separator, value = part.partition("=")
        lines.append(_decoded(name) + (f"={_decoded(value)}" if separator else ""))
    return lines


def _decoded(text: str) -> str:
    return unquote(text.replace("+", " "))


def _orders(lines: list[str]) -> Iterable[list[str]]:
    return [sorted(lines), lines] if sorted(lines) != lines else [lines]

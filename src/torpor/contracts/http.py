"""A request to a cloud's API and its answer, free of any transport."""

from collections.abc import Iterable
from typing import Protocol

import msgspec

JSON = "application/json"


class RequestHeaders(Protocol):
    """Header fields of a request; names in any case."""

    def get(self, name: str, default: str = "", /) -> str:
        """The field's value, or the default when the request has none."""
        ...

    def items(self) -> Iterable[tuple[str, str]]:
        """Every field as it came, repeated ones one by one."""
        ...


class ApiRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request. `path` and `query` are raw: percent-encoding as the client sent it."""

    method: str
    path: str
    query: str
    headers: RequestHeaders
    body: bytes


class ApiResponse(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer; the transport adds the length."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

"""One call of a control-plane operation, and how its answer is written."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torpor.contracts.function_compute import names
from torpor.contracts.function_compute.api_failures import REQUEST_ID, ApiFailure, function_not_found, invalid
from torpor.contracts.function_compute.names import Generation, Place
from torpor.contracts.function_compute.rendering import etag
from torpor.contracts.http import JSON, ApiResponse, RequestHeaders
from torpor.model.errors import NotFound


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What an operation is asked."""

    generation: Generation
    values: Mapping[str, str]
    """The path's parameters, decoded."""
    query: Mapping[str, str]
    headers: RequestHeaders
    body: bytes
    place: Place
    base_url: str
    """How the caller reaches this server, without a slash at the end."""
    tag_query: Mapping[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """The service's name, without a qualifier; empty in the generation that has none."""
        return self.values.get("service", "").partition(".")[0]

    @property
    def qualifier(self) -> str:
        """The version or alias that is meant; empty for the newest version."""
        given = self.query.get("qualifier") or self.values.get("service", "").partition(".")[2]
        return "" if given == names.LATEST else given

    @property
    def function(self) -> str:
        return self.values["function"]

    @property
    def record(self) -> str:
        """The name under which the platform keeps the function."""
        return names.record_name(self.function, self.service)

    @property
    def owner(self) -> str:
        """To what versions and aliases belong: the service, or the function itself."""
        return f"service:{self.service}" if self.generation.has_services else self.record

    @property
    def document(self) -> dict[str, Any]:
        """The body as a JSON object; none at all counts as an empty one. Raises ApiFailure."""
        if not self.body:
            return {}
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise invalid(f"the request's body is not valid JSON: {error}") from error
        if not isinstance(value, dict):
            raise invalid("the request's body has to be a JSON object")
        return value

    def text(self, name: str, default: str = "") -> str:
        """A field of the body that has to be a text. Raises ApiFailure."""
        value = self.document.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise invalid(f"{name} has to be a text")
        return value

    def expect(self, current: str) -> None:
        """Refuse the change if the caller has seen another state than the current one. Raises ApiFailure."""
        wanted = self.headers.get("if-match").strip().strip('"')
        if wanted and wanted not in (current, "*"):
            raise ApiFailure("PreconditionFailed", "the resource being modified has been changed")


@dataclass(frozen=True, slots=True)
class Reply:
    """What an operation answers; None stands for an empty body."""

    status: int
    body: Mapping[str, Any] | None = None
    etag: str = ""


Handler: TypeAlias = Callable[[Call], Awaitable[Reply]]
NO_CONTENT = Reply(204)


def shown(document: Mapping[str, Any], status: int = 200) -> Reply:
    """A document with its tag."""
    return Reply(status, document, etag(document))


def render_reply(reply: Reply, request_id: str) -> ApiResponse:
    """The answer of a successful call."""
    headers = [("Content-Type", JSON), (REQUEST_ID, request_id)]
    if reply.etag:
        headers.append(("Etag", reply.etag))
    body = b"" if reply.body is None else json.dumps(reply.body, ensure_ascii=False, separators=(",", ":")).encode()
    return ApiResponse(status=reply.status, headers=tuple(headers), body=body)


def told_of_function(error: NotFound, function: str, service: str, qualifier: str) -> ApiFailure:
    """A function, version or alias that there is not, in the cloud's own words."""
    match error.what:
        case "version":
            owner = service or function
            kind = "service" if service else "function"
            return ApiFailure("VersionNotFound", f"version '{qualifier}' of {kind} '{owner}' does not exist")
        case "alias":
            return alias_not_found(qualifier, function, service)
    return function_not_found(function, service)


def alias_not_found(alias: str, function: str, service: str) -> ApiFailure:
    """The generations word it differently."""
    owner = f"service '{service}'" if service else f"function '{function}'"
    return ApiFailure("AliasNotFound", f"alias '{alias}' of {owner} does not exist")

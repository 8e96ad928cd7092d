"""An operation's input out of a request: every member from its place, converted to its type (9.1).

Members nobody knows are ignored, as the service does. Types are checked here, values in `validation`.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from torpor.contracts import api_input
from torpor.contracts.api_input import Converter
from torpor.contracts.lambda_.operations import ApiModel, Member, Route, Shape
from torpor.contracts.lambda_.wire import ApiRequest


def read_input(model: ApiModel, route: Route, request: ApiRequest) -> dict[str, Any]:
    """All members the request carries. Raises ApiFailure when the body is no JSON object or a type is wrong."""
    query = parse_qsl(request.query, keep_blank_values=True)
    members = route.operation.members
    has_body = any(member.location == "body" for member in members)
    body = parse_object(request.body) if has_body else {}
    convert = Converter(model.shapes)
    values: dict[str, Any] = {}
    for member in members:
        raw = _raw(member, route.path_values, query, body, request)
        if raw is not None:
            values[member.name] = raw if member.location == "payload" else _member(convert, model.shapes, member, raw)
    return values


def parse_object(body: bytes) -> dict[str, Any]:
    """A JSON object; no body at all counts as an empty one. Raises ApiFailure."""
    return api_input.parse_object(body, "InvalidRequestContentException")


def _raw(
    member: Member,
    path: Mapping[str, str],
    query: list[tuple[str, str]],
    body: Mapping[str, Any],
    request: ApiRequest,
) -> Any:
    match member.location:
        case "uri":
            return path.get(member.wire_name)
        case "querystring":
            return [value for name, value in query if name == member.wire_name] or None
        case "header":
            return request.headers.get(member.wire_name, "") or None
        case "payload":
            return request.body
        case _:
            return body.get(member.wire_name)


def _member(convert: Converter, shapes: Mapping[str, Shape], member: Member, raw: Any) -> Any:
    kind = shapes[member.shape]["type"]
    if member.location == "querystring" and kind != "list":
        raw = raw[-1]
    if member.location != "body":
        raw = _from_text(kind, raw)
    return convert.value(member.shape, raw)


def _from_text(kind: str, raw: Any) -> Any:
    if kind in ("integer", "long", "double"):
        try:
            return float(raw) if kind == "double" else int(raw)
        except ValueError:
            return raw
    if kind == "boolean":
        return {"true": True, "false": False}.get(str(raw).lower(), raw)
    return raw

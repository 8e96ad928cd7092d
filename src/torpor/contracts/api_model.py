"""The operations of an API as its own published model describes them: which request is which, and what it carries.

The models are those that the official clients are built from; reading one costs some 20 ms, once per process.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote

from botocore.loaders import Loader

Shape: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One field of an operation's input and where the request carries it."""

    name: str
    shape: str
    location: str
    """`uri`, `querystring`, `header`, `payload` (the raw body) or `body` (a field of the JSON body)."""
    wire_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation: its route, its declared status and the members of its input."""

    name: str
    method: str
    status: int
    segments: tuple[str, ...]
    literal_query: tuple[tuple[str, str], ...]
    input_shape: str
    members: tuple[Member, ...] = ()

    def match(self, segments: list[str], query: list[tuple[str, str]]) -> dict[str, str] | None:
        """The path's parameters, decoded; None if this is another operation's route."""
        values: dict[str, str] = {}
        for pattern, text in zip(self.segments, segments, strict=True):
            if pattern.startswith("{"):
                values[pattern.strip("{+}")] = unquote(text)
            elif pattern != text:
                return None
        return values if all(pair in query for pair in self.literal_query) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What the router found for a request."""

    operation: Operation
    path_values: Mapping[str, str] = field(default_factory=dict)


class ApiModel:
    """The API's shapes and routes. Immutable after construction."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.shapes: Mapping[str, Shape] = document["shapes"]
        self.operations: Mapping[str, Operation] = {
            name: _operation(spec, self.shapes) for name, spec in document["operations"].items()
        }
        self._routes = _index(self.operations)

    def find(self, method: str, path: str, query: str) -> Route | None:
        """The operation a request asks for; None if the API has none of that method and path."""
        segments = path.strip("/").split("/")
        pairs = parse_qsl(query, keep_blank_values=True)
        for operation in self._routes.get((method, len(segments)), ()):
            values = operation.match(segments, pairs)
            if values is not None:
                return Route(operation=operation, path_values=values)
        return None

    def allowed_methods(self, path: str) -> tuple[str, ...]:
        """The methods with which some operation answers on this path."""
        return tuple(method for method in ("GET", "POST", "PUT", "DELETE") if self.find(method, path, ""))


@cache
def load(service: str) -> ApiModel:
    """The model of the newest API version that the installed client library knows; read once."""
    return ApiModel(Loader().load_service_model(service, "service-2"))


def _index(operations: Mapping[str, Operation]) -> dict[tuple[str, int], list[Operation]]:
    routes: dict[tuple[str, int], list[Operation]] = {}
    for operation in operations.values():
        routes.setdefault((operation.method, len(operation.segments)), []).append(operation)
    for candidates in routes.values():
        # Literal segments and query literals are more specific than parameters: they have to be tried first.
        candidates.sort(key=lambda each: (-len(each.literal_query), "".join(each.segments).count("{")))
    return routes


def _operation(spec: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Operation:
    path, _, query = spec["http"]["requestUri"].partition("?")
    shape = spec["input"]["shape"] if "input" in spec else ""
    return Operation(
        name=spec["name"],
        method=spec["http"]["method"],
        status=spec["http"].get("responseCode", 200),
        segments=tuple(path.strip("/").split("/")),
        literal_query=tuple(parse_qsl(query)),
        input_shape=shape,
        members=tuple(_members(shapes[shape])) if shape else (),
    )


def _members(shape: Shape) -> Iterator[Member]:
    payload = shape.get("payload")
    for name, spec in shape["members"].items():
        location = "payload" if name == payload else spec.get("location", "body")
        yield Member(name=name, shape=spec["shape"], location=location, wire_name=spec.get("locationName", name))

"""The wire form of the Telemetry API and the Logs API: subscriptions and their answers, events as they are delivered
(contract 4)."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from torpor.contracts.lambda_ import limits, runtime_api
from torpor.contracts.lambda_.platform_events import LOGS_API, TELEMETRY_API, PlatformEvent
from torpor.contracts.lambda_.platform_log import stamp
from torpor.model.errors import InvalidRequest
from torpor.model.telemetry import BufferLimits, Source, Subscription

TELEMETRY_PATH = "/2022-07-01/telemetry"
LOGS_PATH = "/2020-08-15/logs"
OK = b'"OK"'
SEQUENCE_HEADER = ""
"""Names the header that tells a batch's digest; empty where there is none."""
_APIS = {TELEMETRY_PATH: TELEMETRY_API, LOGS_PATH: LOGS_API}
_KINDS = {TELEMETRY_API: "ValidationError", LOGS_API: "Logs.ValidationError"}
_TITLES = {TELEMETRY_API: "Telemetry", LOGS_API: "Logs"}
_RESERVED_PORT = 9001
"""Where the in-sandbox API is."""
_HOSTS = ("sandbox.localdomain", "sandbox")

TELEMETRY_2022_07, TELEMETRY_2022_12, TELEMETRY_2025 = "2022-07-01", "2022-12-13", "2025-01-29"
LOGS_2020, LOGS_2021 = "2020-08-15", "2021-03-18"
SCHEMAS = {TELEMETRY_API: (TELEMETRY_2022_07, TELEMETRY_2022_12, TELEMETRY_2025), LOGS_API: (LOGS_2020, LOGS_2021)}

_RANGES = {
    "maxItems": (limits.TELEMETRY_ITEMS_MIN, limits.TELEMETRY_ITEMS_MAX, limits.TELEMETRY_ITEMS_DEFAULT),
    "maxBytes": (limits.TELEMETRY_BYTES_MIN, limits.TELEMETRY_BYTES_MAX, limits.TELEMETRY_BYTES_DEFAULT),
    "timeoutMs": (
        limits.TELEMETRY_TIMEOUT_MS_MIN,
        limits.TELEMETRY_TIMEOUT_MS_MAX,
        limits.TELEMETRY_TIMEOUT_MS_DEFAULT,
    ),
}


class _Destination(msgspec.Struct, frozen=True):
    protocol: str = ""
    uri: str = msgspec.field(default="", name="URI")
    port: int | None = None
    method: str = "POST"
    encoding: str = "JSON"


class _Request(msgspec.Struct, frozen=True):
    schema: str = msgspec.field(default="", name="schemaVersion")
    types: list[str] = []
    destination: _Destination | None = None
    buffering: dict[str, int] = {}


_request = msgspec.json.Decoder(_Request)


def api_of(method: str, path: str) -> str:
    """By which API a request subscribes; empty if it does not."""
    return _APIS.get(path, "") if method == "PUT" else ""


def subscription(api: str, body: bytes, schemas: Mapping[str, tuple[str, ...]] = SCHEMAS) -> Subscription:
    """The subscription that a request's body asks for; all that is wrong with it is told at once.

    Raises InvalidRequest (`what` is the error type)."""
    try:
        asked = _request.decode(body)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidRequest(str(error), what=_KINDS[api]) from error
    destination = asked.destination or _Destination()
    problems = [*_schema_problems(api, asked.schema, schemas[api]), *_type_problems(asked.types)]
    problems += [*_destination_problems(api, destination), *_buffering_problems(asked.buffering)]
    if problems:
        raise InvalidRequest("; ".join(problems), what=_KINDS[api])
    return _made(api, asked, destination)


def _made(api: str, asked: _Request, destination: _Destination) -> Subscription:
    items, size, milliseconds = (asked.buffering.get(name, row[-1]) for name, row in _RANGES.items())
    buffering = BufferLimits(items=items, size=size, seconds=milliseconds / 1000)
    is_http = destination.protocol == "HTTP"
    parts = urlsplit(destination.uri if is_http else "")
    return Subscription(
        api=api,
        schema=asked.schema or SCHEMAS[api][0],
        sources=tuple(Source(name) for name in dict.fromkeys(asked.types)),
        port=(parts.port if is_http else destination.port) or 0,
        buffering=buffering,
        method=(destination.method if api == LOGS_API else "POST") if is_http else "",
        host=parts.netloc,
        target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
    )


def _schema_problems(api: str, schema: str, known: tuple[str, ...]) -> list[str]:
    if not schema:
        return [] if api == LOGS_API else ["schemaVersion is not provided"]
    return [] if schema in known else [f"schemaVersion should be one of [{', '.join(known)}]"]


def _type_problems(types: list[str]) -> list[str]:
    if not types:
        return ["types should not be empty"]
    unknown = [name for name in dict.fromkeys(types) if name not in tuple(Source)]
    return [f"type {name[:100]} is not one of [{', '.join(Source)}]" for name in unknown[:1]]


def _destination_problems(api: str, destination: _Destination) -> list[str]:
    if destination.protocol == "TCP":
        return _port_problems(destination.port, "port")
    if destination.protocol != "HTTP":
        return ["destination protocol should be HTTP or TCP" if destination.protocol else "destination is not provided"]
    problems = _uri_problems(destination.uri)
    if api == LOGS_API and destination.method not in ("POST", "PUT"):
        problems.append("destination method should be PUT or POST")
    if api == LOGS_API and destination.encoding != "JSON":
        problems.append("destination encoding should be JSON")
    return problems


def _uri_problems(uri: str) -> list[str]:
    if not uri:
        return ["URI is not provided"]
    if not uri.isascii() or not uri.isprintable() or " " in uri:
        return ["URI is malformed"]
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError:
        return ["URI is malformed"]
    problems = [] if parts.scheme == "http" else ["URI scheme should be http"]
    if parts.hostname not in _HOSTS or "@" in parts.netloc:
        problems.append(f"URI host should be {_HOSTS[0]}")
    return problems + _port_problems(port, "URI port")


def _port_problems(port: int | None, name: str) -> list[str]:
    if port is None:
        return [f"{name} is not provided"]
    if port == _RESERVED_PORT:
        return [f"{name} {port} is reserved"]
    return [] if 1 <= port <= limits.PORT_MAX else [f"{name} should be between 1 and {limits.PORT_MAX}"]


def _buffering_problems(buffering: Mapping[str, int]) -> list[str]:
    return [
        f"buffering.{name} should be between {least} and {most}"
        for name, (least, most, _) in _RANGES.items()
        if not least <= buffering.get(name, least) <= most
    ]


def invalid(error: InvalidRequest) -> bytes:
    """The body of a 400 for a malformed subscription."""
    return runtime_api.error_body(str(error), error.what)


def closed(api: str) -> bytes:
    """The body of a 403 for a subscription after Init."""
    title = _TITLES[api]
    return runtime_api.error_body(f"{title} API subscription is closed", f"{title}.SubscriptionClosed")


def other_api(api: str) -> bytes:
    """The body of a 400 for a subscription where the other API is in use."""
    other = next(title for name, title in _TITLES.items() if name != api)
    message = f"The {other} API is already in use in this execution environment"
    return runtime_api.error_body(message, _KINDS[api])


def unreachable(api: str, port: int) -> bytes:
    """The body of a 400 for a TCP destination on which nobody listens."""
    return runtime_api.error_body(f"destination port {port} does not accept connections", _KINDS[api])


# -- events


_NOT_IN_TELEMETRY = frozenset({"platform.end", "platform.fault", "platform.logsSubscription"})
_IN_LOGS = frozenset(
    {
        "platform.start", "platform.end", "platform.report", "platform.fault", "platform.extension",
        "platform.logsSubscription", "platform.logsDropped",
    }
)  # fmt: skip
_NOT_IN_LOG_RECORDS = frozenset({"status", "errorType", "spans"})
_SINCE_2022_12: Mapping[str, frozenset[str]] = {
    "platform.initStart": frozenset({"instanceId", "instanceMaxMemory"}),
    "platform.initReport": frozenset({"status", "errorType"}),
}


def encode_events(schema: str, events: Iterable[PlatformEvent], wall: float) -> list[bytes]:
    """Platform events as subscribers with this schema get them; those it does not have are left out."""
    shown = (_shown(schema, kind, body) for kind, body in events)
    return [_encode(wall, *event) for event in shown if event is not None]


def _shown(schema: str, kind: str, body: dict[str, Any] | str) -> PlatformEvent | None:
    if schema in SCHEMAS[LOGS_API]:
        return _shown_in_logs(schema, kind, body)
    if kind in _NOT_IN_TELEMETRY:
        return None
    if schema == TELEMETRY_2022_07:
        if kind.startswith("platform.restore"):
            return None
        return kind, _without(body, _SINCE_2022_12.get(kind, frozenset()))
    return kind, body


def _shown_in_logs(schema: str, kind: str, body: dict[str, Any] | str) -> PlatformEvent | None:
    if kind == "platform.runtimeDone" and schema != LOGS_2020:
        return kind, _without(body, frozenset({"metrics", "errorType", "spans"}))
    return (kind, _without(body, _NOT_IN_LOG_RECORDS)) if kind in _IN_LOGS else None


def _without(body: dict[str, Any] | str, names: frozenset[str]) -> dict[str, Any] | str:
    if isinstance(body, str) or not names & body.keys():
        return body
    return {name: value for name, value in body.items() if name not in names}


_HAVE_OBJECTS = frozenset({TELEMETRY_2022_12, TELEMETRY_2025})


def encode_line(schema: str, source: Source, wall: float, text: str, *, is_json: bool) -> bytes:
    """A line that a process wrote; as an object if it is one and the function's log format is JSON."""
    text = text.removesuffix("\n")
    if is_json and source is Source.FUNCTION and schema in _HAVE_OBJECTS and text.startswith("{"):
        try:
            msgspec.json.decode(text, type=dict)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return _encode(wall, source, text)
        # Subscribers may get an event a line, so no line end may stand within one.
        compact = msgspec.json.format(text, indent=-1) if "\n" in text else text
        return _encode(wall, source, msgspec.Raw(compact.encode()))
    return _encode(wall, source, text)


def _encode(wall: float, kind: str, body: Any) -> bytes:
    return msgspec.json.encode({"time": stamp(wall), "type": str(kind), "record": body})

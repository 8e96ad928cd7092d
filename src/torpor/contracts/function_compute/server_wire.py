"""The HTTP that the server inside sees, and what its answers mean (1.2 to 1.5, 1.8, 1.9)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

import msgspec

from torpor.contracts.function_compute import limits, runtimes
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid
from torpor.contracts.function_compute.environment import NO_CREDENTIALS, Credentials, credentials_of
from torpor.contracts.function_compute.names import LATEST, function_of, is_classic, service_of, shown_version
from torpor.model.failure import Answer
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Fields, Invocation
from torpor.model.server import INITIALIZE, PRE_FREEZE, PRE_STOP, Hook

EVENT_PATH = "/invoke"
HTTP_CONTROL_PATH = "/http-invoke"
BASE_PATH = "x-fc-base-path"
STATUS = "x-fc-status"
FUNCTION_ERROR = "404"
_PREFIX = "x-fc-"
_HOOKS = {INITIALIZE: "POST", PRE_FREEZE: "GET", PRE_STOP: "GET"}
_NOT_FORWARDED = frozenset({"connection", "keep-alive"})
_NOT_ANSWERED = frozenset({"connection", "content-length", "date", "keep-alive", "server"})
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_TRACING = ("x-fc-tracing-opentracing-span-context", "x-fc-tracing-opentracing-span-baggages")
_EMPTY_IN_HTTP = ("x-fc-tracing-jaeger-endpoint", "x-fc-api-server-ip", "x-fc-eagleeye-traceid",
                  "x-fc-eagleeye-rpcid", "x-fc-eagleeye-userdata")  # fmt: skip
GUARDED_ANSWER = ("Content-Disposition", "attachment")
"""Put on answers over the platform's own domain, so that browsers do not show them."""


class ServerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request the platform makes itself."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...]
    body: bytes = b""
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """How the platform finds out that the server is up: a connection to this port on the instance's own address."""

    port: int
    loopback: bool = False
    """Does a server that listens on the loopback address only count?"""
    period: float = limits.READY_PERIOD


def readiness(version: FunctionVersion) -> Readiness:
    """A connection is enough; the first HTTP request is the hook's or the invocation's."""
    return Readiness(port=version.server.port if version.server is not None else limits.PORT_DEFAULT)


def event_request(
    version: FunctionVersion, invocation: Invocation, credentials: Credentials = NO_CREDENTIALS
) -> ServerRequest:
    """The request that carries an event."""
    fields = (
        ("Content-Type", "application/octet-stream"),
        *_common(version, invocation.id, EVENT_PATH, credentials, invocation),
    )
    return ServerRequest(method="POST", target=EVENT_PATH, fields=fields, body=invocation.payload, id=invocation.id)


def http_fields(
    version: FunctionVersion, invocation: Invocation, credentials: Credentials = NO_CREDENTIALS
) -> list[tuple[str, str]]:
    """What is added to a request that is passed on as its caller sent it."""
    fields = _common(version, invocation.id, HTTP_CONTROL_PATH, credentials, invocation)
    request = invocation.http
    if request is not None:
        if not any(name.lower() == BASE_PATH for name, _ in request.fields):
            fields.append((BASE_PATH, urlsplit(request.target).path))
        fields.append(("x-fc-client-ip", request.peer))
    return fields + [(name, "") for name in (*_TRACING, *_EMPTY_IN_HTTP)]


def hook_request(
    version: FunctionVersion, hook: str, credentials: Credentials = NO_CREDENTIALS, *, request_id: str = ""
) -> ServerRequest:
    """The call of a hook; `hook` is one of the names in `model.server`. It has an id of its own."""
    identity = request_id or str(uuid4())
    path = f"/{hook}"
    fields = tuple(_common(version, identity, path, credentials, None))
    return ServerRequest(method=_HOOKS[hook], target=path, fields=fields, id=identity)


def hook_timeout(version: FunctionVersion, hook: str) -> float:
    """Seconds that a hook may take."""
    configured = version.server.hooks.get(hook) if version.server is not None else None
    if configured is not None and configured.timeout_s > 0:
        return configured.timeout_s
    return float(limits.INITIALIZE_LIMIT if hook == INITIALIZE else limits.STOP_HOOK_LIMIT)


def hook_succeeded(status: int) -> bool:
    return 200 <= status < 300


def health_request(version: FunctionVersion) -> ServerRequest | None:
    """The health check's request; None if none is configured."""
    if version.server is None or version.server.health is None:
        return None
    path = version.server.health.path
    return ServerRequest(method="GET", target=path, fields=tuple(_common(version, str(uuid4()), path, None, None)))


def is_healthy(status: int) -> bool:
    return 200 <= status < 400


def may_retry(method: str) -> bool:
    """May a request be sent again when the server closed an idle connection under it?"""
    return method in _IDEMPOTENT


def answer(version: FunctionVersion, _status: int, fields: Fields, body: bytes) -> Answer:
    """What an event's answer means: the body is the result; status and fields are dropped but for the one that tells
    an error of the function."""
    kind = _content_type(fields)
    return Answer(payload=body, content_type=kind, error_type=error_type(version, fields))


def error_type(version: FunctionVersion, fields: Fields) -> str:
    """The error that the server reports of its function; empty if it reports none."""
    reported = next((value.strip() for name, value in fields if name.lower() == STATUS), "")
    if reported != FUNCTION_ERROR:
        return ""
    return "UnhandledInvocationError" if is_classic(version) else "InvocationError"


def forwarded_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """A caller's fields as the server sees them. Raises ApiFailure when they are too large together."""
    kept = [(name, value) for name, value in fields if not _is_own(name.lower(), _NOT_FORWARDED)]
    if _size(kept) > limits.HEADERS_MAX:
        raise invalid(f"the request's headers are larger than {limits.HEADERS_MAX} bytes")
    return kept


def answered_fields(fields: Fields, *, guarded: bool = False) -> list[tuple[str, str]]:
    """A server's fields as the caller sees them; `guarded` on the platform's own domain.

    Raises ApiFailure when they are too large together.
    """
    kept = [(name, value) for name, value in fields if not _is_own(name.lower(), _NOT_ANSWERED)]
    kept = [(name, value) for name, value in kept if not _is_attachment(name, value)]
    if _size(kept) > limits.HEADERS_MAX:
        raise ApiFailure("BadResponse", f"the response's headers are larger than {limits.HEADERS_MAX} bytes")
    return [*kept, GUARDED_ANSWER] if guarded else kept


def check_target(target: str) -> None:
    """Refuse a path that is too long, its query included. Raises ApiFailure."""
    if len(target) > limits.PATH_MAX:
        raise invalid(f"the request's path is longer than {limits.PATH_MAX} bytes")


def _is_own(name: str, others: frozenset[str]) -> bool:
    return name.startswith(_PREFIX) or name in others


def _is_attachment(name: str, value: str) -> bool:
    return name.lower() == "content-disposition" and value.strip().lower() == "attachment"


def _size(fields: Sequence[tuple[str, str]]) -> int:
    return sum(len(name) + len(value) for name, value in fields)


def _content_type(fields: Fields) -> str:
    return next((value for name, value in fields if name.lower() == "content-type"), "application/octet-stream")


def _common(
    version: FunctionVersion, request_id: str, path: str, credentials: Credentials | None, invocation: Invocation | None
) -> list[tuple[str, str]]:
    """What every request of the platform's carries; what is not set is sent empty."""
    with_keys = credentials is not None and runtimes.gets_request_credentials(version.runtime)
    told = credentials_of(version, credentials) if credentials is not None and with_keys else NO_CREDENTIALS
    named = (("x-fc-access-key-id", told.access_key), ("x-fc-access-key-secret", told.secret_key),
             ("x-fc-security-token", told.security_token)) if with_keys else ()  # fmt: skip
    project, store = log_place(version)
    return [
        ("x-fc-request-id", request_id),
        *named,
        ("x-fc-function-name", function_of(version.function)),
        ("x-fc-function-handler", version.handler),
        ("x-fc-function-memory", str(version.memory_mb)),
        ("x-fc-function-timeout", str(int(version.timeout_s))),
        *_hooks_told(version),
        ("x-fc-region", version.region),
        ("x-fc-account-id", version.account),
        ("x-fc-qualifier", (invocation.qualifier if invocation is not None else "") or LATEST),
        ("x-fc-version-id", shown_version(version.version)),
        ("x-fc-service-name", service_of(version.function)),
        ("x-fc-service-logproject", project),
        ("x-fc-service-logstore", store),
        ("x-fc-control-path", path),
        ("x-fc-retry-count", str(invocation.attempt if invocation is not None else 0)),
    ]


def _hooks_told(version: FunctionVersion) -> list[tuple[str, str]]:
    hooks = version.server.hooks if version.server is not None else {}
    none = Hook(timeout_s=0)
    initialize = hooks.get(INITIALIZE)
    return [
        ("x-fc-function-initializer", initialize.handler if initialize is not None else ""),
        ("x-fc-initialization-timeout", str(int(initialize.timeout_s)) if initialize is not None else ""),
        ("x-fc-instance-lifecycle-pre-stop-handler", hooks.get(PRE_STOP, none).handler),
        ("x-fc-instance-lifecycle-pre-freeze-handler", hooks.get(PRE_FREEZE, none).handler),
    ]


def log_group(function: str, service: str, project: str, store: str) -> str:
    """Where the platform keeps the function's log: in the place that is configured, or under the function's topic."""
    if project and store:
        return f"{project}/{store}"
    return f"FCLogs:{service}/{function}" if service else f"FCLogs:{function}"


def log_place(version: FunctionVersion) -> tuple[str, str]:
    """Project and store of the configured log; empty if none is."""
    if version.log_group.startswith("FCLogs:"):
        return "", ""
    project, _, store = version.log_group.partition("/")
    return project, store

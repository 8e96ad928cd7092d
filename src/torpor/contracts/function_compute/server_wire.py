"""The HTTP that the server inside sees, and what its answers mean (1.2 to 1.5, 1.8, 1.9)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

from torpor.contracts.function_compute import limits, runtimes
from torpor.contracts.function_compute.api_failures import ApiFailure, invalid
from torpor.contracts.function_compute.environment import NO_CREDENTIALS, Credentials, credentials_of
from torpor.contracts.function_compute.names import LATEST, function_of, is_classic, service_of, shown_version
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Fields, Invocation
from torpor.model.server import INITIALIZE, PRE_FREEZE, PRE_STOP, Hook, Probe, ServerCall

RawFields: TypeAlias = Sequence[tuple[bytes, bytes]]

EVENT_PATH = "/invoke"
HTTP_CONTROL_PATH = "/http-invoke"
BASE_PATH = "x-fc-base-path"
STATUS = "x-fc-status"
ERROR_TYPE = "x-fc-error-type"
FUNCTION_ERROR = "404"
_PREFIX = "x-fc-"
_PROXYS = "proxy-"
_HOOKS = {INITIALIZE: "POST", PRE_FREEZE: "GET", PRE_STOP: "GET"}
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"})
_NOT_FORWARDED = _HOP_BY_HOP
_NOT_ANSWERED = _HOP_BY_HOP | {"content-length", "date", "server"}
_EMPTY_IN_HTTP = ("x-fc-tracing-opentracing-span-context", "x-fc-tracing-opentracing-span-baggages",
                  "x-fc-tracing-jaeger-endpoint", "x-fc-api-server-ip", "x-fc-eagleeye-traceid",
                  "x-fc-eagleeye-rpcid", "x-fc-eagleeye-userdata")  # fmt: skip
GUARDED_ANSWER = ("Content-Disposition", "attachment")
"""Put on answers over the platform's own domain, so that browsers do not show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionComputeServerWire:
    """What servers inside are sent, as the engine asks for it."""

    credentials: Credentials = NO_CREDENTIALS

    loopback = False
    """Readiness is asked at the instance's own address: a server on the loopback address alone is never up (1.2)."""
    reuse_after_freeze = float(limits.TIMEOUT_MAX)
    """Servers have to keep idle connections for as long as a function may run."""
    head_max = limits.HEAD_MAX

    def probe(self, version: FunctionVersion) -> Probe:
        """A connection is enough; the first HTTP request is the hook's or the invocation's."""
        return Probe(period_s=limits.READY_PERIOD)

    def call(self, version: FunctionVersion, invocation: Invocation, environment: str) -> ServerCall:
        """The request that carries an event."""
        fields = (
            ("Host", _host(version)),
            ("Content-Type", "application/octet-stream"),
            *_common(version, invocation.id, EVENT_PATH, self.credentials, invocation),
        )
        return ServerCall(method="POST", target=EVENT_PATH, fields=fields, body=invocation.payload)

    def forwarded(self, version: FunctionVersion, invocation: Invocation, environment: str) -> Fields:
        """The caller's fields, and the platform's beside them; what is not set is sent empty."""
        request = invocation.http
        assert request is not None, "only requests are passed on"
        own = _common(version, invocation.id, HTTP_CONTROL_PATH, self.credentials, invocation)
        given = [pair for pair in request.fields if not _is_own(pair[0].lower(), _NOT_FORWARDED)]
        base = [pair for pair in request.fields if pair[0] == BASE_PATH] or [(BASE_PATH, urlsplit(request.target).path)]
        empty = [(name, "") for name in _EMPTY_IN_HTTP]
        return [*given, *own, *base, ("x-fc-client-ip", request.peer), *empty]

    def returned(self, version: FunctionVersion, status: int, fields: RawFields) -> Fields | Failure:
        """The server's fields as the caller gets them; too many of them are a bad answer."""
        try:
            return answered_fields(text_fields(fields))
        except ApiFailure as error:
            return Failure(kind=FailureKind.MALFORMED, detail=str(error))

    def response_max(self, version: FunctionVersion, *, relayed: bool) -> int | None:
        return None if relayed else limits.SYNC_RESPONSE_MAX

    def answer(
        self, version: FunctionVersion, invocation: Invocation, status: int, fields: RawFields, body: bytes
    ) -> Answer:
        """The body is the result; status and fields are dropped but for the one that tells an error."""
        given = text_fields(fields)
        kind = next((value for name, value in given if name.lower() == "content-type"), "application/octet-stream")
        return Answer(payload=body, content_type=kind, error_type=error_type(version, given))

    def hook(self, version: FunctionVersion, hook: str, environment: str) -> ServerCall:
        """The call of a hook. It has an id of its own."""
        path = f"/{hook}"
        fields = [("Host", _host(version)), *_common(version, str(uuid4()), path, self.credentials, None)]
        if _HOOKS[hook] == "POST":
            fields.append(("Content-Length", "0"))
        return ServerCall(method=_HOOKS[hook], target=path, fields=fields, timeout_s=hook_timeout(version, hook))

    def hook_failure(self, hook: str, status: int, fields: RawFields, body: bytes) -> Failure | None:
        """Only the initialise hook may fail; the others' answers are ignored."""
        if hook != INITIALIZE or (200 <= status < 300 and not _reports_error(fields)):
            return None
        return Failure(kind=FailureKind.INIT_ERROR, detail=INITIALIZE, code=status, payload=body, starting=True)


def hook_timeout(version: FunctionVersion, hook: str) -> float:
    """Seconds that a hook may take."""
    configured = version.server.hooks.get(hook) if version.server is not None else None
    if configured is not None and configured.timeout_s > 0:
        return configured.timeout_s
    return float(limits.INITIALIZE_LIMIT if hook == INITIALIZE else limits.STOP_HOOK_LIMIT)


def error_type(version: FunctionVersion, fields: Fields) -> str:
    """The error that the server reports of its function; empty if it reports none.

    The guests of built-in runtimes name the type themselves."""
    named = _value(fields, ERROR_TYPE)
    if named and not runtimes.is_custom(version.runtime):
        return named
    if _value(fields, STATUS) != FUNCTION_ERROR:
        return ""
    return "UnhandledInvocationError" if is_classic(version) else "InvocationError"


def text_fields(fields: RawFields) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in fields]


def _reports_error(fields: RawFields) -> bool:
    return _value(text_fields(fields), STATUS) == FUNCTION_ERROR


def _value(fields: Iterable[tuple[str, str]], wanted: str) -> str:
    return next((value.strip() for name, value in fields if name.lower() == wanted), "")


def _host(version: FunctionVersion) -> str:
    return f"127.0.0.1:{version.server.port if version.server is not None else runtimes.PORT_DEFAULT}"


def forwarded_fields(fields: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """A caller's fields as the server sees them. Raises ApiFailure when they are too large together."""
    kept = _passed_on(tuple(fields), _NOT_FORWARDED)
    if _size(kept) > limits.HEADERS_MAX:
        raise invalid(f"the request's headers are larger than {limits.HEADERS_MAX} bytes")
    return kept


def answered_fields(fields: Fields, *, guarded: bool = False) -> list[tuple[str, str]]:
    """A server's fields as the caller sees them; `guarded` on the platform's own domain.

    Raises ApiFailure when they are too large together.
    """
    kept = [(name, value) for name, value in _passed_on(fields, _NOT_ANSWERED) if not _is_attachment(name, value)]
    if _size(kept) > limits.HEADERS_MAX:
        raise ApiFailure("BadResponse", f"the response's headers are larger than {limits.HEADERS_MAX} bytes")
    return [*kept, GUARDED_ANSWER] if guarded else kept


def check_target(target: str) -> None:
    """Refuse a path that is too long, its query included. Raises ApiFailure."""
    if len(target) > limits.PATH_MAX:
        raise invalid(f"the request's path is longer than {limits.PATH_MAX} bytes")


def _passed_on(fields: Fields, others: frozenset[str]) -> list[tuple[str, str]]:
    """Without the platform's own fields and those that are meant for one connection only, by rule or by its word."""
    said = [value for name, value in fields if name.lower() == "connection"]
    named = {word.strip().lower() for value in said for word in value.split(",")} - {"host"}
    dropped = others | named
    return [(name, value) for name, value in fields if not _is_own(name.lower(), dropped)]


def _is_own(name: str, others: frozenset[str]) -> bool:
    return name.startswith((_PREFIX, _PROXYS)) or name in others


def _is_attachment(name: str, value: str) -> bool:
    return name.lower() == "content-disposition" and value.strip().lower() == "attachment"


def _size(fields: Sequence[tuple[str, str]]) -> int:
    return sum(len(name) + len(value) for name, value in fields)


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

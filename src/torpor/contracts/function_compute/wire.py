"""The conversation with the server inside, in the shape the engine asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from torpor.contracts.function_compute import limits, server_wire
from torpor.contracts.function_compute.api_failures import ApiFailure
from torpor.contracts.function_compute.environment import NO_CREDENTIALS, Credentials
from torpor.contracts.function_compute.failures import BAD_RESPONSE
from torpor.contracts.function_compute.server_wire import ServerRequest
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Fields, Invocation
from torpor.model.server import INITIALIZE, Probe, ServerCall

ERROR_TYPE = "x-fc-error-type"
"""By this the guests of built-in runtimes tell the kind of an error."""
_HOST = ("Host", "localhost")
_PROBE_PATIENCE = 5.0

RawFields = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionComputeWire:
    """What instances are sent, and what their answers mean."""

    credentials: Credentials = NO_CREDENTIALS

    loopback = False
    reuse_after_freeze = inf
    """A server is told to keep idle connections open, however long that is."""
    head_max = 8 * limits.HEADERS_MAX
    """More than the contract's bound, so that what is over it can be told apart from what is no HTTP."""

    def probe(self, version: FunctionVersion) -> Probe:
        return Probe(period_s=limits.READY_PERIOD, timeout_s=_PROBE_PATIENCE)

    def call(self, version: FunctionVersion, invocation: Invocation, environment: str) -> ServerCall:
        return _call(server_wire.event_request(version, invocation, self.credentials))

    def forwarded(self, version: FunctionVersion, invocation: Invocation, environment: str) -> Fields:
        http = invocation.http
        own = server_wire.http_fields(version, invocation, self.credentials)
        return [*server_wire.forwarded_fields(http.fields), *own] if http is not None else own

    def returned(self, version: FunctionVersion, status: int, fields: RawFields) -> Fields | Failure:
        try:
            return server_wire.answered_fields(text_fields(fields))
        except ApiFailure as error:
            return Failure(kind=FailureKind.MALFORMED, error_type=BAD_RESPONSE, detail=str(error))

    def response_max(self, version: FunctionVersion, invocation: Invocation) -> int | None:
        return limits.SYNC_PAYLOAD_MAX if invocation.http is None else None

    def answer(
        self, version: FunctionVersion, invocation: Invocation, status: int, fields: RawFields, body: bytes
    ) -> Answer:
        told = text_fields(fields)
        answer = server_wire.answer(version, status, told, body)
        named = next((value.strip() for name, value in told if name.lower() == ERROR_TYPE), "")
        if not (named and answer.error_type):
            return answer
        return Answer(payload=body, content_type=answer.content_type, error_type=named)

    def hook(self, version: FunctionVersion, hook: str, environment: str) -> ServerCall:
        limit = server_wire.hook_timeout(version, hook)
        return _call(server_wire.hook_request(version, hook, self.credentials), limit)

    def hook_failure(self, hook: str, status: int, fields: RawFields, body: bytes) -> Failure | None:
        if hook != INITIALIZE or server_wire.hook_succeeded(status):
            return None
        return Failure(kind=FailureKind.INIT_ERROR, code=status, payload=body, starting=True)


def text_fields(fields: RawFields) -> list[tuple[str, str]]:
    """Fields as they came over the wire, as text."""
    return [(name.decode("latin-1"), value.decode("latin-1").strip()) for name, value in fields]


def _call(request: ServerRequest, timeout: float = 0.0) -> ServerCall:
    return ServerCall(
        method=request.method,
        target=request.target,
        fields=(_HOST, *request.fields),
        body=request.body,
        timeout_s=timeout,
    )

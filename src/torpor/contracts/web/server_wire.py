"""What servers are sent and what their answers mean, as the engine asks it (contract 1.1, 5)."""

from collections.abc import Sequence

from torpor.contracts.web import limits, policy
from torpor.contracts.web.environment import port
from torpor.contracts.web.forwarded import response_lines
from torpor.model.failure import Answer, Failure
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Fields, HeaderLines, Invocation
from torpor.model.server import Probe, ServerCall

HEALTH_PATH = "/kaithhealth"
USER_AGENT = "torpor-probe/1"
"""By this users can filter the platform's own requests from their logs."""
_PASSED_ON = Answer(payload=b"")
_RAW = Sequence[tuple[bytes, bytes]]


class WebWire:
    """Requests of callers are passed on as the face made them; the platform's own are the health question, and the
    call that an invocation without a request becomes."""

    loopback = True
    reuse_after_freeze = limits.REUSE_AFTER_FREEZE
    head_max = limits.RESPONSE_HEAD_MAX

    def __init__(self, start_limit: float = limits.START_LIMIT) -> None:
        self._start_limit = start_limit

    def probe(self, version: FunctionVersion) -> Probe:
        """The question whether the server is there. One that accepts before its application is loaded lets it wait, so
        each try may take as long as the start."""
        return Probe(
            path=HEALTH_PATH,
            fields=_own_fields(version),
            period_s=limits.PROBE_PERIOD,
            timeout_s=self._start_limit,
        )

    def call(self, version: FunctionVersion, invocation: Invocation, environment: str) -> ServerCall:
        """An invocation that comes by no request: a POST of its payload, or a GET if it has none."""
        method = "POST" if invocation.payload else "GET"
        fields = [*_own_fields(version), ("X-Request-Id", invocation.id)]
        if invocation.payload:
            fields.append(("Content-Type", invocation.content_type))
        return ServerCall(method=method, target="/", fields=fields, body=invocation.payload)

    def forwarded(self, version: FunctionVersion, invocation: Invocation, environment: str) -> Fields | HeaderLines:
        return invocation.http.lines if invocation.http is not None else ()

    def returned(self, version: FunctionVersion, status: int, fields: _RAW) -> Fields | HeaderLines | Failure:
        return response_lines(fields)

    def response_max(self, version: FunctionVersion, *, relayed: bool) -> int | None:
        return policy.response_limit(version)

    def answer(
        self, version: FunctionVersion, invocation: Invocation, status: int, fields: _RAW, body: bytes
    ) -> Answer:
        """An answer of any status is one: what the server says of itself is for its caller to judge."""
        if invocation.http is not None:
            return _PASSED_ON
        content_type = next((value for name, value in fields if name.lower() == b"content-type"), b"")
        return Answer(payload=body, content_type=content_type.decode("latin-1"))

    def hook(self, version: FunctionVersion, hook: str, environment: str) -> ServerCall:
        """Services have none; the policy never asks for one."""
        raise LookupError(f"a service has no hook {hook}")

    def hook_failure(self, hook: str, status: int, fields: _RAW, body: bytes) -> Failure | None:
        return None


def _own_fields(version: FunctionVersion) -> list[tuple[str, str]]:
    return [("Host", f"127.0.0.1:{port(version)}"), ("User-Agent", USER_AGENT), ("Accept", "*/*")]

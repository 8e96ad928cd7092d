"""The conversation with the server inside, in the shape the engine asks for."""

from collections.abc import Sequence
from dataclasses import dataclass

from torpor.contracts.web import forwarded, limits, policy, probe
from torpor.model.failure import Answer, Failure
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Fields, Invocation
from torpor.model.server import Probe, ServerCall

RawFields = Sequence[tuple[bytes, bytes]]
_NOTHING = Answer(payload=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebWire:
    """What services are sent, and what their answers mean."""

    start_limit: float = limits.START_LIMIT

    loopback = True
    reuse_after_freeze = 1.0
    """Servers close connections that were idle for some seconds, and a frozen one does so the moment it wakes."""
    head_max = limits.RESPONSE_HEAD_MAX

    def probe(self, version: FunctionVersion) -> Probe:
        fields = (("Host", "127.0.0.1"), ("User-Agent", probe.USER_AGENT), ("Accept", "*/*"))
        return Probe(path=probe.PATH, fields=fields, period_s=limits.PROBE_PERIOD, timeout_s=self.start_limit)

    def call(self, version: FunctionVersion, invocation: Invocation, environment: str) -> ServerCall:
        """An event without a request of its own is posted to the root."""
        fields = (("Host", "localhost"), ("Content-Type", invocation.content_type))
        return ServerCall(method="POST", target="/", fields=fields, body=invocation.payload)

    def forwarded(self, version: FunctionVersion, invocation: Invocation, environment: str) -> Fields:
        """The face has made them already, with what it knows of the caller."""
        return invocation.http.fields if invocation.http is not None else ()

    def returned(self, version: FunctionVersion, status: int, fields: RawFields) -> Fields | Failure:
        text = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]
        return forwarded.response_fields(text, status=status)

    def response_max(self, version: FunctionVersion, invocation: Invocation) -> int | None:
        return policy.response_limit(version)

    def answer(
        self, version: FunctionVersion, invocation: Invocation, status: int, fields: RawFields, body: bytes
    ) -> Answer:
        """Whatever a service answers is an answer."""
        return _NOTHING if not body else Answer(payload=body)

    def hook(self, version: FunctionVersion, hook: str, environment: str) -> ServerCall:
        raise NotImplementedError(f"services have no hooks: {hook}")

    def hook_failure(self, hook: str, status: int, fields: RawFields, body: bytes) -> Failure | None:
        return None

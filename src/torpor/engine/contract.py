"""What the engine asks of a contract. Contracts satisfy this shape without knowing it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torpor.lifecycle import TransitionRefused
from torpor.model.entries import Entry
from torpor.model.errors import InvalidRequest
from torpor.model.failure import Answer, Failure
from torpor.model.function import FunctionVersion
from torpor.model.image import Image, Layout
from torpor.model.invocation import Fields, HeaderLines, Invocation
from torpor.model.policy import LifecyclePolicy, ScalingPolicy
from torpor.model.records import Record
from torpor.model.runtime_calls import ExtensionCall, RuntimeCall
from torpor.model.server import Probe, ServerCall
from torpor.model.start import Start
from torpor.model.telemetry import Source, Subscription

RawFields = Sequence[tuple[bytes, bytes]]
"""Header fields as they came over the wire."""


class PollerWire(Protocol):
    """The wire form of the API that runtimes poll."""

    ACCEPTED: bytes
    INVALID_REQUEST_ID: bytes
    INVALID_MODE: bytes
    TOO_LARGE: bytes
    NOT_FOUND: bytes
    TEXT: tuple[str, str]
    JSON: tuple[str, str]
    ERROR_TYPE_HEADER: str
    CAUSE_HEADER: str
    RESPONSE_MODE_HEADER: str
    RESPONSE_MAX: int
    CREDENTIALS_PATH: str
    RESTORE_REQUEST: str
    """The request of a runtime that waits to go on from its snapshot, as it goes over the wire."""
    RESPONSE_MODES: frozenset[str]
    """Ways of answering that stream."""
    STREAMED_MAX: int
    """Bytes of an answer that goes on while it arrives."""
    STREAM_BURST: int
    """Bytes of it that go on at full speed."""
    STREAM_RATE: int
    """Bytes a second after that."""
    ERROR_BODY_TRAILER: str
    TRUNCATED: bytes
    LATE: bytes
    """The answer to a result that comes after its invocation's time was up."""

    def parse_call(self, method: str, path: str) -> tuple[RuntimeCall, str]: ...

    def unrouted(self, method: str, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for what is no call."""
        ...

    def event_headers(self, invocation: Invocation, deadline_ms: int) -> list[tuple[str, str]]: ...

    def body_limit(self, method: str, path: str) -> int:
        """Bytes of a request's body that are read."""
        ...

    def refusal(self, refused: TransitionRefused, *, error: bool = False) -> bytes: ...

    def checked_error_type(self, value: str) -> str: ...

    def stream_error(self, kind: str, encoded: str) -> tuple[str, bytes]:
        """Type and JSON of an error that is told behind a streamed answer; both as they came."""
        ...


class ServerWire(Protocol):
    """What servers inside are sent, and what their answers mean."""

    @property
    def loopback(self) -> bool:
        """Is a server reached that listens on loopback alone?"""
        ...

    @property
    def reuse_after_freeze(self) -> float:
        """Seconds without CPU after which connections are not used again."""
        ...

    @property
    def head_max(self) -> int:
        """Bytes of an answer's status line and fields."""
        ...

    def probe(self, version: FunctionVersion) -> Probe: ...

    def call(self, version: FunctionVersion, invocation: Invocation, environment: str) -> ServerCall:
        """The request for an invocation that is not one itself."""
        ...

    def forwarded(self, version: FunctionVersion, invocation: Invocation, environment: str) -> Fields | HeaderLines:
        """The fields of a request that is passed on."""
        ...

    def returned(self, version: FunctionVersion, status: int, fields: RawFields) -> Fields | HeaderLines | Failure:
        """The fields that the caller of a passed-on request gets; a Failure if the answer breaks a rule."""
        ...

    def response_max(self, version: FunctionVersion, *, relayed: bool) -> int | None:
        """Bytes of an answer's body, be it passed on or kept until it is whole; None if there is no bound."""
        ...

    def answer(
        self, version: FunctionVersion, invocation: Invocation, status: int, fields: RawFields, body: bytes
    ) -> Answer:
        """The result of an invocation that was not passed on, or what a passed-on one counts as, by status and fields
        alone."""
        ...

    def hook(self, version: FunctionVersion, hook: str, environment: str) -> ServerCall: ...

    def hook_failure(self, hook: str, status: int, fields: RawFields, body: bytes) -> Failure | None:
        """What an answer to a hook means: None if all is well."""
        ...


Headed = tuple[list[tuple[str, str]], bytes]
"""Headers and body of an answer."""


class ExtensionWire(Protocol):
    """The wire form of the API that extensions use, on the same address as the runtime's."""

    PREFIX: str
    FOLDER: str
    EXTENSIONS_MAX: int
    NAME_HEADER: str
    FEATURE_HEADER: str
    IDENTIFIER_HEADER: str
    ERROR_TYPE_HEADER: str
    INIT_ERROR: str
    EXIT_ERROR: str
    ACCEPTED: bytes
    EMPTY_NAME: bytes
    REGISTRATION_CLOSED: bytes
    NAME_TAKEN: bytes
    TOO_MANY: bytes
    MISSING_IDENTIFIER: bytes
    INVALID_IDENTIFIER: bytes
    MISSING_ERROR_TYPE: bytes

    def parse_call(self, method: str, path: str) -> ExtensionCall: ...

    def unrouted(self, method: str, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
        """Status, headers and body for what is no call."""
        ...

    def wanted_events(self, body: bytes, *, internal: bool) -> tuple[bool, bool]: ...

    def registered(self, version: FunctionVersion, identifier: str, features: str) -> Headed: ...

    def invoke_event(self, invocation: Invocation, deadline_ms: int, identifier: str) -> Headed: ...

    def shutdown_event(self, reason: str, deadline_ms: int) -> Headed: ...

    def is_identifier(self, text: str) -> bool: ...

    def unknown(self, identifier: str, call: ExtensionCall) -> bytes: ...

    def refusal(self, refused: TransitionRefused, who: str) -> bytes: ...

    def error_body(self, message: str, kind: str) -> bytes: ...


class TelemetryWire(Protocol):
    """The wire form of subscriptions to telemetry, on the same address too. Events are the contract's own values."""

    OK: bytes
    SEQUENCE_HEADER: str
    """Names the header with a batch's digest; empty if it has none."""

    def api_of(self, method: str, path: str) -> str:
        """By which API a request subscribes; empty if it does not."""
        ...

    def subscription(self, api: str, body: bytes) -> Subscription:
        """Raises InvalidRequest."""
        ...

    def invalid(self, error: InvalidRequest) -> bytes: ...

    def closed(self, api: str) -> bytes: ...

    def other_api(self, api: str) -> bytes: ...

    def unreachable(self, api: str, port: int) -> bytes: ...

    def encode_events(self, schema: str, events: Sequence[Any], wall: float) -> list[bytes]: ...

    def encode_line(self, schema: str, source: Source, wall: float, text: str, *, is_json: bool) -> bytes: ...


class Contract(Protocol):
    """How one cloud's functions are run, worded and reported."""

    @property
    def wire(self) -> PollerWire | None:
        """None where no runtime polls."""
        ...

    @property
    def extension_wire(self) -> ExtensionWire | None:
        """None where there are no extensions."""
        ...

    @property
    def telemetry_wire(self) -> TelemetryWire | None:
        """None where nobody can subscribe to telemetry."""
        ...

    @property
    def server_wire(self) -> ServerWire | None:
        """None where no runtime is a server."""
        ...

    @property
    def files_max(self) -> int: ...

    @property
    def processes_max(self) -> int: ...

    def policy(self, version: FunctionVersion, start: Start = Start.ON_DEMAND) -> LifecyclePolicy:
        """`start` is how the environment comes to be ready, here and below."""
        ...

    def scaling(self, version: FunctionVersion) -> ScalingPolicy: ...

    def image(self, runtime: str) -> str:
        """The name of the image that a runtime's environments have."""
        ...

    def layout(self, version: FunctionVersion) -> Layout: ...

    def system(self, version: FunctionVersion, code: str) -> str:
        """A host folder of changed system folders that belongs to the code in `code`; empty if there is none."""
        ...

    def cpu_share(self, version: FunctionVersion) -> float:
        """CPUs that the version may use once it is initialised."""
        ...

    def may_clone(self, version: FunctionVersion) -> bool:
        """May its runtime be a fork of a warm interpreter?"""
        ...

    def program(self, version: FunctionVersion, image: Image, exists: Callable[[str], bool]) -> tuple[str, ...]:
        """The runtime's program and arguments; `exists` tells whether a path inside is there."""
        ...

    def variables(
        self,
        version: FunctionVersion,
        image: Image,
        *,
        paths: Mapping[str, str],
        api_address: str,
        log_stream: str,
        port: int,
        start: Start,
    ) -> dict[str, str]:
        """The runtime's variables. `port` is where a server has to listen; 0 for pollers."""
        ...

    def extension_variables(
        self, version: FunctionVersion, image: Image, *, paths: Mapping[str, str], api_address: str, start: Start
    ) -> dict[str, str]:
        """What an external extension is given."""
        ...

    def credentials_answer(
        self, version: FunctionVersion, given: str, environment: str, wall: float
    ) -> tuple[int, tuple[str, str], bytes]:
        """Status, content type field and body of the answer to a process of an environment made from a snapshot that
        asks for its credentials, `given` what it shows for that."""
        ...

    def framed_log_variable(self, version: FunctionVersion) -> str:
        """The variable that names the framed log pipe; empty if the runtime gets none."""
        ...

    def worker_log_variable(self, version: FunctionVersion) -> str:
        """The variable that names the socket on which each worker opens its own log; empty if there is none."""
        ...

    def is_connection_per_worker(self, version: FunctionVersion) -> bool:
        """Does a worker keep one connection for all its calls, so that its end is the worker's?"""
        ...

    def log_stream(self, version: FunctionVersion, environment_id: str, wall: float) -> str: ...

    def log_lines(self, entry: Entry) -> list[str]:
        """The platform's own log events."""
        ...

    def platform_events(self, entry: Entry) -> Sequence[Any]:
        """What a record is in telemetry, for the wire to encode; see `log_lines`."""
        ...

    def line_filter(self, version: FunctionVersion) -> Callable[[str], bool] | None:
        """Whether a line that the function wrote is kept; None if all are."""
        ...

    @property
    def logs_every_invocation(self) -> bool:
        """Are there lines about invocations that went well? If not, `log_lines` is not asked about them."""
        ...

    def is_traced(self, version: FunctionVersion) -> bool:
        """Are trace segments recorded for some of its invocations?"""
        ...

    def segments(
        self, version: FunctionVersion, invocation: Invocation, steps: Sequence[tuple[Record, float]]
    ) -> list[bytes]:
        """The trace documents of an invocation that is over; `steps` are the environment's records with their wall
        times since it was last through with one."""
        ...

    def comments(self, version: FunctionVersion) -> Callable[[str], list[str]] | None:
        """Reads what one environment writes, some lines at a time, and tells what lines to add; None if never any."""
        ...

    def log_tail(self, lines: bytes) -> bytes:
        """As much of an invocation's log as its caller may have."""
        ...

    def failure(self, failure: Failure, version: FunctionVersion, request_id: str, wall: float) -> tuple[str, bytes]:
        """Error type and payload that the caller of the failed invocation gets."""
        ...

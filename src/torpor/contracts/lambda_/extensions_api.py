"""The Extensions API's wire form: routes, headers, events, error bodies (contract 3)."""

from typing import Any
from uuid import UUID

import msgspec

from torpor.contracts.lambda_ import limits, runtime_api
from torpor.lifecycle import AgentCall, AgentState, TransitionRefused
from torpor.model.errors import InvalidRequest
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation
from torpor.model.runtime_calls import ExtensionCall

PREFIX = "/2020-01-01/"
FOLDER = "extensions"
"""Where a layer has its external extensions."""
EXTENSIONS_MAX = limits.EXTENSIONS_MAX
NAME_HEADER = "Lambda-Extension-Name"
FEATURE_HEADER = "Lambda-Extension-Accept-Feature"
IDENTIFIER_HEADER = "Lambda-Extension-Identifier"
EVENT_IDENTIFIER_HEADER = "Lambda-Extension-Event-Identifier"
ERROR_TYPE_HEADER = "Lambda-Extension-Function-Error-Type"
INIT_ERROR = "Extension.InitError"
EXIT_ERROR = "Extension.ExitError"
ACCEPTED = runtime_api.ACCEPTED
error_body = runtime_api.error_body
_JSON = ("Content-Type", "application/json")
_INVOKE, SHUTDOWN = "INVOKE", "SHUTDOWN"
INVALID_EVENT = "Extension.InvalidEventType"
_ACCOUNT_FEATURE = "accountId"

_CALLS = {
    ("POST", PREFIX + "extension/register"): ExtensionCall.REGISTER,
    ("GET", PREFIX + "extension/event/next"): ExtensionCall.NEXT,
    ("POST", PREFIX + "extension/init/error"): ExtensionCall.INIT_ERROR,
    ("POST", PREFIX + "extension/exit/error"): ExtensionCall.EXIT_ERROR,
}

EMPTY_NAME = error_body("Empty extension name", "Extension.InvalidExtensionName")
REGISTRATION_CLOSED = error_body("Extension registration closed already", "Extension.RegistrationClosed")
NAME_TAKEN = error_body("Extension with this name already registered", "Extension.InvalidExtensionState")
TOO_MANY = error_body(f"Extension limit ({limits.EXTENSIONS_MAX}) reached", "Extension.TooManyExtensions")
MISSING_IDENTIFIER = error_body("Missing Lambda-Extension-Identifier header", "Extension.MissingExtensionIdentifier")
INVALID_IDENTIFIER = error_body("Invalid Lambda-Extension-Identifier", "Extension.InvalidExtensionIdentifier")
MISSING_ERROR_TYPE = error_body(f"{ERROR_TYPE_HEADER} not found", "Extension.MissingHeader")


class _Registration(msgspec.Struct, frozen=True):
    events: list[str] = []
    configuration: list[Any] = msgspec.field(default_factory=list, name="configurationKeys")


_registration = msgspec.json.Decoder(_Registration)


def parse_call(method: str, path: str) -> ExtensionCall:
    """Which call a request is."""
    return _CALLS.get((method, path), ExtensionCall.UNKNOWN)


def unrouted(method: str, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body for a request that is no call: another method's path, or nobody's (3.1)."""
    known = (allowed for allowed in runtime_api.METHODS if parse_call(allowed, path) is not ExtensionCall.UNKNOWN)
    return runtime_api.no_call(next(known, ""))


def wanted_events(body: bytes, *, internal: bool) -> tuple[bool, bool]:
    """Whether the events of an invocation and of the shutdown are asked for.

    Raises InvalidRequest (`what` is the error type) for a malformed body and for events that this kind cannot have."""
    events = asked_events(body)
    for event in events:
        if event not in (_INVOKE, SHUTDOWN):
            raise InvalidRequest(f"{event}: ErrorInvalidEventType", what=INVALID_EVENT)
        if event == SHUTDOWN and internal:
            raise InvalidRequest(f"{event}: ShutdownEventNotSupportedForInternalExtension", what=INVALID_EVENT)
    return _INVOKE in events, SHUTDOWN in events


def asked_events(body: bytes) -> list[str]:
    """The events a registration names. Raises InvalidRequest for a malformed body."""
    try:
        asked = _registration.decode(body)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidRequest(str(error), what="InvalidRequestFormat") from error
    if asked.configuration:
        message = "configurationKeys are deprecated; use environment variables instead"
        raise InvalidRequest(message, what="InvalidRequestFormat")
    return asked.events


def registered(version: FunctionVersion, identifier: str, features: str) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of a successful registration; unknown features are passed over."""
    body = {"functionName": version.function, "functionVersion": version.version, "handler": version.handler}
    if version.account and _ACCOUNT_FEATURE in (feature.strip() for feature in features.split(",")):
        body["accountId"] = version.account
    return [_JSON, (IDENTIFIER_HEADER, identifier)], msgspec.json.encode(body) + b"\n"


def invoke_event(invocation: Invocation, deadline_ms: int, identifier: str) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of the event that an invocation is for an extension; its payload is not in it (3.2)."""
    event: dict[str, Any] = {
        "eventType": _INVOKE,
        "deadlineMs": deadline_ms,
        "requestId": invocation.id,
        "invokedFunctionArn": invocation.resource,
    }
    if invocation.trace:
        event["tracing"] = {"type": "X-Amzn-Trace-Id", "value": invocation.trace}
    return [_JSON, (EVENT_IDENTIFIER_HEADER, identifier)], msgspec.json.encode(event)


def shutdown_event(reason: str, deadline_ms: int) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of the last event an extension gets (3.2)."""
    event = {"eventType": SHUTDOWN, "deadlineMs": deadline_ms, "shutdownReason": reason}
    return [_JSON], msgspec.json.encode(event)


def is_identifier(text: str) -> bool:
    """Is it a UUID in its usual form?"""
    try:
        return str(UUID(text)) == text.lower()
    except ValueError:
        return False


def unknown(identifier: str, call: ExtensionCall) -> bytes:
    """The body of a 403 for an identifier that no extension of this environment has."""
    message = f"Unknown extension {identifier}" if call is ExtensionCall.NEXT else f"Unknown {IDENTIFIER_HEADER}"
    return error_body(message, "Extension.UnknownExtensionIdentifier")


_STATES = {
    AgentState.STARTED: "Started",
    AgentState.REGISTERED: "Registered",
    AgentState.READY: "Ready",
    AgentState.RUNNING: "Running",
    AgentState.FAILED: "InitError",
    AgentState.GAVE_UP: "ExitError",
    AgentState.EXITED: "Exited",
}
_TARGETS = {
    AgentCall.REGISTER: "Registered",
    AgentCall.NEXT: "Ready",
    AgentCall.FAIL: "InitError",
    AgentCall.GIVE_UP: "Exited",
}


def refusal(refused: TransitionRefused, who: str) -> bytes:
    """The body of a 403 for a call that the extension's state does not allow; `who` is its name or identifier (3.4)."""
    return error_body(
        f"State transition from {_STATES.get(refused.state, 'Started')} to {_TARGETS.get(refused.call, 'Ready')} "
        f"failed for extension {who}. Error: State transition is not allowed",
        "Extension.InvalidExtensionState",
    )

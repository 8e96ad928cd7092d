"""The Runtime API's wire form: routes, headers, error bodies, checks on what runtimes send (contract 2)."""

import base64
import binascii
import re

import msgspec

from torpor.contracts.lambda_ import limits
from torpor.lifecycle import AgentCall, AgentState, TransitionRefused
from torpor.model.invocation import Invocation
from torpor.model.runtime_calls import RuntimeCall

PREFIX = "/2018-06-01/runtime/"
CREDENTIALS_PATH = "/2021-04-23/credentials"
_INVOCATION = PREFIX + "invocation/"
NEXT_PATH = _INVOCATION + "next"
INIT_ERROR_PATH = PREFIX + "init/error"
_PING_PATH = "/2018-06-01/ping"
_RESTORE_NEXT_PATH = PREFIX + "restore/next"
_RESTORE_ERROR_PATH = PREFIX + "restore/error"
METHODS = ("GET", "POST")
_NOT_HERE = (RuntimeCall.UNKNOWN, RuntimeCall.RESTORE_NEXT, RuntimeCall.RESTORE_ERROR)
"""The calls about snapshots have no path where there are none."""
RESTORE_REQUEST = f"GET {_RESTORE_NEXT_PATH} HTTP/1.1\r\nHost: runtime\r\n\r\n"
JSON = ("Content-Type", "application/json")
TEXT = ("Content-Type", "text/plain; charset=utf-8")
ACCEPTED = b'{"status":"OK"}\n'
ERROR_TYPE_HEADER = "Lambda-Runtime-Function-Error-Type"
CAUSE_HEADER = "Lambda-Runtime-Function-XRay-Error-Cause"
RESPONSE_MODE_HEADER = "Lambda-Runtime-Function-Response-Mode"

ERROR_BODY_TRAILER = "Lambda-Runtime-Function-Error-Body"

RESPONSE_MODES = frozenset({"streaming"})
RESPONSE_MAX = limits.RESPONSE_MAX
STREAMED_MAX = limits.STREAMED_MAX
STREAM_BURST = limits.STREAM_BURST
STREAM_RATE = limits.STREAM_RATE

_ERROR_TYPE = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]+")


def parse_call(method: str, path: str) -> tuple[RuntimeCall, str]:
    """Which call a request is, and the invocation id in its path (empty where there is none)."""
    if path == NEXT_PATH:
        return (RuntimeCall.NEXT if method == "GET" else RuntimeCall.UNKNOWN), ""
    if method == "POST":
        if path == INIT_ERROR_PATH:
            return RuntimeCall.INIT_ERROR, ""
        if path == _RESTORE_ERROR_PATH:
            return RuntimeCall.RESTORE_ERROR, ""
        if path.startswith(_INVOCATION):
            invocation_id, _, action = path[len(_INVOCATION) :].partition("/")
            if action == "response":
                return RuntimeCall.RESPONSE, invocation_id
            if action == "error":
                return RuntimeCall.ERROR, invocation_id
    if method == "GET" and path == _RESTORE_NEXT_PATH:
        return RuntimeCall.RESTORE_NEXT, ""
    if method == "GET" and path == _PING_PATH:
        return RuntimeCall.PING, ""
    return RuntimeCall.UNKNOWN, ""


def unrouted(method: str, path: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """Status, headers and body for a request that is no call: another method's path, or nobody's (2.1)."""
    known = (allowed for allowed in METHODS if parse_call(allowed, path)[0] not in _NOT_HERE)
    return no_call(next(known, ""))


def no_call(allowed: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """The answer to a request that is no call; `allowed` is the method that its path has, if any."""
    return (405, [("Allow", allowed)], b"") if allowed else (404, [TEXT], b"404 page not found\n")


def event_headers(invocation: Invocation, deadline_ms: int) -> list[tuple[str, str]]:
    """The headers of an event handed to the runtime; empty ones are left out (2.2)."""
    headers = [
        ("Content-Type", invocation.content_type),
        ("Lambda-Runtime-Aws-Request-Id", invocation.id),
        ("Lambda-Runtime-Deadline-Ms", str(deadline_ms)),
        ("Lambda-Runtime-Invoked-Function-Arn", invocation.resource),
    ]
    if invocation.trace:
        headers.append(("Lambda-Runtime-Trace-Id", invocation.trace))
    if invocation.client_context:
        headers.append(("Lambda-Runtime-Client-Context", invocation.client_context))
    if invocation.identity:
        headers.append(("Lambda-Runtime-Cognito-Identity", invocation.identity))
    if invocation.tenant:
        headers.append(("Lambda-Runtime-Aws-Tenant-Id", invocation.tenant))
    return headers


_STATE_NAMES = {
    AgentState.STARTED: "Started",
    AgentState.READY: "Ready",
    AgentState.RUNNING: "Running",
    AgentState.ANSWERING: "InvocationResponse",
    AgentState.ANSWERED: "RuntimeResponseSentState",
    AgentState.RESTORABLE: "RestoreReady",
    AgentState.RESTORING: "Restoring",
    AgentState.FAILED: "InitError",
    AgentState.EXITED: "Exited",
}
_TARGET_NAMES = {AgentCall.NEXT: "Ready", AgentCall.FAIL: "InitError", AgentCall.AWAIT_RESTORE: "RestoreReady"}


def refusal(refused: TransitionRefused, *, error: bool = False) -> bytes:
    """The body of a 403 for a call that the runtime's state does not allow (2.4)."""
    target = _TARGET_NAMES.get(refused.call) or ("InvocationErrorResponse" if error else "InvocationResponse")
    return error_body(
        f"State transition from {_STATE_NAMES.get(refused.state, 'Started')} to {target} failed for runtime. "
        "Error: State transition is not allowed",
        "InvalidStateTransition",
    )


def error_body(message: str, kind: str) -> bytes:
    return msgspec.json.encode({"errorMessage": message, "errorType": kind}) + b"\n"


INVALID_REQUEST_ID = error_body("Invalid request ID", "InvalidRequestID")
INVALID_MODE = error_body("Invalid function response mode", "InvalidFunctionResponseMode")
TOO_LARGE = error_body(f"Exceeded maximum allowed payload size ({limits.RESPONSE_MAX} bytes).", "RequestEntityTooLarge")
TRUNCATED = error_body("HTTP request detected as truncated", "TruncatedHTTPRequest")
LATE = error_body("Invoke timeout", "InvokeTimeout")
NOT_FOUND = error_body("The Runtime API has no such path", "InvalidRequest")


def checked_error_type(value: str) -> str:
    """The runtime's own error type, or the stand-in for one that is not well formed (2.3)."""
    if _ERROR_TYPE.fullmatch(value):
        return value
    return "Function.Unknown" if value.startswith("Function.") else "Runtime.Unknown"


def stream_error(kind: str, encoded: str) -> tuple[str, bytes]:
    """Type and JSON of an error that the trailers of a streamed response tell (2.7): the JSON as Base64.

    A type that is too long is cut; what is no Base64, too much of it or nothing leaves the type alone to tell."""
    kind = kind[: limits.STREAM_ERROR_TYPE_MAX]
    try:
        body = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        body = b""
    if not body or len(body) > limits.ERROR_BODY_MAX:
        body = msgspec.json.encode({"errorType": kind, "errorMessage": "The function told no more of this error."})
    return kind, body


def body_limit(method: str, path: str) -> int:
    """Bytes of a request's body that the in-sandbox server reads: more is refused unread."""
    if method == "PUT":
        return limits.ERROR_BODY_MAX
    if method != "POST":
        return 0 if method == "GET" and path.startswith(PREFIX) else _SMALL_BODY
    if path.startswith(_INVOCATION):
        return limits.RESPONSE_MAX
    return limits.ERROR_BODY_MAX


_SMALL_BODY = 64 * 1024

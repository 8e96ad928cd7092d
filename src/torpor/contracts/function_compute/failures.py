"""How a failure looks to callers and in logs (1.2, 1.6, 2.3). One mapping from facts to error type and payload."""

import errno
import json
import os
from datetime import UTC, datetime

import msgspec

from torpor.contracts.function_compute import limits, runtimes
from torpor.contracts.function_compute.api_failures import STATUS, UNEXPECTED, body
from torpor.contracts.function_compute.names import is_classic
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.server import INITIALIZE

NOT_STARTED = "FunctionNotStarted"
EXITED = "CAExited"
NO_FILE = "CAFileNotFound"
NO_PERMISSION = "CAFilePermission"
BAD_RESPONSE = "BadResponse"
CANCELLED = "ClientClosedRequest"
UNHANDLED = "UnhandledInvocationError"
INITIALIZATION = "InitializationError"
PLATFORM = "InternalServerError"
NO_BOOTSTRAP_RIGHT = "The CA process cannot be started due to bootstrap file don't have execute permissions"
DIED = "Process exited unexpectedly before completing request"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What a run took until it failed."""

    seconds: float = 0.0
    memory_mb: float = 0.0
    """Most memory in use at once."""


NOTHING = Cost()


def told(failure: Failure, version: FunctionVersion, request_id: str, cost: Cost = NOTHING) -> tuple[str, bytes]:
    """Error type and payload for the caller. A type with a status of its own (`status_of`) is no function error."""
    if failure.kind in (FailureKind.SANDBOX, FailureKind.STOPPED):
        return PLATFORM, body(PLATFORM, UNEXPECTED, request_id)
    if is_hooks(failure):
        return INITIALIZATION, _hook_payload(failure)
    if failure.starting or failure.kind in (FailureKind.HEALTH, FailureKind.START):
        return _not_started(failure, version, request_id)
    return _not_run(failure, request_id, cost)


def is_hooks(failure: Failure) -> bool:
    """Was it the initialise hook that failed, and not the start before it?"""
    if failure.kind in (FailureKind.INIT_ERROR, FailureKind.TIMEOUT):
        return failure.detail == INITIALIZE
    return failure.starting and failure.kind is FailureKind.NO_ANSWER


def status_of(error_type: str, *, http: bool = False) -> int | None:
    """The status that this error type answers with by itself; None for errors of the function (200 and a header)."""
    if error_type not in STATUS:
        return None
    return (
        STATUS[BAD_RESPONSE]
        if http and error_type in (NOT_STARTED, EXITED, NO_FILE, NO_PERMISSION)
        else STATUS[error_type]
    )


def _not_started(failure: Failure, version: FunctionVersion, request_id: str) -> tuple[str, bytes]:
    if failure.kind is FailureKind.INIT_ERROR:
        return UNHANDLED, failure.payload or _message(failure.detail or DIED)
    code, message = start_failure(failure, version)
    return code, body(code, message, request_id)


def start_failure(failure: Failure, version: FunctionVersion) -> tuple[str, str]:
    """Code and message of a start that failed, in the words of the function's generation."""
    match failure.kind:
        case FailureKind.START:
            return _no_program(failure, version)
        case FailureKind.HEALTH:
            seen = f"status code: {failure.code} " if failure.code else f"error: {failure.detail or 'timeout'} "
            return NOT_STARTED, f"The function http server cannot be started. check function health failed with {seen}"
        case FailureKind.EXIT:
            return EXITED, _exited(failure, version)
    return NOT_STARTED, _not_listening(failure, version)


def _not_listening(failure: Failure, version: FunctionVersion) -> str:
    if not is_classic(version):
        limit = failure.limit or limits.START_LIMIT
        said = f"Function instance health check failed on port {_port(version)} in {limit:g} seconds."
        return f"{said}\nLogs:{_log(failure)}"
    reason = "i/o timeout" if "timeout" in failure.detail else "getsockopt: connection refused"
    return (
        f"The CA's http server cannot be started:ContainerStartDuration:{_nanoseconds(failure)}. "
        f"Ping CA failed due to: dial tcp {failure.address}: {reason} Logs : {_log(failure)}"
    )


def _exited(failure: Failure, version: FunctionVersion) -> str:
    if not is_classic(version):
        return exit_text(failure, version) + f" Logs:{_log(failure)}"
    lasted = f"ContainerStartDuration:{_nanoseconds(failure)}"
    return (
        f"The CA process either cannot be started or exited:{lasted}. CA process cannot be started or exited already: "
        f"rpc error: code = 106 desc = {lasted}. Ping CA failed due to: dial tcp {failure.address}: "
        f"i/o timeout Logs : {_log(failure)}"
    )


def _no_program(failure: Failure, version: FunctionVersion) -> tuple[str, str]:
    """`detail` is the sandbox's `reason: path`."""
    denied = "denied" in failure.detail.lower() or failure.code == errno.EACCES
    if version.server is not None and version.server.command:
        number = errno.EACCES if denied else errno.ENOENT
        code = NO_PERMISSION if denied else NO_FILE
        gone = Failure(kind=FailureKind.EXIT, code=number)
        return code, f"{exit_text(gone, version)} Logs:{_log(failure)}"
    if denied:
        return NO_PERMISSION, NO_BOOTSTRAP_RIGHT
    reason = f"the file {runtimes.BOOTSTRAP} is not exist"
    if failure.detail and "no such file" not in failure.detail.lower():
        reason = failure.detail
    return NO_FILE, f"The function cannot be started. Failed to start function instance. Error: {reason}"


def exit_text(failure: Failure, version: FunctionVersion) -> str:
    """That the server's process ended, with its status read as an error number of the system's."""
    number = failure.code if failure.signal is None else 128 + failure.signal
    number = number or 0
    text = os.strerror(number).lower()
    reason = f"errno {number}" if text.startswith("unknown") else text
    command = start_command(version)
    return f"Function instance exited unexpectedly(code {number}, message:{reason}) with start command '{command}'."


def start_command(version: FunctionVersion) -> str:
    """As messages show it: the entry and its arguments, of which the usual entry has none."""
    command = version.server.command if version.server is not None else ()
    return " ".join(command) if command else f"{runtimes.BOOTSTRAP} "


def hook_text(failure: Failure) -> str:
    """Why the initialise hook failed, in one line for the log."""
    message = str(json.loads(_hook_payload(failure))["errorMessage"])
    return message if _is_own(message) else f"Function initialize failed: {message}"


def _is_own(message: str) -> bool:
    return message.startswith(("Function initialize ", DIED.partition(" before ")[0]))


def _hook_payload(failure: Failure) -> bytes:
    if _is_error_document(failure.payload):
        return failure.payload
    if failure.kind is FailureKind.TIMEOUT:
        return _message(f"Function initialize timed out after {failure.limit:g} seconds")
    if failure.kind is FailureKind.EXIT:
        return _message("Process exited unexpectedly before completing initialize")
    text = failure.payload.decode(errors="replace") or failure.detail
    return _message(f"Function initialize failed with status code: {failure.code}. {text}".rstrip())


def _is_error_document(payload: bytes) -> bool:
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "errorMessage" in document


def _not_run(failure: Failure, request_id: str, cost: Cost) -> tuple[str, bytes]:
    match failure.kind:
        case FailureKind.CANCELLED:
            return CANCELLED, body(CANCELLED, "the client closed the request", request_id)
        case FailureKind.NO_ANSWER:
            return BAD_RESPONSE, body(BAD_RESPONSE, DIED, request_id)
        case FailureKind.OVERSIZE | FailureKind.MALFORMED:
            message = failure.detail or "the function's response is over the limits"
            return BAD_RESPONSE, body(BAD_RESPONSE, message, request_id)
        case FailureKind.INIT_ERROR if failure.payload:
            return UNHANDLED, failure.payload
    return UNHANDLED, _message(run_failure(failure, cost))


def run_failure(failure: Failure, cost: Cost) -> str:
    """Why a run ended without an answer, in one sentence."""
    match failure.kind:
        case FailureKind.TIMEOUT:
            return f"Function timed out after {failure.limit:g} seconds (maxMemoryUsage: {cost.memory_mb:.0f}MB)"
        case FailureKind.CANCELLED:
            used = f"duration: {round(cost.seconds * 1000)}ms, maxMemoryUsage: {cost.memory_mb:.2f}MB"
            return f"Invocation canceled by client ({used})"
        case FailureKind.EXIT | FailureKind.NO_ANSWER:
            return f"{DIED} (duration: {round(cost.seconds * 1000)}ms, maxMemoryUsage: {cost.memory_mb:.0f}MB)"
    return failure.detail or UNEXPECTED


def _message(text: str) -> bytes:
    return json.dumps({"errorMessage": text}, ensure_ascii=False).encode()


def _port(version: FunctionVersion) -> int:
    return version.server.port if version.server is not None else runtimes.PORT_DEFAULT


def _nanoseconds(failure: Failure) -> int:
    return round(failure.elapsed * 1_000_000_000)


def _log(failure: Failure) -> str:
    return "\n".join(f"{stamp(wall)} {line.rstrip()}" for wall, line in failure.output)


def stamp(wall: float) -> str:
    """ISO 8601 in UTC with nanoseconds."""
    whole, part = divmod(wall, 1)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{int(part * 1_000_000_000):09d}Z"

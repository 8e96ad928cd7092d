"""How a failure looks to callers and in logs (1.2, 1.6, 2.3). One mapping from facts to error type and payload."""

import errno
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum

import msgspec

from torpor.contracts.function_compute import limits, runtimes
from torpor.contracts.function_compute.api_failures import STATUS, UNEXPECTED, body
from torpor.contracts.function_compute.names import is_classic
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion

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


class Stage(StrEnum):
    """When it failed."""

    START = "start"
    """Before the port answered, or at the first health check."""
    HOOK = "hook"
    """In the initialise hook."""
    INVOKE = "invoke"


class FailureFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a failure beside its cause."""

    version: FunctionVersion
    stage: Stage = Stage.INVOKE
    seconds: float = 0.0
    """Since the instance was started, or since the invocation was delivered."""
    address: str = ""
    """The instance's own address, without a port."""
    output: Sequence[tuple[float, str]] = ()
    """What the instance wrote: wall time and line."""
    memory_mb: float = 0.0
    """Most memory in use at once."""


def told(failure: Failure, request_id: str, facts: FailureFacts) -> tuple[str, bytes]:
    """Error type and payload for the caller. A type with a status of its own (`STATUS`) is no function error."""
    if failure.kind in (FailureKind.SANDBOX, FailureKind.STOPPED):
        return PLATFORM, body(PLATFORM, UNEXPECTED, request_id)
    if facts.stage is Stage.HOOK:
        return INITIALIZATION, _hook_payload(failure)
    if facts.stage is Stage.START or failure.kind is FailureKind.HEALTH:
        return _not_started(failure, request_id, facts)
    return _not_run(failure, request_id, facts)


def status_of(error_type: str, *, http: bool = False) -> int | None:
    """The status that this error type answers with by itself; None for errors of the function (200 and a header)."""
    if error_type not in STATUS:
        return None
    return (
        STATUS[BAD_RESPONSE]
        if http and error_type in (NOT_STARTED, EXITED, NO_FILE, NO_PERMISSION)
        else STATUS[error_type]
    )


def _not_started(failure: Failure, request_id: str, facts: FailureFacts) -> tuple[str, bytes]:
    if failure.kind is FailureKind.INIT_ERROR:
        return UNHANDLED, failure.payload or _message(failure.detail or DIED)
    code, message = start_failure(failure, facts)
    return code, body(code, message, request_id)


def start_failure(failure: Failure, facts: FailureFacts) -> tuple[str, str]:
    """Code and message of a start that failed, in the words of the function's generation."""
    match failure.kind:
        case FailureKind.START:
            return _no_program(failure, facts)
        case FailureKind.HEALTH:
            seen = f"status code: {failure.code} " if failure.code else f"error: {failure.detail or 'timeout'} "
            return NOT_STARTED, f"The function http server cannot be started. check function health failed with {seen}"
        case FailureKind.EXIT:
            return EXITED, _exited(failure, facts)
    return NOT_STARTED, _not_listening(failure, facts)


def _not_listening(failure: Failure, facts: FailureFacts) -> str:
    if not is_classic(facts.version):
        limit = failure.limit or limits.START_LIMIT
        return f"Function instance health check failed on port {_port(facts)} in {limit:g} seconds.\nLogs:{_log(facts)}"
    reason = failure.detail or "getsockopt: connection refused"
    return (
        f"The CA's http server cannot be started:ContainerStartDuration:{_nanoseconds(facts)}. "
        f"Ping CA failed due to: dial tcp {facts.address}:{_port(facts)}: {reason} Logs : {_log(facts)}"
    )


def _exited(failure: Failure, facts: FailureFacts) -> str:
    if not is_classic(facts.version):
        return exit_text(failure, facts.version) + f" Logs:{_log(facts)}"
    lasted = f"ContainerStartDuration:{_nanoseconds(facts)}"
    return (
        f"The CA process either cannot be started or exited:{lasted}. CA process cannot be started or exited already: "
        f"rpc error: code = 106 desc = {lasted}. Ping CA failed due to: dial tcp {facts.address}:{_port(facts)}: "
        f"i/o timeout Logs : {_log(facts)}"
    )


def _no_program(failure: Failure, facts: FailureFacts) -> tuple[str, str]:
    """`detail` is the sandbox's `reason: path`."""
    denied = "denied" in failure.detail.lower() or failure.code == errno.EACCES
    if facts.version.server is not None and facts.version.server.command:
        number = errno.EACCES if denied else errno.ENOENT
        code = NO_PERMISSION if denied else NO_FILE
        gone = Failure(kind=FailureKind.EXIT, code=number)
        return code, f"{exit_text(gone, facts.version)} Logs:{_log(facts)}"
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


def _not_run(failure: Failure, request_id: str, facts: FailureFacts) -> tuple[str, bytes]:
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
    return UNHANDLED, _message(run_failure(failure, seconds=facts.seconds, memory_mb=facts.memory_mb))


def run_failure(failure: Failure, *, seconds: float, memory_mb: float) -> str:
    """Why a run ended without an answer, in one sentence."""
    match failure.kind:
        case FailureKind.TIMEOUT:
            return f"Function timed out after {failure.limit:g} seconds (maxMemoryUsage: {memory_mb:.0f}MB)"
        case FailureKind.CANCELLED:
            used = f"duration: {round(seconds * 1000)}ms, maxMemoryUsage: {memory_mb:.2f}MB"
            return f"Invocation canceled by client ({used})"
        case FailureKind.EXIT | FailureKind.NO_ANSWER:
            return f"{DIED} (duration: {round(seconds * 1000)}ms, maxMemoryUsage: {memory_mb:.0f}MB)"
    return failure.detail or UNEXPECTED


def _message(text: str) -> bytes:
    return json.dumps({"errorMessage": text}, ensure_ascii=False).encode()


def _port(facts: FailureFacts) -> int:
    return facts.version.server.port if facts.version.server is not None else limits.PORT_DEFAULT


def _nanoseconds(facts: FailureFacts) -> int:
    return round(facts.seconds * 1_000_000_000)


def _log(facts: FailureFacts) -> str:
    return "\n".join(f"{stamp(wall)} {line.rstrip()}" for wall, line in facts.output)


def stamp(wall: float) -> str:
    """ISO 8601 in UTC with nanoseconds."""
    whole, part = divmod(wall, 1)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{int(part * 1_000_000_000):09d}Z"

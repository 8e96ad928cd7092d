"""How a failure looks to the caller of an invocation and in the platform's lines (contract 5.4, 5.6).

One mapping from facts to error type and payload; nothing else words a failure.
"""

import signal as signals

import msgspec

from torpor.contracts.lambda_ import limits
from torpor.lifecycle import EXTENSIONS
from torpor.model.failure import Failure, FailureKind

EXIT_ERROR = "Runtime.ExitError"
INVALID_ENTRYPOINT = "Runtime.InvalidEntrypoint"
EXTENSION_CRASH = "Extension.Crash"
SANDBOX_TIMEOUT = "Sandbox.Timedout"
RESPONSE_TOO_LARGE = "Function.ResponseSizeTooLarge"
UNKNOWN_ERROR = "Runtime.Unknown"
BOOTSTRAPS = ("/var/task/bootstrap", "/opt/bootstrap")
NO_BOOTSTRAP = "/var/runtime/no-bootstrap"
"""Started where no bootstrap was found: nothing can be there, and its name tells this failure from others."""

_SIGNAL_TEXTS: dict[int, str] = {
    signals.SIGHUP: "hangup",
    signals.SIGINT: "interrupt",
    signals.SIGQUIT: "quit",
    signals.SIGILL: "illegal instruction",
    signals.SIGTRAP: "trace/breakpoint trap",
    signals.SIGABRT: "aborted",
    signals.SIGBUS: "bus error",
    signals.SIGFPE: "floating point exception",
    signals.SIGKILL: "killed",
    signals.SIGSEGV: "segmentation fault",
    signals.SIGPIPE: "broken pipe",
    signals.SIGALRM: "alarm clock",
    signals.SIGTERM: "terminated",
}


def error_type(failure: Failure) -> str:
    """The error type that names this failure."""
    match failure.kind:
        case FailureKind.TIMEOUT:
            return SANDBOX_TIMEOUT
        case FailureKind.EXIT:
            return EXIT_ERROR if failure.agent == "runtime" else EXTENSION_CRASH
        case FailureKind.START:
            return INVALID_ENTRYPOINT if failure.agent == "runtime" else "Extension.LaunchError"
        case FailureKind.OVERSIZE:
            return RESPONSE_TOO_LARGE
        case FailureKind.INIT_ERROR | FailureKind.MALFORMED:
            return failure.error_type or UNKNOWN_ERROR
    return "Sandbox.Failure"


def state_code(failure: Failure | None) -> str:
    """Why a version could not be made ready, as its state tells it (9.7)."""
    if failure is None or failure.agent not in ("", "runtime"):
        return "FunctionError.ExtensionInitError" if failure is not None else "FunctionError"
    if failure.kind is FailureKind.TIMEOUT:
        return "FunctionError.InitTimeout"
    if failure.kind is FailureKind.START:
        return "FunctionError.InvalidEntryPoint"
    return "FunctionError.RuntimeInitError"


def extension_state(state: str, failure: Failure | None) -> str:
    """The state of an extension in the contract's words (3.4); `failure` is its own, if it has one."""
    if failure is not None and failure.kind is FailureKind.START:
        return "LaunchError"
    if failure is not None and failure.kind is FailureKind.INIT_ERROR:
        return failure.error_type.rpartition(".")[2]
    return state.capitalize()


def exit_text(failure: Failure) -> str:
    """Why a runtime process ended, in the daemon's words."""
    reason = _exit_reason(failure)
    return f"Runtime exited with error: {reason}" if reason else "Runtime exited without providing a reason"


def _exit_reason(failure: Failure) -> str:
    """How a process ended; empty if it ended well."""
    if failure.signal is not None:
        return f"signal: {_SIGNAL_TEXTS.get(failure.signal, f'signal {failure.signal}')}"
    return f"exit status {failure.code}" if failure.code else ""


def error_text(failure: Failure) -> str:
    """One line that says what went wrong, without the request id."""
    match failure.kind:
        case FailureKind.TIMEOUT:
            return f"Task timed out after {failure.limit:.2f} seconds"
        case FailureKind.EXIT if failure.agent == "runtime":
            return exit_text(failure)
        case FailureKind.EXIT:
            return _exit_reason(failure) or f"exit code {failure.code}"
        case FailureKind.START if failure.agent != "runtime":
            return f"The extension could not be started: {failure.detail}"
        case FailureKind.INIT_ERROR if failure.agent != "runtime":
            return f"{failure.agent.removeprefix(EXTENSIONS)} reported an error"
        case FailureKind.START:
            return _start_text(failure.detail)
        case FailureKind.STOPPED:
            return "The execution environment was stopped"
    return failure.detail or "The runtime reported an error"


def _start_text(detail: str) -> str:
    """Which program did not start and why; `detail` is the sandbox's `reason: path`."""
    reason, _, path = detail.rpartition(": ")
    if not detail or path.endswith(NO_BOOTSTRAP.rpartition("/")[2]):
        return f"Couldn't find valid bootstrap(s): [{' '.join(BOOTSTRAPS)}]"
    return f"fork/exec {path}: {reason[:1].lower()}{reason[1:]}" if path.startswith("/") else detail


def payload(failure: Failure, request_id: str) -> bytes:
    """The body a caller gets for this failure; what the runtime itself posted is passed on as it is."""
    return posted(failure) or told(error_type(failure), error_text(failure), request_id)


def posted(failure: Failure) -> bytes:
    """The body for a failure that the runtime told itself or that its answer's size was; empty for all others."""
    body = failure.payload if failure.kind is FailureKind.INIT_ERROR and failure.agent == "runtime" else b""
    if body and len(body) <= limits.RESPONSE_MAX:
        return body
    if body or failure.kind is FailureKind.OVERSIZE:
        limit = int(failure.limit) if failure.kind is FailureKind.OVERSIZE and failure.limit else limits.RESPONSE_MAX
        message = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
        return _encode({"errorMessage": message, "errorType": RESPONSE_TOO_LARGE})
    return b""


def told(kind: str, text: str, request_id: str) -> bytes:
    """The body for a failure that the platform tells."""
    return _encode({"errorType": kind, "errorMessage": f"RequestId: {request_id} Error: {text}"})


def old_timeout_payload(request_id: str, stamp: str, limit: float) -> bytes:
    """The body of a time-out before the new style."""
    return _encode({"errorMessage": f"{stamp} {request_id} Task timed out after {limit:.2f} seconds"})


def _encode(body: dict[str, str]) -> bytes:
    return msgspec.json.encode(body)

"""How a failure looks to the caller of a service and in its log (contract 1.3, 5): one table of statuses, one wording.

The first line is the vendor's where it has one; what to do follows, then what the server itself wrote last.
"""

import signal as signals
from http import HTTPStatus

import msgspec

from torpor.contracts.web import diagnosis, limits
from torpor.contracts.web.environment import port, start_command
from torpor.model.errors import CallerError, NoMemory, NotFound, ShuttingDown, Throttled, TooLarge, TorporError
from torpor.model.failure import Failure, FailureKind
from torpor.model.function import FunctionVersion

TYPE = "text/plain; charset=utf-8"
OVERSIZE = "Response is bigger than the maximum allowed size"
LOOK_AT_BUILD = (
    "If a program or module is missing there, look at the build command: it must install every dependency "
    "(`torpor deploy --web --build ...`)."
)
_MORE_MEMORY = (
    "`torpor ps` shows what runs: delete what is not needed, make services smaller (--memory), or give the server more "
    "(`torpor serve --memory-budget-mb`)."
)
_CODES: dict[str, HTTPStatus] = {
    "StartFailed": HTTPStatus.BAD_GATEWAY,
    "PortNotListening": HTTPStatus.BAD_GATEWAY,
    "RequestTimeout": HTTPStatus.GATEWAY_TIMEOUT,
    "ResponseTooLarge": HTTPStatus.BAD_GATEWAY,
    "ServerDied": HTTPStatus.BAD_GATEWAY,
    "NoAnswer": HTTPStatus.BAD_GATEWAY,
    "BadAnswer": HTTPStatus.BAD_GATEWAY,
    "Stopped": HTTPStatus.SERVICE_UNAVAILABLE,
    "UpgradeRefused": HTTPStatus.UPGRADE_REQUIRED,
    "QueueFull": HTTPStatus.TOO_MANY_REQUESTS,
    "Stopping": HTTPStatus.SERVICE_UNAVAILABLE,
    "RequestTooLarge": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "NoSuchService": HTTPStatus.NOT_FOUND,
    "Refused": HTTPStatus.BAD_REQUEST,
    "PlatformFailed": HTTPStatus.INTERNAL_SERVER_ERROR,
}


class ServiceError(msgspec.Struct, frozen=True, kw_only=True):
    """One error in words. `code` names it for programs, `text` is its first line."""

    code: str
    text: str
    hint: str = ""
    output: str = ""
    """The last lines of the server, if they tell more."""

    @property
    def body(self) -> bytes:
        """What the caller reads."""
        told = [self.text, self.hint, f"Last output of the service:\n{self.output}" if self.output else ""]
        return "\n".join(part for part in told if part).encode() + b"\n"

    @property
    def line(self) -> str:
        """One line for the log, where the server's own output stands already."""
        return f"{self.text}{f'. {self.hint}' if self.hint else ''}\n"


def status_of(code: str) -> int:
    """The HTTP status of an error; 500 for codes that are not the contract's."""
    return _CODES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)


def error_of(version: FunctionVersion, failure: Failure) -> ServiceError:
    """Whatever failed: the start of a server, or a request in one that had become ready."""
    return start_error(version, failure) if failure.starting else request_error(version, failure)


def start_error(version: FunctionVersion, failure: Failure) -> ServiceError:
    """A server that did not become ready."""
    not_listening = f"Port Some({port(version)}) is not being listened to by the service"
    shown = _last_lines(failure)
    found = diagnosis.hint(shown) if not version.persistent else ""
    if failure.kind is FailureKind.TIMEOUT:
        told = f"Within {failure.limit:g} s nothing answered there; let the server listen on 0.0.0.0:$PORT, or deploy "
        told += "with --port set to the port that it uses."
        return ServiceError(code="PortNotListening", text=not_listening, hint=_and(told, found), output=shown)
    if failure.kind is FailureKind.SANDBOX:
        return _platform(failure)
    ended = f"The start command {_quoted(start_command(version))} {_how(failure, version)} before the port answered."
    return ServiceError(code="StartFailed", text=not_listening, hint=_and(ended, found or LOOK_AT_BUILD), output=shown)


def request_error(version: FunctionVersion, failure: Failure) -> ServiceError:
    """A request that failed in a server that had become ready."""
    match failure.kind:
        case FailureKind.TIMEOUT:
            return ServiceError(
                code="RequestTimeout",
                text=f"The request was ended after {failure.limit:g} s, the longest that one may take here",
                hint="Longer work belongs to a persistent service (`torpor deploy --web --persistent`).",
            )
        case FailureKind.OVERSIZE:
            hint = f"{limits.RESPONSE_MAX} bytes are allowed: put the data into object storage and answer with its URL."
            return ServiceError(code="ResponseTooLarge", text=OVERSIZE, hint=hint)
        case FailureKind.EXIT | FailureKind.HEALTH:
            text = f"The service {_how(failure, version)} while it worked on the request"
            return ServiceError(code="ServerDied", text=text, hint=_log_hint(version), output=_last_lines(failure))
        case FailureKind.NO_ANSWER | FailureKind.CANCELLED:
            text = "The service closed the connection without an answer"
            return ServiceError(code="NoAnswer", text=text, hint=_log_hint(version))
        case FailureKind.MALFORMED:
            text = f"The service's answer is not HTTP/1.1{f': {failure.detail}' if failure.detail else ''}"
            return ServiceError(code="BadAnswer", text=text)
        case FailureKind.STOPPED:
            return ServiceError(code="Stopped", text="The service was stopped while it worked on the request")
        case FailureKind.START | FailureKind.INIT_ERROR:
            return start_error(version, failure)
    return _platform(failure)


def upgrade_refused(name: str) -> ServiceError:
    """A caller asked a serverless service for a connection that stays open."""
    return ServiceError(
        code="UpgradeRefused",
        text="WebSocket is not served by a serverless service: its requests are short and have one answer each",
        hint=f"Deploy {name} as a persistent service: torpor deploy --web --persistent --name {name} PATH",
    )


def refusal(error: TorporError) -> ServiceError:
    """A request that reached no server."""
    match error:
        case NoMemory():
            return ServiceError(code="QueueFull", text=str(error).rstrip("."), hint=_MORE_MEMORY)
        case Throttled():
            text = f"Every instance of the service is busy and the request waited {limits.QUEUE_LIMIT:g} s in vain"
            return ServiceError(code="QueueFull", text=text, hint="Try again later, or allow more with --concurrency.")
        case ShuttingDown():
            return ServiceError(code="Stopping", text=str(error))
        case NotFound():
            return ServiceError(code="NoSuchService", text=str(error))
        case TooLarge():
            return ServiceError(code="RequestTooLarge", text=str(error))
        case CallerError():
            return ServiceError(code="Refused", text=str(error))
    return ServiceError(code="PlatformFailed", text=str(error))


def no_such_service(name: str) -> ServiceError:
    """A request names a service that there is not."""
    text = f"There is no service {name} here"
    return ServiceError(code="NoSuchService", text=text, hint="`torpor list` shows those there are.")


def extra_fields(error: ServiceError) -> tuple[tuple[str, str], ...]:
    """Header fields that belong to the error."""
    if error.code == "QueueFull":
        return (("Retry-After", "1"),)
    return (("Upgrade", "HTTP/1.1"),) if error.code == "UpgradeRefused" else ()


def request_too_large() -> ServiceError:
    """The body of a request is over the limit."""
    text = f"The request's body has more than {limits.REQUEST_MAX} bytes"
    return ServiceError(code="RequestTooLarge", text=text, hint="Put the data into object storage and send its URL.")


def _platform(failure: Failure) -> ServiceError:
    return ServiceError(code="PlatformFailed", text=failure.detail or "The platform could not run the service")


def _how(failure: Failure, version: FunctionVersion) -> str:
    """What became of the server."""
    if failure.out_of_memory:
        return f"was ended for using more than its {version.memory_mb} MB of memory"
    if failure.signal is not None:
        return f"was ended by signal {_signal_name(failure.signal)}"
    if failure.code is not None:
        return f"ended with exit status {failure.code}"
    return f"could not be started{f' ({failure.detail})' if failure.detail else ''}"


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return str(number)


def _last_lines(failure: Failure) -> str:
    """What the server wrote last, bounded in lines and length."""
    text = "".join(line for _, line in failure.output[-limits.OUTPUT_LINES :])
    return text[-limits.OUTPUT_LENGTH :].rstrip()


def _quoted(command: str) -> str:
    return f"`{command}`" if command else ""


def _log_hint(version: FunctionVersion) -> str:
    return f"`torpor logs {version.function.rpartition('/')[2]}` shows what it wrote."


def _and(*sentences: str) -> str:
    return " ".join(sentence for sentence in sentences if sentence)

"""InvokeFunction: from the request to an invocation, and from its outcome to the answer (3.1)."""

import base64
import re
from enum import StrEnum

import msgspec

from torpor.contracts.function_compute import failures, limits, runtimes
from torpor.contracts.function_compute.api_failures import REQUEST_ID, body, invalid, too_large
from torpor.contracts.function_compute.names import LATEST, Generation, instance_id
from torpor.contracts.http import JSON, ApiResponse, RequestHeaders
from torpor.model.function import LATEST as NEWEST
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome, OutcomeStatus

EXPOSED = (
    "Date,x-fc-request-id,x-fc-error-type,x-fc-code-checksum,x-fc-invocation-duration,x-fc-max-memory-usage,"
    "x-fc-log-result,x-fc-invocation-code-version"
)
EXPOSED_HTTP = "Date,x-fc-request-id"
_TASK_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
EVENT_TYPE = "application/octet-stream"
"""The content type of events."""
_TASK_ENABLE = "x-fc-stateful-async-invocation-enable"
_TASK_HEADERS = ("x-fc-async-task-id", "x-fc-stateful-async-invocation-id")


class Mode(StrEnum):
    """Whether the caller waits for the result."""

    SYNC = "Sync"
    ASYNC = "Async"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """What a call's control headers ask for."""

    mode: Mode = Mode.SYNC
    wants_log: bool = False
    task_id: str = ""
    is_task: bool = False
    """Its history is kept and shown, whatever is set for the function."""
    delay: float = 0.0
    """Seconds to wait before it is queued."""


def read_control(headers: RequestHeaders) -> Control:
    """Raises ApiFailure for a value that there is not."""
    kind = headers.get("x-fc-invocation-type") or Mode.SYNC
    log = headers.get("x-fc-log-type") or "None"
    if kind not in tuple(Mode):
        raise invalid(f"invocation type '{kind}' is not supported; use Sync or Async")
    if log not in ("None", "Tail"):
        raise invalid(f"log type '{log}' is not supported; use Tail or None")
    return Control(
        mode=Mode(kind),
        wants_log=log == "Tail",
        task_id=_task_id(headers),
        is_task=headers.get(_TASK_ENABLE).lower() == "true",
        delay=_delay(headers.get("x-fc-async-delay")),
    )


def check_payload(size: int, mode: Mode) -> None:
    """Refuse an event that is too large, by its bytes. Raises ApiFailure."""
    limit = limits.SYNC_PAYLOAD_MAX if mode is Mode.SYNC else limits.ASYNC_PAYLOAD_MAX
    if size > limit:
        raise too_large(limit)


def _task_id(headers: RequestHeaders) -> str:
    given = next((value for name in _TASK_HEADERS if (value := headers.get(name))), "")
    if given and (len(given) > limits.TASK_ID_MAX or _TASK_ID.fullmatch(given) is None):
        raise invalid(f"task id '{given}' is not valid: a letter or '_', then letters, digits, '_' or '-'")
    return given


def _delay(text: str) -> float:
    if not text:
        return 0.0
    try:
        delay = float(text)
    except ValueError:
        delay = -1.0
    if not 0 < delay < limits.DELAY_MAX:
        raise invalid(f"x-fc-async-delay '{text}' has to lie between 0 and {limits.DELAY_MAX} seconds")
    return delay


def event_invocation(
    version: FunctionVersion, payload: bytes, request_id: str, qualifier: str, control: Control
) -> Invocation:
    """The unit of work of one call."""
    return Invocation(
        id=request_id,
        payload=payload,
        resource=version.resource,
        content_type=EVENT_TYPE,
        qualifier=qualifier,
        wants_log=control.wants_log,
        wants_memory=True,
    )


def accepted(request_id: str) -> ApiResponse:
    """The answer to an asynchronous call."""
    return ApiResponse(status=202, headers=((REQUEST_ID, request_id),))


def render_outcome(
    outcome: Outcome,
    version: FunctionVersion,
    request_id: str,
    control: Control,
    generation: Generation,
    checksum: str = "",
) -> ApiResponse:
    """The answer to a synchronous call: the result, or what became of it."""
    status, payload = 200, outcome.payload
    headers = [(REQUEST_ID, request_id)]
    failed = _failed_status(outcome)
    if failed is not None:
        status, payload = failed
        payload = payload or body(failures.PLATFORM, "an internal error has occurred. Please retry.", request_id)
        headers.append(("Content-Type", JSON))
    else:
        headers.append(("Content-Type", "application/octet-stream" if not outcome.error_type else JSON))
    if outcome.error_type and failed is None:
        headers.append(("X-Fc-Error-Type", outcome.error_type))
    if control.wants_log and version.concurrency == 1:
        headers.append(("X-Fc-Log-Result", base64.b64encode(log_result(outcome, version, request_id)).decode()))
    if generation.has_services:
        headers += _classic_headers(outcome, version, checksum)
    elif outcome.environment:
        headers.append(("X-Fc-Instance-Id", instance_id(outcome.environment, classic=False)))
    return ApiResponse(status=status, headers=tuple(headers), body=payload)


def _failed_status(outcome: Outcome) -> tuple[int, bytes] | None:
    """Status and body of a call that was never run to an end; None if the function has answered, however."""
    status = failures.status_of(outcome.error_type)
    if status is not None:
        return status, outcome.payload
    if outcome.status is OutcomeStatus.FAILURE:
        return 500, b"" if not outcome.error_type else outcome.payload
    return None


def _classic_headers(outcome: Outcome, version: FunctionVersion, checksum: str) -> list[tuple[str, str]]:
    shown = LATEST if version.version == NEWEST else version.version
    headers = [
        ("X-Fc-Invocation-Duration", str(round(outcome.duration * 1000))),
        ("X-Fc-Invocation-Service-Version", shown),
        ("X-Fc-Max-Memory-Usage", f"{outcome.memory_mb:.2f}"),
        ("Access-Control-Expose-Headers", EXPOSED),
    ]
    if checksum:
        headers.append(("X-Fc-Code-Checksum", checksum))
    if outcome.environment:
        headers.append(("X-Fc-Instance-Id", instance_id(outcome.environment, classic=True)))
    return headers


def log_result(outcome: Outcome, version: FunctionVersion, request_id: str) -> bytes:
    """The end of the invocation's log and what it cost, at most as long as the contract's tail."""
    milliseconds = outcome.duration * 1000
    cost = (
        f"\nDuration: {milliseconds:.2f} ms, Billed Duration: {max(1, -int(-milliseconds // 1))} ms, "
        f"Memory Size: {version.memory_mb} MB, Max Memory Used: {outcome.memory_mb:.2f} MB"
    ).encode()
    lines = _between_marks(outcome.log_tail, request_id) if runtimes.is_custom(version.runtime) else outcome.log_tail
    if lines and not lines.endswith(b"\n"):
        lines += b"\n"
    return cut(lines, limits.LOG_TAIL - len(cost)) + cost


def _between_marks(lines: bytes, request_id: str) -> bytes:
    """What stands between the marks that a server prints itself; everything if it prints none."""
    marked = re.escape(request_id.encode())
    start = re.search(rb"^[^\n]*FC Invoke Start RequestId: " + marked, lines, re.IGNORECASE | re.MULTILINE)
    end = re.search(rb"FC Invoke End RequestId: " + marked + rb"[^\n]*(\n|\Z)", lines, re.IGNORECASE)
    return lines[start.start() if start else 0 : end.end() if end else len(lines)]


def cut(lines: bytes, limit: int = limits.LOG_TAIL) -> bytes:
    """The last bytes, without half a character at their beginning."""
    return lines[-limit:].decode(errors="ignore").encode()

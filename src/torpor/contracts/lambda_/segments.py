"""The two trace segments of a recorded invocation, as documents (docs/reference/trace-segments.md).

The service's segment covers the invocation as its caller saw it; the function's, below it, what the environment did,
with a part for each step. A failure marks all that it touches with `fault` and is told once, as the function segment's
`cause`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from torpor.contracts.lambda_ import failures, limits
from torpor.contracts.lambda_.tracing import read_trace
from torpor.model.failure import Answer, Failure
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, OutcomeStatus
from torpor.model.records import InitEnded, InvocationEnded, InvocationStarted, Record, RuntimeDone

_CAUSE_ROOM = limits.XRAY_CAUSE_MAX - 4096
"""Bytes for the cause: the rest of its document must fit into the same datagram of 64 KiB."""
_FACTORS = (1.0, 0.8, 0.6, 0.4, 0.2)
_TEXT_MAX = 16 * 1024
"""Characters kept of a message that must be cropped."""
_EXCEPTIONS_MAX = 32
_FRAMES_MAX = 1000
"""What is looked at of a cause: a runtime may send a mebibyte of empty parts."""
_WORK_FOLDER = "/var/task"


class _Frame(msgspec.Struct, frozen=True):
    path: str = ""
    line: int = 0
    label: str = ""


class _Exception(msgspec.Struct, frozen=True):
    type: str = ""
    message: str = ""
    stack: list[_Frame] = []


class _Cause(msgspec.Struct, frozen=True):
    """What runtimes say of their error in a header (2.3)."""

    exceptions: list[_Exception]
    working_directory: str = _WORK_FOLDER
    paths: list[str] = []


class _ErrorBody(msgspec.Struct, frozen=True):
    errorType: str = ""
    errorMessage: str = ""


def segments(
    version: FunctionVersion, invocation: Invocation, steps: Sequence[tuple[Record, float]], new_id: Callable[[], str]
) -> list[dict[str, Any]]:
    """The documents of an invocation whose trace is recorded, the service's first.

    `steps` are the records since the environment was last through with an invocation, each with its wall-clock time in
    seconds since the epoch, up to the `InvocationEnded`; `new_id` makes segment ids of 16 hexadecimal digits."""
    ended, end = steps[-1]
    assert isinstance(ended, InvocationEnded), "segments are made when the invocation is over"
    before, own = read_trace(invocation.upstream_trace), read_trace(invocation.trace)
    inits = [(wall - record.duration, wall) for record, wall in steps if isinstance(record, InitEnded)]
    start = min([end - ended.duration, *(begin for begin, _ in inits)])
    service: dict[str, Any] = {
        "name": version.function,
        "id": new_id(),
        "trace_id": own.root,
        **({"parent_id": before.parent} if before.parent else {}),
        "start_time": _time(start),
        "end_time": _time(end),
        "origin": "AWS::Lambda",
        "resource_arn": invocation.resource,
        "http": {"response": {"status": 500 if ended.status is OutcomeStatus.FAILURE else 200}},
        "aws": {"request_id": invocation.id},
    }
    function: dict[str, Any] = {
        "name": version.function,
        "id": own.parent,
        "trace_id": own.root,
        "parent_id": service["id"],
        "start_time": _time(start),
        "end_time": _time(end),
        "origin": "AWS::Lambda::Function",
        "aws": {
            "account_id": version.account,
            "function_arn": f"{version.resource}:{version.version}",
            "resource_names": [version.function],
        },
        "subsegments": _parts(ended, end, inits, steps, new_id),
    }
    if ended.failure is not None or ended.reported is not None:
        service["fault"] = function["fault"] = True
        function["cause"] = _cause(ended, new_id)
    return [service, function]


def _parts(
    ended: InvocationEnded,
    end: float,
    inits: Sequence[tuple[float, float]],
    steps: Sequence[tuple[Record, float]],
    new_id: Callable[[], str],
) -> list[dict[str, Any]]:
    done = next((wall for record, wall in steps if isinstance(record, RuntimeDone) and record.failure is None), end)
    started = next((wall for record, wall in steps if isinstance(record, InvocationStarted)), done)
    spans = [("Initialization", begin, stop) for begin, stop in inits]
    spans += [("Invocation", min(started, done), done), ("Overhead", done, end)]
    parts = [
        {"name": name, "id": new_id(), "start_time": _time(begin), "end_time": _time(stop)}
        for name, begin, stop in spans
    ]
    if ended.failure is not None or ended.reported is not None:
        next(part for part in parts if part["name"] == "Invocation")["fault"] = True
    return parts


def _cause(ended: InvocationEnded, new_id: Callable[[], str]) -> dict[str, Any]:
    if ended.failure is not None:
        return _render(_told(failures.error_type(ended.failure), _words(ended.failure, ended.id)), new_id)
    assert ended.reported is not None
    return _render(_posted(ended.reported), new_id)


def _words(failure: Failure, request_id: str) -> str:
    """What the caller is told."""
    return _error_body(failures.payload(failure, request_id)).errorMessage or failures.error_text(failure)


def _posted(answer: Answer) -> _Cause:
    """The runtime's own account of its error; of one that gives none or a malformed one, what the error's body says."""
    if answer.cause:
        try:
            return _bounded(msgspec.json.decode(answer.cause.encode("latin-1"), type=_Cause))
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    body = _error_body(answer.payload)
    return _told(body.errorType or answer.error_type, body.errorMessage)


def _bounded(cause: _Cause) -> _Cause:
    exceptions = [
        _Exception(type=item.type, message=item.message, stack=item.stack[:_FRAMES_MAX])
        for item in cause.exceptions[:_EXCEPTIONS_MAX]
    ]
    return _Cause(exceptions=exceptions, working_directory=cause.working_directory, paths=cause.paths[:_FRAMES_MAX])


def _error_body(payload: bytes) -> _ErrorBody:
    try:
        return msgspec.json.decode(payload, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _ErrorBody()


def _told(kind: str, message: str) -> _Cause:
    return _Cause(exceptions=[_Exception(type=kind, message=message)])


def _render(cause: _Cause, new_id: Callable[[], str]) -> dict[str, Any]:
    """As large as may be: stacks and paths are cropped, at last to nothing, until the document fits."""
    ids = [new_id() for _ in cause.exceptions]
    for factor in _FACTORS:
        body = _cropped(cause, ids, factor)
        if len(msgspec.json.encode(body)) <= _CAUSE_ROOM:
            return body
    return _cropped(cause, ids, 0.0)


def _cropped(cause: _Cause, ids: Sequence[str], factor: float) -> dict[str, Any]:
    def part(items: Sequence[Any]) -> Sequence[Any]:
        return items[: int(len(items) * factor)]

    def text(value: str) -> str:
        return value if factor == 1.0 else value[: int(_TEXT_MAX * factor) or 1024]

    exceptions = list(zip(ids, cause.exceptions, strict=True))
    return {
        "working_directory": text(cause.working_directory),
        "paths": part(cause.paths),
        "exceptions": [
            {"id": id, "type": text(item.type), "message": text(item.message), "stack": part(item.stack)}
            for id, item in (exceptions if factor else exceptions[:1])
        ],
    }


def _time(wall: float) -> float:
    return round(wall, 6)

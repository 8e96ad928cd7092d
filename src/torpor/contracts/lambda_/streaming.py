"""Streamed answers as their callers get them: a stream of events, the last of which says how it ended (9.9)."""

import base64

import msgspec

from torpor.contracts import event_stream
from torpor.contracts.lambda_ import limits
from torpor.model.function import LATEST
from torpor.model.invocation import Outcome, OutcomeStatus

SUFFIX = "/response-streaming-invocations"
"""What paths of InvokeWithResponseStream end with."""
FAILED = "Sandbox.Failure"
"""The error code of a stream that the platform itself broke off."""
_BYTES = "application/octet-stream"
_JSON = "application/json"


def head(version: str, request_id: str, trace: str) -> tuple[tuple[str, str], ...]:
    """The fields of the answer's head; `version` is the one that runs."""
    return (
        ("Content-Type", event_stream.CONTENT_TYPE),
        ("x-amzn-RequestId", request_id),
        ("X-Amz-Executed-Version", version or LATEST),
        ("X-Amzn-Trace-Id", trace),
    )


def chunk(data: bytes) -> bytes:
    """A piece of the response, as an event."""
    return event_stream.event("PayloadChunk", _BYTES, data)


def complete(outcome: Outcome, *, wants_log: bool) -> bytes:
    """The last event. An error is told by its type and, as details, by its JSON."""
    told: dict[str, str] = {}
    code = outcome.error_type or (FAILED if outcome.status is OutcomeStatus.FAILURE else "")
    if code:
        told |= {"ErrorCode": code, "ErrorDetails": outcome.payload.decode(errors="replace")}
    if wants_log:
        told["LogResult"] = base64.b64encode(outcome.log_tail[-limits.TAIL_LOG :]).decode()
    return event_stream.event("InvokeComplete", _JSON, msgspec.json.encode(told))

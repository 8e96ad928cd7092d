"""Invoke: from the request to an invocation, and from its outcome to the answer (9.8).

This is the way every invocation takes, so the usual request is recognised by a prefix and one pattern; only a request
with something unusual in it is checked against the whole API model, which then words the refusal.
"""

import base64
import binascii
import json
import re

import msgspec

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import ApiFailure, not_restored
from torpor.contracts.lambda_.invoke_request import InvokeRequest
from torpor.contracts.lambda_.names import FunctionName, Place, function_name
from torpor.contracts.lambda_.operations import api_model
from torpor.contracts.lambda_.reading import read_input
from torpor.contracts.lambda_.validation import check
from torpor.contracts.lambda_.wire import JSON, ApiRequest, ApiResponse, RequestHeaders
from torpor.model.errors import PlatformError
from torpor.model.function import LATEST
from torpor.model.invocation import AnswerSink, Invocation, Outcome, OutcomeStatus

_PREFIX = "/2015-03-31/functions/"
_USUAL = re.compile(r"/2015-03-31/functions/([a-zA-Z0-9_-]{1,64})/invocations")
_USUAL_QUALIFIER = re.compile(r"(?:Qualifier=([a-zA-Z0-9_-]{1,128}))?")
_TYPES = frozenset(("RequestResponse", "Event", "DryRun"))
_LOG_TYPES = frozenset(("None", "Tail"))
_UTF8_REASONS = {"invalid start byte": "start", "invalid continuation byte": "middle"}
_read_any = msgspec.json.Decoder(msgspec.Raw).decode
_NOT_JSON = "Could not parse request body into json: Could not parse payload into json:"


def parse_invoke(
    method: str, path: str, query: str, headers: RequestHeaders, body: bytes, place: Place
) -> InvokeRequest | None:
    """The call as an InvokeRequest; None if the request is none of Invoke. Raises ApiFailure for one out of order."""
    if method != "POST" or not path.startswith(_PREFIX):
        return None
    field = headers.get
    kind = field("x-amz-invocation-type") or "RequestResponse"
    log = field("x-amz-log-type") or "None"
    tenant = field("x-amz-tenant-id")
    usual, qualified = _USUAL.fullmatch(path), _USUAL_QUALIFIER.fullmatch(query)
    if usual is None or qualified is None or tenant or kind not in _TYPES or log not in _LOG_TYPES:
        function = _checked("Invoke", method, path, query, headers, place)
        if function is None:
            return None
    else:
        function = FunctionName(name=usual[1], qualifier=qualified[1] or "")
    check_payload(body)
    context = field("x-amz-client-context")
    return InvokeRequest(
        function=function,
        kind=kind,
        payload=body or b"{}",
        wants_log=log == "Tail",
        client_context=decode_client_context(context) if context else "",
        trace=field("x-amzn-trace-id"),
        tenant=tenant,
    )


def parse_streaming_invoke(
    method: str, path: str, query: str, headers: RequestHeaders, body: bytes, place: Place
) -> InvokeRequest | None:
    """As `parse_invoke`, of InvokeWithResponseStream (9.9)."""
    function = _checked("InvokeWithResponseStream", method, path, query, headers, place)
    if function is None:
        return None
    check_payload(body)
    field = headers.get
    context = field("x-amz-client-context")
    return InvokeRequest(
        function=function,
        kind=field("x-amz-invocation-type") or "RequestResponse",
        payload=body or b"{}",
        wants_log=field("x-amz-log-type") == "Tail",
        client_context=decode_client_context(context) if context else "",
        trace=field("x-amzn-trace-id"),
        tenant=field("x-amz-tenant-id"),
    )


def _checked(
    operation: str, method: str, path: str, query: str, headers: RequestHeaders, place: Place
) -> FunctionName | None:
    model = api_model()
    route = model.find(method, path, query)
    if route is None or route.operation.name != operation:
        return None
    request = ApiRequest(method=method, path=path, query=query, headers=headers, body=b"")
    values = read_input(model, route, request)
    check(route.operation.input_shape, values, model.shapes)
    return function_name(values["FunctionName"], values.get("Qualifier", ""), place)


def check_payload(body: bytes) -> None:
    """Refuse a payload that is too large, or no JSON text in UTF-8. Raises ApiFailure."""
    check_size(len(body), limits.REQUEST_MAX)
    if not body:
        return
    try:
        if not body.isascii():
            body.decode()
        _read_any(body)
    except UnicodeDecodeError as error:
        kind = _UTF8_REASONS.get(error.reason, "middle")
        reason = f"Invalid UTF-8 {kind} byte 0x{body[error.start]:02x}"
        raise ApiFailure("InvalidRequestContentException", f"{_NOT_JSON} {reason}") from error
    except RecursionError as error:
        raise ApiFailure("InvalidRequestContentException", f"{_NOT_JSON} {error}") from error
    except msgspec.DecodeError as error:
        _check_again(body, error)


def check_size(size: int, limit: int) -> None:
    """Refuse a payload that is too large, by its bytes. Raises ApiFailure."""
    if size > limit:
        message = f"Request must be smaller than {limit} bytes for the InvokeFunction operation"
        raise ApiFailure("RequestTooLargeException", message)


def _check_again(body: bytes, refused: Exception) -> None:
    # The fast reader refuses halves of surrogate pairs, which are JSON all the same.
    try:
        json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise ApiFailure("InvalidRequestContentException", f"{_NOT_JSON} {refused}") from refused


def _refuse_constant(name: str) -> float:
    raise ValueError(name)


def decode_client_context(text: str) -> str:
    """The client context as JSON text. Raises ApiFailure when it is too long or no Base64 of a JSON object."""
    if len(text) > limits.CLIENT_CONTEXT_MAX:
        message = f"Client context must be no longer than {limits.CLIENT_CONTEXT_MAX} bytes"
        raise ApiFailure("InvalidRequestContentException", message)
    try:
        decoded = base64.b64decode(text, validate=True).decode()
        if isinstance(json.loads(decoded), dict):
            return decoded
    except (binascii.Error, ValueError, RecursionError) as error:
        raise _bad_context() from error
    raise _bad_context()


def _bad_context() -> ApiFailure:
    return ApiFailure("InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.")


def invocation_of(
    request: InvokeRequest,
    request_id: str,
    resource: str,
    trace: str,
    upstream_trace: str = "",
    sink: AnswerSink | None = None,
    attempt: int = 0,
    is_kept: bool = False,
) -> Invocation:
    """The unit of work; `resource` is the function's unqualified ARN, `sink` takes a streamed answer."""
    qualifier = request.function.qualifier
    return Invocation(
        id=request_id,
        payload=request.payload,
        resource=f"{resource}:{qualifier}" if qualifier else resource,
        trace=trace,
        upstream_trace=upstream_trace,
        client_context=request.client_context,
        tenant=request.tenant,
        wants_log=request.wants_log,
        qualifier=qualifier,
        sink=sink,
        attempt=attempt,
        is_kept=is_kept,
    )


def render_outcome(outcome: Outcome, request_id: str, trace: str, *, wants_log: bool) -> ApiResponse:
    """The answer to a synchronous call. Raises PlatformError when the platform failed, not the function."""
    if outcome.failure is not None and outcome.failure.restoring:
        raise not_restored(outcome.failure)
    if outcome.status is OutcomeStatus.FAILURE and not outcome.error_type:
        raise PlatformError("The function could not be run because the platform failed. Send the request again.")
    headers = [
        ("Content-Type", outcome.content_type or JSON),
        ("x-amzn-RequestId", request_id),
        ("X-Amz-Executed-Version", outcome.version or LATEST),
        ("X-Amzn-Trace-Id", trace),
    ]
    if outcome.error_type:
        headers.append(("X-Amz-Function-Error", "Unhandled"))
    if wants_log:
        tail = outcome.log_tail[-limits.TAIL_LOG :]
        headers.append(("X-Amz-Log-Result", base64.b64encode(tail).decode()))
    return ApiResponse(status=200, headers=tuple(headers), body=outcome.payload)

"""What the API answers when a call fails: one table of codes, one mapping from errors (9.5).

A failure with a code of its own is raised as `ApiFailure`; every other error gets its code here from its class.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from torpor.contracts.api_failure import ApiFailure as ApiFailure
from torpor.contracts.lambda_ import failures
from torpor.contracts.lambda_.wire import JSON, ApiResponse
from torpor.model import errors
from torpor.model.failure import Failure, FailureKind


@dataclass(frozen=True, slots=True)
class Kind:
    """How a code goes over the wire: status, and the name of the body's message field."""

    status: int
    message_key: str = "message"


KINDS: Mapping[str, Kind] = {
    "AccessDeniedException": Kind(403),
    "CodeSigningConfigNotFoundException": Kind(404, "Message"),
    "CodeStorageExceededException": Kind(400),
    "CodeVerificationFailedException": Kind(400, "Message"),
    "IncompleteSignatureException": Kind(403),
    "InvalidParameterValueException": Kind(400),
    "InvalidRequestContentException": Kind(400),
    "InvalidRuntimeException": Kind(502, "Message"),
    "InvalidSignatureException": Kind(403),
    "MissingAuthenticationTokenException": Kind(403),
    "NoPublishedVersionException": Kind(400, "Message"),
    "NotImplementedException": Kind(501, "Message"),
    "PolicyLengthExceededException": Kind(400),
    "PreconditionFailedException": Kind(412),
    "ProvisionedConcurrencyConfigNotFoundException": Kind(404),
    "RecursiveInvocationException": Kind(400, "Message"),
    "RequestEntityTooLargeException": Kind(413),
    "RequestTooLargeException": Kind(413),
    "ResourceConflictException": Kind(409),
    "ResourceInUseException": Kind(400, "Message"),
    "ResourceNotFoundException": Kind(404, "Message"),
    "SerializationException": Kind(400),
    "ServiceException": Kind(500, "Message"),
    "SnapStartException": Kind(400, "Message"),
    "SnapStartNotReadyException": Kind(409, "Message"),
    "SnapStartTimeoutException": Kind(408, "Message"),
    "TooManyRequestsException": Kind(429),
    "UnknownOperationException": Kind(404, "Message"),
    "UnrecognizedClientException": Kind(403),
    "UnsupportedMediaTypeException": Kind(415),
    "ValidationException": Kind(400),
}
"""The codes Torpor answers with; those of the API model are checked against it by a test."""

DEFAULT_RETRY_AFTER = 1.0
UNEXPECTED = "An unexpected error occurred. The server's log has the details under this request id."
REVISION_MISMATCH = (
    "The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
)
BROKEN_PACKAGE = "Could not unzip uploaded file. Please check your file, then try to upload again."
_NOT_NOW = "The operation cannot be performed at this time."
UNRESERVED = (
    "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
    "below its minimum value of"
)

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (errors.NotFound, "ResourceNotFoundException"),
    (errors.Conflict, "ResourceConflictException"),
    (errors.PreconditionFailed, "PreconditionFailedException"),
    (errors.TooLarge, "RequestTooLargeException"),
    (errors.AccessDenied, "AccessDeniedException"),
    (errors.Throttled, "TooManyRequestsException"),
    (errors.NotBuilt, "NotImplementedException"),
    (errors.InvalidRequest, "InvalidParameterValueException"),
    (errors.CallerError, "InvalidParameterValueException"),
    (errors.FunctionError, "InvalidParameterValueException"),
    (errors.RuntimeMissing, "InvalidParameterValueException"),
    (errors.TorporError, "ServiceException"),
)


def invalid_parameter(message: str) -> ApiFailure:
    """A value the service refuses although the API model allows it."""
    return ApiFailure("InvalidParameterValueException", message)


def not_built(what: str) -> ApiFailure:
    """A part of the API that this version does not offer."""
    return ApiFailure("NotImplementedException", f"{what} is not available in this version of Torpor.")


def function_not_found(arn: str) -> ApiFailure:
    """No function of that name, or no such version of it."""
    return ApiFailure("ResourceNotFoundException", f"Function not found: {arn}")


def alias_not_found(arn: str) -> ApiFailure:
    """No alias of that name."""
    return ApiFailure("ResourceNotFoundException", f"Cannot find alias arn: {arn}")


def not_in_state(state: str) -> ApiFailure:
    """What is asked of a version has to wait until it is active; for ever, if it has failed."""
    return ApiFailure(
        "ResourceConflictException", f"{_NOT_NOW} The function is currently in the following state: {state}"
    )


def recursive(arn: str) -> ApiFailure:
    """The function has called itself in a circle too often."""
    message = f"The function {arn} was invoked recursively too often. To let it go on, set its recursive loop to Allow."
    return ApiFailure("RecursiveInvocationException", message)


def not_restored(failure: Failure) -> ApiFailure:
    """The environment could not go on from its version's snapshot."""
    if failure.kind is FailureKind.TIMEOUT:
        message = f"The runtime did not go on from its snapshot within {failure.limit:.0f} seconds."
        return ApiFailure("SnapStartTimeoutException", message)
    posted = failures.posted(failure).decode(errors="replace")
    return ApiFailure("SnapStartException", posted or failures.error_text(failure))


def no_snapshot_yet(arn: str) -> ApiFailure:
    """The version's snapshot is still being made."""
    return ApiFailure("SnapStartNotReadyException", f"The snapshot of {arn} is not ready yet; try again later.")


def update_in_progress(arn: str) -> ApiFailure:
    """Another change of the function has to end first."""
    return ApiFailure("ResourceConflictException", f"{_NOT_NOW} An update is in progress for resource: {arn}")


def told_of_function(error: errors.TorporError, arn: str) -> errors.TorporError:
    """An error of the function service in the cloud's own words; errors that have none stay as they are (9.6)."""
    match error:
        case ApiFailure():
            return error
        case errors.NotFound():
            return function_not_found(arn)
        case errors.PreconditionFailed():
            return ApiFailure("PreconditionFailedException", REVISION_MISMATCH)
        case errors.InvalidPackage():
            return invalid_parameter(BROKEN_PACKAGE)
        case errors.TooLarge(what="zipped" | "unpacked" as what, limit=limit):
            prefix = "Zipped" if what == "zipped" else "Unzipped"
            return invalid_parameter(f"{prefix} size must be smaller than {limit} bytes")
        case errors.InvalidRequest(what="unreserved", limit=limit):
            return invalid_parameter(f"{UNRESERVED} [{limit}].")
        case _:
            return error


def is_expected(error: Exception) -> bool:
    """Whether the error was raised on purpose, so that its message may be shown to the caller."""
    return isinstance(error, errors.TorporError)


def code_of(error: Exception) -> str:
    """The wire code of any error."""
    if isinstance(error, ApiFailure):
        return error.code
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return "ServiceException"


def render_failure(error: Exception, request_id: str) -> ApiResponse:
    """The answer to a failed call. Errors not raised on purpose are told without any detail."""
    code = code_of(error)
    kind = KINDS[code]
    body: dict[str, str] = {"Type": "User" if kind.status < 500 else "Service"}
    headers = [("Content-Type", JSON), ("x-amzn-RequestId", request_id), ("x-amzn-ErrorType", code)]
    if isinstance(error, errors.Throttled):
        body = {"Reason": error.reason, "Type": "User", "message": "Rate Exceeded."}
        headers.append(("Retry-After", _seconds(error.retry_after)))
    else:
        body[kind.message_key] = str(error) if is_expected(error) else UNEXPECTED
    if isinstance(error, errors.ShuttingDown):
        headers.append(("Retry-After", _seconds(None)))
    status = 503 if isinstance(error, errors.ShuttingDown) else kind.status
    return ApiResponse(status=status, headers=tuple(headers), body=json.dumps(body).encode())


def _seconds(retry_after: float | None) -> str:
    return str(max(1, round(DEFAULT_RETRY_AFTER if retry_after is None else retry_after)))

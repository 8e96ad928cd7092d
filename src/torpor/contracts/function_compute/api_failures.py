"""What the API answers when a call fails: one table of codes, one mapping from errors, both spellings (3.2)."""

import json
from collections.abc import Mapping

from torpor.contracts.http import JSON, ApiResponse
from torpor.model import errors

REQUEST_ID = "X-Fc-Request-Id"

STATUS: Mapping[str, int] = {
    "AccessDenied": 403,
    "AliasAlreadyExists": 409,
    "AliasNotFound": 404,
    "AsyncConfigNotExists": 404,
    "BadResponse": 502,
    "CAExited": 412,
    "CAFileNotFound": 412,
    "CAFilePermission": 412,
    "ClientClosedRequest": 499,
    "ConcurrencyConfigNotExist": 404,
    "ConcurrentUpdateError": 409,
    "DomainNameAlreadyExists": 409,
    "DomainNameNotFound": 404,
    "EntityTooLarge": 400,
    "FunctionAlreadyExists": 409,
    "FunctionNotEmpty": 400,
    "FunctionNotFound": 404,
    "FunctionNotStarted": 412,
    "InternalServerError": 500,
    "InvalidAccessKeyID": 403,
    "InvalidArgument": 400,
    "LayerNotFound": 404,
    "LayerVersionNotFound": 404,
    "LimitExceededError": 400,
    "MissingRequiredHeader": 400,
    "NotImplemented": 501,
    "OnDemandConfigNotFound": 404,
    "PathNotSupported": 400,
    "PreconditionFailed": 412,
    "ProvisionConfigNotFound": 404,
    "ResourceExhausted": 429,
    "ResourceThrottled": 503,
    "ScalingConfigNotFound": 404,
    "ServiceAlreadyExists": 409,
    "ServiceNotEmpty": 400,
    "ServiceNotFound": 404,
    "SignatureNotMatch": 403,
    "StatefulAsyncInvocationAlreadyExists": 409,
    "StatefulAsyncInvocationNotFound": 404,
    "TriggerAlreadyExists": 409,
    "TriggerNotFound": 404,
    "VersionNotFound": 404,
}
"""The codes Torpor answers with."""

UNEXPECTED = "an internal error has occurred. Please retry."
CHANGED = "the resource being modified has been changed"
BROKEN_PACKAGE = "the code package is not a valid zip file"
MISMATCH = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your access key and signing method"
)

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (errors.NotFound, "FunctionNotFound"),
    (errors.Conflict, "ConcurrentUpdateError"),
    (errors.PreconditionFailed, "PreconditionFailed"),
    (errors.TooLarge, "EntityTooLarge"),
    (errors.AccessDenied, "AccessDenied"),
    (errors.Throttled, "ResourceExhausted"),
    (errors.NotBuilt, "NotImplemented"),
    (errors.CallerError, "InvalidArgument"),
    (errors.FunctionError, "InvalidArgument"),
    (errors.RuntimeMissing, "InvalidArgument"),
    (errors.ShuttingDown, "ResourceThrottled"),
    (errors.TorporError, "InternalServerError"),
)


class ApiFailure(errors.CallerError):
    """The API answers this call with a code of its own; `code` is one of `STATUS`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def invalid(message: str) -> ApiFailure:
    """A value that the API refuses."""
    return ApiFailure("InvalidArgument", message)


def too_large(limit: int) -> ApiFailure:
    """A body or package of more bytes than `limit`."""
    return ApiFailure("EntityTooLarge", f"payload size exceeds maximum allowed size ({limit} bytes)")


def not_supported(method: str, path: str) -> ApiFailure:
    """The API has no such operation, or this version of Torpor does not offer it."""
    return ApiFailure("PathNotSupported", f"'{method}' against '{path}' is not supported")


def not_built(what: str) -> ApiFailure:
    """A part of the API that this version of Torpor does not offer."""
    return ApiFailure("NotImplemented", f"{what} is not available in this version of Torpor")


def function_not_found(function: str, service: str = "") -> ApiFailure:
    """The generations word it differently."""
    if service:
        return ApiFailure("FunctionNotFound", f"function '{function}' does not exist in service '{service}'")
    return ApiFailure("FunctionNotFound", f"function '{function}' does not exist.")


def is_expected(error: Exception) -> bool:
    """Whether the error was raised on purpose, so that its message may be shown to the caller."""
    return isinstance(error, errors.TorporError)


def code_of(error: Exception) -> str:
    """The wire code of any error."""
    if isinstance(error, ApiFailure):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), "InternalServerError")


def message_of(error: Exception) -> str:
    """What the caller may know of any error; errors not raised on purpose are told without detail."""
    if isinstance(error, errors.InvalidPackage):
        return f"{BROKEN_PACKAGE}: {error}"
    if isinstance(error, errors.PreconditionFailed):
        return CHANGED
    if isinstance(error, errors.TooLarge) and error.limit is not None:
        return f"payload size exceeds maximum allowed size ({error.limit} bytes)"
    return str(error) if isinstance(error, errors.TorporError) else UNEXPECTED


def body(code: str, message: str, request_id: str) -> bytes:
    """An error in both spellings, so that the clients of every generation read it."""
    spelled = {"RequestId": request_id, "Code": code, "Message": message, "ErrorCode": code, "ErrorMessage": message}
    return json.dumps(spelled, ensure_ascii=False).encode()


def render_failure(error: Exception, request_id: str) -> ApiResponse:
    """The answer to a failed call."""
    code = code_of(error)
    headers = [("Content-Type", JSON), (REQUEST_ID, request_id)]
    if isinstance(error, errors.Throttled | errors.ShuttingDown):
        wait = getattr(error, "retry_after", None)
        headers.append(("Retry-After", str(max(1, round(wait or 1.0)))))
    return ApiResponse(status=STATUS[code], headers=tuple(headers), body=body(code, message_of(error), request_id))

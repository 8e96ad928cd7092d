"""What the API answers when a call fails: `{"__type": code, "message": text}`."""

from collections.abc import Mapping

from torpor.contracts import json_api
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.http import ApiResponse
from torpor.contracts.json_api import CONTENT_TYPE as CONTENT_TYPE
from torpor.contracts.json_api import is_expected as is_expected
from torpor.model import errors

STATUSES: Mapping[str, int] = {
    "NotImplementedException": 501,
    "RequestEntityTooLargeException": 413,
    "InternalException": 500,
    "ServiceUnavailableException": 503,
}
"""Of the codes whose status is not 400."""
TOO_MANY = "The requested resource exceeds the maximum number allowed."

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (errors.NotFound, "ResourceNotFoundException"),
    (errors.Conflict, "ConcurrentModificationException"),
    (errors.AccessDenied, "AccessDeniedException"),
    (errors.NotBuilt, "NotImplementedException"),
    (errors.CallerError, "ValidationException"),
    (errors.TorporError, "ServiceUnavailableException"),
)


def invalid(message: str) -> ApiFailure:
    """A value that the service refuses."""
    return ApiFailure("ValidationException", message)


def invalid_schedule() -> ApiFailure:
    """An expression that is none, or never comes true; the service does not say what is wrong with it either."""
    return invalid("Parameter ScheduleExpression is not valid.")


def no_rule(name: str, bus: str) -> ApiFailure:
    """A rule that is not there."""
    return ApiFailure("ResourceNotFoundException", f"Rule {name} does not exist on EventBus {bus}.")


def no_bus(name: str) -> ApiFailure:
    """An event bus that is not there."""
    return ApiFailure("ResourceNotFoundException", f"Event bus {name} does not exist.")


def too_many() -> ApiFailure:
    """More rules or targets than there may be."""
    return ApiFailure("LimitExceededException", TOO_MANY)


def not_built(what: str, instead: str = "") -> ApiFailure:
    """A part of the API that this version does not offer; `instead` is a sentence on what it does offer."""
    message = f"{what} is not available in this version of Torpor."
    return ApiFailure("NotImplementedException", f"{message} {instead}".rstrip())


def code_of(error: Exception) -> str:
    """The wire code of any error."""
    if isinstance(error, ApiFailure):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), "InternalException")


def render_failure(error: Exception, request_id: str) -> ApiResponse:
    """The answer to a failed call. Errors not raised on purpose are told without any detail."""
    code = code_of(error)
    return json_api.failure(error, code, STATUSES.get(code, 400), request_id)

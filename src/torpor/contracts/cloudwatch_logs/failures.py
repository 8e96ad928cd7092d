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
    "InternalFailure": 500,
    "ServiceUnavailableException": 503,
}
"""Of the codes whose status is not 400."""

_CODES: tuple[tuple[type[Exception], str], ...] = (
    (errors.NotFound, "ResourceNotFoundException"),
    (errors.Conflict, "ResourceAlreadyExistsException"),
    (errors.TooLarge, "LimitExceededException"),
    (errors.AccessDenied, "AccessDeniedException"),
    (errors.NotBuilt, "NotImplementedException"),
    (errors.CallerError, "InvalidParameterException"),
    (errors.TorporError, "ServiceUnavailableException"),
)


def invalid_parameter(message: str) -> ApiFailure:
    """A value that the service refuses."""
    return ApiFailure("InvalidParameterException", message)


def not_built(what: str) -> ApiFailure:
    """A part of the API that this version does not offer."""
    return ApiFailure("NotImplementedException", f"{what} is not available in this version of Torpor.")


def code_of(error: Exception) -> str:
    """The wire code of any error."""
    if isinstance(error, ApiFailure):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), "InternalFailure")


def render_failure(error: Exception, request_id: str) -> ApiResponse:
    """The answer to a failed call. Errors not raised on purpose are told without any detail."""
    code = code_of(error)
    return json_api.failure(error, code, STATUSES.get(code, 400), request_id)

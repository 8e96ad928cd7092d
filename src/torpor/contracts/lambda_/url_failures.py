"""What callers of function URLs are told when there is no answer of the function's (9.10).

One mapping: failures of the function are told without any detail, the rest in the words of the API.
"""

import json

from torpor.contracts.http import JSON, ApiResponse
from torpor.contracts.lambda_.failures_api import render_failure
from torpor.model import errors

_TROUBLESHOOTING = "https://docs.aws.amazon.com/lambda/latest/dg/urls-auth.html"
_FORBIDDEN = f"Forbidden. For troubleshooting Function URL authorization issues, see: {_TROUBLESHOOTING}"


class UnknownUrl(errors.CallerError):
    """There is no URL of this id."""


class Forbidden(errors.AccessDenied):
    """The caller may not use the URL, or what it leads to is gone."""


class FunctionFailed(errors.FunctionError):
    """The function has failed, or what it answered is no answer."""


def render_url_failure(error: Exception, request_id: str) -> ApiResponse:
    """The answer to a request that fails with this error."""
    if isinstance(error, UnknownUrl):
        return _denied(None, request_id)
    if isinstance(error, Forbidden):
        return _denied(_FORBIDDEN, request_id)
    if isinstance(error, errors.FunctionError):
        headers = (("Content-Type", "text/plain"), ("x-amzn-RequestId", request_id))
        return ApiResponse(status=502, headers=headers, body=b"Internal Server Error")
    return render_failure(error, request_id)


def _denied(message: str | None, request_id: str) -> ApiResponse:
    headers = (
        ("Content-Type", JSON),
        ("x-amzn-RequestId", request_id),
        ("x-amzn-ErrorType", "AccessDeniedException"),
    )
    return ApiResponse(status=403, headers=headers, body=json.dumps({"Message": message}).encode())

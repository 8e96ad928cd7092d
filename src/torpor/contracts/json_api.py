"""What the clouds' JSON 1.1 APIs have in common: the operation stands in a header, failures are `{"__type": code,
"message": text}`."""

import json
from collections.abc import Container

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.http import ApiRequest, ApiResponse
from torpor.model.errors import TorporError

CONTENT_TYPE = "application/x-amz-json-1.1"
TARGET = "x-amz-target"
UNEXPECTED = "An unexpected error occurred. The server's log has the details under this request id."


def operation_of(request: ApiRequest, prefix: str, operations: Container[str]) -> str:
    """The name of the operation; targets of the API begin with `prefix`. Raises ApiFailure if it has none of that
    name."""
    target = request.headers.get(TARGET, "")
    name = target.removeprefix(prefix)
    if name == target or name not in operations:
        raise ApiFailure("UnknownOperationException", f"There is no operation {target or 'without X-Amz-Target'}.")
    return name


def is_expected(error: Exception) -> bool:
    """Whether the error was raised on purpose, so that its message may be shown to the caller."""
    return isinstance(error, TorporError)


def failure(error: Exception, code: str, status: int, request_id: str) -> ApiResponse:
    """The answer to a failed call. Errors not raised on purpose are told without any detail."""
    body = {"__type": code, "message": str(error) if is_expected(error) else UNEXPECTED}
    headers = (("Content-Type", CONTENT_TYPE), ("x-amzn-RequestId", request_id), ("x-amzn-ErrorType", code))
    return ApiResponse(status=status, headers=headers, body=json.dumps(body).encode())

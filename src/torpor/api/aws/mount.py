"""The thin shell between the HTTP server and the face."""

import json
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

from torpor.api.aws.face import AwsFace
from torpor.api.exchanges import request_of
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.streaming import SUFFIX as STREAMING
from torpor.contracts.lambda_.wire import JSON, ApiResponse
from torpor.transport import Application, Exchange

_SLACK = 1024 * 1024
_CODES = {403: "AccessDeniedException", 413: "RequestTooLargeException", 503: "ServiceException"}


def mount(face: AwsFace) -> Application:
    """An application that answers every request through the face."""

    def application(exchange: Exchange) -> None:
        request = request_of(exchange)
        face.answer(request, partial(_reply, exchange), exchange)

    return application


def _reply(exchange: Exchange, response: ApiResponse) -> None:
    exchange.reply(response.status, response.headers, response.body)


def body_limit(_method: str, path: str) -> int:
    """The largest body the server reads for a path, in bytes: enough for the API to word its own refusal."""
    if path.endswith(("/invocations", STREAMING)):
        return 2 * limits.REQUEST_MAX
    if path.rstrip("/").endswith(("/functions", "/code")) or "/layers/" in path:
        return limits.CREATE_REQUEST_MAX + _SLACK
    return _SLACK


def error_face(status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
    """The API's form for requests that the server refuses before the API sees them."""
    code = _CODES.get(status, "InvalidRequestContentException" if status < 500 else "ServiceException")
    headers = (("Content-Type", JSON), ("x-amzn-RequestId", str(uuid4())), ("x-amzn-ErrorType", code))
    body = {"Type": "User" if status < 500 else "Service", "message" if status < 500 else "Message": reason}
    return headers, json.dumps(body).encode()

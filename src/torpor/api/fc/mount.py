"""The thin shell between the HTTP server and the face."""

from collections.abc import Callable, Sequence
from uuid import uuid4

from torpor.api.exchanges import request_of
from torpor.api.fc.face import FcFace
from torpor.contracts.function_compute import limits
from torpor.contracts.function_compute.api_failures import REQUEST_ID, body
from torpor.contracts.http import JSON
from torpor.transport import Application, Exchange

_SLACK = 1024 * 1024
_CODES = {403: "AccessDenied", 413: "EntityTooLarge", 503: "ResourceThrottled"}


def mount(face: FcFace) -> Application:
    """An application that answers every request through the face."""

    def application(exchange: Exchange) -> None:
        request = request_of(exchange)

        def watch(gone: Callable[[], None]) -> None:
            if not exchange.closed:
                exchange.on_disconnect = gone

        face.answer(request, exchange, exchange.peer, watch)

    return application


def body_limit(_method: str, path: str) -> int:
    """The largest body the server reads for a path, in bytes: enough for the API to word its own refusal."""
    last = path.rstrip("/").rpartition("/")[2]
    if last == "invocations" or "/proxy/" in path:
        return limits.SYNC_PAYLOAD_MAX + _SLACK
    if "/functions" in path or "/layers/" in path:
        return limits.CODE_REQUEST_MAX + limits.CODE_REQUEST_MAX // 2
    return limits.SYNC_PAYLOAD_MAX + _SLACK if not path.startswith("/20") else _SLACK


def error_face(status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
    """The API's form for requests that the server refuses before the API sees them."""
    code = _CODES.get(status, "InvalidArgument" if status < 500 else "InternalServerError")
    request_id = str(uuid4())
    return ((("Content-Type", JSON), (REQUEST_ID, request_id)), body(code, reason, request_id))

"""What every cloud's face does with an exchange, and with errors that the server's owner has to act on."""

import logging

from torpor.contracts.http import ApiRequest
from torpor.model.errors import PlatformError, RuntimeMissing, ShuttingDown
from torpor.transport import Exchange

_LOG = logging.getLogger(__name__)


def request_of(exchange: Exchange, body: bytes | None = None) -> ApiRequest:
    """The request without its connection; `body` is the whole one if the exchange has only its beginning."""
    return ApiRequest(
        method=exchange.method,
        path=exchange.path,
        query=exchange.query,
        headers=exchange.headers,
        body=exchange.body if body is None else body,
    )


def report(error: Exception, what: str, *, expected: bool) -> None:
    """Log what the server's owner has to act on; a caller's own mistakes are told to the caller only. `expected` are
    errors that the API has words for."""
    if not expected:
        _LOG.error("%s failed", what, exc_info=error)
    elif isinstance(error, PlatformError) and not isinstance(error, ShuttingDown | RuntimeMissing):
        _LOG.error("%s: %s", what, error)

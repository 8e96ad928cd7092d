"""The Telemetry API in managed instances: there is no Logs API, and one schema (contract 1.6)."""

from torpor.contracts.lambda_ import telemetry_api
from torpor.contracts.lambda_.platform_events import TELEMETRY_API
from torpor.contracts.lambda_.telemetry_api import (
    OK,
    closed,
    encode_events,
    encode_line,
    invalid,
    other_api,
    unreachable,
)
from torpor.model.telemetry import Subscription

__all__ = [
    "OK",
    "SEQUENCE_HEADER",
    "api_of",
    "closed",
    "encode_events",
    "encode_line",
    "invalid",
    "other_api",
    "subscription",
    "unreachable",
]

SEQUENCE_HEADER = "Sequence-Id"
_SCHEMAS = {TELEMETRY_API: (telemetry_api.TELEMETRY_2025,)}


def api_of(method: str, path: str) -> str:
    """As in the standard API, without the Logs API."""
    return TELEMETRY_API if (method, path) == ("PUT", telemetry_api.TELEMETRY_PATH) else ""


def subscription(api: str, body: bytes) -> Subscription:
    """As in the standard API. Raises InvalidRequest."""
    return telemetry_api.subscription(api, body, _SCHEMAS)

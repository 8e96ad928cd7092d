"""What a runtime may ask over its in-sandbox API, whatever the wire form."""

from enum import StrEnum


class RuntimeCall(StrEnum):
    NEXT = "next"
    RESPONSE = "response"
    ERROR = "error"
    INIT_ERROR = "init_error"
    PING = "ping"
    UNKNOWN = "unknown"

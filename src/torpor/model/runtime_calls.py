"""What runtimes and extensions may ask over the in-sandbox API, whatever the wire form."""

from enum import StrEnum


class RuntimeCall(StrEnum):
    NEXT = "next"
    RESPONSE = "response"
    ERROR = "error"
    INIT_ERROR = "init_error"
    RESTORE_NEXT = "restore_next"
    RESTORE_ERROR = "restore_error"
    PING = "ping"
    UNKNOWN = "unknown"


class ExtensionCall(StrEnum):
    """What an extension may ask over the same API."""

    REGISTER = "register"
    NEXT = "next"
    INIT_ERROR = "init_error"
    EXIT_ERROR = "exit_error"
    UNKNOWN = "unknown"

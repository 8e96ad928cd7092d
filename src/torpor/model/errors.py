"""Torpor's errors: whose fault it is, and what to do.

Three bases say who has to act: the caller (a request that cannot be served as it is), the function (its code or package
failed) and the platform (Torpor or its host). Each contract maps these classes to its own wire codes and statuses in
one table; nothing else decides an HTTP status. The message is one sentence for a person: what happened, what to do.
"""


class TorporError(Exception):
    """Base of every error Torpor raises on purpose."""


class CallerError(TorporError):
    """The request cannot be served as it is; the caller can mend it."""


class InvalidRequest(CallerError):
    """A value of the request is missing, malformed or out of range.

    Where a bound was passed, `limit` is the bound and `what` names the thing bounded.
    """

    def __init__(self, message: str = "", *, what: str = "", limit: int | None = None) -> None:
        super().__init__(message)
        self.what = what
        self.limit = limit


class NotFound(CallerError):
    """The named function, version or resource does not exist; `what` says which of them, where that matters."""

    def __init__(self, message: str = "", *, what: str = "") -> None:
        super().__init__(message)
        self.what = what


class Conflict(CallerError):
    """The request clashes with the resource's present state; `what` says with which part, where that matters."""

    def __init__(self, message: str = "", *, what: str = "") -> None:
        super().__init__(message)
        self.what = what


class PreconditionFailed(CallerError):
    """The revision the caller expects is not the current one."""


class TooLarge(CallerError):
    """The request or a package in it is over a limit: `limit` bytes, of what `what` names."""

    def __init__(self, message: str = "", *, what: str = "", limit: int | None = None) -> None:
        super().__init__(message)
        self.what = what
        self.limit = limit


class AccessDenied(CallerError):
    """The request is not signed as the server's keys demand."""


class Throttled(CallerError):
    """A concurrency or memory limit refuses the invocation now; try again later.

    `reason` is one of the `ThrottleReason` values; `retry_after` is in seconds.
    """

    def __init__(self, message: str, *, reason: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class NoMemory(Throttled):
    """The host had no memory for another environment in time."""


class CallerGone(CallerError):
    """The caller went away; nobody reads the answer."""


class TargetRefused(CallerError):
    """A destination does not take what is sent to it, and will not later."""


class NotBuilt(CallerError):
    """The operation exists in the cloud's API, but this version of Torpor does not offer it."""


class FunctionError(TorporError):
    """The function's code or package failed."""


class InvalidPackage(FunctionError):
    """The code package is broken, unsafe or too large to unpack."""


class BuildFailed(FunctionError):
    """The build command of a package failed; `code` is its exit status, None if it did not end by itself."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class NotSavable(FunctionError):
    """A process holds something that a snapshot cannot contain; the message says what."""


class PlatformError(TorporError):
    """Torpor or its host could not do its part."""


class ShuttingDown(PlatformError):
    """The server is draining and takes no new invocations; send the request again in a moment."""


class SandboxUnavailable(PlatformError):
    """A sandbox could not be made or has died."""


class RuntimeMissing(PlatformError):
    """No interpreter or client for the wanted runtime is present on this host."""


class StoreUnavailable(PlatformError):
    """The data folder cannot be read or written."""


class TargetDown(PlatformError):
    """A destination cannot be reached, or cannot take anything now; it may later."""

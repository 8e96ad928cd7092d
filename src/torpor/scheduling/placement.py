"""May an invocation run now, and in which kind of environment? Concurrency limits only; memory is asked afterwards.

Concurrency is the number of running invocations. A function with a reservation is counted against that alone; all
others share what the account has left (contract 8).
"""

from enum import StrEnum

import msgspec


class ThrottleReason(StrEnum):
    ACCOUNT = "ConcurrentInvocationLimitExceeded"
    RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"


class Placement(StrEnum):
    REUSE = "reuse"
    AWAIT = "await"
    """One is about to have room: wait a moment for it."""
    START = "start"
    REFUSE_ACCOUNT = "refuse_account"
    REFUSE_RESERVED = "refuse_reserved"


class ConcurrencyView(msgspec.Struct, frozen=True, kw_only=True):
    """The counts that decide. `reserved` is None for a function without a reservation."""

    function_running: int
    unreserved_running: int
    reserved: int | None
    total_reserved: int
    account: int
    free_environments: int
    settling_environments: int
    """Those that have answered and are not free yet, less the requests that wait for one already."""


def place(view: ConcurrencyView) -> Placement:
    """Reuse a free environment, await one, start one, or refuse."""
    if view.reserved is not None:
        if view.function_running >= view.reserved:
            return Placement.REFUSE_RESERVED
    elif view.unreserved_running >= view.account - view.total_reserved:
        return Placement.REFUSE_ACCOUNT
    if view.free_environments:
        return Placement.REUSE
    return Placement.AWAIT if view.settling_environments > 0 else Placement.START

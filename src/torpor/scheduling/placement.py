"""May an invocation run now, and in which kind of environment? Concurrency limits only; memory is asked afterwards.

Concurrency is the number of running invocations. A function with a reservation is counted against that alone; all
others share what the account has left (contract 8).
"""

from enum import StrEnum


class ThrottleReason(StrEnum):
    ACCOUNT = "ConcurrentInvocationLimitExceeded"
    RESERVED = "ReservedFunctionConcurrentInvocationLimitExceeded"
    RESERVED_RATE = "ReservedFunctionInvocationRateLimitExceeded"


class Placement(StrEnum):
    REUSE = "reuse"
    AWAIT = "await"
    """One is about to have room: wait a moment for it."""
    START = "start"
    QUEUE = "queue"
    """No room and no leave to start: wait for a turn."""
    REFUSE_FULL = "refuse_full"
    REFUSE_ACCOUNT = "refuse_account"
    REFUSE_RESERVED = "refuse_reserved"


def place(
    *,
    function_running: int,
    unreserved_running: int,
    reserved: int | None,
    total_reserved: int,
    account: int,
    free_environments: int,
    settling_slots: int,
    counted: bool = True,
) -> Placement:
    """Reuse a free environment, await one, start one (if `overflow` agrees), or refuse.

    `reserved` is None for a function without a reservation. `settling_slots` are those of environments that have
    answered and are not free yet; the requests that wait for one of them already are taken off. What is not `counted`
    stands under no concurrency limit.
    """
    if not counted:
        pass
    elif reserved is not None:
        if function_running >= reserved:
            return Placement.REFUSE_RESERVED
    elif unreserved_running >= account - total_reserved:
        return Placement.REFUSE_ACCOUNT
    if free_environments:
        return Placement.REUSE
    return Placement.AWAIT if settling_slots > 0 else Placement.START

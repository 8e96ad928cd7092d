"""What becomes of an event after an attempt: through, tried again, or given up."""

from enum import StrEnum

import msgspec

from torpor.model.event import EventState, Progress


class Verdict(StrEnum):
    """How an attempt ended, for the one who decides on another."""

    SUCCESS = "success"
    ERROR = "error"
    """The function failed: its code, its process or its time limit."""
    THROTTLED = "throttled"
    """A limit did not let it run."""
    SYSTEM = "system"
    """The platform failed."""
    CANCELLED = "cancelled"
    """It was stopped on purpose."""


class Condition(StrEnum):
    """Why an event is through."""

    SUCCESS = "success"
    EXHAUSTED = "exhausted"
    """It failed as often as it may."""
    AGED = "aged"
    """It is too old for another attempt."""
    BLOCKED = "blocked"
    """The function may not run at all."""
    RECURSION = "recursion"
    """The function has called itself in a circle too often."""
    GONE = "gone"
    """The function, version or alias is not there any more."""
    STOPPED = "stopped"
    """It was stopped on purpose."""


_ENDINGS = {Condition.SUCCESS: EventState.SUCCEEDED, Condition.STOPPED: EventState.DROPPED}


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """A contract's rules, all times in seconds."""

    retries: int
    """Attempts after the first one, of a function that fails."""
    waits: tuple[float, ...]
    """Before the first of them, the second …; the last one stands for all that follow."""
    max_age: float
    """Of an event, from its acceptance to the begin of an attempt."""
    first_back_off: float
    """After an attempt that did not get as far as running; doubled each time."""
    longest_back_off: float
    refused_for: float | None = None
    """How long such attempts are made; None for as long as the event's age allows."""


class Again(msgspec.Struct, frozen=True):
    """Try it again after `wait` seconds."""

    wait: float


class Ended(msgspec.Struct, frozen=True):
    """No more attempts."""

    condition: Condition


def decide(
    policy: RetryPolicy, verdict: Verdict, *, errors: int, refusals: int, refused_for: float, age: float
) -> Again | Ended:
    """What follows an attempt. `errors` are the function's failures, this one included; `refusals` the attempts in a
    row that did not run, this one included, the first `refused_for` seconds ago; `age` is the event's, in seconds.

    A wait that would end after the event's time is not begun: the event is given up at once."""
    if verdict is Verdict.SUCCESS:
        return Ended(Condition.SUCCESS)
    if verdict is Verdict.CANCELLED:
        return Ended(Condition.STOPPED)
    if verdict is Verdict.ERROR:
        if errors > policy.retries:
            return Ended(Condition.EXHAUSTED)
        wait = policy.waits[min(errors, len(policy.waits)) - 1] if policy.waits else 0.0
    else:
        wait = back_off(policy.first_back_off, policy.longest_back_off, refusals)
        if policy.refused_for is not None and refused_for + wait > policy.refused_for:
            return Ended(Condition.AGED)
    return Ended(Condition.AGED) if age + wait > policy.max_age else Again(wait)


def back_off(first: float, longest: float, times: int) -> float:
    """Seconds to wait after so many failures in a row: doubled each time, up to a bound."""
    return min(first * 2.0 ** min(max(times - 1, 0), 60), longest)


def final_state(progress: Progress) -> EventState:
    """Of an event that is through, once nothing is owed any more."""
    if any(step.what == "undelivered" for step in progress.steps):
        return EventState.DEAD
    return _ENDINGS.get(Condition(progress.condition), EventState.FAILED)

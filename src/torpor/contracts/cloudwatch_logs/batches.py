"""What PutLogEvents takes of a batch. Times in milliseconds since the epoch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torpor.contracts.cloudwatch_logs import limits
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter

Timed = tuple[float, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The events that are taken, and the indices of the others: up to `too_old` and `expired` (exclusive), from
    `too_new` on; None if there are none."""

    events: Sequence[Timed]
    too_old: int | None
    expired: int | None
    too_new: int | None


def accepted(events: Sequence[Timed], now: float, expired_before: float) -> Batch:
    """Check a batch as a whole, and choose. Raises ApiFailure."""
    size = sum(len(message.encode()) + limits.BATCH_EVENT_OVERHEAD for _, message in events)
    if size > limits.BATCH_MAX:
        raise invalid_parameter(f"Upload too large: {size} bytes exceeds limit of {limits.BATCH_MAX}")
    times = [time for time, _ in events]
    if times != sorted(times):
        text = "Log events in a single PutLogEvents request must be in chronological order."
        raise invalid_parameter(text)
    old = _before(times, now - limits.TOO_OLD * 1000)
    expired = _before(times, expired_before)
    new = _before(times, now + limits.TOO_NEW * 1000 + 1)
    taken = events[max(old, expired) : new]
    if taken and taken[-1][0] - taken[0][0] > limits.BATCH_SPAN * 1000:
        text = "The batch of log events in a single PutLogEvents request cannot span more than 24 hours."
        raise invalid_parameter(text)
    return Batch(events=taken, too_old=old or None, expired=expired or None, too_new=new if new < len(events) else None)


def rejected_info(batch: Batch) -> dict[str, Any]:
    """What is told of the events that were not taken; empty if all were."""
    indices = {
        "tooNewLogEventStartIndex": batch.too_new,
        "tooOldLogEventEndIndex": batch.too_old,
        "expiredLogEventEndIndex": batch.expired,
    }
    told = {name: index for name, index in indices.items() if index is not None}
    return {"rejectedLogEventsInfo": told} if told else {}


def _before(times: Sequence[float], bound: float) -> int:
    return sum(time < bound for time in times)

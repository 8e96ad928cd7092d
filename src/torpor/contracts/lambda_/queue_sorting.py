"""What a queue has answered, by what is to be done with it (9.11)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.event_filter import Filters
from torpor.contracts.lambda_.event_source import queue_of
from torpor.contracts.lambda_.queue_records import measured


@dataclass(slots=True, kw_only=True)
class Sorted:
    """The messages of one answer. What is in none of these is left as it is."""

    kept: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    """Records for the function, with the bytes that each takes."""
    dropped: list[str] = field(default_factory=list)
    """Receipts of what no filter keeps."""
    spare: list[str] = field(default_factory=list)
    """Receipts of what must not be handled now."""
    has_broken: bool = False
    """There was something that no event can have in it."""


def sort(messages: Iterable[Any], arn: str, filters: Filters) -> Sorted:
    """The messages of the queue `arn`. A FIFO queue's are handled up to the first that is broken, and as far as they
    make one event: what follows could come before its turn."""
    found = Sorted()
    is_fifo, total = queue_of(arn).is_fifo, 0
    for message in messages:
        read = measured(message, arn)
        if read is None or read[1] > limits.QUEUE_BATCH_SIZE:
            found.has_broken = True
            continue
        record, size = read
        if is_fifo and (found.has_broken or total + size > limits.QUEUE_BATCH_SIZE):
            found.spare.append(record["receiptHandle"])
            total = limits.QUEUE_BATCH_SIZE
        elif not filters.keeps(record):
            found.dropped.append(record["receiptHandle"])
        else:
            found.kept.append(read)
            total += size
    return found


def length(messages: Iterable[Any]) -> int:
    """Characters of all their bodies."""
    bodies = (message.get("Body") for message in messages if isinstance(message, Mapping))
    return sum(len(body) for body in bodies if isinstance(body, str))


def receipts_of(messages: Iterable[Any]) -> list[str]:
    """The receipt handles of those messages that have one."""
    found = (message.get("ReceiptHandle") for message in messages if isinstance(message, Mapping))
    return [receipt for receipt in found if isinstance(receipt, str) and receipt]

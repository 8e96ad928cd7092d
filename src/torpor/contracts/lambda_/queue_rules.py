"""How a mapping's messages are gathered, and what becomes of them after their function was called (9.11)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torpor.contracts import event_results
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.event_source import Queue, concurrency_of, queue_of, reports_failures
from torpor.contracts.lambda_.queue_records import failed_in_order, failed_items
from torpor.model.errors import TorporError
from torpor.model.invocation import Outcome
from torpor.scheduling.batching import BackOff, BatchRules, ReaderRules
from torpor.scheduling.retries import Verdict

NOTHING = "No records processed"
OK = "OK"
CALL_FAILED = "PROBLEM: Function call failed"
THROTTLED = "PROBLEM: Function call was throttled"
RECURSIVE = "PROBLEM: The function was invoked recursively too often; the messages are left to the queue"
UNREADABLE = "It returned a message that cannot be read or does not fit into an event."
_REASON_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What becomes of a batch. Messages that are named in neither stay invisible until the queue shows them again."""

    result: str
    """What the mapping says of it."""
    through: frozenset[str] = frozenset()
    """Ids of the messages that are deleted."""
    is_refused: bool = False
    """The function did not run: its messages go back at once, and it is left alone for a while."""


def batch_rules(document: Mapping[str, Any]) -> BatchRules:
    """Of a mapping."""
    return BatchRules(
        size=document["BatchSize"],
        window=document["MaximumBatchingWindowInSeconds"],
        room=limits.QUEUE_BATCH_SIZE,
        at_once=limits.QUEUE_ANSWER_MAX,
    )


def poller_rules(document: Mapping[str, Any]) -> ReaderRules:
    """Of a mapping."""
    most = min(concurrency_of(document) or limits.POLLERS_MAX, limits.POLLERS_MAX)
    return ReaderRules(
        idle=limits.POLLERS_IDLE,
        first=limits.POLLERS_FIRST,
        most=most,
        period=60.0 / limits.POLLERS_A_MINUTE,
    )


def back_off_rules(scale: float) -> BackOff:
    """After errors of the queue, and after throttles of the function; not published."""
    return BackOff(first=limits.QUEUE_BACK_OFF_MIN * scale, longest=limits.QUEUE_BACK_OFF_MAX * scale)


def judged(
    document: Mapping[str, Any], records: Sequence[Mapping[str, Any]], result: Outcome | TorporError
) -> Verdicts:
    """What becomes of the messages that a function was called with."""
    verdict = event_results.judged(result).verdict
    if verdict == Verdict.THROTTLED:
        return Verdicts(result=THROTTLED, is_refused=True)
    if isinstance(result, TorporError):
        return Verdicts(result=CALL_FAILED, is_refused=True)
    if verdict != Verdict.SUCCESS:
        return Verdicts(result=CALL_FAILED)
    ids = frozenset(record["messageId"] for record in records)
    failed = _failed(document, records, ids, result.payload)
    return Verdicts(result=CALL_FAILED) if failed is None else Verdicts(result=OK, through=ids - failed)


def left_in_order(queue: Queue, records: Sequence[Mapping[str, Any]], left: frozenset[str]) -> frozenset[str]:
    """Which messages must not be handled if some are not: in a FIFO queue those too that follow in their groups."""
    return failed_in_order(records, left) if queue.is_fifo and left else left


def queue_problem(error: Exception) -> str:
    """The queue could not be read, or did not take what it was told."""
    reason = " ".join(str(error).split())
    return f"PROBLEM: The queue does not work as it should: {reason[:_REASON_MAX]}"


def function_problem(reason: str) -> str:
    """The function cannot be called now."""
    return f"PROBLEM: {reason}"


def _failed(
    document: Mapping[str, Any], records: Sequence[Mapping[str, Any]], ids: frozenset[str], payload: bytes
) -> frozenset[str] | None:
    failed = failed_items(payload, ids) if reports_failures(document) else frozenset()
    return None if failed is None else left_in_order(queue_of(document["EventSourceArn"]), records, failed)

"""Messages of a queue in batches: how many to ask for, when a batch is complete, how many readers a queue has, and how
long to leave it alone after failures.

Times are in monotonic seconds, sizes in bytes.
"""

import msgspec
from msgspec.structs import replace

from torpor.scheduling.retries import back_off

LEAST_PERIOD = 1.0
"""Seconds between two questions of one reader while there is nothing to read, whatever the queue makes of the wait."""
CALM = 60.0
"""Seconds after a throttle in which no more readers are tried."""


class BatchRules(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a batch complete."""

    size: int
    """Messages."""
    window: float
    """Seconds from its first message."""
    room: int
    """Bytes."""
    at_once: int
    """Messages that the queue gives in one answer."""


class Gathered(msgspec.Struct, frozen=True):
    """What a batch has so far; `since` is when its first message came."""

    count: int = 0
    size: int = 0
    since: float = 0.0


def joined(gathered: Gathered, size: int, now: float) -> Gathered:
    """With one more message."""
    return Gathered(gathered.count + 1, gathered.size + size, gathered.since if gathered.count else now)


def fits(rules: BatchRules, gathered: Gathered, size: int) -> bool:
    """Whether one more message may join. A message that is too large by itself fits nowhere."""
    return gathered.count < rules.size and gathered.size + size <= rules.room


def is_full(rules: BatchRules, gathered: Gathered) -> bool:
    """Whether no other message can join."""
    return gathered.count >= rules.size or gathered.size >= rules.room


def waits(rules: BatchRules, gathered: Gathered, now: float) -> float:
    """Seconds until the batch is complete whatever comes; 0 if it is."""
    if is_full(rules, gathered):
        return 0.0
    return max(gathered.since + rules.window - now, 0.0)


def asked(rules: BatchRules, gathered: Gathered) -> int:
    """How many messages to ask for next: what the batch lacks, as far as one answer goes."""
    lacking = rules.size if is_full(rules, gathered) else rules.size - gathered.count
    return min(lacking, rules.at_once)


class ReaderRules(msgspec.Struct, frozen=True, kw_only=True):
    """How many readers a queue may have. Each of them has at most one batch that runs."""

    idle: int
    """While there is nothing to read."""
    first: int
    """Once there is."""
    most: int
    period: float
    """Seconds from one more to the next."""


class Readers(msgspec.Struct, frozen=True, kw_only=True):
    """How many readers a queue has; `since` is when the last one came, or the last answer that was not full."""

    count: int
    since: float = float("-inf")
    is_careful: bool = False
    """A throttle has shown that there may be too many of them."""


def begun(rules: ReaderRules, waiting: int) -> Readers:
    """The first ones; `waiting` messages are known of."""
    return Readers(count=min(rules.first if waiting else rules.idle, rules.most))


def bounded(rules: ReaderRules, readers: Readers) -> Readers:
    """Under changed rules."""
    return replace(readers, count=min(readers.count, rules.most))


def received(rules: ReaderRules, readers: Readers, *, asked: int, got: int, now: float) -> Readers:
    """After an answer with `got` messages. While all answers are full there are more and more readers, an empty one
    takes one away."""
    if got < asked:
        fewer = not got and readers.count > rules.idle
        return replace(readers, count=readers.count - fewer, since=max(readers.since, now))
    if now - readers.since < rules.period:
        return readers
    more = readers.count + 1 if readers.is_careful else max(readers.count + 1, rules.first)
    return replace(readers, count=min(more, rules.most), since=now)


def throttled(running: int, now: float) -> Readers:
    """The platform has no room for more than `running` batches; more are tried later, one by one."""
    return Readers(count=max(running, 1), since=now + CALM, is_careful=True)


class BackOff(msgspec.Struct, frozen=True, kw_only=True):
    """How long what failed is left alone, in seconds: doubled each time."""

    first: float
    longest: float


class Pause(msgspec.Struct, frozen=True):
    """Nothing is tried before `until`, after so many failures in a row."""

    failures: int = 0
    until: float = float("-inf")


def failed(rules: BackOff, pause: Pause, now: float) -> Pause:
    """After a failure. Those of attempts that were under way when the pause began are the same one."""
    if now < pause.until:
        return pause
    failures = pause.failures + 1
    return Pause(failures, now + back_off(rules.first, rules.longest, failures))


def rest(lasted: float) -> float:
    """Seconds to wait after an empty answer that took so long."""
    return max(LEAST_PERIOD - lasted, 0.0)

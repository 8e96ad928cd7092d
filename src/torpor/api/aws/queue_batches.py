"""Messages that were received and are not with the function yet."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any, TypeAlias

from torpor.api.aws.queue_client import QueueClient
from torpor.contracts.lambda_.queue_records import groups_of
from torpor.scheduling.batching import BatchRules, Gathered, fits, is_full, joined, waits

Record: TypeAlias = Mapping[str, Any]
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
_KEPT_EVERY = 1 / 3
"""Of the time for which the queue hides a message."""


class Batch:
    """Messages for one event, hidden from others until it is over."""

    def __init__(self, queue: QueueClient, hidden: int) -> None:
        """`hidden` is for how many seconds the queue hides what is received."""
        self.gathered = Gathered()
        self._records: dict[str, Record] = {}
        self._queue = queue
        self._hidden = hidden
        self._over = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None

    @property
    def records(self) -> list[Record]:
        """In the order in which they came."""
        return list(self._records.values())

    @property
    def groups(self) -> set[str]:
        """Those of its messages."""
        return groups_of(self._records.values())

    def add(self, record: Record, size: int, now: float) -> None:
        """A message that is there already came again: only its newer receipt counts."""
        if record["messageId"] not in self._records:
            self.gathered = joined(self.gathered, size, now)
        self._records[record["messageId"]] = record

    def keep(self, spawn: Spawn) -> None:
        """Hide its messages from now on."""
        self._keeping = spawn(self._keep())

    def leave(self) -> None:
        """It is over: the queue shows again what was not deleted, by its own time."""
        self._over.set()

    async def give_back(self) -> None:
        """It is over: the queue shows its messages at once."""
        self._over.set()
        if self._keeping is not None:
            await asyncio.wait({self._keeping})  # or it could hide them once more
        await self._queue.hide([record["receiptHandle"] for record in self.records], 0)

    async def _keep(self) -> None:
        while not await self._ends_within(self._hidden * _KEPT_EVERY):
            await self._queue.hide([record["receiptHandle"] for record in self.records], self._hidden)

    async def _ends_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._over.wait(), seconds)
        except TimeoutError:
            return False
        return True


class Shelf:
    """The batch that is gathered, and those that are complete."""

    def __init__(
        self, queue: QueueClient, spawn: Spawn, now: Callable[[], float], completed: Callable[[], None]
    ) -> None:
        """`completed` is called when a batch is complete because its window has passed."""
        self.ready: deque[Batch] = deque()
        self._queue = queue
        self._spawn = spawn
        self._now = now
        self._completed = completed
        self._open: Batch | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def gathered(self) -> Gathered:
        """What the batch has that is gathered."""
        return self._open.gathered if self._open is not None else Gathered()

    def put(self, messages: Iterable[tuple[Record, int]], rules: BatchRules, hidden: int) -> None:
        """Take what one answer has brought, with sizes in bytes; each fits into an empty batch."""
        for record, size in messages:
            if self._open is not None and not fits(rules, self._open.gathered, size):
                self._complete()
            if self._open is None:
                self._open = Batch(self._queue, hidden)
                self._open.keep(self._spawn)
            self._open.add(record, size, self._now())
            if is_full(rules, self._open.gathered):
                self._complete()
        self._await_window(rules)

    def take(self, busy: Iterable[Batch], *, in_order: bool) -> Batch | None:
        """The first complete batch; in order: the first whose groups are in no batch that is busy or before it."""
        if not in_order:
            return self.ready.popleft() if self.ready else None
        groups = {group for batch in busy for group in batch.groups}
        for batch in self.ready:
            if groups.isdisjoint(batch.groups):
                self.ready.remove(batch)
                return batch
            groups |= batch.groups
        return None

    def clear(self) -> list[Batch]:
        """Everything that is here."""
        self._complete()
        found = list(self.ready)
        self.ready.clear()
        return found

    def _await_window(self, rules: BatchRules) -> None:
        if self._open is None or self._timer is not None:
            return
        left = waits(rules, self._open.gathered, self._now())
        if left:
            self._timer = asyncio.get_running_loop().call_later(left, self._window_over)
        else:
            self._complete()

    def _window_over(self) -> None:
        self._complete()
        self._completed()

    def _complete(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._open is not None:
            self.ready.append(self._open)
            self._open = None

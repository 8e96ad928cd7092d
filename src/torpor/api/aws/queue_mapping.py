"""One event source mapping: reads its queue, and calls its function with batches of messages."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torpor.api.aws.queue_batches import Batch, Shelf
from torpor.api.aws.queue_client import Cloud, QueueClient, QueueFacts, Timing
from torpor.api.aws.queue_runs import BatchRuns
from torpor.api.aws.queue_states import Cause, Pauses, Standing, Tasks
from torpor.contracts.lambda_ import event_source, queue_rules
from torpor.contracts.lambda_.event_filter import Filters
from torpor.contracts.lambda_.queue_rules import Verdicts
from torpor.contracts.lambda_.queue_sorting import length, receipts_of, sort
from torpor.model.clock import Clock
from torpor.model.errors import TargetDown, TargetRefused, TorporError
from torpor.scheduling import batching
from torpor.scheduling.batching import Readers

_LOG = logging.getLogger(__name__)
_ASK_AGAIN = 60.0
"""Seconds after which a queue is asked anew for what it says of itself."""
_LARGE = 256 * 1024
"""Messages of so many characters are sorted in a thread, so that other work goes on meanwhile."""
_GRACE = 1.0
"""Seconds that the server's end waits for answers of queues, in which messages may be."""
_PASSING = {(False, True): event_source.ENABLING, (True, False): event_source.DISABLING}


class QueueMapping:
    """A mapping while the server runs. One event loop's thread.

    Nothing here waits in a loop of its own: after everything that happens `_pump` begins what may begin. Answers of the
    queue that are waited for and batches that run are tasks, at most as many together as there may be pollers.
    """

    def __init__(
        self, document: Mapping[str, Any], cloud: Cloud, runs: BatchRuns, clock: Clock, timing: Timing
    ) -> None:
        """Raises ApiFailure if the document names no queue."""
        self._arn: str = document["EventSourceArn"]
        self._source = event_source.queue_of(self._arn)
        self._runs = runs
        self._now = clock.monotonic
        self._receiving = Tasks(f"reading {self._arn}", self._pump)
        self._working = Tasks(f"a batch of {self._arn}", self._pump)
        self._running: set[Batch] = set()
        self._queue = QueueClient(cloud, self._arn, timing, self._pump)
        self._shelf = Shelf(self._queue, self._working.start, self._now, self._pump)
        self._standing = Standing(timing.settle, self._pump)
        self._pauses = Pauses(queue_rules.back_off_rules(timing.scale), self._now, self._pump)
        self._facts: QueueFacts | None = None
        self._facts_at = 0.0
        self._readers = Readers(count=1)
        self._on = False
        self._gone: Callable[[], None] | None = None
        self._take(document)

    def begin(self) -> None:
        """It is new, or the server is."""
        self._on = self._document["Enabled"]
        self._standing.pass_through(event_source.CREATING, self._target)

    def change(self, document: Mapping[str, Any]) -> None:
        """It is another one from now on; batches that run go on as they are."""
        was_on, self._on = self._on, document["Enabled"]
        self._take(document)
        self._pauses.clear()
        self._standing.trouble = ""
        self._give_back()
        if was_on:
            self._facts_at = float("-inf")
        else:
            self._facts = None
        self._standing.pass_through(_PASSING.get((was_on, self._on), event_source.UPDATING), self._target)

    def rest(self) -> None:
        """Receive nothing any more."""
        self._on = False
        self._give_back()
        self._pauses.close()

    def end(self, gone: Callable[[], None]) -> None:
        """It is deleted; `gone` is called once nothing of it is under way."""
        self.rest()
        self._gone = gone
        self._standing.pass_through(event_source.DELETING, event_source.DELETING)

    def state(self) -> tuple[str, str]:
        """As the API shows it, with the last result."""
        return self._standing.state, self._standing.result

    async def close(self, timeout: float) -> None:
        """After `rest`: wait so many seconds for what is under way, then give it up."""
        deadline = self._now() + timeout
        await self._receiving.wait(min(timeout, _GRACE))
        await self._working.wait(deadline - self._now())
        await self._receiving.cancel()
        await self._working.cancel()
        await self._queue.close()
        self._standing.close()

    @property
    def _target(self) -> str:
        return event_source.ENABLED if self._on else event_source.DISABLED

    def _take(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._filters = Filters(document.get("FilterCriteria", {}))
        self._batch_rules = queue_rules.batch_rules(document)
        self._poller_rules = queue_rules.poller_rules(document)
        self._readers = batching.bounded(self._poller_rules, self._readers)

    def _give_back(self) -> None:
        """The queue shows at once what was received and has not begun."""
        for batch in self._shelf.clear():
            self._working.start(batch.give_back())

    def _pump(self) -> None:
        """Begin what may begin now."""
        if self._is_settled():
            self._standing.settle()
        if not self._on:
            self._tell_gone()
            return
        while (
            self._may_begin() and (batch := self._shelf.take(self._running, in_order=self._source.is_fifo)) is not None
        ):
            self._running.add(batch)
            self._working.start(self._run(batch))
        while self._may_receive():
            self._receiving.start(self._receive())
        self._pauses.watch()

    def _is_settled(self) -> bool:
        if self._on:
            return self._facts is not None or self._has_trouble
        return not (self._receiving or self._working)

    @property
    def _has_trouble(self) -> bool:
        return self._pauses.has_failed(Cause.QUEUE) or self._pauses.has_failed(Cause.ABSENCE)

    def _tell_gone(self) -> None:
        if self._gone is not None and not (self._receiving or self._working or self._queue.is_called):
            self._standing.close()
            self._gone()
            self._gone = None

    def _may_begin(self) -> bool:
        is_free = len(self._running) < self._readers.count
        return is_free and self._pauses.are_over(Cause.FUNCTION, Cause.DELETION)

    def _may_receive(self) -> bool:
        if not self._pauses.are_over(*Cause):
            return False
        if self._receiving and (self._source.is_fifo or self._facts is None or self._has_trouble):
            return False  # in order; and one is enough to see whether things work
        return len(self._receiving) + len(self._running) + len(self._shelf.ready) < self._readers.count

    async def _receive(self) -> None:
        try:
            if self._is_called():
                await self._ask()
        except Exception as error:  # whatever a queue answers must not end its reading
            if not isinstance(error, TorporError):
                _LOG.exception("reading %s failed", self._arn)
            self._pauses.failed(Cause.QUEUE)
            self._trouble(queue_rules.queue_problem(error))

    def _is_called(self) -> bool:
        """Whether the function can be called, without which nothing need be received."""
        reason = self._runs.bar(self._document)
        if reason:
            self._pauses.failed(Cause.ABSENCE)
            self._trouble(queue_rules.function_problem(reason))
        else:
            self._pauses.worked(Cause.ABSENCE)
        return not reason

    def _trouble(self, said: str) -> None:
        if self._on and not self._standing.trouble:
            _LOG.warning("An event source mapping has a %s", said)
        if self._on:
            self._standing.trouble = said

    async def _ask(self) -> None:
        """One answer of the queue."""
        facts = await self._known()
        if not self._on:
            return
        asked, began = batching.asked(self._batch_rules, self._shelf.gathered), self._now()
        messages = await self._queue.receive(asked, facts.visibility)
        got, now = len(messages), self._now()
        self._readers = batching.received(self._poller_rules, self._readers, asked=asked, got=got, now=now)
        await self._sort(messages, facts.visibility)
        self._pauses.worked(Cause.QUEUE)
        self._standing.trouble = ""
        if not messages:
            await asyncio.sleep(batching.rest(now - began))

    async def _known(self) -> QueueFacts:
        if self._facts is None or self._now() - self._facts_at > _ASK_AGAIN:
            self._facts_at = self._now()
            facts = await self._queue.facts()
            if self._facts is None:
                self._readers = batching.begun(self._poller_rules, facts.waiting)
            self._facts = facts
            self._pump()
        return self._facts

    async def _sort(self, messages: Sequence[Any], hidden: int) -> None:
        if length(messages) < _LARGE:
            found = sort(messages, self._arn, self._filters)
        else:
            found = await asyncio.to_thread(sort, messages, self._arn, self._filters)
        if not self._on:
            await self._queue.hide(receipts_of(messages), 0)
            return
        self._shelf.put(found.kept, self._batch_rules, hidden)
        self._pump()
        await self._queue.hide(found.spare, 0)
        await self._queue.delete(found.dropped)
        if found.has_broken:
            raise TargetDown(queue_rules.UNREADABLE)

    async def _run(self, batch: Batch) -> None:
        try:
            await self._handle(batch)
        except (TargetDown, TargetRefused) as error:
            self._pauses.failed(Cause.DELETION)
            self._standing.processed = queue_rules.queue_problem(error)
        except Exception:
            _LOG.exception("a batch of %s failed", self._arn)
            self._pauses.failed(Cause.FUNCTION)
            self._standing.processed = queue_rules.CALL_FAILED
        finally:
            batch.leave()
            self._running.discard(batch)

    async def _handle(self, batch: Batch) -> None:
        document, records = self._document, batch.records
        circular = queue_rules.left_in_order(self._source, records, self._runs.circular(document, records))
        called = [record for record in records if record["messageId"] not in circular]
        verdicts = Verdicts(result=queue_rules.RECURSIVE)
        if called:
            verdicts = queue_rules.judged(document, called, await self._runs.run(document, called))
        self._note(replace(verdicts, result=queue_rules.RECURSIVE) if circular else verdicts)
        if verdicts.is_refused:
            await batch.give_back()
        if self._source.is_fifo and len(verdicts.through) < len(records):
            self._give_back()  # what waits may follow what has failed
        if verdicts.through:
            await self._queue.delete(
                [each["receiptHandle"] for each in called if each["messageId"] in verdicts.through]
            )
            self._pauses.worked(Cause.DELETION)

    def _note(self, verdicts: Verdicts) -> None:
        self._standing.processed = verdicts.result
        if verdicts.is_refused:
            self._readers = batching.throttled(len(self._running) - 1, self._now())
            self._pauses.failed(Cause.FUNCTION)
        else:
            self._pauses.worked(Cause.FUNCTION)

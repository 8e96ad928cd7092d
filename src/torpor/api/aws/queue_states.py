"""What a mapping is doing: its state as the API shows it, its tasks, and what it leaves alone after failures."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any

from torpor.contracts.lambda_.event_source import CREATING
from torpor.contracts.lambda_.queue_rules import NOTHING
from torpor.scheduling.batching import BackOff, Pause, failed

_LOG = logging.getLogger(__name__)


class Standing:
    """A mapping's state and its last result."""

    def __init__(self, longest: float, look: Callable[[], None]) -> None:
        """A change counts as done after `longest` seconds, or once `look`, which is called soon, finds that it is."""
        self.state = CREATING
        self.processed = NOTHING
        """What became of the last batch."""
        self.trouble = ""
        """Why nothing can be received; empty if all is well."""
        self._longest = longest
        self._look = look
        self._target = CREATING
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def result(self) -> str:
        return self.trouble or self.processed

    def pass_through(self, passing: str, target: str) -> None:
        """A change has begun. It is not done before the loop's next turn: whoever asked for it is told that it is under
        way."""
        self.close()
        self.state, self._target = passing, target
        loop = asyncio.get_running_loop()
        self._alarm = loop.call_later(self._longest, self.settle)
        loop.call_soon(self._look)

    def settle(self) -> None:
        """The change is done."""
        self.close()
        self.state = self._target

    def close(self) -> None:
        """No more changes by themselves."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class Cause(StrEnum):
    """What may fail."""

    QUEUE = "queue"
    DELETION = "deletion"
    FUNCTION = "function"
    """It was called, and did not run."""
    ABSENCE = "absence"
    """There is nothing to call."""


class Pauses:
    """How long a mapping leaves alone what has failed."""

    def __init__(self, rules: BackOff, now: Callable[[], float], over: Callable[[], None]) -> None:
        """`over` is called when the end of a pause has come."""
        self._rules = rules
        self._now = now
        self._over = over
        self._pauses: dict[Cause, Pause] = {}
        self._alarm: asyncio.TimerHandle | None = None

    def failed(self, cause: Cause) -> None:
        """It is left alone for longer and longer."""
        self._pauses[cause] = failed(self._rules, self._pauses.get(cause, Pause()), self._now())

    def worked(self, cause: Cause) -> None:
        """All is well again."""
        self._pauses.pop(cause, None)

    def clear(self) -> None:
        """Try everything anew."""
        self._pauses.clear()

    def has_failed(self, cause: Cause) -> bool:
        """Whether its last attempt did."""
        return cause in self._pauses

    def are_over(self, *causes: Cause) -> bool:
        """Whether all of these may be tried."""
        now = self._now()
        return all(now >= pause.until for cause, pause in self._pauses.items() if cause in causes)

    def watch(self) -> None:
        """Have `over` called at the end of the first pause there is now, in place of an earlier watch."""
        self.close()
        now = self._now()
        ends = [pause.until for pause in self._pauses.values() if pause.until > now]
        if ends:
            self._alarm = asyncio.get_running_loop().call_later(min(ends) - now, self._over)

    def close(self) -> None:
        """Watch no more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None


class Tasks:
    """Work that is under way."""

    def __init__(self, what: str, ended: Callable[[], None]) -> None:
        """`what` names the work for the log, `ended` is called after each of them."""
        self._what = what
        self._ended = ended
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Begin."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    async def wait(self, seconds: float) -> None:
        """Until none is left, but no longer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._tasks and (left := deadline - loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)

    async def cancel(self) -> None:
        """End all of them."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _LOG.error("%s failed", self._what, exc_info=error)
        self._ended()

"""The results of events on their way: each is sent until it arrives or is given up, and never holds up the queue.

A destination that is down, or takes long, has only some events in memory. The others wait in the store and are looked
at again at a steady pace.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from torpor.model.errors import TargetDown, TorporError
from torpor.model.event import EventState, Owed, Progress, Step
from torpor.model.parcel import ToFunction
from torpor.scheduling.retries import Again, Verdict, back_off, decide, final_state
from torpor.service.events.lanes import Held
from torpor.service.events.port import Courier
from torpor.service.events.writer import Take
from torpor.store.ports import Taken

if TYPE_CHECKING:
    from torpor.service.events.queue import EventQueue

log = logging.getLogger(__name__)
_HELD = 512
_BYTES = 64 * 1024 * 1024
"""Of events that are being delivered, in memory."""
_TOGETHER = 8
"""Results sent to one destination at once."""
_OF_ONE = _TOGETHER
"""Results for one destination in memory."""
_PACE = 0.002
"""Seconds between two results for the same destination that wait in the store."""
_PATIENCE = 4
"""Failures in a row before a destination is left alone."""
_PAUSE = (0.5, 30.0)
"""Seconds for which a destination that is down is left alone: at first, and at most."""
_ROOM = 16 * 1024 * 1024
"""Bytes loaded at once."""


@dataclass(slots=True)
class _Target:
    """What is known of one destination."""

    slots: asyncio.Semaphore
    held: int = 0
    failures: int = 0
    """In a row."""
    paused_until: float = 0.0
    """By the queue's own time, as is the next."""
    turn: float = 0.0
    """When the next result that waits in the store has its turn."""


class Deliveries:
    """Sends what is owed."""

    def __init__(self, queue: "EventQueue", courier: Courier) -> None:
        self._queue = queue
        self._courier = courier
        self._targets: dict[str, _Target] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.held: dict[int, Held] = {}
        """Events in memory that are being delivered, by id."""
        self._later: float | None = 0.0
        """When the first of those in the store is to be looked at."""
        self._wake: asyncio.TimerHandle | None = None
        self._bytes = 0
        self._loading = False
        self._closing = False

    def take(self, held: Held, *counted: str) -> None:
        """An event is through; its progress says what is owed."""
        if len(self.held) >= _HELD or self._bytes + held.size > _BYTES or self._closing:
            self._queue.change(held, EventState.DELIVERING, held.progress, *counted)
            self._note(0.0)
            return
        self._queue.change(held, EventState.RUNNING, held.progress, *counted)  # in the store it is taken up
        self._begin(held)

    def poke(self) -> None:
        """Load what is due."""
        now = self._queue.steady.now()
        if self._loading or self._closing or self._later is None or self._later > now or len(self.held) > _HELD // 2:
            return
        self._loading, self._later = True, None
        self._queue.writer.submit(Take("", now, _HELD // 2, _ROOM, self._loaded))

    def stop(self, identity: int) -> bool:
        """Deliver the result of this event no further; is it held in memory?"""
        held = self.held.get(identity)
        if held is not None:
            held.is_stopped = True
        return held is not None

    async def close(self) -> None:
        """Stop where it is; what is owed still is kept."""
        self._closing = True
        if self._wake is not None:
            self._wake.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _loaded(self, taken: Taken | None) -> None:
        self._loading = False
        if taken is None:
            self._note(self._queue.steady.now() + 1.0)
            return
        if taken.later is not None:
            self._note(taken.later)
        for row in taken.rows:
            self._begin(Held(row.id, row.event, row.progress, row.born, row.due))

    def _note(self, moment: float) -> None:
        """Look at the store again at this time, by the queue's own."""
        if self._later is not None and self._later <= moment:
            return
        self._later = moment
        if self._wake is not None:
            self._wake.cancel()
        wait = max(moment - self._queue.steady.now(), 0.001)
        self._wake = asyncio.get_running_loop().call_later(wait, self.poke)

    def _begin(self, held: Held) -> None:
        now = self._queue.steady.now()
        targets = [self._target(owed.target) for owed in held.progress.owed]
        blocked = [target for target in targets if target.held >= _OF_ONE or now < target.paused_until]
        if blocked or self._closing:
            self._defer(held, blocked, now)
            return
        self.held[held.id] = held
        self._bytes += held.size
        task = asyncio.get_running_loop().create_task(self._carry(held))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _defer(self, held: Held, blocked: list[_Target], now: float) -> None:
        due = now
        for target in blocked:
            target.turn = max(target.turn + _PACE, target.paused_until, now + _PAUSE[0])
            due = max(due, target.turn)
        self._queue.change(held, EventState.DELIVERING, held.progress, due=due)
        self._note(due)

    def _target(self, name: str) -> _Target:
        target = self._targets.get(name)
        if target is None:
            target = self._targets[name] = _Target(asyncio.Semaphore(_TOGETHER))
        return target

    async def _carry(self, held: Held) -> None:
        targets, size = [self._target(owed.target) for owed in held.progress.owed], held.size
        for target in targets:
            target.held += 1
        due: float | None = None
        try:
            for owed in held.progress.owed:
                again = await self._deliver(held, owed)
                if again is not None:
                    due = again if due is None else min(due, again)
            self._settle(held, due)
        except asyncio.CancelledError:
            self._queue.change(held, EventState.DELIVERING, held.progress)
            raise
        finally:
            del self.held[held.id]
            self._bytes -= size
            for target in targets:
                target.held -= 1
            self.poke()

    def _settle(self, held: Held, due: float | None) -> None:
        if held.is_stopped:
            step = Step(at=self._queue.wall(), what="dropped")
            progress = replace(held.progress.with_step(step), owed=())
            self._queue.change(held, EventState.DROPPED, progress, EventState.DROPPED.word)
            return
        if due is not None:
            self._queue.change(held, EventState.DELIVERING, held.progress, due=due)
            self._note(due)
            return
        state = final_state(held.progress)
        self._queue.change(held, state, held.progress, *(("dead",) if state is EventState.DEAD else ()))

    async def _deliver(self, held: Held, owed: Owed) -> float | None:
        """Send one result; if that has to be tried again, when, by the queue's own time."""
        target = self._target(owed.target)
        try:
            async with target.slots:
                await self._send(held, owed)
        except TargetDown as error:
            return self._failed(held, owed, target, str(error))
        except TorporError as error:
            self._given_up(held, owed, str(error))
        except Exception:
            log.exception("delivering the result of event %d failed", held.id)
            return self._failed(held, owed, target, "The platform failed at it; the server's log has the details.")
        else:
            target.failures = 0
            self._log(held, owed, "delivered", f"{owed.role} {owed.target}")
        return None

    async def _send(self, held: Held, owed: Owed) -> None:
        parcel = self._queue.contracts[held.event.contract].parcel(held.event, held.progress, owed)
        if isinstance(parcel, ToFunction):
            await self._hand_on(parcel)
        else:
            await self._courier.send(parcel)

    async def _hand_on(self, parcel: ToFunction) -> None:
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def done(error: TorporError | None, _twice: bool) -> None:
            if kept.cancelled():
                return
            if error is None:
                kept.set_result(None)
            else:
                kept.set_exception(TargetDown(str(error)))

        self._queue.intake.accept(parcel.event, done)
        await kept

    def _failed(self, held: Held, owed: Owed, target: _Target, reason: str) -> float | None:
        now = self._queue.steady.now()
        _pause(target, now)
        attempt = replace(owed, attempts=owed.attempts + 1, since=owed.since or now, error=reason)
        policy = self._queue.contracts[held.event.contract].delivery
        move = decide(
            policy, Verdict.SYSTEM, errors=0, refusals=attempt.attempts, refused_for=now - attempt.since, age=0.0
        )
        if not isinstance(move, Again):
            self._given_up(held, owed, reason)
            return None
        level = logging.WARNING if target.failures == 1 else logging.DEBUG
        log.log(level, "The result of event %d cannot be delivered to %s yet: %s", held.id, owed.target, reason)
        others = tuple(attempt if each is owed else each for each in held.progress.owed)
        held.progress = replace(held.progress, owed=others)
        return now + move.wait

    def _given_up(self, held: Held, owed: Owed, reason: str) -> None:
        log.warning("The result of event %d is not delivered to %s: %s", held.id, owed.target, reason)
        self._log(held, owed, "undelivered", f"{owed.role} {owed.target}: {reason}")

    def _log(self, held: Held, owed: Owed, what: str, detail: str) -> None:
        progress: Progress = held.progress.with_step(Step(at=self._queue.wall(), what=what, detail=detail))
        held.progress = replace(progress, owed=tuple(each for each in progress.owed if each is not owed))
        self._queue.count(held, what)


def _pause(target: _Target, now: float) -> None:
    """It failed; if it does so again and again it is left alone for a while."""
    target.failures += 1
    if target.failures >= _PATIENCE and now >= target.paused_until:
        target.paused_until = now + back_off(*_PAUSE, target.failures - _PATIENCE + 1)

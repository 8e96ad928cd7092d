"""What the queue asks of a contract, and of whoever runs functions and carries results."""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from torpor.model.errors import TorporError
from torpor.model.event import Event, Owed, Progress, Result
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Invocation, Outcome
from torpor.model.parcel import Parcel
from torpor.scheduling.retries import Condition, RetryPolicy


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What is handed to the dispatcher for one attempt."""

    version: FunctionVersion
    invocation: Invocation
    reserved: int | None


class EventContract(Protocol):
    """The rules of one contract for its asynchronous events. Nothing here waits; what is asked again at each attempt is
    told as it is by then."""

    most: int
    """Events of one function that may run at once."""
    delivery: RetryPolicy
    """How often a result is sent to a destination that is down; only its back-off is looked at."""

    def kept_as(self, event: Event) -> tuple[str, float]:
        """The key under which the event is accepted once, empty if it has none; and for how many seconds its history is
        kept at least."""
        ...

    def policy(self, event: Event) -> RetryPolicy: ...

    def bar(self, event: Event) -> Condition | None:
        """Why it must not even be tried; None if it may."""
        ...

    def run(self, event: Event, progress: Progress) -> Run:
        """The next attempt. Raises NotFound if what is to run is gone, another TorporError if it cannot run now."""
        ...

    def judged(self, event: Event, result: Outcome | TorporError) -> Result:
        """What an attempt was, in the contract's terms."""
        ...

    def owed(self, event: Event, progress: Progress) -> tuple[Owed, ...]:
        """Where the result of an event that is through has to go."""
        ...

    def parcel(self, event: Event, progress: Progress, owed: Owed) -> Parcel:
        """What goes there. Raises TargetRefused if nothing can."""
        ...


class Dispatcher(Protocol):
    """The single way to run a function."""

    def submit(
        self,
        version: FunctionVersion,
        invocation: Invocation,
        reserved: int | None,
        done: Callable[[Outcome | TorporError], None],
    ) -> Any:
        """Run it once; `done` gets the outcome, or why there is none, maybe before this returns. Never raises."""
        ...

    def cancel(self, request: Any) -> None:
        """Nobody wants it any more; `done` is called all the same."""
        ...


class Courier(Protocol):
    """Carries results to where they go."""

    async def send(self, parcel: Parcel) -> None:
        """Raises TargetDown if it may work later, TargetRefused if it never will."""
        ...


class Intake(Protocol):
    """The queue's entrance."""

    def accept(
        self,
        event: Event,
        done: Callable[[TorporError | None, bool], None],
        *,
        delay: float = 0.0,
        timer: tuple[str, float] | None = None,
    ) -> None:
        """`done` is told once the event is on the disk, or why it is not, and whether one of its key was taken before.
        It runs after `delay` seconds."""
        ...

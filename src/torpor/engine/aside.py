"""Concurrency that is set aside: environments kept apart for a version, and the invocations that run in them.

What runs in such an environment takes nothing of what is left to others, and what is set aside is taken off that.
"""

from collections.abc import Iterable

from torpor.engine.environment import Environment
from torpor.engine.groups import Group, Request
from torpor.scheduling import Placement


class SetAside:
    """By function. Empty, and without cost, as long as nothing is kept apart."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        """Environments kept apart, of all versions of a function."""
        self._running: dict[str, int] = {}
        """Invocations that run in those."""

    def count(self, groups: Iterable[Group]) -> None:
        """What is kept apart has changed."""
        self.numbers.clear()
        for group in groups:
            if group.is_apart:
                function = group.version.function
                self.numbers[function] = self.numbers.get(function, 0) + group.scaling.minimum

    def running(self, function: str) -> int:
        """Invocations of a function that take nothing of what is left to others."""
        return self._running.get(function, 0)

    def left(self, function: str, reserved: int | None) -> int | None:
        """The part of a function's reservation that is not set aside."""
        return None if reserved is None else max(reserved - self.numbers.get(function, 0), 0)

    def begin(self, group: Group, environment: Environment, request: Request) -> bool:
        """An invocation of a version with such environments runs; the result says if it does so in one of them."""
        if not group.keeps(environment):
            group.spilled += 1
            return False
        function = request.version.function
        request.set_aside = True
        group.served += 1
        self._running[function] = self._running.get(function, 0) + 1
        return True

    def end(self, function: str) -> None:
        """It has run."""
        left = self._running[function] - 1
        if left:
            self._running[function] = left
        else:
            del self._running[function]


def place_aside(group: Group) -> Placement | None:
    """May an invocation have one of the environments kept apart, now or in a moment? None if there is none for it."""
    environment = group.vacancy()
    if environment is not None and group.keeps(environment):
        return Placement.REUSE
    if group.settling_slots > 0 and any(group.keeps(settling) for settling in group.settling):
        return Placement.AWAIT
    return None

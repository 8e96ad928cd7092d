"""How far versions are: what cannot be invoked yet, what never will be, and which functions are being changed.

Nothing here is durable: whoever makes a version ready knows again, after a restart, what is still to be done.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torpor.model.errors import Conflict
from torpor.model.function import FunctionVersion

PENDING, ACTIVE, FAILED = "Pending", "Active", "Failed"
_CREATING = "The function is being created."


@dataclass(frozen=True, slots=True)
class State:
    """A version's state, and why it is not active."""

    name: str
    reason: str = ""
    code: str = ""

    @property
    def is_active(self) -> bool:
        return self.name == ACTIVE


_ACTIVE = State(ACTIVE)


class VersionStates:
    """A version is active unless something else is said of it. One event loop's thread."""

    def __init__(self) -> None:
        self._unsettled: dict[tuple[str, str, str], State] = {}
        self._updating: set[str] = set()

    @property
    def all_active(self) -> bool:
        """Has nothing else been said of any version? For those who ask at every invocation."""
        return not self._unsettled

    def of(self, version: FunctionVersion) -> State:
        """The same for each of its tenants."""
        return self._unsettled.get(version.key[:3], _ACTIVE)

    def pend(self, version: FunctionVersion, reason: str = _CREATING, code: str = "Creating") -> None:
        """Something is made for the version; it is not invoked before `settle`."""
        self._unsettled[version.key[:3]] = State(PENDING, reason, code)

    def fail(self, version: FunctionVersion, reason: str, code: str) -> None:
        """What was made for it has failed; it is not invoked any more."""
        self._unsettled[version.key[:3]] = State(FAILED, reason, code)

    def settle(self, version: FunctionVersion) -> None:
        """It is active, or gone."""
        self._unsettled.pop(version.key[:3], None)

    def is_updating(self, function: str) -> bool:
        """Is a change of the function under way?"""
        return function in self._updating

    @contextmanager
    def updating(self, function: str) -> Iterator[None]:
        """While the body changes the function, nobody else does. Raises Conflict if somebody is at it."""
        if function in self._updating:
            raise Conflict(f"An update of the function {function} is in progress; wait for its end.")
        self._updating.add(function)
        try:
            yield
        finally:
            self._updating.discard(function)

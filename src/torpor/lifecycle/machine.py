"""One environment as a pure state machine: events in, effects out.

`handle` looks the event up in the environment table, runs the action it names and checks that the phase reached is one
that the table allows. Nothing in this package reads a clock, waits, or touches the outside; times are monotonic seconds
handed in. The actions stand in four files by what they are about: Init, Invoke, snapshots, and the end.
"""

from collections.abc import Callable, Mapping

from torpor.lifecycle import effects as fx
from torpor.lifecycle import events as ev
from torpor.lifecycle.ground import IllegalEvent
from torpor.lifecycle.phases import PhaseName
from torpor.lifecycle.restore_rules import RestoreRules
from torpor.lifecycle.slots import SlotState
from torpor.lifecycle.transitions import TRANSITIONS


class EnvironmentMachine(RestoreRules):
    """The state of one environment and the rules that move it."""

    def is_running(self, invocation_id: str) -> bool:
        """Is this invocation delivered and not finished? Late and foreign ids are not."""
        slot = self.slots.get(invocation_id)
        return slot is not None and slot.state is not SlotState.EXPIRED

    def has_expired(self, invocation_id: str) -> bool:
        """Has this invocation timed out alone, its runtime still working on it?"""
        slot = self.slots.get(invocation_id)
        return slot is not None and slot.state is SlotState.EXPIRED

    @property
    def is_working(self) -> bool:
        """Is an invocation under way, be it answered already? Those that timed out alone do not count."""
        return bool(self.slots) and any(slot.state is not SlotState.EXPIRED for slot in self.slots.values())

    @property
    def is_gone(self) -> bool:
        return self.phase.name is PhaseName.GONE

    def handle(self, event: ev.Event, now: float) -> fx.Effects:
        """Take note of an event and say what is to be done, in order.

        Raises IllegalEvent if the table has no such move, and TransitionRefused if an agent asks for something that its
        own table does not allow; in both cases nothing has changed."""
        move = _MOVES[self.phase.name].get(type(event))
        if move is None:
            raise IllegalEvent(f"{type(event).__name__} while {self.phase.name}")
        action, allowed = move
        out: list[fx.Effect] = []
        self._out = out
        action(self, event, now)
        if self.phase.name not in allowed:
            raise IllegalEvent(f"{type(event).__name__} led to {self.phase.name}")
        return out


_Action = Callable[[EnvironmentMachine, ev.Event, float], None]

_MOVES: Mapping[PhaseName, Mapping[type, tuple[_Action, frozenset[PhaseName]]]] = {
    phase: {event: (getattr(EnvironmentMachine, "_" + rule.action), rule.to) for event, rule in rules.items()}
    for phase, rules in TRANSITIONS.items()
}
"""The environment table with each action's name replaced by the action."""

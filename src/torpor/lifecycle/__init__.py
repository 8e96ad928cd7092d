"""One environment, pure: phases, events, effects, the three tables and the machine that reads them."""

from torpor.lifecycle.agents import EXTENSIONS, RUNTIME, AgentCall, AgentState, TransitionRefused
from torpor.lifecycle.ground import IllegalEvent
from torpor.lifecycle.machine import EnvironmentMachine
from torpor.lifecycle.phases import Phase, PhaseName

__all__ = [
    "EXTENSIONS",
    "RUNTIME",
    "AgentCall",
    "AgentState",
    "EnvironmentMachine",
    "IllegalEvent",
    "Phase",
    "PhaseName",
    "TransitionRefused",
]

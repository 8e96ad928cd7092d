"""Many environments, pure: where an invocation runs, what has to go, what must wait."""

from torpor.scheduling.memory import MemoryView, Room, make_room
from torpor.scheduling.pacing import TokenBucket
from torpor.scheduling.placement import Placement, ThrottleReason, place
from torpor.scheduling.reclaim import IdleView, overdue
from torpor.scheduling.scaling import Load, overflow, retry_pause, wanted

__all__ = [
    "IdleView",
    "Load",
    "MemoryView",
    "Placement",
    "Room",
    "ThrottleReason",
    "TokenBucket",
    "make_room",
    "overdue",
    "overflow",
    "place",
    "retry_pause",
    "wanted",
]

"""The host's memory as a budget that admission never over-commits.

An environment that may run is charged its whole memory size. A frozen one cannot grow, so it may be charged what it
really uses; before it runs again it must be admitted again for the difference.
"""

from collections.abc import Iterable

import msgspec


class MemoryView(msgspec.Struct, frozen=True, kw_only=True):
    """One idle environment that could shrink or go. Sizes in MiB."""

    id: str
    charged: int
    used: int
    last_used: float


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What has to happen first: idle environments to charge by use, then those to end; `enough` says if it will do."""

    shrink: tuple[str, ...]
    end: tuple[str, ...]
    enough: bool


def make_room(needed: int, free: int, idle: Iterable[MemoryView]) -> Room:
    """Find `needed` MiB where `free` are left: shrink charges, then end environments, least recently used first."""
    if needed <= free:
        return Room(shrink=(), end=(), enough=True)
    by_age = sorted(idle, key=lambda view: view.last_used)
    shrink = []
    for view in by_age:
        if view.used < view.charged:
            shrink.append(view.id)
            free += view.charged - view.used
        if needed <= free:
            return Room(shrink=tuple(shrink), end=(), enough=True)
    end = []
    for view in by_age:
        end.append(view.id)
        free += view.used
        if needed <= free:
            return Room(shrink=tuple(shrink), end=tuple(end), enough=True)
    return Room(shrink=tuple(shrink), end=(), enough=False)

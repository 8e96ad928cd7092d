"""Which environments have lived or idled long enough."""

from collections.abc import Iterable

import msgspec


class IdleView(msgspec.Struct, frozen=True, kw_only=True):
    """One idle environment; times are monotonic seconds."""

    id: str
    created: float
    last_used: float


def overdue(idle: Iterable[IdleView], now: float, *, idle_timeout: float, max_age: float) -> tuple[str, ...]:
    """The ids to end now: unused for `idle_timeout` seconds, or older than `max_age`."""
    return tuple(view.id for view in idle if now - view.last_used >= idle_timeout or now - view.created >= max_age)

"""What makes events without a caller: schedules, timers, queues."""

import msgspec


class EventOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """One of them, as its operator sees it."""

    name: str
    """As it stands in the `source` of its events, or the queue's."""
    function: str
    """With its qualifier, if it has one; empty for none yet."""
    state: str
    when: str
    """When or how it makes events, in its API's words."""
    next: float | None = None
    """The next planned time, in seconds since the epoch."""
    told: str = ""
    """What came of it last."""


def qualified(function: str, qualifier: str) -> str:
    """A function's name as it is called."""
    return f"{function}:{qualifier}" if qualifier else function

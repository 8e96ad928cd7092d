"""One asynchronous event: what was accepted, how far it is, and what has happened to it so far."""

from enum import IntEnum

import msgspec

STEPS_KEPT = 60
"""Of an event's history; when there are more, those in the middle go."""


class EventState(IntEnum):
    """Where an event stands."""

    QUEUED = 0
    """It waits for its turn, or for the time of its next attempt."""
    RUNNING = 1
    """The server has taken it up: it runs, or waits for an environment."""
    DELIVERING = 2
    """It is through; its result is on its way to where results go."""
    SUCCEEDED = 3
    FAILED = 4
    """It was given up: its attempts or its time are used up."""
    DEAD = 5
    """Its result could not be delivered."""
    DROPPED = 6
    """Somebody has taken it out."""

    @property
    def is_ended(self) -> bool:
        return self >= EventState.SUCCEEDED

    @property
    def word(self) -> str:
        """For people."""
        return self.name.lower()


ENDED = tuple(state for state in EventState if state.is_ended)


class EventRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The HTTP request that an event is, for a function that sees the request itself."""

    method: str
    target: str
    fields: tuple[tuple[str, str], ...] = ()
    peer: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was accepted; nothing of it changes."""

    request_id: str
    """The same at every attempt."""
    function: str
    """The function's record."""
    contract: str
    """Whose rules it follows, by the contract's name in the model."""
    payload: bytes
    accepted: float
    """Seconds since the epoch."""
    resource: str = ""
    """The unqualified name by which the contract's outside world knows the function."""
    qualifier: str = ""
    trace: str = ""
    tenant: str = ""
    source: str = ""
    """What made it, if no caller did: `timer:<name>`, `destination:<request id>`."""
    planned: float = 0.0
    """When a timer was to go off, in seconds since the epoch."""
    task: str = ""
    """The caller's own name for it, under which it is accepted once."""
    request: EventRequest | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of an event's last attempt."""

    verdict: str
    """A value of `Verdict`."""
    payload: bytes = b""
    error_type: str = ""
    version: str = ""
    environment: str = ""
    refusal: str = ""
    """Why it was never run, if it was not."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of an event's history."""

    at: float
    """Seconds since the epoch."""
    what: str
    """`accepted`, `run`, `wait`, `throttled`, `interrupted`, `ended`, `delivered`, `undelivered`, `retried` or
    `dropped`."""
    detail: str = ""
    seconds: float = 0.0
    """A run's duration, how long is waited, or from the first refusal to the last."""
    waited: float = 0.0
    """Seconds from when a run was due until it began."""
    times: int = 0
    """Refusals in a row."""


class Owed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A delivery that is still to be made."""

    target: str
    role: str
    """`destination` or `dead letter`."""
    attempts: int = 0
    since: float = 0.0
    """When it was tried first, by the queue's own clock."""
    error: str = ""
    """Why it failed last."""


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What changes of an event."""

    runs: int = 0
    """How often the function has run it to some end."""
    errors: int = 0
    """Runs of these that count against the retries."""
    refusals: int = 0
    """Attempts in a row that did not get as far as running."""
    refused_since: float = 0.0
    """When the first of those was, by the queue's own clock."""
    interruptions: int = 0
    """How often it was run, or its result delivered, when the server ended."""
    ended: float = 0.0
    """Seconds since the epoch; 0 while it is not through."""
    condition: str = ""
    """Why it is through: a value of `Condition`."""
    result: Result | None = None
    owed: tuple[Owed, ...] = ()
    steps: tuple[Step, ...] = ()

    def with_step(self, step: Step) -> "Progress":
        """With one more line of history."""
        steps = (*self.steps, step)
        if len(steps) > STEPS_KEPT:
            steps = (*steps[: STEPS_KEPT // 2], *steps[-STEPS_KEPT // 2 :])
        return msgspec.structs.replace(self, steps=steps)


NOTHING_YET = Progress()

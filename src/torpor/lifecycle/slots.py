"""The invocation table: one small machine per invocation inside an environment.

waiting    assigned, but the environment is not ready yet
delivered  handed to the runtime
answering  the runtime uploads a streamed answer, which goes to the caller meanwhile
answered   the runtime has answered; the Invoke phase goes on until every agent asked for more work
expired    timed out by itself while the environment goes on; the late answer is refused
done       nothing more will happen
"""

from collections.abc import Mapping
from enum import StrEnum

from torpor.model.failure import Answer, Failure
from torpor.model.invocation import Invocation


class SlotState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    ANSWERING = "answering"
    ANSWERED = "answered"
    EXPIRED = "expired"
    DONE = "done"

    __hash__ = str.__hash__  # the tables are keyed by it on every event


class SlotCall(StrEnum):
    DELIVER = "deliver"
    BEGIN_ANSWER = "begin_answer"
    ANSWER = "answer"
    EXPIRE = "expire"
    FAIL = "fail"
    FINISH = "finish"

    __hash__ = str.__hash__  # the tables are keyed by it on every event


_S, _C = SlotState, SlotCall

INVOCATION: Mapping[SlotState, Mapping[SlotCall, SlotState]] = {
    _S.WAITING: {_C.DELIVER: _S.DELIVERED, _C.FAIL: _S.DONE},
    _S.DELIVERED: {
        _C.BEGIN_ANSWER: _S.ANSWERING,
        _C.ANSWER: _S.ANSWERED,
        _C.EXPIRE: _S.EXPIRED,
        _C.FAIL: _S.DONE,
    },
    _S.ANSWERING: {_C.ANSWER: _S.ANSWERED, _C.EXPIRE: _S.EXPIRED, _C.FAIL: _S.DONE},
    _S.ANSWERED: {_C.FINISH: _S.DONE, _C.FAIL: _S.DONE},
    _S.EXPIRED: {_C.ANSWER: _S.DONE, _C.FAIL: _S.DONE, _C.FINISH: _S.DONE},
    _S.DONE: {},
}


class Slot:
    """One invocation in an environment. `started` and `deadline` are monotonic times, 0 while it waits; `answered_from`
    and `answered_at`, when its answer began and was whole, likewise."""

    __slots__ = (
        "answered_at",
        "answered_from",
        "deadline",
        "invocation",
        "result",
        "runtime_done",
        "started",
        "state",
        "timeout",
        "told",
    )

    def __init__(self, invocation: Invocation, timeout: float) -> None:
        self.invocation = invocation
        self.timeout = timeout
        self.state = SlotState.WAITING
        self.started = 0.0
        self.deadline = 0.0
        self.answered_from = self.answered_at = 0.0
        self.runtime_done = 0.0
        """When its runtime was through with it, likewise."""
        self.result: Answer | Failure | None = None
        self.told = False
        """The caller has its result already."""

    def move(self, call: SlotCall) -> None:
        """Make the table's move. Raises KeyError if there is none: a fault of the machine, not of a peer."""
        self.state = INVOCATION[self.state][call]

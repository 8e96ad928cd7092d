"""The agent table: what the runtime and each extension may do, and when.

An *agent* is a process inside an environment that talks to the platform. Each kind has a table state → call → next
state; what is absent is refused. The standard runtime's table is the in-sandbox daemon's own (contract 2.5), the
extension's is that of contract 3.4.

    started     the process runs and has asked for nothing yet
    registered  (extensions) it has told which events it wants
    ready       its request for work is parked
    running     it has been handed work
    answering   (runtime) it uploads a streamed answer
    answered    (runtime) it has answered and not yet asked for more
    restorable  (runtime) it waits to go on from a snapshot
    restoring   (runtime) it goes on from a snapshot and has not asked for work yet
    failed      it has reported an error before it was ready; nothing more is accepted from it
    gave up     (extensions) it has reported an error later, with the same effect
    exited      there is no such process
"""

from collections.abc import Mapping
from enum import StrEnum

from torpor.model.policy import RuntimeKind

RUNTIME = "runtime"
EXTENSIONS = "extensions/"
"""What the names of extensions as agents begin with, so that none of them can be taken for the runtime."""


class AgentState(StrEnum):
    STARTED = "started"
    REGISTERED = "registered"
    READY = "ready"
    RUNNING = "running"
    ANSWERING = "answering"
    ANSWERED = "answered"
    RESTORABLE = "restorable"
    RESTORING = "restoring"
    FAILED = "failed"
    GAVE_UP = "gave up"
    EXITED = "exited"

    __hash__ = str.__hash__  # the tables are keyed by it on every event


class AgentCall(StrEnum):
    """What moves an agent: its own calls, and what the platform does to it."""

    START = "start"
    REGISTER = "register"
    NEXT = "next"
    DELIVER = "deliver"
    ANSWER = "answer"
    BEGIN_ANSWER = "begin_answer"
    AWAIT_RESTORE = "await_restore"
    RESTORE = "restore"
    FAIL = "fail"
    GIVE_UP = "give_up"
    EXIT = "exit"

    __hash__ = str.__hash__  # the tables are keyed by it on every event


Table = Mapping[AgentState, Mapping[AgentCall, AgentState]]

_S, _C = AgentState, AgentCall

SERIAL_RUNTIME: Table = {
    _S.EXITED: {_C.START: _S.STARTED},
    _S.STARTED: {
        _C.NEXT: _S.READY,
        _C.AWAIT_RESTORE: _S.RESTORABLE,
        _C.FAIL: _S.FAILED,
        _C.EXIT: _S.EXITED,
    },
    _S.RESTORABLE: {_C.RESTORE: _S.RESTORING, _C.EXIT: _S.EXITED},
    _S.RESTORING: {_C.NEXT: _S.READY, _C.FAIL: _S.FAILED, _C.EXIT: _S.EXITED},
    _S.READY: {_C.NEXT: _S.READY, _C.DELIVER: _S.RUNNING, _C.EXIT: _S.EXITED},
    _S.RUNNING: {
        _C.NEXT: _S.RUNNING,
        _C.ANSWER: _S.ANSWERED,
        _C.BEGIN_ANSWER: _S.ANSWERING,
        _C.EXIT: _S.EXITED,
    },
    _S.ANSWERING: {_C.ANSWER: _S.ANSWERED, _C.EXIT: _S.EXITED},
    _S.ANSWERED: {_C.NEXT: _S.READY, _C.EXIT: _S.EXITED},
    _S.FAILED: {_C.EXIT: _S.EXITED},
}
"""One request for work at a time: `next` while running delivers the same event again."""

PARALLEL_RUNTIME: Table = {
    _S.EXITED: {_C.START: _S.STARTED},
    _S.STARTED: {_C.NEXT: _S.READY, _C.FAIL: _S.FAILED, _C.EXIT: _S.EXITED},
    _S.READY: {
        _C.NEXT: _S.READY,
        _C.DELIVER: _S.READY,
        _C.BEGIN_ANSWER: _S.READY,
        _C.ANSWER: _S.READY,
        _C.EXIT: _S.EXITED,
    },
    _S.FAILED: {_C.EXIT: _S.EXITED},
}
"""Several workers behind one agent, or a server: each invocation's own table does the rest."""

EXTENSION: Table = {
    _S.EXITED: {_C.START: _S.STARTED},
    _S.STARTED: {_C.REGISTER: _S.REGISTERED, _C.EXIT: _S.EXITED},
    _S.REGISTERED: {_C.NEXT: _S.READY, _C.FAIL: _S.FAILED, _C.GIVE_UP: _S.GAVE_UP, _C.EXIT: _S.EXITED},
    _S.READY: {_C.NEXT: _S.READY, _C.DELIVER: _S.RUNNING, _C.GIVE_UP: _S.GAVE_UP, _C.EXIT: _S.EXITED},
    _S.RUNNING: {_C.NEXT: _S.READY, _C.GIVE_UP: _S.GAVE_UP, _C.EXIT: _S.EXITED},
    _S.FAILED: {_C.EXIT: _S.EXITED},
    _S.GAVE_UP: {_C.EXIT: _S.EXITED},
}
"""`fail` is an error before it was ever ready, `give up` one at any later time."""

RUNTIME_TABLES: Mapping[RuntimeKind, Table] = {
    RuntimeKind.POLLER: SERIAL_RUNTIME,
    RuntimeKind.PARALLEL_POLLER: PARALLEL_RUNTIME,
    RuntimeKind.SERVER: PARALLEL_RUNTIME,
}


class TransitionRefused(Exception):
    """An agent asked for something its state does not allow; its state is unchanged."""

    def __init__(self, agent: str, state: AgentState, call: AgentCall) -> None:
        super().__init__(f"{agent} may not {call} while {state}")
        self.agent = agent
        self.state = state
        self.call = call


class Agent:
    """One process's standing. Only `move` changes it."""

    __slots__ = ("external", "name", "state", "table", "wants_invoke", "wants_shutdown")

    def __init__(self, name: str, table: Table, *, external: bool = True) -> None:
        self.name = name
        self.table = table
        self.state = AgentState.EXITED
        self.external = external
        self.wants_invoke = False
        self.wants_shutdown = False

    def move(self, call: AgentCall) -> None:
        """Make the table's move. Raises TransitionRefused if there is none."""
        state = self.table[self.state].get(call)
        if state is None:
            raise TransitionRefused(self.name, self.state, call)
        self.state = state

    def require(self, call: AgentCall) -> None:
        """Raises TransitionRefused if `move` would."""
        if call not in self.table[self.state]:
            raise TransitionRefused(self.name, self.state, call)

    @property
    def title(self) -> str:
        """Its name as people know it."""
        return self.name.removeprefix(EXTENSIONS)

    @property
    def lives(self) -> bool:
        return self.state is not AgentState.EXITED

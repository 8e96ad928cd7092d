"""Every phase against every event, and the page of diagrams against the tables."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.lifecycle import FUNCTION_SERVER, RESTORED, SAVED, Story, invocation

from torpor.lifecycle import RUNTIME, AgentCall, AgentState, IllegalEvent, PhaseName, TransitionRefused
from torpor.lifecycle import events as ev
from torpor.lifecycle.agents import EXTENSION, PARALLEL_RUNTIME, SERIAL_RUNTIME, Agent, Table
from torpor.lifecycle.diagram import page
from torpor.lifecycle.transitions import TRANSITIONS
from torpor.model.failure import Answer, Failure, FailureKind

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "lifecycle.md"


def _quiescing() -> Story:
    story = Story(FUNCTION_SERVER)
    story.then(ev.SandboxReady())
    story.ready()
    story.then(ev.HookFinished("initialize"))
    story.then(ev.NothingPending())
    return story


def _resetting() -> Story:
    story = Story().initialised()
    story.assign()
    story.then(ev.DeadlineReached("i1"), after=3.0)
    return story


def _after(*events: ev.Event, story: Story | None = None) -> Story:
    story = story or Story().initialised()
    for event in events:
        story.then(event)
    return story


_EXIT = ev.AgentExited(RUNTIME, code=1)
_ASSIGNED = ev.Assigned(invocation(), 3.0)
_STOP = ev.StopRequested("spindown")
_STORIES: dict[PhaseName, Callable[[], Story]] = {
    PhaseName.PROVISIONING: Story,
    PhaseName.INITIALIZING: lambda: _after(ev.SandboxReady(), story=Story()),
    PhaseName.SAVING: lambda: _after(ev.SandboxReady(), ev.RestoreAwaited(), story=Story(SAVED)),
    PhaseName.RESTORING: lambda: _after(ev.SandboxReady(), story=Story(RESTORED)),
    PhaseName.IDLE: _after,
    PhaseName.FROZEN: lambda: _after(ev.NothingPending()),
    PhaseName.SERVING: lambda: _after(_ASSIGNED),
    PhaseName.QUIESCING: _quiescing,
    PhaseName.RESETTING: _resetting,
    PhaseName.UNINITIALIZED: lambda: _after(_EXIT),
    PhaseName.REINITIALIZING: lambda: _after(_EXIT, _ASSIGNED),
    PhaseName.STOPPING: lambda: _after(_STOP),
    PhaseName.GONE: lambda: _after(_STOP, _EXIT),
}


_SAMPLES: dict[type, ev.Event] = {
    ev.SandboxReady: ev.SandboxReady(),
    ev.SandboxLost: ev.SandboxLost("gone"),
    ev.Assigned: ev.Assigned(invocation("fresh"), 3.0),
    ev.NextRequested: ev.NextRequested(RUNTIME),
    ev.RestoreAwaited: ev.RestoreAwaited(),
    ev.AgentRegistered: ev.AgentRegistered("inner", False, False, True),
    ev.AnswerBegun: ev.AnswerBegun("i1"),
    ev.Answered: ev.Answered("i1", Answer(payload=b"1")),
    ev.AnswerRefused: ev.AnswerRefused("i1", Failure(kind=FailureKind.OVERSIZE, size=7)),
    ev.AgentFailed: ev.AgentFailed(RUNTIME, "Runtime.Unknown", b"{}"),
    ev.AgentExited: ev.AgentExited(RUNTIME, code=1),
    ev.DeadlineReached: ev.DeadlineReached("long-cancelled"),
    ev.NothingPending: ev.NothingPending(),
    ev.HookFinished: ev.HookFinished("pre-freeze"),
    ev.NextWithdrawn: ev.NextWithdrawn(RUNTIME),
    ev.Cancelled: ev.Cancelled("i1"),
    ev.HealthChanged: ev.HealthChanged(False),
    ev.StopRequested: ev.StopRequested("spindown"),
}


@pytest.mark.parametrize("event", ev.EVENTS, ids=lambda event: event.__name__)
@pytest.mark.parametrize("phase", list(PhaseName))
def test_every_event_in_every_phase_is_in_the_table_or_refused(phase: PhaseName, event: type) -> None:
    story = _STORIES[phase]()
    assert story.phase is phase
    rule = TRANSITIONS[phase].get(event)
    if rule is None:
        with pytest.raises(IllegalEvent):
            story.then(_SAMPLES[event])
        assert story.phase is phase
        return
    try:
        story.then(_SAMPLES[event])
    except (TransitionRefused, IllegalEvent):
        assert story.phase is phase
    else:
        assert story.phase in rule.to


_AGENT_STATES = [
    pytest.param(table, state, id=f"{name}-{state}")
    for name, table in (("serial", SERIAL_RUNTIME), ("parallel", PARALLEL_RUNTIME), ("extension", EXTENSION))
    for state in table
]


@pytest.mark.parametrize("call", list(AgentCall))
@pytest.mark.parametrize(("table", "state"), _AGENT_STATES)
def test_an_agent_moves_by_its_table_or_is_refused(table: Table, state: AgentState, call: AgentCall) -> None:
    agent = Agent("x", table)
    agent.state = state
    if call in table[state]:
        agent.move(call)
        assert agent.state is table[state][call]
    else:
        with pytest.raises(TransitionRefused):
            agent.move(call)
        assert agent.state is state


def test_every_phase_can_be_left_towards_gone() -> None:
    reachable = {PhaseName.GONE}
    while True:
        more = {phase for phase, rules in TRANSITIONS.items() if any(rule.to & reachable for rule in rules.values())}
        if more <= reachable:
            break
        reachable |= more
    assert reachable == set(PhaseName)


def test_the_page_of_diagrams_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew with `make reference`"

"""The tables as diagrams, for docs/reference/lifecycle.md; a test keeps that page and the tables in step."""

from collections.abc import Iterator, Mapping
from typing import TypeVar

from torpor.lifecycle.agents import EXTENSION, PARALLEL_RUNTIME, SERIAL_RUNTIME, AgentState, Table
from torpor.lifecycle.phases import PhaseName
from torpor.lifecycle.slots import INVOCATION, SlotState
from torpor.lifecycle.transitions import TRANSITIONS

_State = TypeVar("_State", bound=str)
_Call = TypeVar("_Call", bound=str)


def page() -> str:
    """The whole reference page in Markdown with Mermaid diagrams."""
    parts = [
        "# The life-cycle tables\n",
        "Generated from `torpor.lifecycle`; do not edit. `make reference` writes it anew, a test compares it.\n",
        "## Environment: phases\n",
        "Events that change nothing in a phase are left out.\n",
        _diagram(PhaseName.PROVISIONING, _environment_edges(), PhaseName.GONE),
        "## Invocation: one per slot\n",
        _diagram(SlotState.WAITING, _edges(INVOCATION), SlotState.DONE),
    ]
    for title, table in _AGENTS.items():
        parts += [f"## Agent: {title}\n", _diagram(AgentState.EXITED, _edges(table), None)]
    return "\n".join(parts)


_AGENTS: Mapping[str, Table] = {
    "a runtime that asks for one invocation at a time": SERIAL_RUNTIME,
    "a runtime with parallel workers, or a server": PARALLEL_RUNTIME,
    "an extension": EXTENSION,
}


def _environment_edges() -> Iterator[tuple[str, str, str]]:
    for phase, rules in TRANSITIONS.items():
        for event, rule in rules.items():
            for target in sorted(rule.to):
                if target is not phase:
                    yield phase, target, event.__name__


def _edges(table: Mapping[_State, Mapping[_Call, _State]]) -> Iterator[tuple[str, str, str]]:
    for state, moves in table.items():
        for call, target in moves.items():
            yield state, target, call


def _diagram(first: str, edges: Iterator[tuple[str, str, str]], last: str | None) -> str:
    labels: dict[tuple[str, str], list[str]] = {}
    for source, target, label in edges:
        labels.setdefault((source, target), []).append(label)
    lines = [f"    {source} --> {target}: {', '.join(names)}" for (source, target), names in labels.items()]
    end = [f"    {last} --> [*]"] if last else []
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *lines, *end, "```", ""])

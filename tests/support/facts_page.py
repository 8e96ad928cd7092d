"""The required facts in the specification: each with the tests that claim it, read from the tests themselves.

`python -m tests.support.facts_page` writes that part of the page anew; a test compares.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.facts import Fact, read_facts

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
PAGE = ROOT / "docs" / "SPECIFICATION.md"
BEGIN, END = "<!-- facts: written by `make reference` -->", "<!-- end of facts -->"
HEADINGS = {
    "M": "Managed instances",
    "C": "Function Compute, custom runtime",
    "F": "Function Compute, invocation and life cycle",
    "W": "Web services",
    "S": "SnapStart",
    "L": "Lambda, standard",
}


def page(text: str) -> str:
    """The specification with its part about facts as it should be. Raises ValueError if the part is not marked."""
    before, found, rest = text.partition(BEGIN)
    _, also_found, after = rest.partition(END)
    if not (found and also_found):
        raise ValueError(f"{PAGE.name} has no part between the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{_sections()}\n{END}{after}"


def claims() -> dict[str, list[tuple[str, str, bool]]]:
    """By fact: file below `tests`, test, and whether it is slow."""
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for test, facts, slow in _marked(path):
            for fact in facts:
                found.setdefault(fact, []).append((str(path.relative_to(TESTS)), test, slow))
    return found


def _sections() -> str:
    shown = claims()
    facts = read_facts()
    parts = []
    for letter, heading in HEADINGS.items():
        rows = [_row(fact, shown.get(fact.id, [])) for fact in facts if fact.id.startswith(letter)]
        parts.append("\n".join([f"### {heading}\n", "| promise | shown by |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def _row(fact: Fact, tests: list[tuple[str, str, bool]]) -> str:
    text = fact.text.replace("|", "\\|")
    links = [f"[`{path}::{test}`](../tests/{path}){' (slow)' if slow else ''}" for path, test, slow in tests]
    return f"| {fact.id} {text} | {', '.join(links) or 'not built: no test shows it'} |"


def _marked(path: Path) -> Iterator[tuple[str, list[str], bool]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [_mark(decorator) for decorator in node.decorator_list]
            facts = [fact for name, values in names if name == "fact" for fact in values]
            if facts:
                yield node.name, facts, any(name == "slow" for name, _ in names)


def _mark(decorator: ast.expr) -> tuple[str, list[str]]:
    call = decorator if isinstance(decorator, ast.Call) else None
    target = call.func if call else decorator
    values = [arg.value for arg in call.args if isinstance(arg, ast.Constant)] if call else []
    name = target.attr if isinstance(target, ast.Attribute) else ""
    return name, [value for value in values if isinstance(value, str)]


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")

"""The scoreboard of required facts: which test shows which fact, and whether it holds.

As a pytest plugin it refuses fact ids that do not exist and, with `--facts-report FILE`, writes what became of each
test that carries `@pytest.mark.fact`. As a program (`make facts`) it runs those tests and prints the scoreboard.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

_TABLE = Path(__file__).with_suffix(".tsv")
_OPTION = "--facts-report"
_COMPLETE_RUNS = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)


class Standing(StrEnum):
    """How a fact stands. A fact is worth the worst of its tests, and a skipped test shows nothing."""

    FAILED = "failed"
    PASSED = "passed"
    SKIPPED = "skipped"
    NOT_COVERED = "not covered"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One required fact."""

    id: str
    group: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the scoreboard."""

    id: str
    group: str
    fact: str
    tests: tuple[str, ...]
    standing: Standing


def read_facts(path: Path = _TABLE) -> tuple[Fact, ...]:
    """All required facts, in the order of the page they come from."""
    lines = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines())
    return tuple(Fact(id=id, group=group, text=text) for id, group, text in lines)


def judge(outcomes: Iterable[str]) -> Standing:
    """The standing of a fact whose tests ended so."""
    seen = set(outcomes)
    for standing in Standing:
        if standing.value in seen:
            return standing
    return Standing.NOT_COVERED


def scoreboard(facts: Iterable[Fact], results: Mapping[str, Mapping[str, str]]) -> tuple[Row, ...]:
    """Every fact with its tests (`results`: fact id to outcome by test) and its standing."""
    rows = []
    for fact in facts:
        tests = results.get(fact.id, {})
        row = Row(
            id=fact.id, group=fact.group, fact=fact.text, tests=tuple(sorted(tests)), standing=judge(tests.values())
        )
        rows.append(row)
    return tuple(rows)


def counts(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """For each group and for `total`, how many facts stand how."""
    sums: dict[str, Counter[str]] = {}
    for row in rows:
        for group in (row.group, "total"):
            sums.setdefault(group, Counter())[row.standing.value] += 1
    total = sums.pop("total", Counter())
    return {group: _full(sum_) for group, sum_ in (*sums.items(), ("total", total))}


def render(rows: Sequence[Row]) -> str:
    """The scoreboard as text."""
    lines = [f"{row.id}  {row.standing:11}  {_shortened(row.fact)}{_first_test(row)}" for row in rows]
    sums = counts(rows)
    width = max(map(len, sums))
    lines.append("")
    lines.append(f"{'':{width}}  " + "  ".join(f"{standing:>11}" for standing in Standing))
    for group, sum_ in sums.items():
        lines.append(f"{group:{width}}  " + "  ".join(f"{sum_[standing]:>11}" for standing in Standing))
    return "\n".join(lines)


def _full(sum_: Counter[str]) -> dict[str, int]:
    return {standing.value: sum_[standing.value] for standing in Standing}


def _shortened(text: str, width: int = 90) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _first_test(row: Row) -> str:
    more = f" and {len(row.tests) - 1} more" if len(row.tests) > 1 else ""
    return f"\n       {row.tests[0]}{more}" if row.tests else ""


class FactCollector:
    """The pytest plugin's memory: outcomes by fact and test."""

    def __init__(self, report: str | None, known: frozenset[str]) -> None:
        self._report = report
        self._known = known
        self._facts: dict[str, tuple[str, ...]] = {}
        self._results: dict[str, dict[str, str]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            ids = tuple(id for mark in item.iter_markers("fact") for id in mark.args)
            unknown = sorted(set(ids) - self._known)
            if unknown:
                raise pytest.UsageError(f"{item.nodeid} names unknown facts: {', '.join(unknown)}")
            self._facts[item.nodeid] = ids

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        for id in self._facts.get(report.nodeid, ()):
            tests = self._results.setdefault(id, {})
            if tests.get(report.nodeid) != Standing.FAILED:
                tests[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        if self._report:
            Path(self._report).write_text(json.dumps(self._results), encoding="utf-8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_OPTION, metavar="FILE", help="write the outcome of each fact's tests to FILE")


def pytest_configure(config: pytest.Config) -> None:
    known = frozenset(fact.id for fact in read_facts())
    config.pluginmanager.register(FactCollector(config.getoption(_OPTION), known), "torpor-facts")


def _run_tests(options: Sequence[str]) -> dict[str, dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "facts.json")
        command = [sys.executable, "-m", "pytest", "-m", "fact", _OPTION, str(report), *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode not in _COMPLETE_RUNS:
            raise SystemExit(f"The tests could not be run:\n{done.stdout[-4000:]}")
        results: dict[str, dict[str, str]] = json.loads(report.read_text(encoding="utf-8"))
        return results


def _as_value(rows: Sequence[Row]) -> dict[str, Any]:
    return {"facts": [asdict(row) for row in rows], "counts": counts(rows)}


def main(arguments: Sequence[str]) -> int:
    """Run the facts' tests and print the scoreboard; 1 if a fact's test failed."""
    parser = argparse.ArgumentParser(prog="make facts", description="Scoreboard of the required facts.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--slow", action="store_true", help="run limits at full length too")
    parser.add_argument("tests", nargs="*", help="only these test files")
    given = parser.parse_args(arguments)
    rows = scoreboard(read_facts(), _run_tests([*given.tests, *(["--slow"] if given.slow else [])]))
    print(json.dumps(_as_value(rows), ensure_ascii=False) if given.json else render(rows))
    return int(any(row.standing is Standing.FAILED for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

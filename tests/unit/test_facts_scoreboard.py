"""The scoreboard of required facts: what a fact's tests make of it, and that the table is whole."""

import json
from collections import Counter
from pathlib import Path

import pytest
from tests.support.facts import Fact, FactCollector, Standing, counts, judge, read_facts, render, scoreboard

GROUPS = {"L": 87, "S": 18, "M": 23, "C": 23, "F": 43, "W": 29}


def test_table_holds_every_fact_once() -> None:
    ids = [fact.id for fact in read_facts()]

    assert Counter(id[0] for id in ids) == GROUPS
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("outcomes", "standing"),
    [
        ([], Standing.NOT_COVERED),
        (["skipped"], Standing.SKIPPED),
        (["skipped", "passed"], Standing.PASSED),
        (["passed", "failed", "skipped"], Standing.FAILED),
    ],
)
def test_fact_stands_as_its_worst_test_that_ran(outcomes: list[str], standing: Standing) -> None:
    assert judge(outcomes) is standing


def test_scoreboard_counts_each_group_and_the_total_last() -> None:
    facts = (Fact(id="L-001", group="A", text="one"), Fact(id="W-001", group="B", text="two"))

    rows = scoreboard(facts, {"L-001": {"t.py::test_x": "passed"}})

    assert [row.standing for row in rows] == [Standing.PASSED, Standing.NOT_COVERED]
    assert list(counts(rows)) == ["A", "B", "total"]
    assert counts(rows)["total"] == {"failed": 0, "passed": 1, "skipped": 0, "not covered": 1}
    assert "L-001  passed       one\n       t.py::test_x" in render(rows)


def _report(test: str, outcome: str, when: str = "call") -> pytest.TestReport:
    return pytest.TestReport(test, (test, 1, test), {}, outcome, None, when)  # type: ignore[arg-type]


class _Item:
    def __init__(self, nodeid: str, *facts: str) -> None:
        self.nodeid = nodeid
        self._mark = pytest.mark.fact(*facts).mark

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [self._mark] if name == "fact" else []


def test_collector_writes_what_became_of_each_facts_tests(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    collector = FactCollector(str(file), frozenset(("L-001", "L-002")))
    collector.pytest_collection_modifyitems([_Item("a", "L-001", "L-002"), _Item("b", "L-002")])  # type: ignore[list-item]

    collector.pytest_runtest_logreport(_report("a", "passed", "setup"))
    collector.pytest_runtest_logreport(_report("a", "passed"))
    collector.pytest_runtest_logreport(_report("a", "failed", "teardown"))
    collector.pytest_runtest_logreport(_report("b", "skipped", "setup"))
    collector.pytest_sessionfinish()

    assert json.loads(file.read_text()) == {"L-001": {"a": "failed"}, "L-002": {"a": "failed", "b": "skipped"}}


def test_unknown_fact_is_refused_at_collection() -> None:
    collector = FactCollector(None, frozenset(("L-001",)))

    with pytest.raises(pytest.UsageError, match="unknown facts: L-999"):
        collector.pytest_collection_modifyitems([_Item("a", "L-999")])  # type: ignore[list-item]

"""What the pages say about the project is there: the tests they name, the files they link to, the facts tests claim."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.architecture.sources import ROOT
from tests.support.facts import read_facts
from tests.support.facts_page import page

TESTS = ROOT / "tests"
SPECIFICATION = ROOT / "docs" / "SPECIFICATION.md"
DECISIONS = ROOT / "docs" / "decisions"
RECORD_MAX = 40
TEST_LINK = re.compile(r"\[`(?P<path>[\w/]+\.py)::(?P<name>\w+)`\]\((?P<target>[^)]+)\)")
NAMED_TEST = re.compile(r"[\w/]+\.py::\w+")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
NOT_SHOWN = ("not built", "not shown", "bench:")
REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


def test_every_test_that_the_specification_names_exists() -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")
    links = list(TEST_LINK.finditer(text))
    wrong = [
        link[0]
        for link in links
        if link["name"] not in _tests_in(TESTS / link["path"]) or link["target"] != f"../tests/{link['path']}"
    ]

    assert links
    assert wrong == []
    assert len(NAMED_TEST.findall(text)) == len(links), "a test is named without a link to its file"


def test_every_promise_says_what_shows_it() -> None:
    rows = list(_rows(SPECIFICATION.read_text(encoding="utf-8")))
    silent = [row[0] for row in rows if not TEST_LINK.search(row[1]) and not row[1].startswith(NOT_SHOWN)]

    assert rows
    assert [row for row in rows if len(row) != 2] == []
    assert silent == []


def test_every_required_fact_stands_in_the_specification_with_the_tests_that_claim_it() -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")

    assert text == page(text), "write it anew with `make reference`"


def test_every_relative_link_of_the_pages_resolves() -> None:
    dead = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
        for target in _relative_links(page)
        if not (page.parent / target.partition("#")[0]).exists()
    ]

    assert dead == []


def test_every_fact_that_a_test_claims_is_in_the_table() -> None:
    known = {fact.id for fact in read_facts()}
    unknown = [
        f"{path.relative_to(ROOT)}: {fact}"
        for path in sorted(TESTS.rglob("test_*.py"))
        for fact in _claimed(path)
        if fact not in known
    ]

    assert unknown == []


def test_every_library_the_project_asks_for_has_its_reason_on_record() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(name for extra in project["optional-dependencies"].values() for name in extra)]
    names = [found[0] for text in asked if (found := REQUIREMENT.match(text))]
    record = (DECISIONS / "0001-libraries.md").read_text(encoding="utf-8")

    assert len(names) == len(asked)
    assert [name for name in names if f"**{name}**" not in record] == []


def test_records_of_decisions_are_short() -> None:
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in DECISIONS.glob("*.md")}

    assert lengths
    assert {name: length for name, length in lengths.items() if length >= RECORD_MAX} == {}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module(body=[], type_ignores=[])


def _tests_in(path: Path) -> frozenset[str]:
    """Names of the tests at the top of a file, state machines included; none if there is no file."""
    return frozenset(name for node in _tree(path).body for name in _defined(node) if name.startswith(("test_", "Test")))


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _rows(text: str) -> Iterator[list[str]]:
    """The cells of each table row below a heading line and its rule."""
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| promise |"):
            yield [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def _relative_links(page: Path) -> Iterator[str]:
    text = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    for link in LINK.finditer(text):
        target = link["target"]
        if not target.startswith(("http://", "https://", "mailto:", "#")):
            yield target


def _claimed(path: Path) -> Iterator[str]:
    """Facts in `@pytest.mark.fact(...)` on the functions of a file."""
    for node in ast.walk(_tree(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.fact":
                yield from (ast.literal_eval(argument) for argument in mark.args)

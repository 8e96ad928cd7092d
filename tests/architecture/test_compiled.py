"""What is compiled exists, and holds none of what the compiler takes for something else."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.architecture.sources import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOOK = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]


def _named(patterns: list[str]) -> set[Path]:
    return {path for pattern in patterns for path in ROOT.glob(pattern if "/" in pattern else f"src/**/{pattern}")}


def _compiled() -> list[Path]:
    return sorted(_named(HOOK["include"]) - _named(HOOK["exclude"]))


@pytest.mark.parametrize("pattern", HOOK["include"] + HOOK["exclude"])
def test_every_module_named_for_the_compiler_exists(pattern: str) -> None:
    """The build takes a pattern that matches nothing for nothing, and says so to nobody."""
    assert _named([pattern])


def test_no_compiled_coroutine_waits_while_an_exception_passes_through_it() -> None:
    """The exception may be lost, or become an earlier one. See `torpor.transport.waiting`."""
    found = [f"{path.relative_to(ROOT)}:{line}" for path in _compiled() for line in _waits_in_handlers(path)]

    assert found == []


def test_no_compiled_class_statement_has_keywords() -> None:
    """They are ignored: a struct would be neither frozen nor as it is encoded otherwise."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in _compiled()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.keywords
    ]

    assert found == []


def test_the_compiler_believes_nothing_that_the_type_checker_cannot_tell() -> None:
    """Where a narrowed attribute changes behind the checker's back, only this setting says so."""
    assert PROJECT["tool"]["mypy"]["warn_unreachable"] is True


def _waits_in_handlers(path: Path) -> Iterator[int]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.AsyncWith | ast.AsyncFor) or any(map(_waits, _passed_through(node))):
            yield node.lineno


def _passed_through(node: ast.AST) -> list[ast.AST]:
    """What of this statement runs while an exception is on its way."""
    if isinstance(node, ast.With):
        return [*node.body]
    return [*node.finalbody, *node.handlers] if isinstance(node, ast.Try) else []


def _waits(node: ast.AST) -> bool:
    waits = (ast.Await, ast.AsyncWith, ast.AsyncFor, ast.Yield, ast.YieldFrom)
    return any(isinstance(inner, waits) for inner in ast.walk(node))

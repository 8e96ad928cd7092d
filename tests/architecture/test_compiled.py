"""What is to be compiled: the build takes a pattern that matches nothing for nothing, and says so to nobody."""

import tomllib

import pytest
from tests.architecture.sources import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HOOK = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]


@pytest.mark.parametrize("pattern", [*HOOK["include"], *(name for name in HOOK["exclude"] if "/" in name)])
def test_every_module_to_be_compiled_exists(pattern: str) -> None:
    assert list(ROOT.glob(pattern))


def test_the_compiler_believes_what_the_type_checker_believes() -> None:
    """Where a narrowed attribute changes behind the checker's back, only this setting tells."""
    assert PROJECT["tool"]["mypy"]["warn_unreachable"] is True

"""Imports point one way: each area imports only from blocks above it, and never a sibling of its own block."""

import re
import sys

import pytest
from tests.architecture.sources import SOURCE, in_area, sources

BLOCKS = (
    ("model",),
    ("lifecycle", "scheduling"),
    ("contracts", "sandbox", "store", "targets", "telemetry", "transport"),
    ("engine",),
    ("service",),
    ("api", "console", "cli"),
    ("app",),
)
RANK = {area: rank for rank, block in enumerate(BLOCKS) for area in block}
TOP = ("__init__", "__main__", "settings")
PURE_FORBIDDEN = frozenset(("asyncio", "os", "time", "socket", "logging", "subprocess", "threading"))


def _target(module: str) -> str | None:
    """The area of ours that a module belongs to; None for a foreign one or for the package itself."""
    parts = module.split(".")
    if parts[0] != "torpor" or len(parts) == 1 or parts[1].startswith("__version"):
        return None
    return parts[1]


def test_every_area_has_its_place_in_the_order() -> None:
    found = {source.area for source in sources()}

    assert found <= set(RANK) | set(TOP), f"say in BLOCKS where these stand: {found - set(RANK) - set(TOP)}"


def test_an_area_imports_only_from_blocks_above_it() -> None:
    wrong = []
    for source in sources():
        for imported in source.imports():
            target = _target(imported.module)
            if target not in RANK or source.area not in RANK or target == source.area:
                continue
            starts_server = (source.area, target) == ("cli", "app") and imported.lazy
            if RANK[target] >= RANK[source.area] and not starts_server:
                wrong.append(f"{source.name}:{imported.line} imports {imported.module}")

    assert wrong == []


def test_settings_are_read_by_the_command_line_and_the_composition_root_only() -> None:
    wrong = [
        f"{source.name}:{imported.line}"
        for source in sources()
        if source.area not in ("cli", "app", "settings")
        for imported in source.imports()
        if _target(imported.module) == "settings"
    ]

    assert wrong == []


def test_settings_depend_on_limits_and_the_model_only() -> None:
    targets = {imported.module for source in in_area("settings") for imported in source.imports()}
    own = {module for module in targets if module.startswith("torpor.")}

    assert [
        module
        for module in sorted(own)
        if not module.startswith("torpor.model.") and not re.fullmatch(r"torpor\.contracts\.\w+\.limits", module)
    ] == []


@pytest.mark.parametrize("area", ["sandbox/launcher", "sandbox/guest"])
def test_what_runs_privileged_or_inside_imports_nothing_of_ours(area: str) -> None:
    own = "torpor." + area.replace("/", ".")
    wrong = [
        f"{source.name}:{imported.line} imports {imported.module}"
        for source in in_area(area)
        for imported in source.imports()
        if imported.module.split(".")[0] == "torpor" and not imported.module.startswith(own)
    ]

    assert wrong == []


def test_the_launcher_needs_the_standard_library_only() -> None:
    siblings = {path.stem for path in (SOURCE / "sandbox" / "launcher").glob("*.py")}
    wrong = [
        f"{source.name}:{imported.line} imports {imported.module}"
        for source in in_area("sandbox/launcher")
        for imported in source.imports()
        if imported.module.split(".")[0] not in sys.stdlib_module_names | siblings | {"torpor", "torpor_guest"}
    ]

    assert wrong == []


def test_pure_areas_reach_nothing_outside() -> None:
    wrong = [
        f"{source.name}:{imported.line} imports {imported.module}"
        for source in in_area("lifecycle", "scheduling")
        for imported in source.imports()
        if imported.module.split(".")[0] in PURE_FORBIDDEN
    ]

    assert wrong == []

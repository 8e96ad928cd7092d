"""Rules about what stands where."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.architecture.sources import ROOT, SOURCE, Source, in_area, sources

VENDOR = re.compile(r"\b(aws|amazon|lambda|arn|alibaba|aliyun|fc|leapcell|s3|ec2|boto3?)\b", re.IGNORECASE)
VENDOR_AREAS = ("contracts", "api", "cli", "settings", "app")
"""Where vendors' names may stand: their contracts, the faces that speak them, and the wiring of both."""
CONTRACT_NAME = re.compile(r"^lambda_?$|`lambda(_managed)?`")
"""The model names each contract by one identifier."""
ENVIRONMENT_VARIABLE = re.compile(r"\b_?(AWS|LAMBDA)_[A-Z_]*[A-Z]\b|\bAWS_Lambda_\w*")

OTHER_PHASES = ("transport",)
"""A connection being parsed has phases of its own, and knows nothing of environments."""

ROOT_ONLY = frozenset(
    ("mount", "umount", "umount2", "unshare", "setns", "pivot_root", "setresuid", "setresgid", "setuid", "setgid")
)
GIVES_UP_ROOT = ("sandbox", "linux", "relay")
"""Runs as root only until it has started; changing to an ordinary user is the opposite of a privilege."""
LIMIT_FLOOR = 900
COMMON_NUMBERS = frozenset((1000, 1024, 1_000_000, 1_000_000_000, 4096, 8192, 65_535, 65_536, 3600))


def _public(source: Source) -> bool:
    return not any(part.startswith("_") and part != "__init__" for part in source.parts)


def _strings(source: Source) -> Iterator[tuple[int, str]]:
    """Names and text of a file with their lines, without imports."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.Name):
            yield node.lineno, node.id
        elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg


def test_vendor_names_stand_in_contracts_and_faces_only() -> None:
    wrong = []
    for source in sources():
        if source.area in VENDOR_AREAS or source.parts[:2] == ("sandbox", "guest"):
            continue
        for line, text in _strings(source):
            rest = CONTRACT_NAME.sub("", ENVIRONMENT_VARIABLE.sub("", text))
            found = set(VENDOR.findall(rest.replace("_", " ")))
            if found:
                wrong.append(f"{source.name}:{line} says {', '.join(sorted(found))}")

    assert wrong == []


def test_only_the_life_cycle_changes_a_phase() -> None:
    wrong = []
    for source in sources():
        if source.area in ("lifecycle", *OTHER_PHASES):
            continue
        for node in ast.walk(source.tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                wrong += [
                    f"{source.name}:{node.lineno}"
                    for target in targets
                    if isinstance(target, ast.Attribute) and target.attr in ("phase", "_phase")
                ]

    assert wrong == []


def test_system_calls_for_root_stand_in_the_launcher_only() -> None:
    wrong = [
        f"{source.name}:{node.lineno} calls {name}"
        for source in sources()
        if source.parts[:2] != ("sandbox", "launcher") and source.parts != GIVES_UP_ROOT
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and (name := _called_in_system(node)) in ROOT_ONLY
    ]

    assert wrong == []


def _called_in_system(call: ast.Call) -> str:
    """The name of a function called on `os` or a C library, else nothing."""
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return function.attr if function.value.id in ("os", "libc", "_libc", "ctypes") else ""
    return ""


def test_each_limit_of_a_contract_stands_once() -> None:
    limits = [source for source in sources() if source.path.name == "limits.py" and source.area == "contracts"]
    numbers = {value for source in limits for value in _numbers(source) if value >= LIMIT_FLOOR} - COMMON_NUMBERS
    wrong = [
        f"{source.name}:{line} repeats {value}"
        for source in sources()
        if source not in limits and source.area != "settings"
        for value, line in _numbers_with_lines(source)
        if value in numbers
    ]

    assert limits, "no contract has a limits module"
    assert wrong == []


def test_a_number_in_a_limits_module_has_one_name() -> None:
    for source in in_area("contracts"):
        if source.path.name == "limits.py":
            names = Counter(
                target.id
                for node in source.tree.body
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            )
            assert [name for name, count in names.items() if count > 1] == []


def _numbers(source: Source) -> set[float]:
    return {value for value, _ in _numbers_with_lines(source)}


def _numbers_with_lines(source: Source) -> Iterator[tuple[float, int]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            yield node.value, node.lineno


def test_every_public_module_says_what_it_is() -> None:
    empty = [source.name for source in sources() if source.text.strip() and not ast.get_docstring(source.tree)]

    assert empty == []


def test_public_functions_and_classes_of_ports_are_described() -> None:
    ports = [source for source in sources() if source.path.name in ("port.py", "ports.py") and _public(source)]
    bare = [
        f"{source.name}: {node.name}"
        for source in ports
        for node in source.tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not ast.get_docstring(node)
    ]

    assert ports, "no port was found"
    assert bare == []


def test_only_the_command_line_prints() -> None:
    allowed = ("cli", "sandbox/guest")
    wrong = [
        f"{source.name}:{node.lineno}"
        for source in sources()
        if source not in in_area(*allowed)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]

    assert wrong == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

    assert [source.name for source in sources() if vague & set(source.parts)] == []


def test_no_source_is_left_unfinished() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b")
    files: dict[str, list[int]] = defaultdict(list)
    for path in _text_files():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if marks.search(line):
                files[str(path.relative_to(ROOT))].append(number)

    assert files == {}


def _text_files() -> list[Path]:
    return [path for suffix in ("*.py", "*.mjs", "*.js") for path in SOURCE.rglob(suffix)]

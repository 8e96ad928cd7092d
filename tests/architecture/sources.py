"""The project's own sources, parsed once."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "torpor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One import of a module of ours or of others."""

    module: str
    line: int
    lazy: bool
    """Stands inside a function."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        """Path below the package, for messages and rules."""
        return self.path.relative_to(SOURCE).as_posix()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names from the first package down, without the suffix."""
        return self.path.relative_to(SOURCE).with_suffix("").parts

    @property
    def area(self) -> str:
        """The first folder, or the module's name if it stands at the top."""
        return self.parts[0]

    def imports(self) -> Iterator[Import]:
        inside = {id(node) for function in self.functions() for node in ast.walk(function)}
        for node in ast.walk(self.tree):
            lazy = id(node) in inside
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module=alias.name, line=node.lineno, lazy=lazy)
            elif isinstance(node, ast.ImportFrom):
                base = self._absolute(node)
                for alias in node.names:
                    yield Import(module=f"{base}.{alias.name}", line=node.lineno, lazy=lazy)

    def functions(self) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = ("torpor", *self.parts)[: -node.level]
        return ".".join((*package, *([node.module] if node.module else [])))


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file of the package."""
    return tuple(
        Source(path=path, text=(text := path.read_text(encoding="utf-8")), tree=ast.parse(text))
        for path in sorted(SOURCE.rglob("*.py"))
    )


def in_area(*areas: str) -> tuple[Source, ...]:
    """The files below these folders, given as paths below the package."""
    wanted = tuple(tuple(area.split("/")) for area in areas)
    return tuple(source for source in sources() if any(source.parts[: len(area)] == area for area in wanted))

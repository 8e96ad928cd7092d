"""Which runtime and handler a package is meant for, read from its files. A guess comes with its reason."""

import ast
import re
import stat
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import PurePosixPath

from torpor.model.errors import InvalidPackage, InvalidRequest

BOOTSTRAP = "bootstrap"
_PROVIDED = "provided.al2023"
_USUAL = {"python": "python3.12", "nodejs": "nodejs20.x"}
"""By family, where a server names no runtime of it."""
_MODULES = ("lambda_function", "app", "main", "index", "handler", "function")
_HANDLERS = ("lambda_handler", "handler", "main")
_NODE_SUFFIXES = (".mjs", ".js", ".cjs")
_NODE_EXPORT = re.compile(
    rb"exports\.(\w+)\s*=|export\s+(?:const|let|var|async\s+function|function)\s+(\w+)", re.MULTILINE
)
_CALLED_WITH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a package seems to be."""

    runtime: str
    handler: str
    reason: str


def guess(archive: bytes, runtime: str | None = None, served: Iterable[str] = (), handler: str | None = None) -> Guess:
    """The best guess for a package: within `runtime` or for `handler` where one of them is given, and among `served`
    runtimes if it names any.

    Raises InvalidRequest if nothing in the package looks like a handler, InvalidPackage for a broken archive.
    """
    try:
        with zipfile.ZipFile(BytesIO(archive)) as package:
            found = next(_guesses(package, runtime or "", tuple(served), handler or ""), None)
            if found is None:
                raise InvalidRequest(_nothing(package, runtime or "", handler or ""))
    except zipfile.BadZipFile as error:
        raise InvalidPackage(f"The package is not a readable zip archive: {error}.") from error
    return found


def _for_handler(package: zipfile.ZipFile, handler: str, served: Sequence[str]) -> Iterator[Guess]:
    """By the file that the handler is in."""
    path, names = handler.rpartition(".")[0], frozenset(package.namelist())
    wanted = {f"{path.replace('.', '/')}.py": "python", **{f"{path}{suffix}": "nodejs" for suffix in _NODE_SUFFIXES}}
    for name, family in wanted.items():
        if name in names and BOOTSTRAP not in names:
            yield Guess(runtime=_usual(family, served), handler=handler, reason=f"{name} is there")


def _nothing(package: zipfile.ZipFile, runtime: str, handler: str) -> str:
    """Why there is no guess, and what to do."""
    if handler:
        return f"No runtime is to be seen for the handler {handler}: name one, for example --runtime python3.12."
    names = _top_level(package)
    seen = next(_guesses(package, "", ()), None) if runtime and BOOTSTRAP not in names else None
    if seen is not None:
        return (
            f"No handler for {runtime} is to be seen in this package, but {seen.reason}: "
            "leave --runtime out, or name a --handler too."
        )
    wrong = ""
    if runtime.startswith(("python", "")[not runtime]):
        wrong = next(filter(None, (_not_python(name, package.read(name)) for name in _ordered(names, (".py",)))), "")
    return (
        f"No handler is to be seen in this package{f' ({wrong})' if wrong else ''}: name one, for example "
        "--runtime python3.12 --handler app.handler for the function `handler` in app.py."
    )


def _not_python(name: str, source: bytes) -> str:
    """Why this is no program for the Python that runs this; empty if it is one."""
    try:
        ast.parse(source)
    except (SyntaxError, ValueError) as error:
        number = getattr(error, "lineno", 0)
        place = f", line {number}" if number else ""
        version = ".".join(map(str, sys.version_info[:2]))
        return f"{name} is not valid Python {version}{place}: {getattr(error, 'msg', error)}"
    return ""


def _guesses(package: zipfile.ZipFile, runtime: str, served: Sequence[str], handler: str = "") -> Iterator[Guess]:
    if handler:
        yield from _for_handler(package, handler, served)
    names = _top_level(package)
    if BOOTSTRAP in names and runtime.startswith(("provided", "")[not runtime]):
        _require_executable(package)
        yield Guess(runtime=runtime or _PROVIDED, handler=BOOTSTRAP, reason="it brings its own `bootstrap`")
    if runtime.startswith("python") or not runtime:
        for name in _ordered(names, (".py",)):
            if found := _python_handler(package.read(name)):
                yield _guess(runtime or _usual("python", served), name, found)
    if runtime.startswith("nodejs") or not runtime:
        for name in _ordered(names, _NODE_SUFFIXES):
            if found := _node_handler(package.read(name)):
                yield _guess(runtime or _usual("nodejs", served), name, found)


def _top_level(package: zipfile.ZipFile) -> list[str]:
    return [name for name in package.namelist() if "/" not in name]


def _usual(family: str, served: Iterable[str]) -> str:
    return newest(family, served) or _USUAL[family]


def newest(family: str, served: Iterable[str]) -> str:
    """The newest runtime of a family among those served; empty if there is none."""
    fitting = [name for name in served if name.startswith(family)]
    return max(fitting, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], default="")


def _guess(runtime: str, file: str, handler: str) -> Guess:
    return Guess(runtime=runtime, handler=f"{PurePosixPath(file).stem}.{handler}", reason=f"{file} defines `{handler}`")


def _require_executable(package: zipfile.ZipFile) -> None:
    mode = package.getinfo(BOOTSTRAP).external_attr >> 16
    if not mode & stat.S_IXUSR:
        raise InvalidRequest("The file `bootstrap` is not executable: run `chmod +x bootstrap` and deploy again.")


def _ordered(names: Iterable[str], suffixes: Sequence[str]) -> list[str]:
    """Files of a language, those with customary names first."""

    def rank(name: str) -> tuple[int, str]:
        stem = PurePosixPath(name).stem
        return (_MODULES.index(stem) if stem in _MODULES else len(_MODULES), name)

    return sorted((name for name in names if name.endswith(tuple(suffixes))), key=rank)


def _python_handler(source: bytes) -> str:
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError):
        return ""
    names = [name for node in module.body for name in _names_of(node)]
    callable_pairs = [
        node.name
        for node in module.body
        if isinstance(node, ast.FunctionDef) and len(node.args.args) == _CALLED_WITH and not node.name.startswith("_")
    ]
    return _preferred([*names, *callable_pairs], fallback=callable_pairs)


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def _node_handler(source: bytes) -> str:
    names = [(common or module).decode() for common, module in _NODE_EXPORT.findall(source)]
    return _preferred(names, fallback=names)


def _preferred(names: Sequence[str], *, fallback: Sequence[str]) -> str:
    """The customary name among those found; else the only candidate, if there is just one."""
    customary = next((name for name in _HANDLERS if name in names), "")
    return customary or (fallback[0] if len(fallback) == 1 else "")

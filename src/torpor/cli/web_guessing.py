"""How a web service is built and started, read from its files. Each guess comes with its reason."""

import ast
import json
import posixpath
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from torpor.model.errors import InvalidPackage, InvalidRequest

_ASGI = ("FastAPI", "Starlette", "Quart", "Litestar", "Sanic")
_WSGI = ("Flask", "Bottle")
_MODULES = ("main", "app", "server", "asgi", "wsgi", "api", "application", "run", "index")
_SCRIPTS = ("server.js", "app.js", "index.js", "main.js", "server.mjs", "app.mjs", "index.mjs")
_SITES = ("", "public", "dist", "out", "build", "_site", "site", "static", "www", "html")
_READ_MAX = 1024 * 1024
"""Bytes of a file that is read for a guess."""
_DEPTH = 2
"""Folders deep in which modules are looked for, the root counting as one."""
_WEB_LINE = re.compile(r"^web\s*:\s*(\S.*)$", re.MULTILINE)
_SETTINGS = re.compile(r"DJANGO_SETTINGS_MODULE['\"]\s*,\s*['\"]([\w.]+)['\"]")
_SERVES = re.compile(r"HTTPServer|serve_forever|run_simple|\.run\(|uvicorn\.run|run_app|PORT\b")
_SIMPLE = re.compile(r"node( [\w./=-]+)+")
_REQUIRED = re.compile(r"^\s*([A-Za-z0-9_.-]+)", re.MULTILINE)
NONE = "Nothing here tells how the server is started: say it, for example --start 'python server.py'."


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What the service seems to be, and how it is started."""

    kind: str
    command: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How the service seems to be built; no command if nothing has to be."""

    command: str = ""
    reason: str = ""


class Source:
    """The files of a service's source. Raises InvalidPackage for a broken archive."""

    def __init__(self, archive: bytes) -> None:
        try:
            self._package = zipfile.ZipFile(BytesIO(archive))
        except zipfile.BadZipFile as error:
            raise InvalidPackage(f"The source is not a readable zip archive: {error}.") from error
        self.names = [name for name in self._package.namelist() if not name.endswith("/")]

    def has(self, name: str) -> bool:
        return name in self.names

    def text(self, name: str) -> str:
        """A file's text; empty if it is not there, too long, or no text."""
        if name not in self.names or self._package.getinfo(name).file_size > _READ_MAX:
            return ""
        return self._package.read(name).decode(errors="ignore")

    def modules(self) -> Iterator[str]:
        """Python files, customary names and the root's first."""
        found = [name for name in self.names if name.endswith(".py") and name.count("/") < _DEPTH]
        yield from sorted(found, key=_module_rank)

    def json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self.text(name) or "{}")
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}

    def requirements(self) -> frozenset[str]:
        """The names in requirements.txt, in lower case, and each with its extras in brackets."""
        text = self.text("requirements.txt").lower()
        return frozenset(name.replace("_", "-") for name in _REQUIRED.findall(text)) | frozenset(
            re.findall(r"[a-z0-9_.-]+\[[a-z0-9_,-]+\]", text)
        )


def guess_start(source: Source) -> Start:
    """The best guess. Raises InvalidRequest if nothing looks like a server."""
    for guesses in (_procfile, _frameworks, _django, _node, _plain_python, _static):
        if found := next(guesses(source), None):
            return found
    raise InvalidRequest(NONE)


def guess_build(source: Source) -> Build:
    """What has to be installed; nothing if no file names any dependency."""
    commands, reasons = [], []
    if source.text("requirements.txt").strip():
        commands.append("pip install -r requirements.txt --target .python")
        reasons.append("requirements.txt is there")
    package = source.json("package.json")
    scripts = package.get("scripts") or {}
    builds = "build" in scripts
    if package.get("dependencies") or (builds and package.get("devDependencies")):
        locked = source.has("package-lock.json")
        commands.append("npm ci" if locked else "npm install")
        reasons.append("package-lock.json is there" if locked else "package.json has dependencies")
    if builds:
        commands.append("npm run build")
        reasons.append("package.json has a build script")
    return Build(command=" && ".join(commands), reason=" and ".join(reasons))


def _procfile(source: Source) -> Iterator[Start]:
    if found := _WEB_LINE.search(source.text("Procfile")):
        yield Start(kind="Procfile", command=found[1].strip(), reason="its line `web:` says so")


def _frameworks(source: Source) -> Iterator[Start]:
    for name in source.modules():
        for target, maker in _made(source.text(name)):
            shown = f"{name} makes `{target} = {maker}(...)`"
            place = f"{_module(name)}:{target}"
            if maker in _ASGI:
                yield Start(kind=maker, command=f"uvicorn {place} --host 0.0.0.0 --port $PORT", reason=shown)
            else:
                yield Start(kind=maker, command=_wsgi(source, place), reason=shown)


def _wsgi(source: Source, place: str) -> str:
    if "gunicorn" in source.requirements():
        return f"gunicorn -b :$PORT {place}"
    return f"flask --app {place} run --host 0.0.0.0 --port $PORT"


def _django(source: Source) -> Iterator[Start]:
    found = _SETTINGS.search(source.text("manage.py"))
    if found is None:
        return
    project = found[1].rpartition(".")[0]
    reason = f"manage.py names the settings {found[1]}"
    if "gunicorn" in source.requirements() and source.has(f"{project.replace('.', '/')}/wsgi.py"):
        command = f"gunicorn -b :$PORT {project}.wsgi"
    else:
        command = "python manage.py runserver --noreload 0.0.0.0:$PORT"
    yield Start(kind="Django", command=command, reason=reason)


def _node(source: Source) -> Iterator[Start]:
    if source.has("package.json"):
        package = source.json("package.json")
        kind = "Express" if "express" in (package.get("dependencies") or {}) else "Node.js"
        scripts = package.get("scripts") or {}
        if _SIMPLE.fullmatch(str(scripts.get("start", ""))) and not {"prestart", "poststart"} & set(scripts):
            # The same without npm, which takes longer to start than most servers.
            yield Start(kind=kind, command=scripts["start"], reason="that is the start script in package.json")
        if "start" in scripts:
            yield Start(kind=kind, command="npm start", reason="package.json has a start script")
        main = posixpath.normpath(str(package.get("main") or ""))
        if source.has(main):
            yield Start(kind=kind, command=f"node {main}", reason=f"package.json names {main} as its main file")
    for name in _SCRIPTS:
        if re.search(r"listen\(", source.text(name)):
            yield Start(kind="Node.js", command=f"node {name}", reason=f"{name} listens on a port")


def _plain_python(source: Source) -> Iterator[Start]:
    for name in source.modules():
        if "/" not in name and _SERVES.search(source.text(name)):
            yield Start(kind="Python", command=f"python {name}", reason=f"{name} starts a server")


def _static(source: Source) -> Iterator[Start]:
    for folder in _SITES:
        page = posixpath.join(folder, "index.html")
        if source.has(page):
            where = f" --directory {folder}" if folder else ""
            yield Start(kind="Static files", command=f"python -m http.server $PORT{where}", reason=f"{page} is there")


def _made(text: str) -> Iterator[tuple[str, str]]:
    """The frameworks' applications that a module makes at its top: variable and class."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in module.body:
        targets = _targets(node)
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if isinstance(value, ast.Call):
            maker = value.func.attr if isinstance(value.func, ast.Attribute) else getattr(value.func, "id", "")
            if maker in (*_ASGI, *_WSGI):
                yield from ((target, maker) for target in targets)


def _targets(node: ast.stmt) -> list[str]:
    """The variables that a statement sets."""
    expressions: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        expressions = node.targets
    elif isinstance(node, ast.AnnAssign):
        expressions = [node.target]
    return [target.id for target in expressions if isinstance(target, ast.Name)]


def _module(name: str) -> str:
    """A file's name as Python imports it."""
    return name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _module_rank(name: str) -> tuple[int, int, str]:
    stem = posixpath.basename(name).removesuffix(".py")
    return (name.count("/"), _MODULES.index(stem) if stem in _MODULES else len(_MODULES), name)

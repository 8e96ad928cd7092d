"""What stands inside a sandbox for each runtime identifier: interpreter, client, program and environment variables.

The paths in an image are those seen inside (`/var/lang`, `/var/runtime`, `/var/task`, `/opt`); an adapter without
isolation asks `RuntimeImage.placed` for the same image at host paths. The variables are those of contract section 6
that depend on the runtime only.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torpor.model.errors import RuntimeMissing
from torpor.sandbox import server_image
from torpor.sandbox.interpreters import Interpreter, Language, choose
from torpor.sandbox.server_image import LANG

RUNTIME = "/var/runtime"
TASK = "/var/task"
OPT = "/opt"

DEFAULT_ROOT = os.path.join(sys.prefix, "share", "torpor", "runtimes")
STAMP = "client.json"
"""File whose presence in a runtime folder says that its client is completely installed."""

PROVIDED = ("provided", "provided.al2", "provided.al2023")
PYTHON_MINORS = range(10, 15)
NODE_MAJORS = range(18, 25, 2)
CLONE_MODULE = "torpor_guest.clone"

SERVER = "server"
"""The image for any server: started by a command of its own, with all interpreters of the host."""
EVENT_PYTHON_MINORS = range(9, 15)
EVENT_NODE_MAJORS = range(14, 25)
EVENT_CLONE_MODULE = "torpor_event.clone"

_PYTHON = re.compile(r"(event-)?python3\.(\d+)")
_EVENT = "event-"
"""Names of images of built-in event runtimes begin so."""
_NODE = re.compile(r"(?:nodejs(\d+)\.x|event-nodejs(\d+))")
_GUESTS = os.path.join(os.path.dirname(__file__), "guest")
_NODE_GUEST = os.path.join(_GUESTS, "nodejs")
_PLACES = {"lang": LANG, "runtime": RUNTIME, "task": TASK, "opt": OPT}

_SHARED = {
    "LANG": "en_US.UTF-8",
    "TZ": ":UTC",
    "PATH": "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin",
    "LD_LIBRARY_PATH": (
        "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib"
    ),
}
_WRAP = (
    'if [ ! -f "$0" ]; then echo "$0: does not exist" >&2; exit 127; fi;'
    ' if [ ! -x "$0" ]; then echo "$0: is not an executable" >&2; exit 126; fi;'
    ' exec "$0" "$@"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeImage:
    """One runtime as it stands inside a sandbox."""

    runtime: str
    lang: str | None
    """Host folder shown read-only at `/var/lang`; None if the runtime brings no interpreter."""
    executable: str | None
    """The interpreter as seen inside."""
    runtime_dir: str | None
    """Host folder shown read-only at `/var/runtime`."""
    clone_module: str | None
    """Module below `runtime_dir` with `preload()` and `run(handler)`; None if this runtime is always booted."""
    argv: tuple[str, ...]
    """Program to boot as seen inside; empty if the package brings its own `bootstrap`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables every process inside gets unless the function sets them itself."""
    version: str = ""
    """The interpreter's full version."""
    languages: Mapping[str, str] = field(default_factory=dict)
    """Instead of `lang`: names below `/var/lang`, each with the host folder shown read-only there."""
    commands: Mapping[str, str] = field(default_factory=dict)
    """Names in `/var/lang/bin`: each a path inside to link to, or the text of a script (it begins with `#!`)."""

    @property
    def host_executable(self) -> str | None:
        """The interpreter as a host path."""
        if self.lang is None or self.executable is None:
            return None
        return self.executable.replace(LANG, self.lang, 1)

    def wrapped(self, program: str) -> tuple[str, ...]:
        """`argv` started by a wrapper program, as seen inside: a missing one exits 127 (contract section 6)."""
        return ("/bin/sh", "-c", _WRAP, program, *self.argv)

    def placed(self, paths: Mapping[str, str]) -> "RuntimeImage":
        """The same image with the inside paths replaced by `Sandbox.paths` (keys `lang`, `runtime`, `task`, `opt`)."""
        return replace(
            self,
            executable=self.executable and _move(self.executable, paths),
            argv=tuple(_move(part, paths) for part in self.argv),
            environment={
                name: os.pathsep.join(_move(part, paths) for part in value.split(os.pathsep))
                for name, value in self.environment.items()
            },
        )


class ImageCatalog:
    """The runtimes this host can serve.

    With `any_node`, a `nodejs*` runtime whose major version is not here is served by the newest node that is.
    """

    def __init__(self, runtime_root: str, interpreters: Iterable[Interpreter], *, any_node: bool = False) -> None:
        self._root = runtime_root
        self._interpreters = tuple(interpreters)
        self._any_node = any_node

    def resolve(self, runtime: str) -> RuntimeImage:
        """The image of a runtime. Raises RuntimeMissing, naming what is present, if it cannot be served here."""
        if runtime in PROVIDED:
            return _provided_image(runtime)
        if runtime == SERVER:
            return _server_image(self._interpreters)
        interpreter = self._interpreter(runtime)
        if interpreter is None:
            raise RuntimeMissing(self._missing(runtime))
        if runtime.startswith(_EVENT):
            return _event_image(runtime, interpreter)
        if interpreter.language is Language.NODE:
            return _node_image(runtime, interpreter, self._node_folder())
        if not self.installed(runtime):
            raise RuntimeMissing(
                f"The client of runtime {runtime} is not installed in {self._root}; "
                "run `python -m torpor.sandbox.clients` with the server's Python."
            )
        return _python_image(runtime, interpreter, os.path.join(self._root, runtime))

    def present(self) -> tuple[str, ...]:
        """The runtimes whose interpreter is on this host, whether or not their client is installed."""
        named = [f"python3.{minor}" for minor in PYTHON_MINORS] + [f"nodejs{major}.x" for major in NODE_MAJORS]
        return (*(name for name in named if self._interpreter(name) is not None), *PROVIDED)

    def served(self) -> tuple[str, ...]:
        """Every name that `resolve` has an image for now."""
        events = [_EVENT + name for name in self._events()]
        return tuple(name for name in (*self.present(), SERVER, *events) if self.installed(name))

    def _events(self) -> list[str]:
        """The built-in runtimes of event functions whose interpreter is here, as their users call them."""
        named = [f"python3.{minor}" for minor in EVENT_PYTHON_MINORS]
        named += [f"nodejs{major}" for major in EVENT_NODE_MAJORS]
        return [name for name in named if self._interpreter(_EVENT + name) is not None]

    def installed(self, runtime: str) -> bool:
        """Whether `resolve` would succeed."""
        if runtime in (*PROVIDED, SERVER):
            return True
        interpreter = self._interpreter(runtime)
        if interpreter is None:
            return False
        if runtime.startswith(_EVENT):
            return True
        return interpreter.language is Language.NODE or os.path.exists(os.path.join(self._root, runtime, STAMP))

    def interpreter(self, runtime: str) -> Interpreter | None:
        """The host's interpreter serving a runtime; None for those without one or missing here."""
        return self._interpreter(runtime)

    def _interpreter(self, runtime: str) -> Interpreter | None:
        wanted = _version(runtime)
        if wanted is None:
            return None
        language, version = wanted
        exact = choose(self._interpreters, language, *version)
        anything = self._any_node and language is Language.NODE
        return exact or (choose(self._interpreters, language) if anything else None)

    def _missing(self, runtime: str) -> str:
        wanted = _wanted(runtime)
        here = ", ".join(self.present())
        if runtime.startswith(_EVENT):
            runtime, here = runtime.removeprefix(_EVENT), ", ".join(self._events())
        if wanted is None:
            return f"Runtime {runtime} is not served; present here: {here}."
        return f"Runtime {runtime} needs {wanted}, which is not on this host; install it or use one of: {here}."

    def _node_folder(self) -> str:
        installed = os.path.join(self._root, "nodejs")
        return installed if os.path.exists(os.path.join(installed, STAMP)) else _NODE_GUEST


def _version(runtime: str) -> tuple[Language, tuple[int, ...]] | None:
    """The language a runtime name asks for, and how its version begins; None if no such runtime is known."""
    if match := _PYTHON.fullmatch(runtime):
        minor = int(match[2])
        known = EVENT_PYTHON_MINORS if match[1] else PYTHON_MINORS
        return (Language.PYTHON, (3, minor)) if minor in known else None
    if match := _NODE.fullmatch(runtime):
        major = int(match[1] or match[2])
        known = NODE_MAJORS if match[1] else EVENT_NODE_MAJORS
        return (Language.NODE, (major,)) if major in known else None
    return None


def _wanted(runtime: str) -> str | None:
    wanted = _version(runtime)
    if wanted is None:
        return None
    language, version = wanted
    return f"{'Python' if language is Language.PYTHON else 'Node.js'} {'.'.join(map(str, version))}"


def _move(path: str, paths: Mapping[str, str]) -> str:
    for key, inside in _PLACES.items():
        if key in paths and (path == inside or path.startswith(inside + "/")):
            return paths[key] + path[len(inside) :]
    return path


def _inside(interpreter: Interpreter) -> str:
    return LANG + interpreter.executable[len(interpreter.prefix.rstrip("/")) :]


def _provided_image(runtime: str) -> RuntimeImage:
    return RuntimeImage(
        runtime=runtime, lang=None, executable=None, runtime_dir=None, clone_module=None, argv=(), environment=_SHARED
    )


def _python_image(runtime: str, interpreter: Interpreter, folder: str) -> RuntimeImage:
    executable = _inside(interpreter)
    return RuntimeImage(
        runtime=runtime,
        lang=interpreter.prefix,
        executable=executable,
        runtime_dir=folder,
        clone_module=CLONE_MODULE,
        argv=(executable, "-S", f"{RUNTIME}/bootstrap.py", OPT),
        environment={**_SHARED, "LC_CTYPE": "C.UTF-8", "PYTHONPATH": RUNTIME},
        version=interpreter.version_text,
    )


def _node_image(runtime: str, interpreter: Interpreter, folder: str) -> RuntimeImage:
    executable = _inside(interpreter)
    own = f"/opt/nodejs/node{interpreter.version[0]}/node_modules"
    shared = "/opt/nodejs/node_modules:/var/runtime/node_modules:/var/runtime:/var/task"
    return RuntimeImage(
        runtime=runtime,
        lang=interpreter.prefix,
        executable=executable,
        runtime_dir=folder,
        clone_module=None,
        argv=(executable, f"{RUNTIME}/index.mjs"),
        environment={**_SHARED, "NODE_PATH": f"{own}:{shared}"},
        version=interpreter.version_text,
    )


def _event_image(runtime: str, interpreter: Interpreter) -> RuntimeImage:
    executable = _inside(interpreter)
    python = interpreter.language is Language.PYTHON
    program = ("-S", f"{RUNTIME}/server.py") if python else (f"{RUNTIME}/server.mjs",)
    return RuntimeImage(
        runtime=runtime,
        lang=interpreter.prefix,
        executable=executable,
        runtime_dir=os.path.join(_GUESTS, "event_python" if python else "event_nodejs"),
        clone_module=EVENT_CLONE_MODULE if python else None,
        argv=(executable, *program),
        environment={**_SHARED, "LC_CTYPE": "C.UTF-8"} if python else _SHARED,
        version=interpreter.version_text,
    )


def _server_image(interpreters: Iterable[Interpreter]) -> RuntimeImage:
    named = server_image.languages(interpreters)
    return RuntimeImage(
        runtime=SERVER,
        lang=None,
        executable=None,
        runtime_dir=None,
        clone_module=None,
        argv=(),
        environment=server_image.environment(named),
        languages={name: interpreter.prefix for name, interpreter in named.items()},
        commands=server_image.commands(named),
    )

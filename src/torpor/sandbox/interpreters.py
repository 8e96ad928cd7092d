"""Finding the real language interpreters of this host.

Looked for on PATH and where the usual version managers keep their versions. Version managers put wrapper scripts and
shims on PATH; those are never run: a candidate must be an ELF binary under its own name, and must then tell its version
and prefix itself. Virtual environments are resolved to the interpreter they were made from.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from glob import glob
from typing import Any

PROBE_SECONDS = 5.0
SEARCH_SECONDS = 20.0

_PYTHON_NAME = re.compile(r"python3\.(9|1[0-4])")
_NODE_NAME = re.compile(r"node|nodejs")
_PYTHON_PROBE = (
    "import sys, json; print(json.dumps([list(sys.version_info[:3]), sys.prefix, sys.base_prefix,"
    " sys.implementation.name]))"
)
_NODE_PROBE = "console.log(JSON.stringify([process.versions.node.split('.').map(Number)]))"

_PYTHON_FOLDERS = (
    "{pyenv}/versions/*/bin",
    "{asdf}/installs/python/*/bin",
    "{data}/mise/installs/python/*/bin",
    "{data}/uv/python/*/bin",
    "{data}/rtx/installs/python/*/bin",
    "{home}/.rye/py/*/bin",
    "{home}/.rye/py/*/install/bin",
    "{home}/miniconda3/bin",
    "{home}/miniconda3/envs/*/bin",
    "{home}/miniforge3/bin",
    "{home}/miniforge3/envs/*/bin",
    "{home}/anaconda3/bin",
    "{home}/anaconda3/envs/*/bin",
    "/opt/conda/bin",
    "/opt/conda/envs/*/bin",
    "/opt/python/*/bin",
    "/opt/python*/bin",
)
_NODE_FOLDERS = (
    "{nvm}/versions/node/*/bin",
    "{home}/.fnm/node-versions/*/installation/bin",
    "{data}/fnm/node-versions/*/installation/bin",
    "{home}/.volta/tools/image/node/*/bin",
    "{asdf}/installs/nodejs/*/bin",
    "{data}/mise/installs/node/*/bin",
    "{home}/.nodenv/versions/*/bin",
    "{home}/n/bin",
    "/usr/local/n/versions/node/*/bin",
    "/opt/node*/bin",
)
_SYSTEM_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")


class Language(StrEnum):
    """What an interpreter interprets."""

    PYTHON = "python"
    NODE = "node"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """One verified interpreter. `executable` is the real file and lies below `prefix`."""

    language: Language
    version: tuple[int, int, int]
    executable: str
    prefix: str

    @property
    def version_text(self) -> str:
        return ".".join(map(str, self.version))


_probed: dict[tuple[str, float], Interpreter | None] = {}


def discover(environ: Mapping[str, str] | None = None) -> tuple[Interpreter, ...]:
    """All usable interpreters, those found first on PATH first. Never raises; takes at most some 20 seconds.

    Answers are remembered for the life of the process as long as the files do not change.
    """
    deadline = time.monotonic() + SEARCH_SECONDS
    environ = os.environ if environ is None else environ
    found: dict[str, Interpreter] = {}
    for language, path in _candidates(environ):
        if time.monotonic() > deadline:
            break
        interpreter = _probe(language, path)
        if interpreter is not None:
            found.setdefault(interpreter.executable, interpreter)
    return tuple(found.values())


def choose(interpreters: Iterable[Interpreter], language: Language, *version: int) -> Interpreter | None:
    """The newest interpreter whose version begins with `version`; the first found of equals."""
    fitting = [i for i in interpreters if i.language is language and i.version[: len(version)] == version]
    return max(fitting, key=lambda i: i.version, default=None)


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[Language, str]]:
    on_path = [folder for folder in environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder)]
    places = _places(environ)
    for language, name, patterns in (
        (Language.PYTHON, _PYTHON_NAME, _PYTHON_FOLDERS),
        (Language.NODE, _NODE_NAME, _NODE_FOLDERS),
    ):
        managed = [folder for pattern in patterns for folder in sorted(glob(pattern.format(**places)))]
        seen: set[str] = set()
        for folder in (*on_path, *managed, *_SYSTEM_FOLDERS):
            for path in _matching(folder, name):
                if path not in seen:
                    seen.add(path)
                    yield language, path


def _places(environ: Mapping[str, str]) -> dict[str, str]:
    home = environ.get("HOME") or "/nonexistent"
    return {
        "home": home,
        "data": environ.get("XDG_DATA_HOME") or f"{home}/.local/share",
        "pyenv": environ.get("PYENV_ROOT") or f"{home}/.pyenv",
        "asdf": environ.get("ASDF_DATA_DIR") or f"{home}/.asdf",
        "nvm": environ.get("NVM_DIR") or f"{home}/.nvm",
    }


def _matching(folder: str, name: re.Pattern[str]) -> Iterator[str]:
    """Real paths of the ELF files of that name in the folder, links followed."""
    try:
        entries = sorted(entry for entry in os.listdir(folder) if name.fullmatch(entry))
    except OSError:
        return
    for entry in entries:
        path = os.path.realpath(os.path.join(folder, entry))
        if name.fullmatch(os.path.basename(path)) and _is_elf(path):
            yield path


def _is_elf(path: str) -> bool:
    try:
        if not os.access(path, os.X_OK):
            return False
        with open(path, "rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False


def _probe(language: Language, path: str) -> Interpreter | None:
    try:
        key = (path, os.stat(path).st_mtime)
    except OSError:
        return None
    if key not in _probed:
        _probed[key] = _ask_python(path) if language is Language.PYTHON else _ask_node(path)
    return _probed[key]


def _ask_python(path: str) -> Interpreter | None:
    answer = _ask([path, "-I", "-S", "-c", _PYTHON_PROBE])
    if answer is None or answer[3] != "cpython":
        return None
    version, prefix, base = tuple(answer[0]), answer[1], answer[2]
    if prefix != base:
        original = os.path.realpath(f"{base}/bin/python{version[0]}.{version[1]}")
        return _probe(Language.PYTHON, original) if original != path and _is_elf(original) else None
    return _below(Language.PYTHON, version, path, os.path.realpath(base))


def _ask_node(path: str) -> Interpreter | None:
    answer = _ask([path, "-e", _NODE_PROBE])
    if answer is None:
        return None
    return _below(Language.NODE, tuple(answer[0]), path, os.path.dirname(os.path.dirname(path)))


def _below(language: Language, version: tuple[int, int, int], path: str, prefix: str) -> Interpreter | None:
    if not path.startswith(prefix.rstrip("/") + "/") or prefix == "/":
        return None
    return Interpreter(language=language, version=version, executable=path, prefix=prefix)


def _ask(argv: list[str]) -> Any:
    """The JSON list it prints, or None if it does not answer like the interpreter it is named after."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            check=True,
        )
        answer = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return answer if isinstance(answer, list) else None

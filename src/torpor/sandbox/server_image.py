"""What stands inside for arbitrary servers: the host's system as it is, and every interpreter found beside it.

Each interpreter has a folder of its own below `/var/lang`. The newest ones come first on PATH under their usual names,
with their package managers, whose own start scripts name a folder on the host.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping

from torpor.sandbox.interpreters import Interpreter, Language, choose

LANG = "/var/lang"
COMMANDS = f"{LANG}/bin"
_SYSTEM = "/usr"
"""Interpreters below it are where they are on the host."""
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_NODE_TOOLS = ("npm", "npx", "corepack", "yarn", "pnpm")
_SHARED_LIBRARY = re.compile(r"libpython3\.\d+\.so")
_PIP = '#!/bin/sh\nexec {python} -m pip "$@"\n'


def folder_name(interpreter: Interpreter) -> str:
    """Its folder below `/var/lang`: `python3.12`, `nodejs20`."""
    major, minor, _ = interpreter.version
    return f"python{major}.{minor}" if interpreter.language is Language.PYTHON else f"nodejs{major}"


def languages(interpreters: Iterable[Interpreter]) -> dict[str, Interpreter]:
    """The newest interpreter for each folder name, newest names last."""
    found: dict[str, Interpreter] = {}
    for interpreter in sorted(interpreters, key=lambda one: one.version):
        found[folder_name(interpreter)] = interpreter
    return found


def commands(named: Mapping[str, Interpreter]) -> dict[str, str]:
    """Names in `/var/lang/bin`: each a path inside to link to, or the text of a script (it begins with `#!`)."""
    made: dict[str, str] = {}
    for name, interpreter in named.items():
        if interpreter.language is Language.PYTHON:
            made |= _python_commands(name, interpreter)
    for name, interpreter in _newest(named):
        if interpreter.language is Language.PYTHON:
            short = {"python": name, "python3": name, "pip": f"pip{name[6:]}", "pip3": f"pip{name[6:]}"}
            made |= {new: made[old] for new, old in short.items() if old in made}
        else:
            made |= _node_commands(name, interpreter)
    return made


def environment(named: Mapping[str, Interpreter]) -> dict[str, str]:
    """What every process is given unless it is set otherwise."""
    newest = [f"{LANG}/{name}/bin" for name, interpreter in _newest(named) if interpreter.prefix != _SYSTEM]
    variables = {"LANG": "C.UTF-8", "TZ": "UTC", "PATH": os.pathsep.join([COMMANDS, *newest, *_SYSTEM_PATH])}
    libraries = [f"{LANG}/{name}/lib" for name, one in named.items() if _needs_library_path(one)]
    return {**variables, "LD_LIBRARY_PATH": os.pathsep.join(reversed(libraries))} if libraries else variables


def _newest(named: Mapping[str, Interpreter]) -> Iterator[tuple[str, Interpreter]]:
    for language in Language:
        interpreter = choose(named.values(), language)
        if interpreter is not None:
            yield folder_name(interpreter), interpreter


def _inside(name: str, interpreter: Interpreter) -> str:
    """The executable's path inside."""
    if interpreter.prefix == _SYSTEM:
        return interpreter.executable
    return f"{LANG}/{name}{interpreter.executable[len(interpreter.prefix.rstrip('/')) :]}"


def _python_commands(name: str, interpreter: Interpreter) -> dict[str, str]:
    python = _inside(name, interpreter)
    made = {name: python}
    if os.path.isdir(f"{interpreter.prefix}/lib/{name}/site-packages/pip"):
        made[f"pip{name.removeprefix('python')}"] = _PIP.format(python=python)
    return made


def _node_commands(name: str, interpreter: Interpreter) -> dict[str, str]:
    folder = os.path.dirname(_inside(name, interpreter))
    host = os.path.dirname(interpreter.executable)
    tools = {tool: f"{folder}/{tool}" for tool in _NODE_TOOLS if os.path.exists(f"{host}/{tool}")}
    return {"node": _inside(name, interpreter), **tools}


def _needs_library_path(interpreter: Interpreter) -> bool:
    """Whether it loads a library of its own from a folder it knows by its name on the host."""
    if interpreter.language is not Language.PYTHON or interpreter.prefix == _SYSTEM:
        return False
    if os.path.isdir(f"{interpreter.prefix}/conda-meta"):  # finds them relative to itself
        return False
    try:
        return any(_SHARED_LIBRARY.match(entry) for entry in os.listdir(f"{interpreter.prefix}/lib"))
    except OSError:
        return False

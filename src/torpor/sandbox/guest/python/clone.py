"""The warm half of a Python runtime: everything a fresh environment needs is imported once, then forked.

`preload` runs in the launcher, before any function's code exists; `run` in the forked child, which by then stands in
its own root with its own environment variables. What modules remember of the launcher's place and time is put right:
file names, the client's reading of the environment, and randomness (OpenSSL notices a fork by itself).
"""

from __future__ import annotations

import gc
import importlib
import os
import random
import sys
from types import CodeType, FunctionType, ModuleType
from typing import Any

from . import paths, restoring

_PRELOADED = (
    "asyncio",
    "base64",
    "concurrent.futures.thread",
    "csv",
    "datetime",
    "decimal",
    "email.parser",
    "encodings.ascii",
    "encodings.idna",
    "encodings.latin_1",
    "gzip",
    "hashlib",
    "http.client",
    "json",
    "linecache",
    "logging",
    "site",
    "ssl",
    "tempfile",
    "traceback",
    "urllib.request",
    "uuid",
    "xml.etree.ElementTree",
    "awslambdaric.__main__",
    "awslambdaric.lambda_literals",
    "awslambdaric.lambda_runtime_hooks_runner",
)
_FROM_PREFIX = (
    *("prefix", "exec_prefix", "base_prefix", "base_exec_prefix"),
    *("executable", "_base_executable", "_stdlib_dir"),
)

_ADDRESS = "AWS_LAMBDA_RUNTIME_API"
_USUAL_ADDRESS = "169.254.100.1:9001"

_LOG_SETTINGS = ("AWS_LAMBDA_LOG_FORMAT", "AWS_LAMBDA_LOG_LEVEL")

_Moves = tuple[tuple[str, str], ...]

_client_code: Any = None
_client_address = ""
_moves: _Moves = ()


def preload(inside: bool = True) -> None:
    """Import the client and what it or most functions import. Raises ImportError.

    With `inside`, everything loaded so far gets the names it has in a sandbox: from then on, what was loaded works, and
    top-level modules can still be imported here, but no further parts of packages. The client's compiled half fixes the
    address of its API when it is loaded: the one in the environment then, else the one sandboxes have.
    """
    global _client_address, _client_code, _moves
    _client_address = os.environ.setdefault(_ADDRESS, _USUAL_ADDRESS)
    for name in _PRELOADED:
        importlib.import_module(name)
    client = _client()
    loader: Any = client.__loader__
    _moves = _folders() if inside else ()
    _client_code = _moved_code(loader.get_code(client.__name__))
    for function in [thing for thing in gc.get_objects() if type(thing) is FunctionType]:
        function.__code__ = _moved_code(function.__code__)
    for module in list(sys.modules.values()):
        _move_module(module)


def run(handler: str) -> None:
    """Serve invocations for ever. Ends as the client does: by SystemExit or an exception.

    With another API address than the preloaded client's, the process becomes a freshly booted interpreter instead.
    """
    if os.environ[_ADDRESS] != _client_address:
        program = [_moved(sys.executable), "-S", os.path.join(paths.places()[1], "bootstrap.py")]
        os.execv(program[0], program)
    _move_attributes(sys, _FROM_PREFIX)
    site: Any = sys.modules["site"]
    site.PREFIXES[:] = [sys.prefix, sys.exec_prefix]
    sys.path[:] = paths.search_path()
    paths.finish_start()
    random.seed()
    if any(os.environ.get(name) for name in _LOG_SETTINGS):
        exec(_client_code, _client().__dict__)  # the client reads them when its module is executed
    restoring.prepare()
    main: Any = sys.modules["awslambdaric.__main__"]
    main.main([sys.argv[0], handler])


def _client() -> ModuleType:
    return sys.modules["awslambdaric.bootstrap"]


def _folders() -> _Moves:
    """Host folders and the names they have inside, innermost first."""
    runtime = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return ((runtime, paths.RUNTIME), (sys.base_prefix, paths.LANG))


def _moved(name: Any) -> Any:
    if isinstance(name, str):
        for outside, inside in _moves:
            if name == outside or name.startswith(outside + "/"):
                return inside + name[len(outside) :]
    return name


def _moved_code(code: CodeType) -> CodeType:
    name = _moved(code.co_filename)
    if name == code.co_filename:
        return code
    constants = tuple(_moved_code(part) if isinstance(part, CodeType) else part for part in code.co_consts)
    return code.replace(co_filename=name, co_consts=constants)


def _move_module(module: ModuleType) -> None:
    _move_attributes(module, ("__file__", "__cached__"))
    _move_attributes(getattr(module, "__spec__", None), ("origin", "cached"))
    _move_attributes(getattr(module, "__loader__", None), ("path",))
    folders = getattr(module, "__path__", None)
    if isinstance(folders, list):
        folders[:] = [_moved(folder) for folder in folders]


def _move_attributes(thing: Any, names: tuple[str, ...]) -> None:
    for name in names:
        value = getattr(thing, name, None)
        moved = _moved(value)
        if moved is not value:
            setattr(thing, name, moved)

"""Turning a forked copy of the launcher into the interpreter a function would have been started with."""

from __future__ import annotations

import builtins
import gc
import importlib
import io
import os
import random
import signal
import sys
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

_OWN_PACKAGE = __package__ or ""


class BecomeInterpreter(BaseException):
    """Raised in the child to unwind the launcher's frames; whoever catches it calls `run`."""

    def __init__(self, module: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        super().__init__(module)
        self.module = module
        self.argv = list(argv)
        self.environment = dict(environment)


def preload(module: str, runtime_dir: str) -> None:
    """Import the runtime's client once, for all clones to come."""
    sys.path.insert(0, runtime_dir)
    importlib.import_module(module).preload()
    sys.path.remove(runtime_dir)


def run(become: BecomeInterpreter) -> None:
    """Be a fresh interpreter: nothing of the launcher's own state may be visible to the code that runs next."""
    entry = sys.modules[become.module]
    _replace_environment(become.environment)
    _reset_streams()
    _reset_modules(become.argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    gc.enable()
    entry.run(become.environment.get("_HANDLER", ""))


def _replace_environment(environment: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    os.umask(0o022)


def _reset_streams() -> None:
    streams = {
        "stdin": _stream(0, "r", "strict"),
        "stdout": _stream(1, "w", "strict"),
        "stderr": _stream(2, "w", "backslashreplace", line_buffering=True),
    }
    for name, stream in streams.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _stream(descriptor: int, mode: str, errors: str, *, line_buffering: bool = False) -> Any:
    raw = open(descriptor, mode + "b", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding="utf-8", errors=errors, line_buffering=line_buffering)


def _reset_modules(argv: Sequence[str]) -> None:
    script = next((part for part in argv[1:] if not part.startswith("-")), "")
    for name in [name for name in sys.modules if name == _OWN_PACKAGE or name.startswith(_OWN_PACKAGE + ".")]:
        del sys.modules[name]
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __file__=script)
    sys.modules["__main__"] = main
    sys.argv[:] = [script]
    if hasattr(sys, "orig_argv"):  # since Python 3.10
        sys.orig_argv[:] = list(argv)
    sys.path[:] = [os.path.dirname(script), *(path for path in sys.path if path not in ("", _program_folder()))]


def _program_folder() -> str:
    return os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

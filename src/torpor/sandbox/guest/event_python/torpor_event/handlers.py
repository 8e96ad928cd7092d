"""From a handler's name, `module.function`, to the function. Modules in folders are named with dots or slashes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from .failures import LoadFailure

Handler = Callable[..., Any]

_found: dict[str, Handler | Exception] = {}


def find(name: str) -> Handler:
    """The function of that name, loaded once. Raises what loading it raised, however often it is asked for."""
    if name not in _found:
        _found[name] = _load_or_error(name)
    found = _found[name]
    if isinstance(found, Exception):
        raise found
    return found


def _load_or_error(name: str) -> Handler | Exception:
    try:
        return _load(name)
    except Exception as error:
        return error


def _load(name: str) -> Handler:
    path, dot, function = name.rpartition(".")
    if not dot:
        raise LoadFailure("MalformedHandlerName", f"Bad handler '{name}': it must be module.function")
    try:
        module = importlib.import_module(path.replace("/", "."))
    except ImportError as error:
        raise LoadFailure("ImportModuleError", f"Unable to import module '{path}'") from error
    except SyntaxError as error:
        raise LoadFailure("UserCodeSyntaxError", f"Syntax error in module '{path}'") from error
    handler: Handler | None = getattr(module, function, None)
    if handler is None:
        raise LoadFailure("HandlerNotFound", f"Handler '{function}' is missing on module '{path}'")
    return handler

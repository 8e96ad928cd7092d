"""How the server starts: in a freshly booted interpreter, or in the fork of one that has imported everything before.

`preload` is for the warm interpreter, before any function's code exists; `run` is for the process of one function, with
the environment variables it is to have.
"""

from __future__ import annotations

import importlib
import os
import sys

from . import runtime

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
)
_LAYERS = "/opt"


def preload() -> None:
    """Import what most functions do. Raises ImportError."""
    for name in _PRELOADED:
        importlib.import_module(name)


def run(handler: str = "") -> None:
    """Load the function and serve it for ever. `handler` is used if no variable names one."""
    sys.path[:] = _search_path()
    _finish_start()
    runtime.serve(handler)


def _search_path() -> list[str]:
    """The code, what the function adds, its layers, then the interpreter; nothing of this server's own."""
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    added = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    standard = [folder for folder in sys.path if folder not in ("", own, *added)]
    wanted = [
        runtime.code_folder(),
        *added,
        f"{_LAYERS}/python",
        f"{_LAYERS}/python/lib/{version}/site-packages",
        *standard,
        os.path.join(os.path.dirname(os.__file__), "site-packages"),
    ]
    return list(dict.fromkeys(wanted))


def _finish_start() -> None:
    """What `site` would have done at the start of the interpreter, less its search for the host's packages."""
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()
    if os.environ.get("PYTHONPATH"):
        site.execsitecustomize()

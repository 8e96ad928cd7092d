"""Where a function's imports come from: the module search path as the cloud's own Python runtime has it."""

from __future__ import annotations

import os
import sys

TASK = "/var/task"
RUNTIME = "/var/runtime"
LANG = "/var/lang"


def places() -> tuple[str, str, str]:
    """Code, runtime and interpreter folders: the fixed ones in a sandbox, host folders where there is none."""
    runtime = os.environ.get("LAMBDA_RUNTIME_DIR", RUNTIME)
    lang = LANG if runtime == RUNTIME else sys.base_prefix
    return os.environ.get("LAMBDA_TASK_ROOT", TASK), runtime, lang


def search_path(opt: str = "/opt") -> list[str]:
    """The whole of `sys.path`. Packages installed for the host's own use are left out, except below the interpreter."""
    task, runtime, lang = places()
    name = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = f"{lang}/lib/{name}"
    wanted = [
        task,
        f"{opt}/python/lib/{name}/site-packages",
        f"{opt}/python",
        f"{library}/site-packages",
        runtime,
        *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)),
        f"{lang}/lib/{name.replace('.', '')}.zip",
        library,
        f"{library}/lib-dynload",
    ]
    return list(dict.fromkeys(wanted))


def finish_start() -> None:
    """What `site` would have done at the start of the interpreter, less its search for the host's packages."""
    import site

    site.setquit()
    site.setcopyright()
    site.sethelper()
    if os.environ.get("PYTHONPATH", RUNTIME) != places()[1]:
        site.execsitecustomize()

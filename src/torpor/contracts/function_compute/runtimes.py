"""Runtime names: which there are, which image serves each, and where it stands inside (1.1, 2)."""

import re
from types import MappingProxyType

from torpor.contracts.function_compute.api_failures import invalid, not_built
from torpor.model.image import Layout

SERVER_IMAGE = "server"
PORT_DEFAULT = 9000
"""Where servers listen if nothing else is set (1.2)."""
CODE_AT = "/code"
BOOTSTRAP = "/code/bootstrap"

CUSTOM = frozenset({"custom", "custom.debian10", "custom.debian11", "custom.debian12"})
_OLD_NAMES = MappingProxyType({"python3": "python3.6"})
_PYTHON = re.compile(r"python3\.[0-9]{1,2}")
_NODE = re.compile(r"nodejs[0-9]{1,2}")
_OTHERS = frozenset({"go1", "java8", "java11", "php7.2", "python2.7", "dotnetcore2.1", "dotnetcore3.1"})
_WITHOUT_REQUEST_CREDENTIALS = frozenset({"custom.debian11", "custom.debian12"})
_OLD_VERSION_VARIABLE = frozenset({"python3.6", "python3.9", "python3.10"})


def is_custom(runtime: str) -> bool:
    """Is the function's program an HTTP server of its own?"""
    return runtime in CUSTOM


def image_of(runtime: str) -> str:
    """The platform's name for what stands inside. Raises ApiFailure for a runtime that there is not or is not built."""
    if is_custom(runtime):
        return SERVER_IMAGE
    if runtime == "custom-container":
        raise not_built("The runtime custom-container (code from an image)")
    if runtime in _OTHERS:
        raise not_built(f"The runtime {runtime}")
    name = _OLD_NAMES.get(runtime, runtime)
    if _PYTHON.fullmatch(name) or _NODE.fullmatch(name):
        return f"event-{name}"
    raise invalid(f"runtime '{runtime}' is not supported")


def layout(runtime: str) -> Layout:
    """Servers of a function's own run as root and may write everywhere; the guests of built-in runtimes may not."""
    custom = is_custom(runtime)
    return Layout(code_at=CODE_AT, as_root=custom, writable=custom)


def gets_request_credentials(runtime: str) -> bool:
    """Do requests to the server carry credentials? Newer images have them in variables only."""
    return runtime not in _WITHOUT_REQUEST_CREDENTIALS


def version_variable(runtime: str) -> str:
    """The variable that names the function's version."""
    old = runtime in _OLD_VERSION_VARIABLE or runtime in ("custom", "custom.debian10") or runtime.startswith("nodejs1")
    return "FC_VER_ID" if old else "FC_FUNCTION_VERSION"

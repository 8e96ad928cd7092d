"""What a server is started with: its program, its folder and its variables (contract 1.1, 1.4, 5)."""

from collections.abc import Mapping
from datetime import UTC, datetime

from torpor.model.function import FunctionVersion

APP = "/app"
"""Where the built application stands, and the folder in which it is built and started."""
SHELL = "/bin/bash"
SYSTEM = ".torpor-system"
"""Folder beside the application that holds the changes which its build made to system folders."""
HOME = "/tmp"
_SYSTEM_PATH = "/var/lang/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUILT_PACKAGES = ".python"
"""Where `pip install --target .python` puts what is imported, below the application's folder."""
_BUILT_PROGRAMS = (f"{_BUILT_PACKAGES}/bin", "bin", ".venv/bin", "venv/bin", "node_modules/.bin")
"""Where builds put programs, below the application's folder."""
_DEFAULTS = {"LANG": "C.UTF-8", "TZ": ":UTC"}
RESERVED = frozenset({"PORT"})
"""Names a user may not set: the port is a setting of its own."""
_BUILD_DEFAULTS = {
    "CI": "true",
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_BREAK_SYSTEM_PACKAGES": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_NO_INPUT": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    "XDG_CACHE_HOME": "/tmp/.cache",
    "npm_config_audit": "false",
    "npm_config_cache": "/tmp/.npm",
    "npm_config_fund": "false",
    "npm_config_update_notifier": "false",
}
"""A build has nobody to ask and a system of its own to change."""


def shell(command: str) -> tuple[str, ...]:
    """The program that runs a command as a user writes it."""
    return (SHELL, "-c", command)


def start_command(version: FunctionVersion) -> str:
    """The command as the user wrote it; empty if there is none."""
    return version.server.command[-1] if version.server is not None and version.server.command else ""


def port(version: FunctionVersion) -> int:
    """Where the server must listen; 0 if the version is no server."""
    return version.server.port if version.server is not None else 0


def server_variables(version: FunctionVersion, image: Mapping[str, str], app: str, port: int) -> dict[str, str]:
    """The server's variables; `app` is where the application stands inside. The user's win over all but the port."""
    variables = {**_DEFAULTS, **_language(image), **version.environment}
    variables["PATH"] = _path(app, image.get("PATH", ""), version.environment.get("PATH", ""))
    variables["PYTHONPATH"] = _joined(version.environment.get("PYTHONPATH", ""), app, f"{app}/{_BUILT_PACKAGES}")
    variables.setdefault("PYTHONUNBUFFERED", "1")
    variables["HOME"] = version.environment.get("HOME", HOME)
    variables["PORT"] = str(port)
    variables["PWD"] = app
    return variables


def build_variables(environment: Mapping[str, str], image: Mapping[str, str], app: str, port: int) -> dict[str, str]:
    """The build command's variables: those of the server, and what keeps package managers quiet."""
    variables = {**_DEFAULTS, **_BUILD_DEFAULTS, **_language(image), **environment}
    variables["PATH"] = _path(app, image.get("PATH", ""), environment.get("PATH", ""))
    if app != APP:  # no sandbox: `pip install` would change the host, and what it brings would be lost
        variables.setdefault("PIP_TARGET", f"{app}/{_BUILT_PACKAGES}")
    variables["HOME"] = environment.get("HOME", "/root")
    variables["PORT"] = str(port)
    variables["PWD"] = app
    return variables


def log_stream(environment_id: str, wall: float) -> str:
    """One stream per environment, by day."""
    return f"{datetime.fromtimestamp(wall, UTC):%Y/%m/%d}/{environment_id}"


def _language(image: Mapping[str, str]) -> dict[str, str]:
    """What an interpreter needs to be found and to run; paths of other contracts' folders are not for servers."""
    return {name: value for name, value in image.items() if name not in ("PATH", "PYTHONPATH", "NODE_PATH")}


def _path(app: str, image: str, own: str) -> str:
    return _joined(own, *(f"{app}/{folder}" for folder in _BUILT_PROGRAMS), image or _SYSTEM_PATH)


def _joined(*parts: str) -> str:
    return ":".join(part for part in parts if part)

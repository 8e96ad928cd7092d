"""What a user says about a service: read and checked, made into a version's fields, and shown again (contract 1.4)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from torpor.contracts.web import environment, limits
from torpor.contracts.web.names import record_name, service_name
from torpor.model.errors import InvalidRequest
from torpor.model.function import FunctionRecord, VersionRecord
from torpor.model.server import ServerSettings

CONTRACT = "web"
SERVERLESS = "serverless"
PERSISTENT = "persistent"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMANDS = ("build", "start")
_KEPT = (*_COMMANDS, "timeout", "concurrency")
"""Said by the user and kept as said, because what follows from it depends on the kind of the service."""


class ServiceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of a service; None leaves a setting as it is, or to its default. Times in seconds, memory in MB."""

    build: str | None = None
    """Run by Bash as root in the folder of the source; empty for none."""
    start: str | None = None
    """Run by Bash to start the server."""
    guessed: Sequence[str] | None = None
    """Which of `build` and `start` were not said by the user, so that the next deployment may guess again."""
    port: int | None = None
    memory: int | None = None
    timeout: float | None = None
    environment: Mapping[str, str] | None = None
    """All variables; they replace those there were."""
    persistent: bool | None = None
    concurrency: int | None = None
    min_instances: int | None = None
    max_instances: int | None = None
    idle_timeout: float | None = None


def read_settings(data: bytes) -> ServiceSettings:
    """Settings out of their JSON. Raises InvalidRequest for unknown names, wrong types and values out of range."""
    try:
        settings = msgspec.json.decode(data or b"{}", type=ServiceSettings)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The service's settings are not as they should be: {error}.") from error
    _check(settings)
    return settings


def _check(settings: ServiceSettings) -> None:
    _within("memory", settings.memory, limits.MEMORY_MIN_MB, limits.MEMORY_MAX_MB, "MB")
    _within("timeout", settings.timeout, limits.REQUEST_TIMEOUT_MIN, limits.REQUEST_TIMEOUT, "s")
    _within("port", settings.port, limits.PORT_MIN, limits.PORT_MAX)
    _within("concurrency", settings.concurrency, 1, limits.CONCURRENCY_MAX)
    _within("min_instances", settings.min_instances, 0, limits.ENVIRONMENTS_MAX)
    _within("max_instances", settings.max_instances, 1, limits.ENVIRONMENTS_MAX)
    _within("idle_timeout", settings.idle_timeout, 1, limits.REQUEST_TIMEOUT * 96, "s")
    if (settings.min_instances or 0) > (settings.max_instances or limits.ENVIRONMENTS_MAX):
        raise InvalidRequest("min_instances cannot be more than max_instances.")
    for name, command in (("build", settings.build), ("start", settings.start)):
        if command is not None and (len(command) > limits.COMMAND_MAX or "\0" in command):
            raise InvalidRequest(f"The {name} command has more than {limits.COMMAND_MAX} characters, or a NUL in it.")
    if settings.start is not None and not settings.start.strip():
        raise InvalidRequest("The start command is empty: say how the server is started.")
    _check_variables(settings.environment or {})


def _within(name: str, value: float | None, low: float, high: float, unit: str = "") -> None:
    if value is not None and not low <= value <= high:
        raise InvalidRequest(f"{name} is {value:g}, but must be from {low:g} to {high:g}{f' {unit}' if unit else ''}.")


def _check_variables(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if name in environment.RESERVED:
            raise InvalidRequest(f"The variable {name} is the platform's: set the port with `port` (--port).")
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise InvalidRequest(f"{name[:80]!r} is no variable: names have letters, digits and _, values no NUL.")
    size = sum(len(name) + len(value) for name, value in variables.items())
    if size > limits.ENVIRONMENT_MAX:
        raise InvalidRequest(f"The variables have {size} characters, more than {limits.ENVIRONMENT_MAX}.")


def build_command(settings: ServiceSettings, present: VersionRecord | None) -> str:
    """The command that makes an application of the source; empty for none."""
    return _said(settings, present)["build"] or ""


def version_fields(name: str, settings: ServiceSettings, present: VersionRecord | None) -> dict[str, Any]:
    """The fields of the service's version that these settings lead to. Raises InvalidRequest without a start command.

    `present` is the version that they change; None for a new service.
    """
    said = _said(settings, present)
    if not said["start"]:
        raise InvalidRequest("There is no start command: say how the server is started.")
    persistent = _first(settings.persistent, present.version.persistent if present else None, False)
    usual = limits.CONCURRENCY_MAX if persistent else limits.CONCURRENCY_DEFAULT
    fields: dict[str, Any] = {
        "server": ServerSettings(command=environment.shell(said["start"]), port=_port(settings, present)),
        "persistent": persistent,
        "timeout_s": limits.UNLIMITED_TIME if persistent else said["timeout"] or limits.REQUEST_TIMEOUT,
        "concurrency": said["concurrency"] or usual,
        "settings": said,
    }
    if present is None:
        fields |= {"log_group": f"/web/{name}", "memory_mb": limits.MEMORY_DEFAULT_MB, "tmp_mb": limits.TMP_MB}
    given = {
        "memory_mb": settings.memory,
        "environment": settings.environment,
        "minimum": settings.min_instances,
        "maximum": settings.max_instances,
        "idle_timeout_s": settings.idle_timeout,
    }
    return fields | {key: value for key, value in given.items() if value is not None}


def shown(record: FunctionRecord) -> dict[str, Any]:
    """A service as its user sees it; what does not apply to its kind is null."""
    version, settings = record.latest.version, record.latest.settings
    persistent = version.persistent
    return {
        "name": service_name(record.name),
        "kind": PERSISTENT if persistent else SERVERLESS,
        "build": settings.get("build") or "",
        "start": settings.get("start") or "",
        "guessed": settings.get("guessed") or [],
        "port": environment.port(version),
        "memory": version.memory_mb,
        "timeout": None if persistent else version.timeout_s,
        "concurrency": version.concurrency,
        "environment": dict(version.environment),
        "min_instances": 1 if persistent else version.minimum,
        "max_instances": 1 if persistent else version.maximum,
        "idle_timeout": None if persistent else _first(version.idle_timeout_s, limits.IDLE_TIMEOUT),
        "code_bytes": version.code.unpacked_bytes,
        "revision": version.revision,
        "modified": record.latest.modified,
        "log_group": version.log_group,
        "record": record_name(service_name(record.name)),
    }


def _said(settings: ServiceSettings, present: VersionRecord | None) -> dict[str, Any]:
    before: Mapping[str, Any] = present.settings if present is not None else {}
    said = {name: _first(getattr(settings, name), before.get(name)) for name in _KEPT}
    given = [name for name in _COMMANDS if getattr(settings, name) is not None]
    guessed = [*(name for name in before.get("guessed", ()) if name not in given), *(settings.guessed or ())]
    return said | {"guessed": [name for name in _COMMANDS if name in guessed]}


def _port(settings: ServiceSettings, present: VersionRecord | None) -> int:
    before = environment.port(present.version) if present is not None else None
    return int(_first(settings.port, before, limits.PORT_DEFAULT))


def _first(*values: Any) -> Any:
    """The first value that is not None; None if there is none."""
    return next((value for value in values if value is not None), None)

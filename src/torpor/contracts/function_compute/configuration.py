"""What a function's configuration means to the platform: checked, merged with what was set before, derived (4).

The configuration is kept as it was given, so that it is shown unchanged; what environments need is derived from it.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torpor.contracts.function_compute import limits, runtimes
from torpor.contracts.function_compute.api_failures import invalid, not_built
from torpor.contracts.function_compute.environment import RESERVED_CLASSIC, RESERVED_PREFIX
from torpor.contracts.function_compute.names import Generation, Place
from torpor.contracts.function_compute.server_wire import log_group
from torpor.contracts.function_compute.shapes import (
    FunctionShape,
    HealthShape,
    HookShape,
    LifecycleShape,
    RuntimeShape,
    shaped,
)
from torpor.model.server import INITIALIZE, PRE_FREEZE, PRE_STOP, HealthCheck, Hook, ServerSettings

KEPT = (
    "runtime", "handler", "description", "timeout", "memorySize", "cpu", "diskSize", "instanceConcurrency",
    "idleTimeout", "environmentVariables", "customRuntimeConfig", "instanceLifecycleConfig", "layers", "logConfig",
    "role", "disableInjectCredentials", "vpcConfig", "tracingConfig", "internetAccess", "resourceGroupId",
    "caPort", "customHealthCheckConfig", "initializer", "initializationTimeout", "instanceType",
    "instanceSoftConcurrency",
)  # fmt: skip
"""Fields that are kept and shown. `vpcConfig`, `tracingConfig`, `resourceGroupId`, `instanceType` and
`instanceSoftConcurrency` have no effect: instances reach what their host reaches."""

_REFUSED: Mapping[str, str] = {
    "customContainerConfig": "Code from a container image (customContainerConfig)",
    "nasConfig": "Mounting NAS (nasConfig)",
    "ossMountConfig": "Mounting OSS (ossMountConfig)",
    "polarFsConfig": "Mounting PolarFs (polarFsConfig)",
    "juiceFsConfig": "Mounting JuiceFS (juiceFsConfig)",
    "gpuConfig": "GPU instances (gpuConfig)",
    "gpuMemorySize": "GPU instances (gpuMemorySize)",
    "customDNS": "Name servers of a function's own (customDNS)",
    "disableOndemand": "Instances by provision only (disableOndemand)",
    "enableLongLiving": "Long-living instances (enableLongLiving)",
    "microSandboxConfig": "Micro sandboxes (microSandboxConfig)",
}
"""Fields that change what code sees, and are not built: refused rather than ignored."""
_INERT: tuple[Any, ...] = (None, False, 0, "", [], {})
_VARIABLE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_HOOKS = ((INITIALIZE, "initializer"), (PRE_STOP, "pre_stop"), (PRE_FREEZE, "pre_freeze"))


def kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a create or update call is kept. Raises ApiFailure for what is not built."""
    for name, what in _REFUSED.items():
        if not _is_inert(values.get(name)):
            raise not_built(what)
    if values.get("sessionAffinity") not in (None, "", "NONE") or values.get("sessionAffinityConfig"):
        raise not_built("Session affinity (sessionAffinity)")
    if values.get("instanceIsolationMode") not in (None, "", "SHARE"):
        raise not_built("Instance isolation modes (instanceIsolationMode)")
    if values.get("internetAccess") is False:
        raise not_built("Functions without access to the internet (internetAccess: false)")
    return {name: values[name] for name in KEPT if values.get(name) is not None}


def _is_inert(value: Any) -> bool:
    """Does a field's value ask for nothing? Clients send objects whose members are all empty."""
    if isinstance(value, Mapping):
        return all(_is_inert(item) for name, item in value.items() if name not in ("userId", "groupId", "userID"))
    return value in _INERT


def derived(
    config: Mapping[str, Any], function: str, service: str, place: Place, generation: Generation
) -> dict[str, Any]:
    """What environments are made by, as fields of `Changes`, out of the whole configuration. Raises ApiFailure."""
    shape = shaped(_as_current(config) if generation.has_services else dict(config))
    runtimes.image_of(shape.runtime)
    _check(shape, classic=generation.has_services)
    default = limits.TIMEOUT_DEFAULT_CLASSIC if generation.has_services else limits.TIMEOUT_DEFAULT
    log = shape.log_config
    return {
        "runtime": shape.runtime,
        "handler": shape.handler,
        "description": shape.description or "",
        "timeout_s": float(shape.timeout or default),
        "memory_mb": shape.memory_size or limits.MEMORY_DEFAULT_MB,
        "cpu": shape.cpu,
        "tmp_mb": shape.disk_size or limits.DISK_SIZES_MB[0],
        "concurrency": shape.instance_concurrency or 1,
        "idle_timeout_s": float(shape.idle_timeout) if shape.idle_timeout else None,
        "environment": shape.environment_variables or {},
        "server": _server(shape),
        "role": "" if shape.disable_inject_credentials == "All" else shape.role or "",
        "log_group": log_group(function, service, (log and log.project) or "", (log and log.logstore) or ""),
        "region": place.region,
        "account": place.account,
        "namespace": service,
    }


def _as_current(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of the generations with services in the words of the current one."""
    values = dict(config)
    server = dict(values.get("customRuntimeConfig") or {})
    if values.get("caPort"):
        server["port"] = values["caPort"]
    if values.get("customHealthCheckConfig"):
        server["healthCheckConfig"] = values["customHealthCheckConfig"]
    cycle = dict(values.get("instanceLifecycleConfig") or {})
    if values.get("initializer"):
        limit = values.get("initializationTimeout") or limits.INITIALIZE_DEFAULT_CLASSIC
        cycle["initializer"] = {"handler": values["initializer"], "timeout": limit}
    return values | {"customRuntimeConfig": server, "instanceLifecycleConfig": cycle}


def _server(shape: FunctionShape) -> ServerSettings:
    config = shape.custom_runtime_config or RuntimeShape()
    custom = runtimes.is_custom(shape.runtime)
    return ServerSettings(
        command=(*(config.command or ()), *(config.args or ())) if custom else (),
        port=config.port or runtimes.PORT_DEFAULT,
        hooks=_hooks(shape.instance_lifecycle_config or LifecycleShape()),
        health=_health(config.health_check_config) if custom else None,
    )


def _hooks(cycle: LifecycleShape) -> dict[str, Hook]:
    """The hooks that are switched on, with their time limits in seconds."""
    hooks = {}
    for name, field in _HOOKS:
        given: HookShape | None = getattr(cycle, field)
        if given is None:
            continue
        if given.command:
            raise not_built("Lifecycle hooks that are commands")
        if given.handler:
            hooks[name] = Hook(timeout_s=float(_hook_limit(given, name)), handler=given.handler)
    return hooks


def _hook_limit(given: HookShape, name: str) -> int:
    default = limits.INITIALIZE_DEFAULT if name == INITIALIZE else limits.STOP_HOOK_LIMIT
    limit = given.timeout or default
    if name != INITIALIZE and limit > limits.STOP_HOOK_LIMIT:
        raise invalid(f"the {name} hook's timeout has to be at most {limits.STOP_HOOK_LIMIT} seconds")
    return limit


def _health(given: HealthShape | None) -> HealthCheck | None:
    if given is None or not given.http_get_url:
        return None
    return HealthCheck(
        path=given.http_get_url,
        initial_delay_s=float(given.initial_delay_seconds or 0),
        period_s=float(given.period_seconds or limits.HEALTH_PERIOD_DEFAULT),
        timeout_s=float(given.timeout_seconds or limits.HEALTH_TIMEOUT_DEFAULT),
        failures=given.failure_threshold or limits.HEALTH_FAILURES_DEFAULT,
        successes=given.success_threshold or limits.HEALTH_SUCCESSES_DEFAULT,
    )


def _check(shape: FunctionShape, *, classic: bool) -> None:
    """What the types alone do not say."""
    _check_sizes(shape)
    _check_environment(shape.environment_variables or {}, classic=classic)
    concurrency = shape.instance_concurrency or 1
    if concurrency > 1 and not runtimes.is_custom(shape.runtime):
        raise invalid(f"instanceConcurrency above 1 is not supported by the runtime {shape.runtime}")
    if shape.disable_inject_credentials not in (None, "", "None", "All"):
        raise not_built(f"disableInjectCredentials '{shape.disable_inject_credentials}'")
    if not classic and shape.instance_lifecycle_config and shape.instance_lifecycle_config.pre_freeze:
        raise invalid("instanceLifecycleConfig has no preFreeze in this API version")


def _check_sizes(shape: FunctionShape) -> None:
    if shape.memory_size and shape.memory_size % limits.MEMORY_STEP_MB:
        raise invalid(f"memorySize has to be a multiple of {limits.MEMORY_STEP_MB} MB")
    if shape.disk_size and shape.disk_size not in limits.DISK_SIZES_MB:
        raise invalid(f"diskSize has to be one of {', '.join(map(str, limits.DISK_SIZES_MB))} MB")
    if shape.cpu is not None:
        steps = shape.cpu / limits.CPU_STEP
        if not math.isclose(steps, round(steps), abs_tol=1e-6):
            raise invalid(f"cpu has to be a multiple of {limits.CPU_STEP}")


def _check_environment(variables: Mapping[str, str], *, classic: bool) -> None:
    for name in variables:
        if _VARIABLE.fullmatch(name) is None:
            raise invalid(f"environment variable '{name}' is not valid: a letter, then letters, digits or '_'")
        if name.startswith(RESERVED_PREFIX) or (classic and name in RESERVED_CLASSIC):
            raise invalid(f"environment variable '{name}' is reserved")
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > limits.ENVIRONMENT_MAX:
        raise invalid(f"environment variables are larger than {limits.ENVIRONMENT_MAX} bytes together")

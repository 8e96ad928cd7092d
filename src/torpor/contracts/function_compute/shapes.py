"""The fields of a function as the API takes them, with their types and ranges (4.2, 8).

Fields that are missing and fields that are null are the same.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from torpor.contracts.function_compute import limits
from torpor.contracts.function_compute.api_failures import invalid


class HookShape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A hook of the instance's life; an empty handler and an empty command switch it off."""

    handler: str | None = None
    timeout: Annotated[int, Meta(ge=1, le=limits.INITIALIZE_LIMIT)] | None = None
    command: list[str] | None = None


class LifecycleShape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    initializer: HookShape | None = None
    pre_stop: HookShape | None = None
    pre_freeze: HookShape | None = None


class HealthShape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A custom health check."""

    http_get_url: Annotated[str, Meta(pattern="^/", max_length=limits.HEALTH_PATH_MAX)] | None = None
    initial_delay_seconds: Annotated[int, Meta(ge=0, le=limits.HEALTH_DELAY_MAX)] | None = None
    period_seconds: Annotated[int, Meta(ge=1, le=limits.HEALTH_PERIOD_MAX)] | None = None
    timeout_seconds: Annotated[int, Meta(ge=1, le=limits.HEALTH_TIMEOUT_MAX)] | None = None
    failure_threshold: Annotated[int, Meta(ge=1, le=limits.HEALTH_COUNT_MAX)] | None = None
    success_threshold: Annotated[int, Meta(ge=1, le=limits.HEALTH_COUNT_MAX)] | None = None


class RuntimeShape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How a server of the function's own is started and reached."""

    command: list[str] | None = None
    args: list[str] | None = None
    port: Annotated[int, Meta(ge=1, le=limits.PORT_MAX)] | None = None
    health_check_config: HealthShape | None = None


class LogShape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    project: str | None = None
    logstore: str | None = None


class FunctionShape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A whole function."""

    runtime: str
    handler: Annotated[str, Meta(min_length=1, max_length=limits.DESCRIPTION_MAX)]
    description: Annotated[str, Meta(max_length=limits.DESCRIPTION_MAX)] | None = None
    timeout: Annotated[int, Meta(ge=limits.TIMEOUT_MIN, le=limits.TIMEOUT_MAX)] | None = None
    memory_size: Annotated[int, Meta(ge=limits.MEMORY_MIN_MB, le=limits.MEMORY_MAX_MB)] | None = None
    cpu: Annotated[float, Meta(ge=limits.CPU_MIN, le=limits.CPU_MAX)] | None = None
    disk_size: int | None = None
    instance_concurrency: Annotated[int, Meta(ge=1, le=limits.CONCURRENCY_MAX)] | None = None
    idle_timeout: Annotated[int, Meta(ge=limits.IDLE_TIMEOUT_MIN, le=limits.IDLE_TIMEOUT_MAX)] | None = None
    environment_variables: dict[str, str] | None = None
    custom_runtime_config: RuntimeShape | None = None
    instance_lifecycle_config: LifecycleShape | None = None
    layers: Annotated[list[str], Meta(max_length=limits.LAYERS_MAX)] | None = None
    log_config: LogShape | None = None
    role: str | None = None
    disable_inject_credentials: str | None = None


def shaped(values: dict[str, Any]) -> FunctionShape:
    """The values as a function. Raises ApiFailure that names the field at fault."""
    try:
        return msgspec.convert(values, FunctionShape)
    except msgspec.ValidationError as error:
        raise invalid(str(error).replace("`$.", "`")) from error

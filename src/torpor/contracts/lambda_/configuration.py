"""A function's configuration as callers set it: the service's own rules, beyond what the model says (9.4, 9.6, 9.7).

Values the API stores without any environment depending on them are kept under their wire names.
"""

import json
from collections.abc import Mapping
from typing import Any

from torpor.contracts.lambda_ import limits, snap_start, tenancy
from torpor.contracts.lambda_.destinations import check_dead_letters
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter, not_built
from torpor.contracts.lambda_.names import Place
from torpor.contracts.lambda_.operations import Shape

CURRENT_RUNTIMES: frozenset[str] = frozenset(
    (
        "nodejs16.x", "nodejs18.x", "nodejs20.x", "nodejs22.x", "nodejs24.x", "nodejs26.x",
        "python3.8", "python3.9", "python3.10", "python3.11", "python3.12", "python3.13", "python3.14", "python3.15",
        "java8.al2", "java11", "java17", "java21", "java25", "java8.al2023", "java11.al2023", "java17.al2023",
        "dotnet6", "dotnet8", "dotnet10", "ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0",
        "provided.al2", "provided.al2023", "custom",
    )
)  # fmt: skip
"""Runtimes for which functions can be created; the model's other ones are no longer supported."""

RESERVED_VARIABLES: frozenset[str] = frozenset(
    (
        "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_DEFAULT_REGION", "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_LAMBDA_MAX_CONCURRENCY", "AWS_LAMBDA_RUNTIME_API", "AWS_REGION", "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN", "LAMBDA_RUNTIME_DIR", "LAMBDA_TASK_ROOT", "_HANDLER", "_X_AMZN_TRACE_ID",
    )
)  # fmt: skip

STORED = ("Architectures", "VpcConfig", "DeadLetterConfig", "KMSKeyArn")
"""Settings that are kept and shown, and change nothing inside an environment."""

_NOT_BUILT = (
    "FileSystemConfigs", "ImageConfig", "DurableConfig", "RuntimeConfig", "AcceleratorConfig",
)  # fmt: skip
_FIELDS = {
    "Runtime": "runtime",
    "Handler": "handler",
    "Role": "role",
    "MemorySize": "memory_mb",
    "Description": "description",
}
_LOGGING_FIELDS = {"LogFormat": "log_format", "LogGroup": "log_group"}
_LEVEL_FIELDS = {"ApplicationLogLevel": "application_log_level", "SystemLogLevel": "system_log_level"}
_PLACE_OF_LAYER = 3


def check_new(
    values: Mapping[str, Any], place: Place, shapes: Mapping[str, Shape], *, memory_max: int = limits.MEMORY_MAX_MB
) -> None:
    """Check a new function's settings. Raises ApiFailure."""
    if values.get("PackageType", "Zip") != "Zip":
        raise not_built("PackageType Image")
    if not values.get("Runtime") or not values.get("Handler"):
        raise invalid_parameter(
            "Runtime and Handler are mandatory parameters for functions created with deployment packages."
        )
    check_tags(values.get("Tags", {}))
    tenancy.check_tenancy(values, per_tenant=tenancy.CONFIG in values)
    check_settings(values, place, shapes, memory_max=memory_max)


def check_settings(
    values: Mapping[str, Any], place: Place, shapes: Mapping[str, Shape], *, memory_max: int = limits.MEMORY_MAX_MB
) -> None:
    """Check the settings that a create or update call gives; absent ones pass. Raises ApiFailure."""
    for name in _NOT_BUILT:
        if values.get(name):
            raise not_built(name)
    if "Runtime" in values:
        _check_runtime(values["Runtime"], shapes["Runtime"]["enum"])
    _check_maximum("MemorySize", values.get("MemorySize", 0), memory_max)
    _check_maximum("Timeout", values.get("Timeout", 0), limits.TIMEOUT_MAX)
    check_variables(variables_of(values))
    _check_layers(values.get("Layers", []), place)
    _check_log_levels(values.get("LoggingConfig", {}))
    check_dead_letters(values.get("DeadLetterConfig", {}).get("TargetArn", ""))


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse more tags than a function may have, and keys the cloud keeps for itself. Raises ApiFailure."""
    if len(tags) > limits.TAGS_MAX:
        raise invalid_parameter("Number of tags exceeds resource tag limit.")
    if any(key.lower().startswith("aws:") for key in tags):
        raise invalid_parameter("Tag keys starting with 'aws:' are reserved for system use.")


def check_variables(variables: Mapping[str, str]) -> None:
    """Refuse reserved names and more text than fits. Raises ApiFailure."""
    start = (
        "Lambda was unable to configure your environment variables because the environment variables you have provided"
    )
    reserved = [name for name in variables if name in RESERVED_VARIABLES]
    if reserved:
        raise invalid_parameter(
            f"{start} contains reserved keys that are currently not supported for modification. "
            f"Reserved keys used in this request: {', '.join(reserved)}"
        )
    text = json.dumps(dict(variables), separators=(",", ":"), ensure_ascii=False)
    if len(text.encode()) > limits.ENVIRONMENT_MAX:
        raise invalid_parameter(f"{start} exceeded the 4KB limit. String measured: {text}")
    if any("\0" in value for value in variables.values()):
        raise invalid_parameter(f"{start} contain a NUL character.")


def variables_of(values: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables of a call; empty if it sets none."""
    return dict(values.get("Environment", {}).get("Variables", {}))


def changes(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a call sets, by field of the version and its record; absent settings stay absent.

    `settings` holds what is kept beside the version; a None in it takes a kept value away.
    """
    fields = {field: values[wire] for wire, field in _FIELDS.items() if wire in values}
    if "Timeout" in values:
        fields["timeout_s"] = float(values["Timeout"])
    if "EphemeralStorage" in values:
        fields["tmp_mb"] = values["EphemeralStorage"]["Size"]
    if "Environment" in values:
        fields["environment"] = variables_of(values)
    if "TracingConfig" in values:
        fields["tracing"] = values["TracingConfig"].get("Mode", "PassThrough")
    if snap_start.CONFIG in values:
        fields["snapshots"] = snap_start.wanted(values)
    if tenancy.CONFIG in values:
        fields["per_tenant"] = True
    logging = values.get("LoggingConfig", {})
    fields |= {field: logging[wire] for wire, field in _LOGGING_FIELDS.items() if wire in logging}
    if "LogFormat" in logging or any(wire in logging for wire in _LEVEL_FIELDS):
        fields |= {field: logging.get(wire, "") for wire, field in _LEVEL_FIELDS.items()}
    settings = _stored_settings(values)
    return fields | {"settings": settings} if settings else fields


def _stored_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in STORED if name in values}


def default_log_group(name: str) -> str:
    """The log group of a function that names none."""
    return f"/aws/lambda/{name}"


def _check_runtime(runtime: str, known: list[str]) -> None:
    if runtime in CURRENT_RUNTIMES:
        return
    if runtime in known:
        raise invalid_parameter(
            f"The runtime parameter of {runtime} is no longer supported for creating or updating AWS Lambda functions. "
            "We recommend you use a supported runtime while creating or updating functions."
        )
    accepted = ", ".join(name for name in known if name in CURRENT_RUNTIMES)
    raise invalid_parameter(
        f"Value {runtime} at 'runtime' failed to satisfy constraint: "
        f"Member must satisfy enum value set: [{accepted}] or be a valid ARN"
    )


def _check_maximum(name: str, value: int, maximum: int) -> None:
    if value > maximum:
        raise invalid_parameter(
            f"'{name}' value failed to satisfy constraint: Member must have value less than or equal to {maximum}"
        )


def _check_layers(layers: list[str], place: Place) -> None:
    if len(layers) > limits.LAYERS_MAX:
        raise invalid_parameter(f"Cannot reference more than {limits.LAYERS_MAX} layers.")
    seen: dict[str, str] = {}
    for arn in layers:
        if arn.split(":")[_PLACE_OF_LAYER] != place.region:
            raise invalid_parameter(
                "Layers are not in the same region as the function. "
                f"Layers are expected to be in region {place.region}."
            )
        other = seen.setdefault(arn.rpartition(":")[0], arn)
        if other != arn or layers.count(arn) > 1:
            raise invalid_parameter(
                "Two different versions of the same layer are not allowed to be referenced in the same function. "
                f"{other} and {arn} are versions of the same layer."
            )


def _check_log_levels(logging: Mapping[str, str]) -> None:
    levels = [name for name in _LEVEL_FIELDS if name in logging]
    if levels and logging.get("LogFormat", "Text") == "Text":
        message = f"To set {levels[0]}, set LogFormat to JSON in the same LoggingConfig."
        raise ApiFailure("InvalidParameterValueException", message)

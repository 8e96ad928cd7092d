"""Managed instances in the API: capacity providers, and functions that run on one (contract 1.6, 9.7).

A provider stands for this host. What a caller sets of it is kept under the wire names and shown again.
"""

import re
from collections.abc import Mapping
from typing import Any

from torpor.contracts.arns import partition_of
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter
from torpor.contracts.lambda_.names import Place
from torpor.model.function import FunctionRecord, FunctionVersion

CONTRACT = "lambda_managed"
"""What the platform calls the contract that these functions are served by."""
LATEST_PUBLISHED = "$LATEST.PUBLISHED"
"""The version that publishing may replace again and again."""
CONFIG = "CapacityProviderConfig"
_INSTANCES = "LambdaManagedInstancesCapacityProviderConfig"
_PER_VCPU = "ExecutionEnvironmentMemoryGiBPerVCpu"
_CONCURRENCY = "PerExecutionEnvironmentMaxConcurrency"
_SCALING = "CapacityProviderScalingConfig"

_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):capacity-provider:(?P<name>[a-zA-Z0-9_-]+)"
)
_RUNTIME = re.compile(
    r"(?P<family>python|nodejs|java|dotnet)(?P<number>3\.\d+|\d+)(\.x|\.al2023)?|(?P<own>provided\.al2023)"
)
_OLDEST = {"python": 13, "nodejs": 22, "java": 21, "dotnet": 8}
_PER_CPU = {"python": 16, "nodejs": 64, "java": 32, "dotnet": 32, "provided.al2023": 8}
"""Invocations at once for each CPU unless the function says otherwise."""


def provider_arn(place: Place, name: str) -> str:
    """The full name of a provider."""
    return f"arn:{partition_of(place.region)}:lambda:{place.region}:{place.account}:capacity-provider:{name}"


def provider_name(text: str, place: Place) -> str:
    """The bare name in a bare name or an ARN. Raises ApiFailure for the ARN of another place."""
    if not text.startswith("arn:"):
        return text
    found = _ARN.fullmatch(text)
    if found is None or (found["region"], found["account"]) != (place.region, place.account):
        raise provider_not_found(text)
    return found["name"]


def provider_not_found(arn: str) -> ApiFailure:
    """No provider of that name."""
    return ApiFailure("ResourceNotFoundException", f"Capacity provider not found: {arn}")


def not_published(record: FunctionRecord) -> ApiFailure:
    """What is invoked of a function without naming a version is none that runs."""
    reason = "The function has no published versions available."
    if record.versions:
        reason = f"The function has no version {LATEST_PUBLISHED}. Invoke it with the number of a version."
    return ApiFailure("NoPublishedVersionException", reason)


def provider_document(values: Mapping[str, Any], kept: Mapping[str, Any], modified: float) -> dict[str, Any]:
    """What is kept of a provider after a call that creates or changes it. Raises ApiFailure."""
    document = {**kept, **values, "LastModified": modified}
    document.pop("CapacityProviderName", None)
    document[_SCALING] = {**kept.get(_SCALING, {}), **values.get(_SCALING, {})}
    instances, scaling = document.get("InstanceRequirements", {}), document[_SCALING]
    if instances.get("AllowedInstanceTypes") and instances.get("ExcludedInstanceTypes"):
        raise invalid_parameter("AllowedInstanceTypes and ExcludedInstanceTypes cannot be given together.")
    if scaling.get("ScalingMode") == "Manual" and not scaling.get("ScalingPolicies"):
        raise invalid_parameter("The scaling mode Manual needs ScalingPolicies.")
    if scaling.get("ScalingMode", "Auto") == "Auto":
        if values.get(_SCALING, {}).get("ScalingPolicies"):
            raise invalid_parameter("ScalingPolicies may be set in the scaling mode Manual only.")
        scaling.pop("ScalingPolicies", None)
    return document


def provider(document: Mapping[str, Any], state: str, modified: str) -> dict[str, Any]:
    """A provider as the API shows it."""
    shown = {name: value for name, value in document.items() if name not in ("Tags", "Arn")}
    instances = {"Architectures": ["x86_64"], **document.get("InstanceRequirements", {})}
    scaling = {"MaxVCpuCount": limits.MANAGED_VCPUS, "ScalingMode": "Auto", **document[_SCALING]}
    return shown | {
        "CapacityProviderArn": document["Arn"],
        "State": state,
        "InstanceRequirements": instances,
        _SCALING: scaling,
        "LastModified": modified,
    }


def provider_of(settings: Mapping[str, Any]) -> str:
    """The ARN of the provider in a function's kept settings; empty for a standard function."""
    arn: str = settings.get(CONFIG, {}).get(_INSTANCES, {}).get("CapacityProviderArn", "")
    return arn


def managed_fields(
    config: Mapping[str, Any], *, runtime: str, memory_mb: int | None, log_format: str
) -> dict[str, Any]:
    """The fields that make a function one of managed instances; `config` is its CapacityProviderConfig.

    Raises ApiFailure for a runtime, size, ratio or log format that such a function cannot have.
    """
    given = config[_INSTANCES]
    if log_format != "JSON":
        raise invalid_parameter("Functions on a capacity provider log in JSON only; leave LogFormat out.")
    memory = limits.MANAGED_MEMORY_MIN_MB if memory_mb is None else memory_mb
    cpu = _cpus(memory, given.get(_PER_VCPU, limits.MANAGED_RATIOS[0]))
    default = min(max(1, int(cpu * _per_cpu(runtime))), limits.MANAGED_CONCURRENCY_MAX)
    return {
        "memory_mb": memory,
        "cpu": cpu,
        "concurrency": given.get(_CONCURRENCY, default),
        "log_format": "JSON",
        "settings": {CONFIG: dict(config)},
    }


def shown_config(version: FunctionVersion, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """A function's CapacityProviderConfig with what is in force; None for a standard function."""
    if not provider_of(settings):
        return None
    ratio = settings[CONFIG][_INSTANCES].get(_PER_VCPU, limits.MANAGED_RATIOS[0])
    in_force = {_CONCURRENCY: version.concurrency, _PER_VCPU: ratio}
    return {_INSTANCES: {**settings[CONFIG][_INSTANCES], **in_force}}


def scaling_bounds(config: Mapping[str, int]) -> tuple[int, int | None]:
    """The smallest and largest number of environments that a FunctionScalingConfig asks for. Raises ApiFailure."""
    maximum = config.get("MaxExecutionEnvironments")
    usual = limits.MANAGED_ENVIRONMENTS if maximum is None else min(limits.MANAGED_ENVIRONMENTS, maximum)
    minimum = config.get("MinExecutionEnvironments", usual)
    if maximum is not None and maximum < minimum:
        raise invalid_parameter("MaxExecutionEnvironments must not be less than MinExecutionEnvironments.")
    return minimum, maximum


def scaling_config(version: FunctionVersion) -> dict[str, int]:
    """A version's FunctionScalingConfig."""
    shown = {"MinExecutionEnvironments": version.minimum}
    return shown if version.maximum is None else shown | {"MaxExecutionEnvironments": version.maximum}


def _cpus(memory_mb: int, ratio: float) -> float:
    low, high = limits.MANAGED_MEMORY_MIN_MB, limits.MANAGED_MEMORY_MAX_MB
    if not low <= memory_mb <= high:
        raise invalid_parameter(f"The MemorySize of a function on a capacity provider is {low} to {high} MB.")
    if ratio not in limits.MANAGED_RATIOS:
        allowed = ", ".join(f"{allowed:g}" for allowed in limits.MANAGED_RATIOS)
        raise invalid_parameter(f"{_PER_VCPU} must be one of {allowed}.")
    cpus = memory_mb / 1024 / ratio
    if cpus < 1:
        raise invalid_parameter(
            f"{memory_mb} MB at {ratio:g} GiB for each vCPU are less than one vCPU; raise MemorySize."
        )
    return cpus


def _per_cpu(runtime: str) -> int:
    found = _RUNTIME.fullmatch(runtime)
    if found is None:
        raise _no_runtime(runtime)
    if found["own"]:
        return _PER_CPU[found["own"]]
    number = int(found["number"].rpartition(".")[2])
    if number < _OLDEST[found["family"]]:
        raise _no_runtime(runtime)
    return _PER_CPU[found["family"]]


def _no_runtime(runtime: str) -> ApiFailure:
    oldest = "python3.13, nodejs22.x, java21 and dotnet8 and later, provided.al2023"
    return invalid_parameter(f"The runtime {runtime} does not run on a capacity provider; these do: {oldest}.")

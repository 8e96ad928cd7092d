"""Functions as the API shows them (9.7)."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from torpor.contracts.arns import partition_of
from torpor.contracts.lambda_ import capacity, limits, log_levels, snap_start, tenancy
from torpor.model.function import FunctionRecord, FunctionVersion, VersionRecord

_IN_PROGRESS = "The function is being created."


class Moment(Enum):
    """When a configuration is shown; the reply to a change shows it before it has taken effect."""

    CREATED = "created"
    UPDATED = "updated"
    SETTLED = "settled"
    LISTED = "listed"


def configuration(
    record: VersionRecord, moment: Moment, qualifier: str = "", state: tuple[str, str, str] | None = None
) -> dict[str, Any]:
    """A FunctionConfiguration; the ARN carries the qualifier the caller asked with.

    `state`, its reason and the reason's code are those of a version whose environments are looked after.
    """
    version = record.version
    told = _state(moment) if state is None else _told_state(*state)
    shown = _identity(record, qualifier) | _resources(version) | _stored(record) | told
    return {name: value for name, value in shown.items() if value is not None}


def function(record: FunctionRecord, shown: Mapping[str, Any], location: str) -> dict[str, Any]:
    """The reply of GetFunction: a configuration, and where its package can be fetched."""
    reply: dict[str, Any] = {
        "Configuration": shown,
        "Code": {"RepositoryType": "S3", "Location": location},
    }
    if record.tags:
        reply["Tags"] = dict(record.tags)
    if record.reserved_concurrency is not None:
        reply["Concurrency"] = {"ReservedConcurrentExecutions": record.reserved_concurrency}
    return reply


def account_settings(*, concurrency: int, reserved: int, code_bytes: int, functions: int) -> dict[str, Any]:
    """The reply of GetAccountSettings: the account's limits and what is used of them."""
    return {
        "AccountLimit": {
            "TotalCodeSize": limits.CODE_STORAGE_MAX,
            "CodeSizeUnzipped": limits.UNZIPPED_MAX,
            "CodeSizeZipped": limits.ZIPPED_MAX,
            "ConcurrentExecutions": concurrency,
            "UnreservedConcurrentExecutions": concurrency - reserved,
        },
        "AccountUsage": {"TotalCodeSize": code_bytes, "FunctionCount": functions},
    }


def sha256_text(digest: str) -> str:
    """A hex digest the way the API shows it."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def date_text(moment: float) -> str:
    """Seconds since the epoch the way the API shows dates of functions."""
    shown = datetime.fromtimestamp(moment, UTC)
    return shown.strftime("%Y-%m-%dT%H:%M:%S.") + f"{shown.microsecond // 1000:03d}+0000"


def _identity(record: VersionRecord, qualifier: str) -> dict[str, Any]:
    version = record.version
    return {
        "FunctionName": version.function,
        "FunctionArn": f"{version.resource}:{qualifier}" if qualifier else version.resource,
        "Runtime": version.runtime,
        "Role": version.role,
        "Handler": version.handler,
        "CodeSize": version.code.packed_bytes,
        "Description": record.description,
        "LastModified": date_text(record.modified),
        "CodeSha256": sha256_text(version.code.digest),
        "Version": version.version,
        "RevisionId": version.revision,
        "PackageType": "Zip",
    }


def _resources(version: FunctionVersion) -> dict[str, Any]:
    return {
        "Timeout": int(version.timeout_s),
        "MemorySize": version.memory_mb,
        "EphemeralStorage": {"Size": version.tmp_mb},
        "Environment": {"Variables": dict(version.environment)} if version.environment else None,
        "TracingConfig": {"Mode": version.tracing},
        "RuntimeVersionConfig": {"RuntimeVersionArn": runtime_arn(version)},
    }


def _stored(record: VersionRecord) -> dict[str, Any]:
    settings = record.settings
    return {
        "Architectures": list(settings.get("Architectures", ["x86_64"])),
        snap_start.CONFIG: snap_start.shown(record.version),
        "LoggingConfig": _logging(record),
        "VpcConfig": _vpc(settings.get("VpcConfig")),
        "DeadLetterConfig": _without_empty(settings.get("DeadLetterConfig", {})) or None,
        "Layers": settings.get("Layers") or None,
        "CapacityProviderConfig": capacity.shown_config(record.version, settings),
        "TenancyConfig": tenancy.shown_config(record.version),
        "KMSKeyArn": settings.get("KMSKeyArn") or None,
    }


def _logging(record: VersionRecord) -> dict[str, Any]:
    shown: dict[str, Any] = {"LogFormat": record.version.log_format, "LogGroup": record.version.log_group}
    if record.version.log_format == "JSON":
        shown["ApplicationLogLevel"] = record.version.application_log_level or log_levels.DEFAULT
        shown["SystemLogLevel"] = record.version.system_log_level or log_levels.DEFAULT
    return shown


def _vpc(given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {
        "SubnetIds": list(given.get("SubnetIds", [])),
        "SecurityGroupIds": list(given.get("SecurityGroupIds", [])),
        "VpcId": "",
        "Ipv6AllowedForDualStack": given.get("Ipv6AllowedForDualStack", False),
    }


def _state(moment: Moment) -> dict[str, Any]:
    match moment:
        case Moment.CREATED:
            return {"State": "Pending", "StateReason": _IN_PROGRESS, "StateReasonCode": "Creating"}
        case Moment.UPDATED:
            return {
                "State": "Active",
                "LastUpdateStatus": "InProgress",
                "LastUpdateStatusReason": _IN_PROGRESS,
                "LastUpdateStatusReasonCode": "Creating",
            }
        case Moment.SETTLED:
            return {"State": "Active", "LastUpdateStatus": "Successful"}
        case Moment.LISTED:
            return {}


def _told_state(state: str, reason: str, code: str) -> dict[str, Any]:
    shown = {"State": state, "StateReason": reason or None, "StateReasonCode": code or None}
    return shown | {"LastUpdateStatus": "Successful"} if state == "Active" else shown


def runtime_arn(version: FunctionVersion) -> str:
    """The name of the runtime version that serves it."""
    digest = hashlib.sha256(version.runtime.encode()).hexdigest()
    return f"arn:{partition_of(version.region)}:lambda:{version.region}::runtime:{digest}"


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value != ""}

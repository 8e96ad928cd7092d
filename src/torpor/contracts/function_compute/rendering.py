"""Functions and what belongs to them as the API shows them (4)."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from torpor.contracts.function_compute import limits
from torpor.contracts.function_compute.names import Generation, Place, function_of, service_of
from torpor.model.function import Alias, FunctionRecord, VersionRecord

CHECKSUM = "codeChecksum"
CREATED = "createdTime"
IDENTITY = "functionId"
LAYER_SIZES = "layerSizes"
INTERNAL = frozenset({CHECKSUM, CREATED, IDENTITY, LAYER_SIZES})
"""What is kept among a function's settings and was not given by its owner."""
_CLASSIC_ONLY = frozenset(
    {"caPort", "customHealthCheckConfig", "initializer", "initializationTimeout", "instanceType",
     "instanceSoftConcurrency"}
)  # fmt: skip
_CURRENT_ONLY = frozenset(
    {"idleTimeout", "logConfig", "role", "disableInjectCredentials", "vpcConfig", "tracingConfig", "internetAccess",
     "resourceGroupId"}
)  # fmt: skip


def function(record: VersionRecord, tags: Mapping[str, str], place: Place, generation: Generation) -> dict[str, Any]:
    """One function, or one version of it."""
    classic = generation.has_services
    hidden = INTERNAL | (_CURRENT_ONLY if classic else _CLASSIC_ONLY)
    version, settings = record.version, record.settings
    shown: dict[str, Any] = {name: value for name, value in settings.items() if name not in hidden}
    name, service = function_of(version.function), service_of(version.function)
    shown |= {
        "functionName": name,
        "functionId": settings.get(IDENTITY, ""),
        "codeSize": version.code.packed_bytes,
        "codeChecksum": settings.get(CHECKSUM, ""),
        "createdTime": settings.get(CREATED) or time_text(record.modified),
        "lastModifiedTime": time_text(record.modified),
        "timeout": int(version.timeout_s),
        "memorySize": version.memory_mb,
        "diskSize": version.tmp_mb,
        "instanceConcurrency": version.concurrency,
        "environmentVariables": dict(version.environment),
        "description": record.description,
    }
    if classic:
        return shown | {"layersArnV2": _layers(settings)}
    return shown | _current(place.function_arn(name, service), settings, tags)


def _current(arn: str, settings: Mapping[str, Any], tags: Mapping[str, str]) -> dict[str, Any]:
    return {
        "functionArn": arn,
        "internetAccess": True,
        "layers": _layers(settings),
        "tags": [{"Key": key, "Value": value} for key, value in sorted(tags.items())],
        "state": "Active",
        "lastUpdateStatus": "Successful",
    }


def _layers(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    sizes = settings.get(LAYER_SIZES) or {}
    return [{"arn": arn, "size": sizes.get(arn, 0)} for arn in settings.get("layers") or ()]


def version(record: VersionRecord) -> dict[str, Any]:
    """A published version in lists."""
    moment = time_text(record.modified)
    return {
        "versionId": record.version.version,
        "description": record.description,
        "createdTime": moment,
        "lastModifiedTime": moment,
    }


def alias(shown: Alias) -> dict[str, Any]:
    """An alias of a function."""
    return {
        "aliasName": shown.name,
        "versionId": shown.version,
        "description": shown.description,
        "additionalVersionWeight": dict(shown.weights),
        "createdTime": shown.settings.get(CREATED, ""),
        "lastModifiedTime": shown.settings.get("lastModifiedTime", ""),
    }


def time_text(moment: float) -> str:
    """Seconds since the epoch as the API shows them: RFC 3339 in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def etag(document: Mapping[str, Any]) -> str:
    """What stands for one state of a document."""
    return hashlib.md5(json.dumps(document, sort_keys=True).encode(), usedforsecurity=False).hexdigest()


def function_etag(record: FunctionRecord) -> str:
    return record.latest.version.revision


def page(names: Iterable[str], query: Mapping[str, str]) -> tuple[list[str], str]:
    """The names of one page, and where the next begins; empty if this is the last.

    `prefix`, `startKey` (its first name), `nextToken` (of an earlier page) and `limit` are the caller's.
    """
    from_name = query.get("nextToken") or query.get("startKey") or ""
    prefix = query.get("prefix") or ""
    found = sorted(name for name in names if name.startswith(prefix) and name >= from_name)
    size = page_size(query)
    return found[:size], found[size] if len(found) > size else ""


def page_size(query: Mapping[str, str]) -> int:
    """At most 100, by default 20."""
    text = query.get("limit") or ""
    wanted = int(text) if text.isdecimal() and len(text) < len(str(limits.PAGE_MAX)) + 3 else limits.PAGE_DEFAULT
    return min(max(1, wanted), limits.PAGE_MAX)

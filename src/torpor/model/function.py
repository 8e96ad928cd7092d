"""What a user deploys: functions and their immutable versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LATEST = "$LATEST"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeRef:
    """An unpacked, content-addressed package in the code store."""

    digest: str
    """Hex SHA-256 of the package as it was uploaded."""
    packed_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionVersion:
    """One version of a function, with all that an environment serving it needs to know.

    `revision` is new whenever code or configuration changes, so `(function, version, revision)` names one immutable
    thing; environments never outlive the revision they were made for.
    """

    function: str
    version: str
    resource: str
    """The unqualified name by which the contract's outside world knows the function."""
    revision: str
    contract: str
    """Which contract serves it: `lambda`, `lambda_managed`, `function_compute` or `web`."""
    runtime: str
    handler: str
    code: CodeRef
    layers: tuple[CodeRef, ...] = ()
    memory_mb: int = 128
    timeout_s: float = 3.0
    tmp_mb: int = 512
    environment: Mapping[str, str] = field(default_factory=dict)
    log_group: str = ""
    log_format: str = "Text"
    region: str = "us-east-1"
    account: str = "000000000000"
    role: str = ""
    tracing: str = "PassThrough"

    @property
    def key(self) -> tuple[str, str, str]:
        """What environments are pooled by."""
        return (self.function, self.version, self.revision)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A version as it is kept: what environments need, and what is only stored and shown again."""

    version: FunctionVersion
    description: str = ""
    modified: float = 0.0
    """Seconds since the epoch of the last change."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Contract-specific settings that no environment depends on, as plain JSON values, returned as they were given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRecord:
    """A function with its newest, mutable version and what is set per function."""

    name: str
    latest: VersionRecord
    reserved_concurrency: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

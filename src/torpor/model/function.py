"""What a user deploys: functions and their immutable versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torpor.model.provision import Provision
from torpor.model.server import ServerSettings

LATEST = "$LATEST"

Key: TypeAlias = tuple[str, str, str, str]
"""Function, version, revision and tenant: what environments are pooled by."""


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
    cpu: float | None = None
    """CPUs it may use; None for as many as the contract gives by memory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    log_group: str = ""
    log_format: str = "Text"
    application_log_level: str = ""
    """Lines of the function below it are left out, where its log format has levels; empty for the default."""
    system_log_level: str = ""
    """As `application_log_level`, for the platform's own lines."""
    region: str = "us-east-1"
    account: str = "000000000000"
    role: str = ""
    tracing: str = "PassThrough"
    server: ServerSettings | None = None
    """Set if the runtime is a server that is sent its work by HTTP."""
    concurrency: int = 1
    """Invocations that one environment may run at once."""
    minimum: int = 0
    """Environments that are kept up even without work."""
    maximum: int | None = None
    """Environments that may exist at once; None for as many as the host and the contract allow."""
    idle_timeout_s: float | None = None
    """Seconds an environment is kept without work; None for the contract's default."""
    persistent: bool = False
    """Runs all the time and may write its whole file system."""
    snapshots: bool = False
    """Environments of what is published from it go on from a snapshot."""
    namespace: str = ""
    """The group of functions it is deployed in, where the contract knows such groups."""
    per_tenant: bool = False
    """Each of its environments serves one tenant only."""
    tenant: str = ""
    """The one that this is for; empty in what is kept, set for the time of an invocation and its environment."""

    @property
    def is_restored(self) -> bool:
        """Do its environments go on from a snapshot?"""
        return self.snapshots and self.version != LATEST

    @property
    def key(self) -> Key:
        """What environments are pooled by."""
        return (self.function, self.version, self.revision, self.tenant)

    def is_of(self, other: "FunctionVersion") -> bool:
        """Is it the same version in the same revision, for whatever tenant?"""
        return self.key[:3] == other.key[:3]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRecord:
    """A version as it is kept: what environments need, and what is only stored and shown again."""

    version: FunctionVersion
    description: str = ""
    modified: float = 0.0
    """Seconds since the epoch of the last change."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Contract-specific settings that no environment depends on, as plain JSON values, returned as they were given."""
    provision: Provision | None = None
    """Environments kept initialised for this version itself; what counts is its `minimum`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A name for one version, or for two between which invocations are divided."""

    name: str
    version: str
    description: str = ""
    revision: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)
    """By version: the part of invocations, 0 to 1, that goes to it instead; at most one entry."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Contract-specific settings, as plain JSON values."""
    provision: Provision | None = None
    """Environments kept initialised for whichever version it points at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRecord:
    """A function with its newest, mutable version, those published from it, and what is set per function.

    `name` is unique on the server. Functions of other contracts than the first stand in spaces of their own, `space/…`,
    so that each cloud's names are free of the others'.
    """

    name: str
    latest: VersionRecord
    reserved_concurrency: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, VersionRecord] = field(default_factory=dict)
    """The published versions by number, immutable."""
    aliases: Mapping[str, Alias] = field(default_factory=dict)
    next_version: int = 1
    """The number of the next version; numbers are never used again."""

    @property
    def space(self) -> str:
        """The part of the name before the first slash; empty if there is none."""
        return self.name.partition("/")[0] if "/" in self.name else ""

"""What may be said of a new function, and what may be changed of one that exists."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict
from uuid import uuid4

from torpor.model.function import CodeRef, FunctionVersion
from torpor.model.server import ServerSettings

OnChange = Callable[[FunctionVersion | None, FunctionVersion | None], None]
"""Told the old and the new version; the old one is None for a new function or version, the new one for a deleted."""
OnScale = Callable[[FunctionVersion], None]
"""Told a version whose bounds on the number of its environments are new; its revision stays, and so do they."""


class Changes(TypedDict, total=False):
    """Configuration to set, by field of `FunctionVersion` and `VersionRecord`; what is absent stays.

    `settings` is merged by its keys, and a key whose value is None is taken away; all else is replaced wholly.
    """

    runtime: str
    handler: str
    layers: tuple[CodeRef, ...]
    memory_mb: int
    timeout_s: float
    tmp_mb: int
    cpu: float | None
    environment: Mapping[str, str]
    log_group: str
    log_format: str
    application_log_level: str
    system_log_level: str
    region: str
    account: str
    role: str
    tracing: str
    server: ServerSettings | None
    concurrency: int
    minimum: int
    maximum: int | None
    idle_timeout_s: float | None
    persistent: bool
    snapshots: bool
    per_tenant: bool
    namespace: str
    description: str
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class NewFunction:
    """A function to create, without its code."""

    name: str
    resource: str
    contract: str
    runtime: str
    handler: str
    configuration: Changes = field(default_factory=Changes)
    tags: Mapping[str, str] = field(default_factory=dict)


def new_revision() -> str:
    """A fresh revision: a random UUID in lower case."""
    return str(uuid4())

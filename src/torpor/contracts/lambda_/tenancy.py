"""Functions whose environments serve one tenant each (9.4, 9.7, 9.8)."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torpor.contracts.lambda_.failures_api import invalid_parameter
from torpor.model.function import FunctionVersion

CONFIG = "TenancyConfig"
_OTHERS = {"CapacityProviderConfig": "a capacity provider", "SnapStart": "SnapStart"}


def for_tenant(version: FunctionVersion, tenant: str) -> FunctionVersion:
    """The version as it serves the tenant that an invocation names. Raises ApiFailure where one must be named, or none
    may be."""
    if not version.per_tenant:
        raise invalid_parameter(
            "The invoked function is not enabled with tenancy configuration. "
            "Remove the tenant ID from your request and try again."
        )
    if not tenant:
        raise invalid_parameter(
            "The invoked function is enabled with tenancy configuration. "
            "Add a valid tenant ID in your request and try again."
        )
    return replace(version, tenant=tenant)


def check_tenancy(values: Mapping[str, Any], *, per_tenant: bool) -> None:
    """Refuse settings that functions with tenants cannot have. Raises ApiFailure."""
    if not per_tenant:
        return
    for name, what in _OTHERS.items():
        if values.get(name) and values[name] != {"ApplyOn": "None"}:
            raise invalid_parameter(f"A function with tenant isolation cannot have {what}.")


def refuse_for(version: FunctionVersion, what: str) -> None:
    """Functions with tenants cannot have this. Raises ApiFailure."""
    if version.per_tenant:
        raise invalid_parameter(f"A function with tenant isolation cannot have {what}.")


def shown_config(version: FunctionVersion) -> dict[str, str] | None:
    """The function's TenancyConfig; None if it has none."""
    return {"TenantIsolationMode": "PER_TENANT"} if version.per_tenant else None

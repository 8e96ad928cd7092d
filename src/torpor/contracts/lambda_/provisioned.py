"""Provisioned concurrency as the API words and shows it (1.4, 9.6, 9.7)."""

from datetime import UTC, datetime
from typing import Any

from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter
from torpor.model.errors import Conflict, InvalidRequest, TorporError
from torpor.model.provision import Provision, Standing

FUNCTION_FAILS = "FUNCTION_ERROR_INIT_FAILURE"
_UNPUBLISHED = "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
_TAKEN = "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"
_POINTED_AT = "Version is pointed by a Provisioned Concurrency alias"
_OVER_RESERVED = (
    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
)
_OVER_ACCOUNT = "Specified ConcurrentExecutions for function is greater than account's unreserved concurrency"
_UNRESERVED = (
    "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
    "below its minimum value of"
)


def told(error: TorporError) -> TorporError:
    """A refusal of the service in the cloud's own words; others stay as they are (9.6)."""
    match error:
        case InvalidRequest(what="unpublished"):
            return invalid_parameter(_UNPUBLISHED)
        case InvalidRequest(what="over reserved"):
            return invalid_parameter(_OVER_RESERVED)
        case InvalidRequest(what="over account", limit=limit):
            return invalid_parameter(f"{_OVER_ACCOUNT} [{limit}].")
        case InvalidRequest(what="unreserved", limit=limit):
            return invalid_parameter(f"{_UNRESERVED} [{limit}].")
        case Conflict(what="provisioned version"):
            return ApiFailure("ResourceConflictException", _TAKEN)
        case Conflict(what="provisioned alias"):
            return ApiFailure("ResourceConflictException", _POINTED_AT)
        case _:
            return error


def under_provisioned(asked: int, total: int | None) -> ApiFailure:
    """A reservation smaller than what is provisioned of the function; the blanks are the service's own."""
    return invalid_parameter(
        f" ReservedConcurrentExecutions  {asked} should not be lower than function's total provisioned concurrency "
        f"[{total}]."
    )


def not_configured() -> ApiFailure:
    """The version or alias has no provisioned concurrency."""
    message = "No Provisioned Concurrency Config found for this function"
    return ApiFailure("ProvisionedConcurrencyConfigNotFoundException", message)


def not_a_target() -> ApiFailure:
    """Neither a published version nor an alias was named."""
    return invalid_parameter("The function resource provided must be an alias or a published version.")


def accepted(provision: Provision, standing: Standing) -> dict[str, Any]:
    """The reply of PutProvisionedConcurrencyConfig: it has yet to take effect."""
    return _numbers(provision, standing) | {"Status": "IN_PROGRESS", "LastModified": _date(provision.modified)}


def shown(provision: Provision, standing: Standing) -> dict[str, Any]:
    """The configuration with how far it is. One that fails for want of memory names that as its reason."""
    status = "FAILED" if standing.failed else "IN_PROGRESS"
    if standing.up >= provision.number:
        status = "READY"
    reason = standing.reason or (FUNCTION_FAILS if status == "FAILED" else "")
    told = {"StatusReason": reason} if reason and status != "READY" else {}
    return _numbers(provision, standing) | {"Status": status, **told, "LastModified": _date(provision.modified)}


def _numbers(provision: Provision, standing: Standing) -> dict[str, Any]:
    up = min(standing.up, provision.number)
    return {
        "RequestedProvisionedConcurrentExecutions": provision.number,
        "AvailableProvisionedConcurrentExecutions": up,
        "AllocatedProvisionedConcurrentExecutions": up,
    }


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")

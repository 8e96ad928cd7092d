"""Code signing configurations as the API takes and shows them (9.4, 9.7).

Nothing verifies signatures here, so every package counts as unsigned: one policy refuses it, the other lets it pass.
"""

import re
from collections.abc import Mapping
from typing import Any

from torpor.contracts.arns import partition_of
from torpor.contracts.lambda_.failures_api import ApiFailure
from torpor.contracts.lambda_.names import Place

WARN, ENFORCE = "Warn", "Enforce"
_POLICY = "UntrustedArtifactOnDeployment"
_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):code-signing-config:(?P<id>csc-[a-z0-9]{17})"
)


def config_arn(place: Place, identity: str) -> str:
    """The full name of a configuration."""
    return f"arn:{partition_of(place.region)}:lambda:{place.region}:{place.account}:code-signing-config:{identity}"


def config_id(arn: str, place: Place) -> str | None:
    """The id in an ARN; None if it is none of this place."""
    found = _ARN.fullmatch(arn)
    if found is None or (found["region"], found["account"]) != (place.region, place.account):
        return None
    return found["id"]


def config_document(values: Mapping[str, Any], kept: Mapping[str, Any], modified: float) -> dict[str, Any]:
    """What is kept of a configuration after a call that creates or changes it: what is not given stays."""
    names = ("Description", "AllowedPublishers", "CodeSigningPolicies", "Tags")
    given = {name: values[name] for name in names if name in values}
    return {**kept, **given, "LastModified": modified}


def shown_config(document: Mapping[str, Any], modified: str) -> dict[str, Any]:
    """A configuration as the API shows it."""
    return {
        "CodeSigningConfigId": document["Arn"].rpartition(":")[2],
        "CodeSigningConfigArn": document["Arn"],
        "Description": document.get("Description", ""),
        "AllowedPublishers": document["AllowedPublishers"],
        "CodeSigningPolicies": {_POLICY: _policy(document)},
        "LastModified": modified,
    }


def check_package(document: Mapping[str, Any] | None, resource: str) -> None:
    """Refuse a package where only signed ones are let in; `resource` is the function's ARN. Raises ApiFailure."""
    if document is None or _policy(document) != ENFORCE:
        return
    raise ApiFailure(
        "CodeVerificationFailedException",
        "Lambda cannot deploy the function. The function or layer might be signed using a signature that the client is "
        f"not configured to accept. Check the provided signature for {resource}. "
        f"(Torpor verifies no signatures: under the policy {ENFORCE} no package passes, under {WARN} every one.)",
    )


def config_not_found(arn: str) -> ApiFailure:
    """A call about a configuration that is not there."""
    message = f"The Lambda code signing configuration {arn} can not be found."
    return ApiFailure("ResourceNotFoundException", message)


def config_missing(arn: str) -> ApiFailure:
    """A function that is to have a configuration that is not there."""
    message = "The code signing configuration cannot be found. Check that the provided configuration is not deleted"
    return ApiFailure("CodeSigningConfigNotFoundException", f"{message}: {arn}.")


def _policy(document: Mapping[str, Any]) -> str:
    policy: str = document.get("CodeSigningPolicies", {}).get(_POLICY, WARN)
    return policy

"""Names and ARNs of log groups and streams."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torpor.contracts.api_checks import compiled
from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.arns import partition_of
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter
from torpor.contracts.cloudwatch_logs.requests import model

NO_GROUP = "The specified log group does not exist."
NO_STREAM = "The specified log stream does not exist."
_ARN = re.compile(r"arn:aws[a-z-]*:logs:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):log-group:(?P<name>[^:*]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a call arrives: the account and region its names belong to."""

    account: str
    region: str

    def group_arn(self, group: str) -> str:
        """The group's full name."""
        return f"arn:{partition_of(self.region)}:logs:{self.region}:{self.account}:log-group:{group}"


def is_group_name(text: str) -> bool:
    """May a log group of this API be called so? Groups of other faces and of the server itself may not."""
    shape = model().shapes["LogGroupName"]
    return shape["min"] <= len(text) <= shape["max"] and compiled(shape["pattern"]).fullmatch(text) is not None


def group_of(identifier: str, place: Place) -> str:
    """The name of the group that a name or an ARN stands for.

    Raises ApiFailure if it is neither, or the ARN is of another place.
    """
    if not identifier.startswith("arn:"):
        if not is_group_name(identifier):
            raise invalid_parameter(f"Invalid log group identifier: {identifier}")
        return identifier
    found = _ARN.fullmatch(identifier)
    if found is None or not is_group_name(found["name"]):
        raise invalid_parameter(f"Invalid log group identifier: {identifier}")
    if (found["region"], found["account"]) != (place.region, place.account):
        raise ApiFailure("ResourceNotFoundException", NO_GROUP)
    return found["name"]


def group_named(values: Mapping[str, Any], place: Place) -> str:
    """The group of a call that names it by `logGroupName` or `logGroupIdentifier`. Raises ApiFailure."""
    name, identifier = values.get("logGroupName"), values.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise invalid_parameter("Exactly one of logGroupName and logGroupIdentifier has to be given.")
    return group_of(identifier, place) if identifier is not None else str(name)

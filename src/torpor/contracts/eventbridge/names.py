"""Names and ARNs of event buses, rules and the functions that rules reach."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.arns import partition_of
from torpor.contracts.eventbridge.failures import invalid, no_bus, not_built

DEFAULT_BUS = "default"
"""The only event bus that there is."""
_ARN = re.compile(
    r"arn:aws[a-z-]*:events:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):(?P<kind>[a-z-]+)/(?P<name>[/.\-_A-Za-z0-9]+)"
)
_FUNCTION = re.compile(r"(?P<name>[A-Za-z0-9_-]+)(?::(?P<qualifier>\$LATEST|[A-Za-z0-9_-]+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a call arrives: the account and region its names belong to."""

    account: str
    region: str

    def rule_arn(self, rule: str) -> str:
        """The rule's full name."""
        return self._arn("events", f"rule/{rule}")

    @property
    def bus_arn(self) -> str:
        """The full name of the event bus."""
        return self._arn("events", f"event-bus/{DEFAULT_BUS}")

    @property
    def functions(self) -> str:
        """What the full names of all functions begin with."""
        return self._arn("lambda", "function:")

    def _arn(self, service: str, rest: str) -> str:
        return f"arn:{partition_of(self.region)}:{service}:{self.region}:{self.account}:{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFunction:
    """The function that a target stands for; `qualifier` is empty if the target names none."""

    name: str
    qualifier: str


def check_bus(values: Mapping[str, Any], place: Place) -> None:
    """Raises ApiFailure if a call is about another event bus than the one that there is."""
    bus = values.get("EventBusName", DEFAULT_BUS)
    if bus not in (DEFAULT_BUS, place.bus_arn):
        raise no_bus(bus)


def rule_of(arn: str, place: Place) -> str:
    """The name of the rule that an ARN stands for.

    Raises ApiFailure if it is no ARN of this API, of another place, or of something that is no rule.
    """
    found = _ARN.fullmatch(arn)
    if found is None:
        raise invalid("Parameter ResourceARN is not valid. Reason: Provided Arn is not in correct format.")
    if (found["region"], found["account"]) != (place.region, place.account):
        raise ApiFailure("ResourceNotFoundException", f"{arn} does not exist.")
    if found["kind"] != "rule":
        raise not_built(f"Tagging of {found['kind']}", "Rules have tags.")
    bus, _, name = found["name"].rpartition("/")
    if bus not in ("", DEFAULT_BUS):
        raise no_bus(bus)
    return name


def target_function(arn: str, place: Place) -> TargetFunction:
    """The function that a target's ARN stands for. Raises ApiFailure for everything that cannot be reached."""
    found = _FUNCTION.fullmatch(arn.removeprefix(place.functions)) if arn.startswith(place.functions) else None
    if found is None:
        raise invalid(
            f"Target {arn} cannot be reached: targets are functions of this server ({place.functions}NAME[:QUALIFIER])."
        )
    return TargetFunction(name=found["name"], qualifier=found["qualifier"] or "")

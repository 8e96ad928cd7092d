"""How asynchronous invocations of a function are retried, and where their results go (9.6, 9.7, 10)."""

import re
from collections.abc import Mapping
from typing import Any

from torpor.contracts.event_targets import is_own
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter
from torpor.contracts.lambda_.names import Place, function_name
from torpor.model.errors import TorporError

_HANDLING = ("MaximumRetryAttempts", "MaximumEventAgeInSeconds")
_DESTINATIONS = ("OnSuccess", "OnFailure")
_DESTINATION = re.compile(r"arn:aws[a-zA-Z0-9-]*:(?P<service>[a-zA-Z0-9-]+):[a-z0-9-]*:[0-9]*:.+")
_KINDS = {"OnSuccess": ("lambda", "sqs", "sns", "events"), "OnFailure": ("lambda", "sqs", "sns", "events", "s3")}


def given_settings(values: Mapping[str, Any]) -> dict[str, Any]:
    """What a call sets. Raises ApiFailure if that is nothing."""
    given = {name: values[name] for name in (*_HANDLING, "DestinationConfig") if name in values}
    if not given:
        raise invalid_parameter("You must specify at least one of error handling or destination setting.")
    return given


def merged(kept: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Kept settings with what a call changes of them; each destination stays unless it is given."""
    destinations = {**kept.get("DestinationConfig", {}), **given.get("DestinationConfig", {})}
    return {**kept, **given, "DestinationConfig": destinations}


def functions_named(given: Mapping[str, Any], function: str, place: Place) -> list[tuple[str, str]]:
    """The functions that are destinations, with their ARNs. Raises ApiFailure for what cannot be a destination."""
    arns = {each: given.get("DestinationConfig", {}).get(each, {}).get("Destination") for each in _DESTINATIONS}
    found = []
    for each, arn in arns.items():
        if arn and is_own(arn):
            continue
        kind = _DESTINATION.fullmatch(arn) if arn else None
        if arn and (kind is None or kind["service"] not in _KINDS[each] or arn.endswith(".fifo")):
            raise _invalid_destinations(arns)
        if arn and kind is not None and kind["service"] == "lambda":
            found.append((_function(arn, function, place), arn))
    return found


def invalid_destination(arn: str) -> ApiFailure:
    """A destination that is not there."""
    return invalid_parameter(f"The destination ARN {arn} is invalid.")


def shown_settings(document: Mapping[str, Any], resource: str) -> dict[str, Any]:
    """The settings as the API shows them; `resource` is the qualified ARN."""
    destinations = document.get("DestinationConfig", {})
    shown = {name: document[name] for name in _HANDLING if name in document}
    return {
        "LastModified": document["LastModified"],
        "FunctionArn": resource,
        **shown,
        "DestinationConfig": {each: _without_empty(destinations.get(each, {})) for each in _DESTINATIONS},
    }


def no_settings(resource: str) -> ApiFailure:
    """Nothing is set; `resource` is the qualified ARN."""
    return ApiFailure("ResourceNotFoundException", f"The function {resource} doesn't have an EventInvokeConfig")


def _function(arn: str, function: str, place: Place) -> str:
    try:
        named = function_name(arn, "", place)
    except TorporError as error:
        raise invalid_destination(arn) from error
    if named.name == function:
        raise invalid_parameter("You can't specify the function as a destination for itself.")
    return named.name


def _invalid_destinations(arns: Mapping[str, str | None]) -> ApiFailure:
    success, failure = (f"{each}(destination={arns[each]})" if arns[each] else "null" for each in _DESTINATIONS)
    shown = f"DestinationConfig(onSuccess={success}, onFailure={failure})"
    return invalid_parameter(f"The provided destination config {shown} is invalid.")


def _without_empty(destination: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in destination.items() if value}

"""Layers as the API names and shows them (9.4, 9.6, 9.7)."""

import re
from typing import Any

from torpor.contracts.arns import partition_of
from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter
from torpor.contracts.lambda_.names import Place
from torpor.contracts.lambda_.rendering import date_text, sha256_text
from torpor.model.layer import LayerVersion

_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12}):layer:(?P<name>[a-zA-Z0-9_-]+)"
    r"(?::(?P<number>[0-9]+))?"
)


def layer_arn(place: Place, name: str) -> str:
    """The full name of a layer, without a version."""
    return f"arn:{partition_of(place.region)}:lambda:{place.region}:{place.account}:layer:{name}"


def layer_name(text: str, place: Place) -> str:
    """The bare name in a bare name or an ARN. Raises ApiFailure for the ARN of another place."""
    if not text.startswith("arn:"):
        return text
    found = _ARN.fullmatch(text)
    if found is None:
        raise invalid_parameter(f"Invalid layer name: {text}")
    if (found["region"], found["account"]) != (place.region, place.account):
        raise ApiFailure("ResourceNotFoundException", "The resource you requested does not exist.")
    return found["name"]


def named_version(arn: str, place: Place) -> tuple[str, int] | None:
    """Name and number in the ARN of a layer version; None if it is none of this place."""
    found = _ARN.fullmatch(arn)
    if found is None or not found["number"] or (found["region"], found["account"]) != (place.region, place.account):
        return None
    return found["name"], int(found["number"])


def absent_text(arn: str) -> str:
    """How a missing layer version is told, by its ARN."""
    return f"Layer version {arn} does not exist."


def version_item(layer: LayerVersion, place: Place) -> dict[str, Any]:
    """A layer version in a list."""
    shown = {
        "LayerVersionArn": f"{layer_arn(place, layer.name)}:{layer.number}",
        "Version": layer.number,
        "Description": layer.description,
        "CreatedDate": date_text(layer.created),
        "CompatibleRuntimes": list(layer.runtimes) or None,
        "CompatibleArchitectures": list(layer.architectures) or None,
        "LicenseInfo": layer.license or None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def version_reply(layer: LayerVersion, place: Place, location: str) -> dict[str, Any]:
    """A layer version by itself; `location` is where its package can be fetched."""
    content = {
        "Location": location,
        "CodeSha256": sha256_text(layer.code.digest),
        "CodeSize": layer.code.packed_bytes,
    }
    return {"Content": content, "LayerArn": layer_arn(place, layer.name), **version_item(layer, place)}


def used_layer(arn: str, layer: LayerVersion) -> dict[str, Any]:
    """A layer in a function's configuration."""
    return {"Arn": arn, "CodeSize": layer.code.packed_bytes}

"""Checks of a request against this API's model (9.1)."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from torpor.contracts import api_checks
from torpor.contracts.api_checks import compiled
from torpor.contracts.lambda_ import limits
from torpor.contracts.lambda_.operations import Shape, api_model

__all__ = ["check", "compiled"]


def check(shape_name: str, value: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Check an operation's whole input. Raises ApiFailure (ValidationException) that names every violation."""
    api_checks.check(shape_name, value, {**shapes, **_served()}, "ValidationException")


@cache
def _served() -> dict[str, Shape]:
    """Shapes in which the service differs from its model."""
    shapes = api_model().shapes
    storage = {**shapes["EphemeralStorageSize"], "max": limits.TMP_MAX_MB}  # the model's is that of another mode
    runtime = {key: value for key, value in shapes["Runtime"].items() if key != "enum"}
    # An unknown runtime is told with a code and a text of its own.
    own = "|file:[A-Za-z0-9][A-Za-z0-9_.-]*|https?://[^\\s]+"  # beside the cloud's destinations
    destination = {**shapes["DestinationArn"], "pattern": shapes["DestinationArn"]["pattern"] + own}
    return {"EphemeralStorageSize": storage, "Runtime": runtime, "DestinationArn": destination}

"""A request to the API: which operation it asks for, and the operation's input, checked against the API's model."""

from typing import Any

from torpor.contracts import json_api
from torpor.contracts.api_checks import check
from torpor.contracts.api_input import Converter, parse_object
from torpor.contracts.api_model import ApiModel, load
from torpor.contracts.http import ApiRequest

SERVICE = "events"
"""In the scope of signatures."""
TARGET = json_api.TARGET
PREFIX = "AWSEvents."
"""Of every target that is one of this API."""


def model() -> ApiModel:
    """The API's shapes and operations."""
    return load(SERVICE)


def operation_of(request: ApiRequest) -> str:
    """The name of the operation. Raises ApiFailure if the API has none of that name."""
    return json_api.operation_of(request, PREFIX, model().operations)


def read_input(operation: str, body: bytes) -> dict[str, Any]:
    """The input's members. Raises ApiFailure: SerializationException for what is no JSON object or of a wrong type,
    ValidationException for values out of bounds."""
    shape, shapes = model().operations[operation].input_shape, model().shapes
    values: dict[str, Any] = Converter(shapes).value(shape, parse_object(body, "SerializationException"))
    check(shape, values, shapes, "ValidationException")
    return values

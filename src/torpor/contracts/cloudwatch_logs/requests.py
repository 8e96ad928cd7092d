"""A request to the API: which operation it asks for, and the operation's input, checked against the API's model."""

from collections.abc import Mapping
from typing import Any

from torpor.contracts import json_api
from torpor.contracts.api_checks import check
from torpor.contracts.api_input import Converter, parse_object
from torpor.contracts.api_model import ApiModel, load
from torpor.contracts.cloudwatch_logs.failures import not_built
from torpor.contracts.http import ApiRequest

SERVICE = "logs"
"""In the scope of signatures."""
TARGET = json_api.TARGET
_PREFIX = "Logs_20140328."
_NOT_BUILT: Mapping[str, Any] = {
    "kmsKeyId": None,
    "deletionProtectionEnabled": False,
    "includeLinkedAccounts": False,
    "accountIdentifiers": None,
    "logGroupClass": "STANDARD",
    "entity": None,
}
"""Members that this version has no use for, with the value that asks for nothing."""


def model() -> ApiModel:
    """The API's shapes and operations."""
    return load(SERVICE)


def operation_of(request: ApiRequest) -> str:
    """The name of the operation. Raises ApiFailure if the API has none of that name."""
    return json_api.operation_of(request, _PREFIX, model().operations)


def read_input(operation: str, body: bytes) -> dict[str, Any]:
    """The input's members. Raises ApiFailure: SerializationException for what is no JSON object or of a wrong type,
    InvalidParameterException for values out of bounds, NotImplementedException for parts that are not built."""
    shape = model().operations[operation].input_shape
    shapes = model().shapes
    values: dict[str, Any] = Converter(shapes).value(shape, parse_object(body, "SerializationException"))
    check(shape, values, shapes, "InvalidParameterException")
    for name, nothing in _NOT_BUILT.items():
        if values.get(name, nothing) != nothing:
            raise not_built(f"{name} of {operation}")
    return values

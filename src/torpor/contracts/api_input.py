"""An operation's input out of a request, converted to the types of the API's model (9.1).

Members nobody knows are ignored, as the service does. Types are checked here, values in `validation`.
"""

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.api_model import Shape

_NAMES = {"integer": "an Integer", "long": "a Long", "double": "a Double", "boolean": "a Boolean", "string": "a String"}


def convert(shapes: Mapping[str, Shape], shape_name: str, raw: Any) -> Any:
    """A JSON value as a value of this shape. Raises ApiFailure when a type is wrong."""
    return Converter(shapes).value(shape_name, raw)


def parse_object(body: bytes, code: str) -> dict[str, Any]:
    """A JSON object; no body at all counts as an empty one. Raises ApiFailure, with `code` for what is no JSON."""
    if not body:
        return {}
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiFailure(code, f"Could not parse request body into json: {error}") from error
    if not isinstance(value, dict):
        raise _wrong("Unexpected value type in payload")
    return value


class Converter:
    """Converts raw values to those of shapes. Raises ApiFailure (SerializationException)."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes
        self._scalars: Mapping[str, Callable[[Any], Any]] = {
            "string": _text, "boolean": _boolean, "integer": _integer, "long": _long,
            "double": _double, "blob": _blob, "timestamp": _timestamp,
        }  # fmt: skip

    def value(self, shape_name: str, raw: Any) -> Any:
        shape = self._shapes[shape_name]
        match shape["type"]:
            case "structure":
                return self._structure(shape, raw)
            case "list":
                return self._list(shape, raw)
            case "map":
                return self._map(shape, raw)
            case scalar:
                return self._scalars[scalar](raw)

    def _structure(self, shape: Shape, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise _wrong(f"{_kind(raw)} can not be converted to a structure")
        return {
            name: self.value(spec["shape"], raw[name])
            for name, spec in shape["members"].items()
            if raw.get(name) is not None
        }

    def _list(self, shape: Shape, raw: Any) -> list[Any]:
        if not isinstance(raw, list):
            raise _wrong("Expected list or null")
        return [None if item is None else self.value(shape["member"]["shape"], item) for item in raw]

    def _map(self, shape: Shape, raw: Any) -> dict[str, Any]:
        if not isinstance(raw, dict):
            raise _wrong("Expected map or null")
        return {_text(key): self.value(shape["value"]["shape"], item) for key, item in raw.items() if item is not None}


def _text(raw: Any) -> str:
    if not isinstance(raw, str):
        raise _mismatch(raw, "string")
    try:
        raw.encode()
    except UnicodeEncodeError as error:
        raise _wrong("A text value holds half of a surrogate pair") from error
    return raw


def _boolean(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    raise _mismatch(raw, "boolean")


def _integer(raw: Any) -> int:
    return _whole(raw, "integer")


def _long(raw: Any) -> int:
    return _whole(raw, "long")


def _whole(raw: Any, kind: str) -> int:
    if isinstance(raw, float) and raw.is_integer():
        return int(raw)
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    raise _mismatch(raw, kind)


def _double(raw: Any) -> float:
    if isinstance(raw, (int, float)) and not isinstance(raw, bool):
        return float(raw)
    raise _mismatch(raw, "double")


def _blob(raw: Any) -> bytes:
    try:
        return base64.b64decode(_text(raw), validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong("Invalid base64 in a blob value") from error


def _timestamp(raw: Any) -> float:
    if isinstance(raw, str):
        try:
            return datetime.fromisoformat(raw).timestamp()
        except ValueError as error:
            raise _wrong(f"Unable to parse date as ISO 8601: {raw}") from error
    return _double(raw)


def _mismatch(raw: Any, wanted: str) -> ApiFailure:
    if isinstance(raw, dict):
        return _wrong("Start of structure or map found where not expected.")
    if isinstance(raw, list):
        return _wrong("Start of list found where not expected.")
    return _wrong(f"{_kind(raw)} can not be converted to {_NAMES[wanted]}")


def _kind(raw: Any) -> str:
    if isinstance(raw, bool):
        return "TRUE_VALUE" if raw else "FALSE_VALUE"
    if isinstance(raw, (int, float)):
        return "NUMBER_VALUE"
    return "STRING_VALUE" if isinstance(raw, str) else "LIST_VALUE"


def _wrong(message: str) -> ApiFailure:
    return ApiFailure("SerializationException", message)

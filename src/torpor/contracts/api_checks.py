"""Checks of a request against an API's model, in the services' own words (9.1)."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.api_model import Shape

NOT_NULL = "Member must not be null"
_UNICODE_CLASSES = {
    r"\p{L}": r"\w",
    r"\p{N}": r"\w",
    r"\p{Z}": " \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000",
}


def check(shape_name: str, value: Mapping[str, Any], shapes: Mapping[str, Shape], code: str) -> None:
    """Check an operation's whole input. Raises ApiFailure (`code`) that names every violation."""
    found = list(_Checker(shapes).structure(shape_name, value, ""))
    if found:
        noun = "error" if len(found) == 1 else "errors"
        raise ApiFailure(code, f"{len(found)} validation {noun} detected: {'; '.join(found)}")


class _Checker:
    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self._shapes = shapes

    def structure(self, shape_name: str, value: Mapping[str, Any], path: str) -> Iterator[str]:
        shape = self._shapes[shape_name]
        for name in shape.get("required", ()):
            if value.get(name) is None:
                yield f"Value null at '{_joined(path, name)}' failed to satisfy constraint: {NOT_NULL}"
        for name, spec in shape["members"].items():
            if value.get(name) is not None:
                yield from self._value(spec["shape"], value[name], _joined(path, name))

    def _value(self, shape_name: str, value: Any, path: str) -> Iterator[str]:
        shape = self._shapes[shape_name]
        for constraint in _broken(shape, value):
            yield self._violation(shape, value, path, constraint)
        match shape["type"]:
            case "structure":
                yield from self.structure(shape_name, value, path)
            case "list":
                yield from self._list(shape, value, path)
            case "map":
                yield from self._map(shape, value, path)

    def _list(self, shape: Shape, value: list[Any], path: str) -> Iterator[str]:
        member = shape["member"]["shape"]
        if self._shapes[member]["type"] in ("structure", "list", "map"):
            for index, item in enumerate(value, start=1):
                place = f"{path}.{index}.member"
                if item is None:
                    yield f"Value null at '{place}' failed to satisfy constraint: {NOT_NULL}"
                else:
                    yield from self._value(member, item, place)
        elif self._any_broken(member, value):
            yield self._violation(shape, value, path, f"Member must satisfy constraint: [{self._all(member)}]")

    def _map(self, shape: Shape, value: Mapping[str, Any], path: str) -> Iterator[str]:
        for part, what, items in (("key", "keys", value.keys()), ("value", "value", value.values())):
            member = shape[part]["shape"]
            if self._shapes[member]["type"] == "structure":
                continue
            if self._any_broken(member, list(items)):
                constraints = ", ".join(_constraints(self._shapes[member]))
                yield self._violation(shape, value, path, f"Map {what} must satisfy constraint: [{constraints}]")

    def _any_broken(self, member: str, items: list[Any]) -> bool:
        return any(item is None or any(_broken(self._shapes[member], item)) for item in items)

    def _all(self, member: str) -> str:
        return ", ".join([*_constraints(self._shapes[member]), NOT_NULL])

    def _violation(self, shape: Shape, value: Any, path: str, constraint: str) -> str:
        shown = "Value" if shape.get("sensitive") else f"Value '{_shown(value)}'"
        return f"{shown} at '{path}' failed to satisfy constraint: {constraint}"


def _broken(shape: Shape, value: Any) -> Iterator[str]:
    kind = shape["type"]
    if kind == "string":
        yield from _broken_text(shape, value)
    elif kind in ("integer", "long", "double"):
        yield from _out_of_range(value, shape.get("min"), shape.get("max"), "value")
    elif kind in ("list", "map", "blob"):
        yield from _out_of_range(len(value), shape.get("min"), shape.get("max"), "length")


def _broken_text(shape: Shape, value: str) -> Iterator[str]:
    if "enum" in shape and value not in shape["enum"]:
        yield _enum_text(shape)
    longest = shape.get("max")
    # A text over its maximum is refused for that alone, so no pattern ever runs over a text of any length.
    fits = longest is None or len(value) <= longest
    if fits and "pattern" in shape and compiled(shape["pattern"]).fullmatch(value) is None:
        yield _pattern_text(shape)
    yield from _out_of_range(len(value), shape.get("min"), longest, "length")


def _out_of_range(number: float, low: float | None, high: float | None, what: str) -> Iterator[str]:
    if high is not None and number > high:
        yield f"Member must have {what} less than or equal to {high}"
    if low is not None and number < low:
        yield f"Member must have {what} greater than or equal to {low}"


def _constraints(shape: Shape) -> Iterator[str]:
    what = "length" if shape["type"] == "string" else "value"
    if "max" in shape:
        yield f"Member must have {what} less than or equal to {shape['max']}"
    if "min" in shape:
        yield f"Member must have {what} greater than or equal to {shape['min']}"
    if "pattern" in shape:
        yield _pattern_text(shape)
    if "enum" in shape:
        yield _enum_text(shape)


def _pattern_text(shape: Shape) -> str:
    return f"Member must satisfy regular expression pattern: {shape['pattern']}"


def _enum_text(shape: Shape) -> str:
    return f"Member must satisfy enum value set: [{', '.join(shape['enum'])}]"


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of the model as Python understands it."""
    flags = re.NOFLAG if r"\p{" in pattern else re.ASCII
    for java, python in _UNICODE_CLASSES.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern, flags)


def _joined(path: str, name: str) -> str:
    camel = name[:1].lower() + name[1:]
    return f"{path}.{camel}" if path else camel


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_shown(item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    return str(value)

"""Event filters: patterns that say which messages of a source reach its function (9.11).

A pattern is a JSON object in the shape of the record: fields it does not name do not matter, those it names must all
match. At the end of each path stands an array of alternatives. Where the record has an array, one matching element is
enough.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

from torpor.contracts.lambda_.event_conditions import Condition, broken, one_of, read_condition, single
from torpor.contracts.lambda_.json_text import read_json

PATTERN_MAX = 4096
"""Characters of one pattern."""
NESTING_MAX = 50
"""Objects in one another in a pattern; the contract page names no bound."""
_OR = "$or"
_OR_MIN = 2
_BODY = "body"
_NOTHING: list[Any] = []
"""Stands for a field that is not there: an array without elements has no values either."""


def compiled(pattern: str) -> Callable[[Mapping[str, Any]], bool]:
    """What tells whether a document matches the pattern. Raises ApiFailure, which says what is wrong with it."""
    if len(pattern) > PATTERN_MAX:
        raise broken(f"A pattern has at most {PATTERN_MAX} characters.")
    try:
        given = read_json(pattern)
    except ValueError as error:
        raise broken(f"The pattern is no JSON: {error}.") from error
    if not isinstance(given, dict):
        raise broken("The pattern must be a JSON object.")
    node = _fields(given, _Where())
    return lambda document: _matches(node, document)


class Filters:
    """All filters of a source of messages; a message that matches none of them is dropped.

    A pattern whose `body` is an object is about bodies that are JSON, one whose `body` is an array about those that are
    plain text. A body of the other kind does not match it. Without any filter every message is kept.
    """

    def __init__(self, criteria: Mapping[str, Any]) -> None:
        """`criteria` is a FilterCriteria. Raises ApiFailure for a pattern that is none."""
        self._patterns = [compiled(each.get("Pattern", "")) for each in criteria.get("Filters", ())]

    def keeps(self, record: Mapping[str, Any]) -> bool:
        """Whether the function is to see this record, which is one of its event."""
        if not self._patterns:
            return True
        opened = {**record, _BODY: _Body(record[_BODY])}
        return any(matches(opened) for matches in self._patterns)


class _Body:
    """The body of a message, which may be JSON."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def document(self) -> Any:
        """The object or array that the text is; None for every other text, a number too."""
        if not self.text.lstrip().startswith(("{", "[")):
            return None
        try:
            return read_json(self.text)
        except ValueError:
            return None


class _Whole:
    """The document that is being matched. What is asked of all of it is found out once."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = dict(document)
        self._known: dict[tuple[str, ...], bool] = {}

    def has(self, path: tuple[str, ...]) -> bool:
        """Whether the path leads to a value; objects are none."""
        if path not in self._known:
            values: list[Any] = [self.document]
            for name in path:
                values = [one[name] for value in values for one in _objects(value) if name in one]
            self._known[path] = any(True for value in values for _ in _leaves(value))
        return self._known[path]


@dataclass(frozen=True, slots=True)
class _Where:
    """A place in a pattern."""

    path: tuple[str, ...] = ()
    depth: int = 0

    def at(self, name: str) -> "_Where":
        return _Where((*self.path, name), self.depth + 1)

    def branch(self) -> "_Where":
        """Inside `$or`, which is no field."""
        return _Where(self.path, self.depth + 1)

    def __str__(self) -> str:
        return ".".join(self.path)


_Node: TypeAlias = Callable[[Any, _Whole], bool]


def _matches(node: _Node, document: Mapping[str, Any]) -> bool:
    whole = _Whole(document)
    return node(whole.document, whole)


def _fields(given: Mapping[str, Any], where: _Where) -> _Node:
    """All fields of an object match."""
    if where.depth > NESTING_MAX:
        raise broken(f"The pattern is nested more than {NESTING_MAX} times.")
    if not given:
        raise broken("An object in the pattern is empty.")
    nodes = [_branches(value, where) if name == _OR else _field(name, value, where) for name, value in given.items()]
    return lambda value, whole: any(all(node(one, whole) for node in nodes) for one in _objects(value))


def _field(name: str, given: Any, where: _Where) -> _Node:
    inside = where.at(name)
    if isinstance(given, dict):
        node = _fields(given, inside)
    elif isinstance(given, list):
        node = _alternatives(given, inside)
    else:
        raise broken(f"The value of '{inside}' must be an object or an array.")
    return lambda one, whole: node(one.get(name, _NOTHING), whole)


def _branches(given: Any, where: _Where) -> _Node:
    """One of several objects matches what stands beside them too."""
    if not isinstance(given, list) or len(given) < _OR_MIN or not all(isinstance(each, dict) for each in given):
        raise broken(f"The value of '{_OR}' must be an array of at least {_OR_MIN} objects.")
    nodes = [_fields(each, where.branch()) for each in given]
    return lambda one, whole: any(node(one, whole) for node in nodes)


def _alternatives(given: list[Any], where: _Where) -> _Node:
    """One of several conditions holds for one of the values."""
    if not given:
        raise broken(f"The array of '{where}' is empty.")
    if any(isinstance(each, list) for each in given):
        raise broken(f"An array stands in the array of '{where}'.")
    read = [_alternative(each) for each in given if isinstance(each, dict)]
    conditions = [condition for condition in read if condition is not _if_absent]
    if exact := [each for each in given if not isinstance(each, dict)]:
        conditions.append(one_of(exact))
    if_absent = _if_absent in read

    def matches(value: Any, whole: _Whole) -> bool:
        if isinstance(value, _Body):
            if value.document is not None:
                return False
            value = value.text
        if any(condition(leaf) for leaf in _leaves(value) for condition in conditions):
            return True
        return if_absent and not whole.has(where.path)

    return matches


def _alternative(given: Mapping[str, Any]) -> Condition:
    name, value = single(given)
    if name != "exists":
        return read_condition(given)
    if not isinstance(value, bool):
        raise broken("The value of 'exists' must be true or false.")
    return _if_present if value else _if_absent


def _if_present(_leaf: Any) -> bool:
    return True


def _if_absent(_leaf: Any) -> bool:
    """Stands for what is asked of the whole document, and of no value."""
    return False


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """The objects that fields are looked for in; an empty one where a value is none, and so has no fields."""
    if isinstance(value, _Body):
        if value.document is None:
            return
        value = value.document
    found = False
    for one in _flat(value):
        if isinstance(one, dict):
            found = True
            yield one
    if not found:
        yield {}


def _leaves(value: Any) -> Iterator[Any]:
    return (one for one in _flat(value) if not isinstance(one, dict))


def _flat(value: Any) -> Iterator[Any]:
    """The value itself, or what is in an array, however deep arrays stand in it."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        else:
            yield one

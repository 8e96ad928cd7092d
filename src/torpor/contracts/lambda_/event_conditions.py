"""What event filters ask of one value: the alternatives in the array at the end of a path (9.11).

A condition is a function of a string, number, boolean or null. None of them can take long: there are no expressions
that could go back and forth over a text.
"""

from collections.abc import Callable, Collection, Mapping
from operator import eq, ge, gt, le, lt
from typing import Any, TypeAlias

from torpor.contracts.lambda_.failures_api import ApiFailure, invalid_parameter

Condition: TypeAlias = Callable[[Any], bool]
IGNORE_CASE = "equals-ignore-case"
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {"=": eq, "<": lt, "<=": le, ">": gt, ">=": ge}
_ESCAPED = ("*", "\\")
_AFFIXES = ("prefix", "suffix")


def broken(why: str) -> ApiFailure:
    """A pattern that is none; `why` is a sentence."""
    return invalid_parameter(f"Invalid filter pattern definition. {why}")


def one_of(values: Collection[Any]) -> Condition:
    """Exactly one of these strings, numbers, booleans and nulls; numbers are compared by value."""
    keys = frozenset(_key(value) for value in values)
    return lambda leaf: _key(leaf) in keys


def read_condition(given: Mapping[str, Any]) -> Condition:
    """A condition that is written as an object of one key, such as `{"prefix": "a"}`. Raises ApiFailure."""
    name, value = single(given)
    read = _READERS.get(name)
    if read is None:
        raise broken(f"There is no condition '{name}'; there are exists, {', '.join(_READERS)}.")
    return read(value)


def single(given: Mapping[str, Any]) -> tuple[str, Any]:
    """The only key of an object, and its value. Raises ApiFailure."""
    if len(given) != 1:
        raise broken("A condition is an object with exactly one key.")
    return next(iter(given.items()))


def _key(value: Any) -> tuple[str, Any]:
    """Equal for equal values of one kind only: to Python true is 1."""
    if isinstance(value, bool) or value is None:
        return "constant", value
    return ("text", value) if isinstance(value, str) else ("number", value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise broken(f"The value of '{name}' must be a string.")
    return value


def _prefix(value: Any) -> Condition:
    text, cased = _cased("prefix", value)
    return lambda leaf: isinstance(leaf, str) and cased(leaf).startswith(text)


def _suffix(value: Any) -> Condition:
    text, cased = _cased("suffix", value)
    return lambda leaf: isinstance(leaf, str) and cased(leaf).endswith(text)


def _cased(name: str, value: Any) -> tuple[str, Callable[[str], str]]:
    """A text, and what a value must go through before it is compared with it."""
    if isinstance(value, dict):
        inner, value = single(value)
        if inner != IGNORE_CASE:
            raise broken(f"'{name}' can be combined with '{IGNORE_CASE}' only, not with '{inner}'.")
        return _text(inner, value).lower(), str.lower
    return _text(name, value), str


def _ignore_case(value: Any) -> Condition:
    text = _text(IGNORE_CASE, value).lower()
    return lambda leaf: isinstance(leaf, str) and leaf.lower() == text


def _anything_but(value: Any) -> Condition:
    excluded = _excluded_by(value) if isinstance(value, dict) else _excluded_values(value)
    return lambda leaf: not excluded(leaf)


def _excluded_values(value: Any) -> Condition:
    values = value if isinstance(value, list) else [value]
    all_texts = all(isinstance(each, str) for each in values)
    if not values or not (all_texts or all(_is_number(each) for each in values)):
        raise broken("The value of 'anything-but' must be a string, a number, or an array of either.")
    return one_of(values)


def _excluded_by(value: Mapping[str, Any]) -> Condition:
    name, given = single(value)
    if name not in (*_AFFIXES, IGNORE_CASE, "wildcard"):
        raise broken(f"'anything-but' cannot be combined with '{name}'.")
    texts = given if isinstance(given, list) else [given]
    if not texts or (name in _AFFIXES and "" in texts):
        raise broken(f"The value of '{name}' in 'anything-but' must not be empty.")
    conditions = [_READERS[name](_text(name, text)) for text in texts]
    return lambda leaf: any(condition(leaf) for condition in conditions)


def _numeric(value: Any) -> Condition:
    if not isinstance(value, list) or len(value) not in (2, 4):
        raise broken("The value of 'numeric' must be an array of an operator and a number, once or twice.")
    bounds = [_bound(*value[at : at + 2]) for at in range(0, len(value), 2)]
    if len(value) == 4:
        _check_range(value)
    return lambda leaf: _is_number(leaf) and all(compare(leaf, number) for compare, number in bounds)


def _bound(operator: Any, number: Any) -> tuple[Callable[[float, float], bool], float]:
    if not isinstance(operator, str) or operator not in _OPERATORS:
        raise broken(f"'{operator}' is no operator of 'numeric'; there are {', '.join(_OPERATORS)}.")
    if not _is_number(number):
        raise broken(f"A number must follow '{operator}' in 'numeric'.")
    return _OPERATORS[operator], number


def _check_range(value: list[Any]) -> None:
    lower, bottom, upper, top = value
    if lower not in (">", ">=") or upper not in ("<", "<="):
        raise broken("A range in 'numeric' is written with > or >= first, then < or <=.")
    if bottom >= top:
        raise broken("The bottom of a range in 'numeric' must be less than its top.")


def _wildcard(value: Any) -> Condition:
    first, *others = _pieces(_text("wildcard", value))
    if not others:
        return one_of([first])
    *middle, last = others
    return lambda leaf: isinstance(leaf, str) and _has_pieces(leaf, first, middle, last)


def _has_pieces(text: str, first: str, middle: list[str], last: str) -> bool:
    """Whether a text is made of these pieces in order, with anything between them."""
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for piece in middle:
        at = text.find(piece, at, end)
        if at < 0:
            return False
        at += len(piece)
    return True


def _pieces(text: str) -> list[str]:
    """What stands between the asterisks; a backslash takes the meaning from the one behind it, or from another."""
    pieces = [""]
    characters = iter(text)
    for character in characters:
        if character == "*":
            if len(pieces) > 1 and not pieces[-1]:
                raise broken("Two asterisks in a row are not allowed in 'wildcard'.")
            pieces.append("")
            continue
        if character == "\\":
            character = next(characters, "")
            if character not in _ESCAPED:
                raise broken("In 'wildcard' only an asterisk or a backslash may follow a backslash.")
        pieces[-1] += character
    return pieces


_READERS: Mapping[str, Callable[[Any], Condition]] = {
    "prefix": _prefix,
    "suffix": _suffix,
    IGNORE_CASE: _ignore_case,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "wildcard": _wildcard,
}

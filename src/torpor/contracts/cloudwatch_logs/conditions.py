"""Conditions joined by `&&`, `||` and parentheses, of either kind of pattern."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torpor.contracts.cloudwatch_logs import limits
from torpor.contracts.cloudwatch_logs.pattern_values import ORDERED, Tokens, Wanted, broken, read_sign

Condition = Callable[[Any], bool]


def read_conditions(tokens: Tokens, single: Callable[[Tokens], Condition], depth: int = 0) -> Condition:
    """Conditions up to the end, a closing parenthesis or a comma; `single` reads one. Raises ApiFailure."""
    if depth > limits.PATTERN_DEPTH:
        raise broken("there are too many parentheses inside one another")
    choices = [_all_of(tokens, single, depth)]
    while tokens.skip("||"):
        choices.append(_all_of(tokens, single, depth))
    return choices[0] if len(choices) == 1 else _any(choices)


def _all_of(tokens: Tokens, single: Callable[[Tokens], Condition], depth: int) -> Condition:
    parts = [_one(tokens, single, depth)]
    while tokens.skip("&&"):
        parts.append(_one(tokens, single, depth))
    return parts[0] if len(parts) == 1 else _every(parts)


def _one(tokens: Tokens, single: Callable[[Tokens], Condition], depth: int) -> Condition:
    if not tokens.skip("("):
        return single(tokens)
    inside = read_conditions(tokens, single, depth + 1)
    if not tokens.skip(")"):
        raise broken("a parenthesis is not closed")
    return inside


def _any(conditions: Sequence[Condition]) -> Condition:
    return lambda value: any(condition(value) for condition in conditions)


def _every(conditions: Sequence[Condition]) -> Condition:
    return lambda value: all(condition(value) for condition in conditions)


def read_comparison(
    tokens: Tokens, equals: Callable[[Wanted, Any], bool], number: Callable[[Any], float | None]
) -> Condition:
    """A comparison and its right side; `number` is what a value counts as in order, if it is one. Raises ApiFailure."""
    sign, wanted = read_sign(tokens), Wanted(tokens.take())
    if sign == "=":
        return partial(equals, wanted)
    if sign == "!=":
        return lambda value: not equals(wanted, value)
    compare, bound = ORDERED[sign], wanted.bound(sign)
    return lambda value: (found := number(value)) is not None and compare(found, bound)

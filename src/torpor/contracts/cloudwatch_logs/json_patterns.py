"""Patterns for messages in JSON: `{ $.level = "ERROR" && $.latency > 100 }`."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from torpor.contracts.cloudwatch_logs import limits
from torpor.contracts.cloudwatch_logs.conditions import Condition, read_comparison, read_conditions
from torpor.contracts.cloudwatch_logs.pattern_values import Token, Tokens, Wanted, broken

_STEP = re.compile(
    r"""\.?\[\s*(?P<index>\d{1,9}|\*)\s*\]"""
    r"""|\.?\[\s*(?:'(?P<single>[^']*)'|"(?P<double>[^"]*)")\s*\]"""
    r"""|\.(?P<name>[^.\[\]'"\s]+)"""
)
_Step = str | int | None
"""A member's name, an item's index, or every member and item."""
_DECODER = msgspec.json.Decoder()


def json_pattern(text: str) -> Callable[[str], bool]:
    """What tells whether a message is JSON that meets the conditions. Raises ApiFailure."""
    tokens = Tokens(text)
    condition = read_conditions(tokens, _Reader().condition)
    if tokens.next is not None:
        raise broken(f"'{tokens.next.text}' is one too many")
    return lambda message: _is_met(condition, message)


def _is_met(condition: Condition, message: str) -> bool:
    if not message.lstrip().startswith(("{", "[")):
        return False
    try:
        value = _DECODER.decode(message)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False
    return condition(value)


class _Reader:
    """Reads the conditions of one pattern."""

    def __init__(self) -> None:
        self._wildcards = 0

    def condition(self, tokens: Tokens) -> Condition:
        """One selector and what is said of its value. Where the selector has several values, one of them is enough."""
        steps = self._steps(tokens.take())
        if tokens.skip("NOT"):
            if not tokens.skip("EXISTS"):
                raise broken("NOT is followed by EXISTS only")
            return lambda document: next(_selected(document, steps), _NOTHING) is _NOTHING
        test = _is(tokens) if tokens.skip("IS") else read_comparison(tokens, Wanted.equals, _number)
        return lambda document: any(test(value) for value in _selected(document, steps))

    def _steps(self, token: Token) -> tuple[_Step, ...]:
        if token.quoted or token.is_sign or not token.text.startswith("$"):
            raise broken(f"'{token.text}' is no selector such as $.name")
        steps = _steps_of(token.text)
        wildcards = steps.count(None)
        self._wildcards += wildcards
        if wildcards > limits.SELECTOR_WILDCARDS or self._wildcards > limits.PATTERN_WILDCARDS:
            raise broken("it has too many wildcards in selectors")
        return steps


class _Nothing:
    """No value at all."""


_NOTHING = _Nothing()


def _steps_of(selector: str) -> tuple[_Step, ...]:
    steps: list[_Step] = []
    at = 1
    while at < len(selector):
        found = _STEP.match(selector, at)
        if found is None:
            raise broken(f"Invalid character(s) in selector '{selector}'")
        at = found.end()
        if found["index"] is not None:
            steps.append(None if found["index"] == "*" else int(found["index"]))
        elif found["name"] is not None:
            steps.append(None if found["name"] == "*" else found["name"])
        else:
            steps.append(found["single"] if found["single"] is not None else found["double"])
    if not steps:
        raise broken("the selector $ names nothing")
    return tuple(steps)


def _selected(value: Any, steps: tuple[_Step, ...], at: int = 0) -> Iterator[Any]:
    if at == len(steps):
        yield value
        return
    for inside in _inside(value, steps[at]):
        yield from _selected(inside, steps, at + 1)


def _inside(value: Any, step: _Step) -> Sequence[Any]:
    if step is None:
        return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    if isinstance(step, int):
        return (value[step],) if isinstance(value, list) and step < len(value) else ()
    return (value[step],) if isinstance(value, dict) and step in value else ()


def _is(tokens: Tokens) -> Condition:
    for word, constant in (("TRUE", True), ("FALSE", False), ("NULL", None)):
        if tokens.skip(word):
            return _is_constant(constant)
    raise broken("IS is followed by TRUE, FALSE or NULL only")


def _is_constant(constant: bool | None) -> Condition:
    return lambda value: value is constant


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None

"""What the conditions of filter patterns are made of: their text cut into tokens, and comparisons with a value."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any

from torpor.contracts.api_failure import ApiFailure
from torpor.contracts.cloudwatch_logs.failures import invalid_parameter

ORDERED: Mapping[str, Callable[[float, float], bool]] = {"<": lt, ">": gt, "<=": le, ">=": ge}
_NUMBER = re.compile(r"[+-]?\d{1,300}(?:\.\d{1,300})?(?:[eE][+-]?\d{1,3})?")
_SIGNS = ("&&", "||", "!=", ">=", "<=", "=", ">", "<", "(", ")", ",")


def broken(why: str) -> ApiFailure:
    """A pattern that is none."""
    return invalid_parameter(f"Invalid filter pattern: {why}")


def no_regex() -> ApiFailure:
    """Expressions between percent signs."""
    return broken("regular expressions (%…%) are not available in this version of Torpor")


@dataclass(frozen=True, slots=True)
class Token:
    """A sign, a quoted text, or a word."""

    text: str
    is_sign: bool = False
    quoted: bool = False


class Tokens:
    """The tokens of a condition, one after the other."""

    def __init__(self, text: str) -> None:
        self._tokens = _cut(text)
        self._at = 0

    @property
    def next(self) -> Token | None:
        """The token that `take` takes; None at the end."""
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def peek(self, further: int) -> Token | None:
        """The token so many behind the next one."""
        at = self._at + further
        return self._tokens[at] if at < len(self._tokens) else None

    def take(self) -> Token:
        """Go on. Raises ApiFailure at the end."""
        token = self.next
        if token is None:
            raise broken("it ends too early")
        self._at += 1
        return token

    def skip(self, *texts: str) -> bool:
        """Go on if one of these signs or words comes next."""
        token = self.next
        if token is None or token.quoted or token.text not in texts:
            return False
        self._at += 1
        return True


def quoted(text: str, start: int) -> tuple[str, int]:
    """The text between the quotes that begin at `start`, and where it goes on. Raises ApiFailure."""
    found: list[str] = []
    at = start + 1
    while at < len(text):
        char = text[at]
        if char == '"':
            return "".join(found), at + 1
        if char == "\\" and at + 1 < len(text) and text[at + 1] in '"\\':
            at += 1
            char = text[at]
        found.append(char)
        at += 1
    raise broken("a quoted text is not closed")


def _cut(text: str) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
        elif text[at] == '"':
            inside, at = quoted(text, at)
            found.append(Token(inside, quoted=True))
        elif sign := next((sign for sign in _SIGNS if text.startswith(sign, at)), ""):
            found.append(Token(sign, is_sign=True))
            at += len(sign)
        else:
            end = _end_of_word(text, at)
            found.append(Token(text[at:end]))
            at = end
    return found


def _end_of_word(text: str, start: int) -> int:
    """Brackets of a selector may hold what would end a word."""
    at = start
    while at < len(text) and not text[at].isspace() and text[at] not in '"(),=<>':
        if text.startswith(("&&", "||", "!="), at):
            break
        if text[at] == "[":
            at = text.find("]", at)
            if at < 0:
                raise broken("a bracket is not closed")
        at += 1
    if at == start:
        raise broken(f"Invalid character(s) in term '{text[start]}'")
    return at


class Wanted:
    """The right side of a comparison: a text, in which `*` stands for anything, or a number."""

    def __init__(self, token: Token) -> None:
        """Raises ApiFailure."""
        if token.is_sign:
            raise broken(f"a value is missing before '{token.text}'")
        if not token.quoted and token.text.startswith("%"):
            raise no_regex()
        self._text = token.text
        self.number = None if token.quoted else number_in(token.text)
        self._parts = token.text.split("*")

    def bound(self, sign: str) -> float:
        """The number that values are compared with. Raises ApiFailure if it is none."""
        if self.number is None:
            raise broken(f"'{sign}' compares numbers, and '{self._text}' is none")
        return self.number

    def equals(self, value: Any) -> bool:
        """Is it this value, of JSON or a field's text? Never of a type that it cannot be written as."""
        if isinstance(value, bool):
            return self._covers("true" if value else "false")
        if isinstance(value, int | float):
            return (
                value == self.number if self.number is not None else len(self._parts) > 1 and self._covers(f"{value}")
            )
        if isinstance(value, str):
            return self._covers(value)
        return value is not None and self._text == "*"

    def equals_field(self, value: str) -> bool:
        """Is it a field of a line, which may be a number or not?"""
        if self.number is not None and (number := number_in(value)) is not None:
            return number == self.number
        return self._covers(value)

    def _covers(self, value: str) -> bool:
        """Each part is looked for once, from left to right, so the time it takes grows only with the lengths."""
        first, *rest = self._parts
        if not rest:
            return value == first
        last = rest.pop()
        if not value.startswith(first) or len(value) < len(first) + len(last) or not value.endswith(last):
            return False
        at, end = len(first), len(value) - len(last)
        for part in rest:
            found = value.find(part, at, end)
            if found < 0:
                return False
            at = found + len(part)
        return True


def read_sign(tokens: Tokens) -> str:
    """The comparison that comes next. Raises ApiFailure if none does."""
    token = tokens.take()
    if not token.is_sign or token.text not in ("=", "!=", *ORDERED):
        raise broken(f"'{token.text}' is no comparison")
    return token.text


def number_in(text: str) -> float | None:
    """The number that a text is; None if it is none."""
    return float(text) if _NUMBER.fullmatch(text) is not None else None

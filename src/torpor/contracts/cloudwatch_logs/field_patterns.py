"""Patterns for lines of fields between blanks: `[ip, user, ..., status_code = 4*, bytes > 1000]`."""

import re
from collections.abc import Callable, Sequence

from torpor.contracts.cloudwatch_logs.conditions import Condition, read_comparison, read_conditions
from torpor.contracts.cloudwatch_logs.pattern_values import Token, Tokens, Wanted, broken, number_in

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BEGIN = re.compile(r"\S")
_WORD = re.compile(r"\S+")
_ENDS = {'"': '"', "[": "]"}
_REST = "..."


def field_pattern(text: str) -> Callable[[str], bool]:
    """What tells whether a message has these fields, and each meets its condition. Raises ApiFailure."""
    before, after, open_ended = _read(Tokens(text))
    fewest = len(before) + len(after)

    def matches(message: str) -> bool:
        fields = fields_of(message)
        if len(fields) < fewest or (len(fields) > fewest and not open_ended):
            return False
        ends = fields[len(fields) - len(after) :]
        return _all_met(before, fields) and _all_met(after, ends)

    return matches


def fields_of(message: str) -> list[str]:
    """The fields of a line: what stands between blanks, in quotes or in brackets."""
    fields: list[str] = []
    unclosed: set[str] = set()
    """Ends that do not come any more, so that no text is looked through again and again."""
    at = 0
    while (found := _BEGIN.search(message, at)) is not None:
        at = found.start()
        end = _ENDS.get(message[at], "")
        close = message.find(end, at + 1) if end and end not in unclosed else -1
        if close >= 0:
            fields.append(message[at + 1 : close])
            at = close + 1
            continue
        unclosed.add(end)
        word = _WORD.match(message, at)
        fields.append(message[at : word.end()] if word is not None else "")
        at += len(fields[-1])
    return fields


def _all_met(conditions: Sequence[Condition | None], fields: Sequence[str]) -> bool:
    pairs = zip(conditions, fields, strict=False)
    return all(condition is None or condition(field) for condition, field in pairs)


def _read(tokens: Tokens) -> tuple[list[Condition | None], list[Condition | None], bool]:
    """The conditions of the fields before and behind `...`, and whether that is there."""
    before: list[Condition | None] = []
    after: list[Condition | None] = []
    found, open_ended = before, False
    while True:
        if tokens.skip(_REST):
            if open_ended:
                raise broken("it has more than one '...'")
            found, open_ended = after, True
        else:
            found.append(_field(tokens))
        if tokens.next is None:
            return before, after, open_ended
        if not tokens.skip(","):
            raise broken(f"a comma is missing before '{tokens.next.text}'")


def _field(tokens: Tokens) -> Condition | None:
    """A name only, or conditions on the value of the field, which each repeat its name."""
    token = tokens.next
    if token is not None and not token.is_sign:
        name = _name(token)
        follower = tokens.peek(1)
        if follower is None or (follower.is_sign and follower.text == ","):
            tokens.take()
            return None
        return read_conditions(tokens, lambda each: _condition(each, name))
    return read_conditions(tokens, lambda each: _condition(each, ""))


def _condition(tokens: Tokens, name: str) -> Condition:
    found = _name(tokens.take())
    if name and found != name:
        raise broken(f"the condition on '{found}' stands at the field '{name}'")
    return read_comparison(tokens, Wanted.equals_field, number_in)


def _name(token: Token) -> str:
    if token.quoted or token.is_sign or _NAME.fullmatch(token.text) is None:
        raise broken(f"'{token.text}' is no name of a field")
    return token.text

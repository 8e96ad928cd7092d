"""Filter patterns: terms, `{ … }` for JSON, `[ … ]` for lines of fields.

A pattern becomes a function of an event's message. None of them can take long: there are no expressions that could go
back and forth over a text.
"""

from collections.abc import Callable

from torpor.contracts.cloudwatch_logs.field_patterns import field_pattern
from torpor.contracts.cloudwatch_logs.json_patterns import json_pattern
from torpor.contracts.cloudwatch_logs.pattern_values import broken, no_regex, quoted

Matches = Callable[[str], bool]


def filter_pattern(text: str) -> Matches | None:
    """What tells whether a message matches; None if every one does. Raises ApiFailure (InvalidParameterException)."""
    text = text.strip()
    if not text:
        return None
    if text.startswith("{"):
        return json_pattern(_inside(text, "}"))
    if text.startswith("["):
        return field_pattern(_inside(text, "]"))
    return _terms(text)


def _inside(text: str, end: str) -> str:
    if not text.endswith(end) or len(text) == 1:
        raise broken(f"If a filter pattern starts with '{text[0]}' it must end with '{end}'")
    return text[1:-1]


def _terms(text: str) -> Matches:
    """All of the plain terms and none of those with `-`; where every term has `?`, one of them is enough."""
    found: dict[str, list[str]] = {"": [], "-": [], "?": []}
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        sign = text[at] if text[at] in "-?" else ""
        term, at = _term(text, at, at + len(sign))
        found[sign].append(term)
    required, excluded, optional = found[""], found["-"], found["?"]
    if optional and not required and not excluded:
        return lambda message: any(term in message for term in optional)
    return lambda message: all(term in message for term in required) and not any(term in message for term in excluded)


def _term(text: str, start: int, at: int) -> tuple[str, int]:
    """The term whose first character is at `at`, behind its sign at `start`; and where the text goes on."""
    if text.startswith('"', at):
        term, end = quoted(text, at)
    else:
        end = at
        while end < len(text) and not text[end].isspace():
            end += 1
        term = text[at:end]
        if term.startswith("%"):
            raise no_regex()
        if not all(char.isalnum() or char == "_" for char in term):
            raise broken(f"Invalid character(s) in term '{text[start:end]}'")
    if not term or (end < len(text) and not text[end].isspace()):
        raise broken(f"Invalid character(s) in term '{text[start : end + 1].strip()}'")
    return term, end

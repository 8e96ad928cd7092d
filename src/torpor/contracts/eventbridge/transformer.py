"""Input transformers: a template, in which names between angle brackets stand for parts of the event. Pure."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from torpor.contracts.eventbridge import json_path

WHOLE_EVENTS = frozenset(("aws.events.event", "aws.events.event.json"))
"""Placeholders that stand for an object, so that only templates of objects may have them."""
RESERVED = WHOLE_EVENTS | {"aws.events.rule-arn", "aws.events.rule-name", "aws.events.event.ingestion-time"}
"""Placeholders that need no path."""
_PLACEHOLDER = re.compile(r"<(?P<name>[A-Za-z0-9_.-]+)>")
_TEXT_OR_PLACEHOLDER = re.compile(r'"(?:[^"\\]|\\.)*"|<[A-Za-z0-9_.-]+>', re.DOTALL)


def placeholders(template: str) -> list[str]:
    """The names in a template, in the order in which they come."""
    return _PLACEHOLDER.findall(template)


def is_object(template: str) -> bool:
    """Does the template make an object, and no text or list?"""
    return template.lstrip().startswith("{")


def filled(template: str, value_of: Callable[[str], Any]) -> str:
    """The template with values in it: as JSON, and within texts as what a text can hold of them."""

    def fill(found: re.Match[str]) -> str:
        part = found[0]
        if part.startswith("<"):
            return _compact(value_of(part[1:-1]))
        return _PLACEHOLDER.sub(lambda name: _within_text(value_of(name["name"])), part)

    return _TEXT_OR_PLACEHOLDER.sub(fill, template)


def transformed(transformer: Mapping[str, Any], event: Mapping[str, Any]) -> str:
    """What a target is handed; a path that leads to nothing leaves an empty text."""
    values = _reserved(event)
    for name, path in transformer.get("InputPathsMap", {}).items():
        found = json_path.find(json_path.steps(path), event)
        values[name] = "" if found is json_path.MISSING else found
    return filled(transformer["InputTemplate"], values.__getitem__)


def _reserved(event: Mapping[str, Any]) -> dict[str, Any]:
    arn = event["resources"][0]
    return {
        "aws.events.rule-arn": arn,
        "aws.events.rule-name": arn.rpartition("/")[2],
        "aws.events.event.ingestion-time": event["time"],
        "aws.events.event": {name: value for name, value in event.items() if name != "detail"},
        "aws.events.event.json": event,
    }


def _within_text(value: Any) -> str:
    return _compact(value if isinstance(value, str) else _compact(value))[1:-1]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

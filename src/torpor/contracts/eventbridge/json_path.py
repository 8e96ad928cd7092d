"""The part of JSONPath that rules use: `$`, members and indices. Pure."""

import re
from typing import Any, Final, TypeAlias

from torpor.contracts.eventbridge.failures import invalid

Steps: TypeAlias = tuple[str | int, ...]
"""Names of members and indices of lists, from the root on."""
MISSING: Final = object()
"""Where a path leads to nothing."""

_PATH = re.compile(r"\$(?:\.[A-Za-z0-9_/-]+|\[[0-9]{1,9}\])*")
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>[0-9]+)\]")


def steps(path: str) -> Steps:
    """Raises ApiFailure for what is no path."""
    if _PATH.fullmatch(path) is None:
        raise invalid(f"{path} is no path: paths are of the form $.name.name[0].")
    return tuple(int(step["index"]) if step["index"] else step["name"] for step in _STEP.finditer(path))


def find(path: Steps, value: Any) -> Any:
    """What stands there, or `MISSING`."""
    for step in path:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return MISSING
        elif not isinstance(value, dict) or step not in value:
            return MISSING
        value = value[step]
    return value

"""JSON that others have written, read as widely as the cloud reads it and no wider."""

import json
from typing import Any


def read_json(text: str | bytes) -> Any:
    """The value; bytes are UTF-8. Raises ValueError for what is no JSON, and for what is nested too deeply to be read.

    Halves of surrogate pairs and numbers of any size pass, which faster readers refuse; NaN and its like do not.
    """
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("It is nested too deeply") from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")

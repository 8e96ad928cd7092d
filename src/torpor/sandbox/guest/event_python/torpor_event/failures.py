"""What a failure looks like to the caller of the function and in its log."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import traceback
from types import TracebackType
from typing import Any

_OWN = os.path.dirname(os.path.abspath(__file__))
_MACHINERY = (_OWN, os.path.dirname(os.path.abspath(os.__file__)) + "/importlib/", "<frozen importlib")


class LoadFailure(Exception):
    """The handler cannot be had; `kind` is the error type told, the cause is what the code raised."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def body(error: BaseException) -> bytes:
    """The error as the JSON that the caller receives."""
    cause = error.__cause__ if isinstance(error, LoadFailure) else error
    told: dict[str, Any] = {
        "errorMessage": _text(error),
        "errorType": error.kind if isinstance(error, LoadFailure) else type(error).__name__,
        "stackTrace": _stack(cause),
    }
    return json.dumps(told).encode()


def show(error: BaseException) -> None:
    """Print the error as Python would have, from where the function's own code begins."""
    shown = error.__cause__ if isinstance(error, LoadFailure) else error
    with contextlib.suppress(Exception):
        if isinstance(error, LoadFailure):
            sys.stderr.write(f"{error}\n")
        if shown is not None:
            traceback.print_exception(type(shown), shown, _theirs(shown.__traceback__))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return f"<{type(error).__name__} without a readable message>"


def _stack(error: BaseException | None) -> list[list[str]]:
    if isinstance(error, SyntaxError):
        return [[f'File "{error.filename}"', f"line {error.lineno}", "in <module>", (error.text or "").strip()]]
    frames = traceback.extract_tb(_theirs(error.__traceback__)) if error is not None else ()
    return [
        [f'File "{frame.filename}"', f"line {frame.lineno}", f"in {frame.name}", frame.line or ""] for frame in frames
    ]


def _theirs(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_MACHINERY):
        frames = frames.tb_next
    return frames

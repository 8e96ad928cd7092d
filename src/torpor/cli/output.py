"""What people and programs get to read: plain lines, aligned columns, JSON, and a spinner for what takes long."""

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_SPINNER_AFTER = 0.7
_GAP = "  "


def show(text: str) -> None:
    """A line of result."""
    print(text, flush=True)


def note(text: str) -> None:
    """A line beside the result, on standard error."""
    print(text, file=sys.stderr, flush=True)


def show_json(value: object) -> None:
    """The result for programs, on one line."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def show_columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows under a heading, aligned to the left."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        show(_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_entries(
    value: Mapping[str, Any],
    entries: str,
    head: Sequence[str],
    row: Callable[[Any], Sequence[str]],
    *,
    nothing: str,
    as_json: bool,
) -> None:
    """What a server has listed: as it is for programs, else its `entries` in rows, or the line for none of them."""
    if as_json:
        show_json(value)
    elif value[entries]:
        show_columns(head, [row(entry) for entry in value[entries]])
    else:
        show(nothing)


def bytes_text(count: float | None) -> str:
    """A size for people: `-` if it is not known."""
    if count is None:
        return "-"
    for unit in ("B", "kB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} MB"


def seconds_text(seconds: float | None) -> str:
    """A span of time for people, to two units: `-` if it is not known."""
    if seconds is None:
        return "-"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


@contextmanager
def working(text: str) -> Iterator[None]:
    """Shows a spinner on a terminal's standard error if the block takes noticeably long."""
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    thread = threading.Thread(target=_spin, args=(text, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _spin(text: str, done: threading.Event) -> None:
    if done.wait(_SPINNER_AFTER):
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        done.wait()

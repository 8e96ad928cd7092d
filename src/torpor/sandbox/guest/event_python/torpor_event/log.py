"""Output: one log line per record with time and request, line by line, all of it out before a request is answered."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import time

request_id = "-"
"""The request that is running, or the last one; a dash before the first."""


class _Lines(logging.Handler):
    """Prints records to whatever standard output is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            record.request_id = request_id
            print(self.format(record))
        except Exception:
            self.handleError(record)


def prepare() -> None:
    """Arrange the standard streams and the root logger."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    formatter = logging.Formatter(
        "%(asctime)s.%(msecs)03dZ %(request_id)s [%(levelname)s] %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    lines = _Lines()
    lines.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(lines)
    root.setLevel(logging.INFO)


def start(name: str, request: str) -> None:
    """Print the line that begins a request's log."""
    global request_id
    request_id = request
    _mark(f"FC {name} Start RequestId: {request}")


def end(name: str, *, failed: bool) -> None:
    """Print the line that ends it, and let nothing stay in a buffer."""
    flush()
    _mark(f"FC {name} End RequestId: {request_id}{', Error: Unhandled function error' if failed else ''}")
    flush()


def flush() -> None:
    """Write out what is buffered. A stream that the function closed or replaced is its own affair."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _mark(line: str) -> None:
    with contextlib.suppress(Exception):
        print(line)

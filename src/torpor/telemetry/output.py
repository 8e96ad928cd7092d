"""What processes write, cut into log events.

Plain output is split at newlines; a carriage return inside a line stays in it. Framed output carries whole events
that may span lines: 4 bytes type, 4 bytes length, 8 bytes time stamp in microseconds since the epoch, then the
message, all big endian (contract 5.5).
"""

import struct
from collections.abc import Iterator

LINE_MAX = 256 * 1024
"""Longest log event in bytes; longer lines are cut into several."""
_HEADER = struct.Struct(">IIQ")
_MAGIC_TEXT = 0xA55A0003
_MAGIC_JSON = 0xA55A0002
_LEVEL_BITS = 0x1C
_MAGICS = frozenset({_MAGIC_TEXT & ~_LEVEL_BITS, _MAGIC_JSON & ~_LEVEL_BITS})
_FRAME_MAX = 4 * LINE_MAX
_STAMP_MAX = 4_102_444_800_000_000
"""Microseconds until the year 2100: later stamps are no times."""


class LineReader:
    """Cuts a byte stream into lines; what has no newline yet waits for the rest."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[str]:
        """The lines that `data` completes, each with its newline."""
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from _pieces(line, b"\n")
        while len(rest) > LINE_MAX:
            yield _text(rest[:LINE_MAX]) + "\n"
            rest = rest[LINE_MAX:]
        self._rest = rest

    def flush(self) -> Iterator[str]:
        """The unfinished line, if there is one."""
        if self._rest:
            rest, self._rest = self._rest, b""
            yield _text(rest) + "\n"


class FrameReader:
    """Cuts a framed stream into events. A broken frame makes the rest be read as plain lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._plain: LineReader | None = None

    def feed(self, data: bytes) -> Iterator[tuple[float | None, str]]:
        """`(seconds since the epoch or None, text)` of each event that `data` completes."""
        if self._plain is not None:
            yield from ((None, line) for line in self._plain.feed(data))
            return
        self._rest += data
        while len(self._rest) >= _HEADER.size:
            kind, size, stamp = _HEADER.unpack_from(self._rest)
            if kind & ~_LEVEL_BITS not in _MAGICS or size > _FRAME_MAX:
                self._plain = LineReader()
                broken, self._rest = self._rest, b""
                yield from ((None, line) for line in self._plain.feed(broken))
                return
            end = _HEADER.size + size
            if len(self._rest) < end:
                return
            message, self._rest = self._rest[_HEADER.size : end], self._rest[end:]
            text = _text(message)
            yield (stamp / 1e6 if stamp < _STAMP_MAX else None), text if text.endswith("\n") else text + "\n"

    def flush(self) -> Iterator[str]:
        """What is left of a stream that ended inside a frame."""
        if self._plain is not None:
            yield from self._plain.flush()
        elif self._rest:
            rest, self._rest = self._rest, b""
            yield _text(rest) + "\n"


class OutputReader:
    """Both streams of one environment."""

    def __init__(self) -> None:
        self._lines = LineReader()
        self._frames = FrameReader()

    def plain(self, data: bytes) -> Iterator[tuple[float | None, str]]:
        return ((None, line) for line in self._lines.feed(data))

    def framed(self, data: bytes) -> Iterator[tuple[float | None, str]]:
        return self._frames.feed(data)

    def flush(self) -> Iterator[tuple[float | None, str]]:
        """Unfinished lines and frames: their process has ended."""
        for line in (*self._lines.flush(), *self._frames.flush()):
            yield None, line
        self._frames = FrameReader()


def _pieces(line: bytes, end: bytes) -> Iterator[str]:
    for start in range(0, len(line) or 1, LINE_MAX):
        yield _text(line[start : start + LINE_MAX] + end)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")

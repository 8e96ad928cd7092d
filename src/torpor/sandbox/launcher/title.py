"""What process lists and `/proc/self` show of a process: its arguments and environment as they would be had it been
executed."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping, Sequence

from . import syscalls

_PR_SET_MM = 35
_PR_SET_MM_MAP = 14
_KEEP_EXECUTABLE = 0xFFFFFFFF
_MAP = struct.Struct("=12QII")
"""Where code, data, heap, stack, arguments and environment start and end; an auxiliary vector; an executable."""
_CODE, _STACK, _DATA, _HEAP, _ARGUMENTS = 22, 24, 41, 43, 44
"""Where `/proc/self/stat` has these addresses, counted behind the process's state."""

_shown: list[ctypes.Array[ctypes.c_char]] = []


def show(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    """Show these instead of the launcher's own. Where the kernel refuses, as much as there is room for is shown."""
    arguments = b"".join(part.encode("utf-8", "surrogateescape") + b"\0" for part in argv)
    variables = [f"{name}={value}" for name, value in (environment or {}).items()]
    rest = b"".join(part.encode("utf-8", "surrogateescape") + b"\0" for part in variables)
    with open("/proc/self/stat", "rb") as status:
        fields = [int(field) for field in status.read().rpartition(b")")[2].split()[1:]]
    try:
        _point_at(fields, arguments, rest)
    except OSError:
        _overwrite(*_pair(fields, _ARGUMENTS), arguments)


def _pair(fields: list[int], at: int) -> tuple[int, int]:
    return fields[at], fields[at + 1]


def _point_at(fields: list[int], arguments: bytes, rest: bytes) -> None:
    buffer = ctypes.create_string_buffer(arguments + rest)
    start = ctypes.addressof(buffer)
    middle, end = start + len(arguments), start + len(arguments) + len(rest)
    layout = (*_pair(fields, _CODE), *_pair(fields, _DATA), fields[_HEAP], syscalls.heap_end(), fields[_STACK])
    packed = _MAP.pack(*layout, start, middle, middle, end, 0, 0, _KEEP_EXECUTABLE)
    syscalls.prctl_buffer(_PR_SET_MM, _PR_SET_MM_MAP, packed)
    _shown.append(buffer)


def _overwrite(start: int, end: int, arguments: bytes) -> None:
    if start and end > start:
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, arguments, min(len(arguments), end - start - 1))

"""The kernel calls by which a new process becomes what a saved one was: worked out once, when it is saved.

They are made through a page of calls with the same address in all of these processes; what they point at lies in it.
"""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterable, Iterator
from typing import Any

from .memory_map import PAGE, Area
from .tracing import Call, syscalls_of

CALLS_SIZE = 32 * PAGE
DATA_AT = 28 * PAGE
"""In the page of calls: behind the calls, what they point at."""
LOWEST = 1 << 33
"""From here on room for that page is looked for: saved and new processes alike leave it free."""
ACTION_SIZE = 32
_UNTOUCHABLE = (9, 19)
_PRIVATE, _FIXED, _ANONYMOUS = 2, 0x10, 0x20
_GROWS_DOWN, _NO_RESERVE, _STACK, _DROPPABLE, _TYPES = 0x100, 0x4000, 0x20000, 8, 0xF
_NONE = (1 << 64) - 1
_SET_MASK = 2
_STACK_OFF = 2
_PR_SET_NAME, _PR_SET_MM, _PR_SET_MM_MAP = 15, 35, 14
_MAP = struct.Struct("=12QII")
_KEEP_EXECUTABLE = 0xFFFFFFFF
_ALL = 0xFFFFFFFF


class Data:
    """What the calls of one process or thread point at. `at` is its address."""

    def __init__(self, at: int) -> None:
        self.content = bytearray()
        self._at = at

    def put(self, piece: bytes) -> int:
        """Its address there."""
        place = self._at + len(self.content)
        self.content += piece + bytes(-len(piece) % 8)
        return place


def signals() -> list[int]:
    """Those whose action can be chosen."""
    return [number for number in range(1, 65) if number not in _UNTOUCHABLE]


def mappings(areas: Iterable[tuple[Area, int]], memory: int) -> Iterator[Call]:
    """Map all areas but the kernel's anew, neighbours in one step: the content of each out of the descriptor `memory`,
    at the offset beside it; -1 if it has none."""
    last: list[int] = []
    for area, at in areas:
        if area.is_kernels:
            continue
        own = _mapping(area, at, memory)
        if last and not area.advice and _continues(last, own):
            last[2] += own[2]
            continue
        if last:
            yield tuple(last)
        last = own
        if area.advice:
            yield tuple(last)
            last = []
            yield from ((syscalls_of("madvise"), area.start, area.size, advice) for advice in area.advice)
    if last:
        yield tuple(last)


def _mapping(area: Area, at: int, memory: int) -> list[int]:
    flags, descriptor, offset = _PRIVATE | _FIXED | _NO_RESERVE, memory, at
    if area.grows:
        flags |= _ANONYMOUS | _GROWS_DOWN | _STACK
    elif at < 0:
        flags |= _ANONYMOUS
        if area.is_droppable:
            flags = flags & ~_TYPES | _DROPPABLE
    if flags & _ANONYMOUS:
        descriptor, offset = _NONE, 0
    return [syscalls_of("mmap"), area.start, area.size, area.protection, flags, descriptor, offset]


def _continues(last: list[int], own: list[int]) -> bool:
    """Would one call do for both?"""
    same = last[3:6] == own[3:6] and last[1] + last[2] == own[1]
    return same and (own[5] == _NONE or last[6] + last[2] == own[6]) and not own[4] & _GROWS_DOWN


def process(folder: str, state: dict[str, Any], memory: int, data: Data) -> Iterator[Call]:
    """Set what the kernel keeps for the whole process with this folder in `/proc`; close `memory` and all above it."""
    *addresses, heap_end = state["layout"]
    code, code_end, stack, start, end, heap, *arguments = addresses
    layout = (code, code_end, start, end, heap, heap_end, stack, *arguments)
    packed = _MAP.pack(*layout, 0, 0, _KEEP_EXECUTABLE)
    limit = resource.prlimit(state["outside"], resource.RLIMIT_NOFILE)
    yield (syscalls_of("prctl"), _PR_SET_MM, _PR_SET_MM_MAP, data.put(packed), len(packed))
    yield (syscalls_of("prctl"), _PR_SET_NAME, data.put(os.fsencode(state["title"])[:15] + b"\0"))
    yield (syscalls_of("prlimit64"), 0, resource.RLIMIT_NOFILE, data.put(struct.pack("=QQ", *limit)), 0)
    yield (syscalls_of("chdir"), data.put(os.fsencode(os.readlink(f"{folder}/cwd")) + b"\0"))
    default = data.put(bytes(ACTION_SIZE))
    for number in signals():
        action = state["actions"].get(number)
        yield (syscalls_of("rt_sigaction"), number, default if action is None else data.put(action), 0, 8)
    yield (syscalls_of("close_range"), memory, _ALL, 0)


def thread(state: dict[str, Any], data: Data) -> Iterator[Call]:
    """Set what the kernel keeps for one thread."""
    address, size, sign = state["rseq"]
    mask = data.put(int(state["blocked"], 16).to_bytes(8, "little"))
    yield (syscalls_of("set_tid_address"), state["cleared"])
    yield (syscalls_of("rt_sigprocmask"), _SET_MASK, mask, 0, 8)
    if state["robust"][0]:
        yield (syscalls_of("set_robust_list"), *state["robust"])
    if not int.from_bytes(state["stack"][8:12], "little") & _STACK_OFF:
        yield (syscalls_of("sigaltstack"), data.put(state["stack"]), 0)
    if address:
        yield (syscalls_of("rseq"), address, size, 0, sign)

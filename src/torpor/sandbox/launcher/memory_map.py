"""What a process's address space holds, as the kernel tells it."""

from __future__ import annotations

import array
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PAGE = 4096
_PRESENT = (1 << 63) | (1 << 62)
_KERNELS = ("[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]")
_PROTECTIONS = {"r": 1, "w": 2, "x": 4}
_ADVICE = {"dc": 10, "wf": 18, "dd": 16}
"""By the kernel's flag."""
_RUN_GAP = 8
"""Pages: gaps up to this size are read along with what surrounds them."""


@dataclass(frozen=True)
class Area:
    """One mapping."""

    start: int
    end: int
    mode: str
    """As in `/proc/*/maps`: `rw-p`."""
    inode: int
    path: str
    flags: str
    """The kernel's two-letter flags, with spaces between."""

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def protection(self) -> int:
        return sum(bit for letter, bit in _PROTECTIONS.items() if letter in self.mode)

    @property
    def is_file(self) -> bool:
        return self.inode != 0

    @property
    def is_kernels(self) -> bool:
        """Belongs to the kernel, which places it and fills it."""
        return self.path in _KERNELS

    @property
    def grows(self) -> bool:
        """Does it grow downwards when it is used?"""
        return "gd" in self.flags.split()

    @property
    def is_droppable(self) -> bool:
        return "dp" in self.flags.split()

    @property
    def advice(self) -> list[int]:
        """What the kernel was advised of it that must be advised again."""
        kinds = self.flags.split()
        return [] if "dp" in kinds else [number for flag, number in _ADVICE.items() if flag in kinds]

    @property
    def is_forgetful(self) -> bool:
        """The kernel may empty it at any time, or for copies: its content is worth nothing elsewhere."""
        return bool({"dp", "wf"} & set(self.flags.split()))


def areas(folder: str) -> list[Area]:
    """All mappings of the process with this folder in `/proc`, by address. Raises OSError."""
    found: list[Area] = []
    head: list[str] = []
    with open(f"{folder}/smaps", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            word, _, rest = line.partition(":")
            if word == "VmFlags":
                found.append(_area(head, rest.strip()))
            elif "-" in word.split(" ", 1)[0]:
                head = line.rstrip("\n").split(maxsplit=5)
    return found


def _area(head: list[str], flags: str) -> Area:
    start, _, end = head[0].partition("-")
    return Area(
        start=int(start, 16),
        end=int(end, 16),
        mode=head[1],
        inode=int(head[4]),
        path=head[5] if len(head) > 5 else "",
        flags=flags,
    )


def kernels(folder: str) -> list[tuple[str, int, int]]:
    """Name, start and size of what the kernel has put into a process. Raises OSError."""
    with open(f"{folder}/maps", "rb") as file:
        lines = [line.split() for line in file if line.endswith(b"]\n") and b"[v" in line]
    found = []
    for fields in lines:
        start, end = (int(part, 16) for part in fields[0].split(b"-"))
        if fields[-1] != b"[vsyscall]":
            found.append((fields[-1].decode(), start, end - start))
    return found


def filled(pagemap: int, area: Area) -> Iterator[tuple[int, int]]:
    """The runs of pages (first address, end) that hold anything; `pagemap` is the open `/proc/*/pagemap`."""
    entries = array.array("Q")
    entries.frombytes(os.pread(pagemap, area.size // PAGE * 8, area.start // PAGE * 8))
    start, last = -1, -1
    for number, entry in enumerate(entries):
        if not entry & _PRESENT:
            continue
        if start >= 0 and number - last > _RUN_GAP:
            yield area.start + start * PAGE, area.start + (last + 1) * PAGE
            start = -1
        if start < 0:
            start = number
        last = number
    if start >= 0:
        yield area.start + start * PAGE, area.start + (last + 1) * PAGE


def gap(maps: Sequence[Area], size: int, lowest: int = 0x10000000) -> int:
    """An address from which on `size` bytes are free in all of these mappings together. Raises OSError."""
    at = lowest
    for area in sorted(maps, key=lambda area: area.start):
        if area.start >= at + size:
            break
        at = max(at, area.end)
    if at + size >= 1 << 47:
        raise OSError("a process has no room for the calls it has to make")
    return at

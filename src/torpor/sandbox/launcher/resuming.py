"""Letting a process go on from a snapshot: another one, which has just been made, becomes what the saved one was.

It lends its pid, its namespaces, control groups, user and system call filter; everything in its memory is replaced.
"""

from __future__ import annotations

import mmap
import os
import resource
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from . import checkpoint, memory_map, tracing
from .checkpoint import CALLS_SIZE
from .memory_map import Area
from .tracing import Call, Caller, Thread, single, syscalls_of

_SCRATCH_AT = 20 * memory_map.PAGE
_SCRATCH_SIZE = CALLS_SIZE - _SCRATCH_AT
_PRIVATE, _FIXED, _ANONYMOUS = 2, 0x10, 0x20
_GROWS_DOWN, _NO_RESERVE, _STACK, _DROPPABLE, _TYPES = 0x100, 0x4000, 0x20000, 8, 0xF
_NONE = (1 << 64) - 1
_MOVE, _MOVE_TO = 1, 2
_ADVICE = {"dc": 10, "wf": 18, "dd": 16}
"""By the kernel's flag: what to advise to have it again."""
_UNREGISTER = 1
_SET_MASK = 2
_STACK_OFF = 2
_PR_SET_NAME, _PR_SET_MM, _PR_SET_MM_MAP = 15, 35, 14
_MAP = struct.Struct("=12QII")
_KEEP_EXECUTABLE = 0xFFFFFFFF
_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
"""CLONE_VM, FS, FILES, SIGHAND, THREAD and SYSVSEM."""


class Changed(Exception):
    """The snapshot does not fit this host any more; the text says why."""


def files_of(description: dict[str, Any]) -> list[str]:
    """The files that its memory shows, each once. Raises Changed if one of them is another by now."""
    wanted = {area["path"]: area["identity"] for area in description["areas"] if area["identity"]}
    for path, known in wanted.items():
        try:
            same = checkpoint.identity(path) == known
        except OSError:
            same = False
        if not same:
            raise Changed(f"{path} has changed since the snapshot was made")
    return list(wanted)


@dataclass(frozen=True)
class Prepared:
    """A process that waits in a kernel call and has opened what its new memory shows: numbers of its descriptors."""

    pid: int
    files: dict[str, int]
    memory: int
    limit: int
    """How many descriptors it may have."""
    others: tuple[int, ...] = ()
    """To be closed as well."""


def resume(prepared: Prepared, description: dict[str, Any], image: int, proc: str = "/proc") -> None:
    """Replace it and let it run. `image` is the snapshot's memory here, `proc` a writable view of the kernel's process
    folders. Raises Changed, and OSError where the kernel refuses: the process is killed then."""
    pid = prepared.pid
    thread = tracing.seize(pid)
    memory = os.open(f"{proc}/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    resumption = _Resumption(prepared, description, image, proc, thread, memory)
    try:
        resumption.run()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        for other in resumption.others:
            other.wait_end()
        raise
    finally:
        os.close(memory)


def choose_number(proc: str, number: int) -> None:
    """Let the next process or thread that is made here have this number, if it is free. Raises OSError."""
    with open(f"{proc}/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number - 1))


class _Resumption:
    def __init__(
        self, prepared: Prepared, description: dict[str, Any], image: int, proc: str, thread: Thread, memory: int
    ) -> None:
        self._prepared = prepared
        self._description = description
        self._image = image
        self._proc = proc
        self.others: list[Thread] = []
        self._memory = memory
        self._own = memory_map.ranges(f"{proc}/{prepared.pid}")
        at = memory_map.gap([*self._own, *map(_as_area, description["areas"])], 2 * CALLS_SIZE)
        self._aside = at + CALLS_SIZE
        self._caller = Caller(thread, memory, at, CALLS_SIZE)
        self._scratch = at + _SCRATCH_AT

    def run(self) -> None:
        main, *others = self._description["threads"]
        thread = self._caller.thread
        self._clear()
        self._place_kernels()
        self._map()
        self._write_stack()
        self._set_process()
        self._set_thread(main, thread)
        threads = [(main, thread), *((state, self._make_thread(state)) for state in others)]
        self._caller.run([(syscalls_of("close"), number) for number in self._descriptors()])
        instruction = self._kernel_instruction()
        single(thread, self._memory, (syscalls_of("munmap"), self._caller.at, CALLS_SIZE), instruction)
        for state, each in threads:
            each.set_extended(bytes.fromhex(state["extended"]))
            each.set_registers(state["registers"])
        for _, each in reversed(threads):
            each.detach()

    def _do(self, calls: Iterable[Call], what: str, thread: Thread | None = None) -> None:
        for result in self._caller.run(list(calls), thread):
            if -4096 < result < 0:
                raise OSError(-result, f"restoring a process's {what}: {os.strerror(-result)}")

    def _put(self, data: bytes, at: int = 0) -> int:
        os.pwrite(self._memory, data, self._scratch + at)
        return self._scratch + at

    def _clear(self) -> None:
        """Everything goes but what is the kernel's, and the page of calls."""
        address, size, sign = self._caller.thread.rseq()
        if address:
            self._do([(syscalls_of("rseq"), address, size, _UNREGISTER, sign)], "sequences")
        ranges: list[list[int]] = []
        for area in self._own:
            if area.is_kernels:
                continue
            if ranges and ranges[-1][1] == area.start:
                ranges[-1][1] = area.end
            else:
                ranges.append([area.start, area.end])
        self._do(((syscalls_of("munmap"), start, end - start) for start, end in ranges), "old memory")

    def _place_kernels(self) -> None:
        own = [area for area in self._own if area.is_kernels and area.path != "[vsyscall]"]
        wanted = [area for area in self._description["areas"] if area["path"].startswith("[v")]
        if [(area.path, area.size) for area in own] != [(area["path"], area["end"] - area["start"]) for area in wanted]:
            raise Changed("the snapshot was made on another kernel")
        if all(mine.start == theirs["start"] for mine, theirs in zip(own, wanted, strict=True)):
            return
        first = min(area.start for area in own)
        calls: list[Call] = []
        for area in own:
            calls.append(_move(area.start, area.size, self._aside + area.start - first))
        for area, there in zip(own, wanted, strict=True):
            calls.append(_move(self._aside + area.start - first, area.size, there["start"]))
        self._do(calls, "kernel's part")

    def _map(self) -> None:
        calls: list[Call] = []
        for area in self._description["areas"]:
            if not area["path"].startswith("[v"):
                calls += self._mapped(area)
        self._do(calls, "memory")

    def _mapped(self, area: dict[str, Any]) -> Iterable[Call]:
        start, size = area["start"], area["end"] - area["start"]
        protection = _as_area(area).protection
        kinds = area["flags"].split()
        flags, descriptor, offset = _PRIVATE | _FIXED | _NO_RESERVE, _NONE, 0
        if area["identity"]:
            descriptor, offset = self._prepared.files[area["path"]], area["offset"]
            if area["mode"].endswith("s"):
                flags = 1 | _FIXED
        elif "gd" in kinds:
            flags |= _ANONYMOUS | _GROWS_DOWN | _STACK
        elif area["at"] >= 0:
            descriptor, offset = self._prepared.memory, area["at"]
        else:
            flags |= _ANONYMOUS
            if "dp" in kinds:
                flags = flags & ~_TYPES | _DROPPABLE
        yield (syscalls_of("mmap"), start, size, protection, flags, descriptor, offset)
        for kind, advice in _ADVICE.items():
            if kind in kinds and "dp" not in kinds:
                yield (syscalls_of("madvise"), start, size, advice)

    def _write_stack(self) -> None:
        """The one area that must stay able to grow is copied."""
        for area in self._description["areas"]:
            if "gd" in area["flags"].split() and area["at"] >= 0:
                size = area["end"] - area["start"]
                with mmap.mmap(self._image, size, prot=mmap.PROT_READ, offset=area["at"]) as saved:
                    os.pwrite(self._memory, saved, area["start"])

    def _set_process(self) -> None:
        description = self._description
        *addresses, heap_end = description["layout"]
        code, code_end, stack, data, data_end, heap, *arguments = addresses
        packed = _MAP.pack(code, code_end, data, data_end, heap, heap_end, stack, *arguments, 0, 0, _KEEP_EXECUTABLE)
        calls: list[Call] = [
            (syscalls_of("prctl"), _PR_SET_MM, _PR_SET_MM_MAP, self._put(packed), len(packed)),
            (syscalls_of("chdir"), self._put(os.fsencode(description["folder"]) + b"\0", 512)),
            (syscalls_of("prctl"), _PR_SET_NAME, self._put(os.fsencode(description["title"])[:15] + b"\0", 256)),
        ]
        limit = self._put(struct.pack("=QQ", self._prepared.limit, self._prepared.limit), 1024)
        calls.append((syscalls_of("prlimit64"), 0, resource.RLIMIT_NOFILE, limit, 0))
        self._do(calls, "state")
        actions = description["actions"]
        calls = []
        for number in checkpoint.signals():
            action = bytes.fromhex(actions.get(str(number), "00" * checkpoint.ACTION_SIZE))
            place = self._put(action, number * checkpoint.ACTION_SIZE)
            calls.append((syscalls_of("rt_sigaction"), number, place, 0, 8))
        self._do(calls, "signals")

    def _set_thread(self, state: dict[str, Any], thread: Thread) -> None:
        stack = bytes.fromhex(state["stack"])
        address, size, sign = state["rseq"]
        mask = self._put(int(state["blocked"], 16).to_bytes(8, "little"), 64)
        calls: list[Call] = [
            (syscalls_of("set_tid_address"), state["cleared"]),
            (syscalls_of("rt_sigprocmask"), _SET_MASK, mask, 0, 8),
        ]
        if state["robust"][0]:
            calls.append((syscalls_of("set_robust_list"), *state["robust"]))
        if not int.from_bytes(stack[8:12], "little") & _STACK_OFF:
            calls.append((syscalls_of("sigaltstack"), self._put(stack), 0))
        if address:
            calls.append((syscalls_of("rseq"), address, size, 0, sign))
        self._do(calls, "thread", thread)

    def _make_thread(self, state: dict[str, Any]) -> Thread:
        choose_number(self._proc, state["number"])
        thread = self._caller.make_thread((syscalls_of("clone"), _THREAD))
        self.others.append(thread)
        self._set_thread(state, thread)
        return thread

    def _descriptors(self) -> Iterable[int]:
        return (*self._prepared.files.values(), self._prepared.memory, *self._prepared.others)

    def _kernel_instruction(self) -> int:
        """Where the kernel's own part of the memory makes a kernel call."""
        area = next(area for area in self._description["areas"] if area["path"] == "[vdso]")
        return tracing.find_call(self._memory, area["start"], area["end"] - area["start"])


def _move(start: int, size: int, to: int) -> Call:
    return (syscalls_of("mremap"), start, size, size, _MOVE | _MOVE_TO, to)


def _as_area(area: dict[str, Any]) -> Area:
    return Area(area["start"], area["end"], area["mode"], 0, "", 0, area["path"], False, area["flags"])

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
from typing import Any

from . import checkpoint, memory_map, tracing
from .checkpoint import CALLS_SIZE
from .tracing import Call, Caller, Thread, single, syscalls_of

_SCRATCH_AT = 28 * memory_map.PAGE
"""In the page of calls: behind the calls, what they point at."""
_LOWEST, _HIGHEST = 0x10000, 0x7FFFFFFFF000
"""Where an ordinary process can have memory."""
_MOVE, _MOVE_TO = 1, 2
_UNREGISTER = 1
_SET_MASK = 2
_STACK_OFF = 2
_PR_SET_NAME, _PR_SET_MM, _PR_SET_MM_MAP = 15, 35, 14
_MAP = struct.Struct("=12QII")
_KEEP_EXECUTABLE = 0xFFFFFFFF
_ALL = 0xFFFFFFFF
_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
"""CLONE_VM, FS, FILES, SIGHAND, THREAD and SYSVSEM."""


class Changed(Exception):
    """The snapshot does not fit this host any more; the text says why."""


def resume(pid: int, saved: checkpoint.Snapshot, limit: int, proc: str = "/proc") -> None:
    """Replace a process that waits in a kernel call, with the snapshot's memory under the number that its description
    says, and let it run. It may have `limit` descriptors; `proc` is a writable view of the kernel's process folders.

    Raises Changed, and OSError where the kernel refuses: the process is killed then."""
    thread = tracing.seize(pid)
    memory = os.open(f"{proc}/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    made: list[Thread] = []
    try:
        _Resumption(thread, saved, limit, proc, memory, made).run()
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        for other in made:
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
        self, thread: Thread, saved: checkpoint.Snapshot, limit: int, proc: str, memory: int, made: list[Thread]
    ) -> None:
        self._saved = saved
        self._limit = limit
        self._proc = proc
        self._memory = memory
        self._made = made
        description = saved.description
        self._own = memory_map.kernels(f"{proc}/{thread.number}")
        self._caller = Caller(thread, memory, description["scratch"], CALLS_SIZE)
        self._scratch = description["scratch"] + _SCRATCH_AT

    def run(self) -> None:
        description = self._saved.description
        main, *others = description["threads"]
        thread = self._caller.thread
        first = [*self._unmapping(), *self._kernels_placing()]
        self._check(self._caller.run_packed(tracing.pack(first) + self._saved.calls), "memory")
        self._write_stacks()
        self._do([*self._process_state(), *self._thread_state(main)], "state")
        threads = [(main, thread), *((state, self._make_thread(state)) for state in others)]
        instruction = self._kernel_instruction()
        single(thread, self._memory, (syscalls_of("munmap"), self._caller.at, CALLS_SIZE), instruction)
        for state, each in threads:
            each.set_extended(bytes.fromhex(state["extended"]))
            each.set_registers(state["registers"])
        for _, each in reversed(threads):
            each.detach()

    def _do(self, calls: Iterable[Call], what: str, thread: Thread | None = None) -> None:
        self._check(self._caller.run(list(calls), thread), what)

    def _check(self, results: list[int], what: str) -> None:
        failed = next((result for result in results if -4096 < result < 0), 0)
        if failed:
            raise OSError(-failed, f"restoring a process's {what}: {os.strerror(-failed)}")

    def _put(self, data: bytes, at: int = 0) -> int:
        os.pwrite(self._memory, data, self._scratch + at)
        return self._scratch + at

    def _unmapping(self) -> Iterable[Call]:
        """Everything goes but what is the kernel's, and the page of calls."""
        address, size, sign = self._caller.thread.rseq()
        if address:
            yield (syscalls_of("rseq"), address, size, _UNREGISTER, sign)
        kept = sorted([(self._caller.at, CALLS_SIZE), *((start, size) for _, start, size in self._own)])
        begin = _LOWEST
        for start, size in kept:
            if start > begin:
                yield (syscalls_of("munmap"), begin, start - begin)
            begin = start + size
        yield (syscalls_of("munmap"), begin, _HIGHEST - begin)

    def _kernels_placing(self) -> Iterable[Call]:
        wanted = self._saved.description["kernels"]
        if [(name, size) for name, _, size in self._own] != [(name, size) for name, _, size in wanted]:
            raise Changed("the snapshot was made on another kernel")
        if all(mine[1] == theirs[1] for mine, theirs in zip(self._own, wanted, strict=True)):
            return
        aside, first = self._caller.at + CALLS_SIZE, min(start for _, start, _ in self._own)
        for _, start, size in self._own:
            yield _move(start, size, aside + start - first)
        for (_, start, size), (_, to, _) in zip(self._own, wanted, strict=True):
            yield _move(aside + start - first, size, to)

    def _write_stacks(self) -> None:
        """What must stay able to grow is copied."""
        for start, size, at in self._saved.description["stacks"]:
            with mmap.mmap(self._saved.memory, size, prot=mmap.PROT_READ, offset=at) as content:
                os.pwrite(self._memory, content, start)

    def _process_state(self) -> Iterable[Call]:
        description = self._saved.description
        *addresses, heap_end = description["layout"]
        code, code_end, stack, data, data_end, heap, *arguments = addresses
        packed = _MAP.pack(*(code, code_end, data, data_end, heap, heap_end, stack), *arguments, 0, 0, _KEEP_EXECUTABLE)
        limit = struct.pack("=QQ", self._limit, self._limit)
        yield (syscalls_of("prctl"), _PR_SET_MM, _PR_SET_MM_MAP, self._put(packed, 0x100), len(packed))
        yield (syscalls_of("prctl"), _PR_SET_NAME, self._put(os.fsencode(description["title"])[:15] + b"\0", 0x200))
        yield (syscalls_of("prlimit64"), 0, resource.RLIMIT_NOFILE, self._put(limit, 0x240), 0)
        yield (syscalls_of("chdir"), self._put(os.fsencode(description["folder"]) + b"\0", 0x1000))
        yield from self._signals(description["actions"])
        yield (syscalls_of("close_range"), description["memory"], _ALL, 0)

    def _signals(self, actions: dict[str, str]) -> Iterable[Call]:
        size = checkpoint.ACTION_SIZE
        table = bytearray(size * 65)
        for number, action in actions.items():
            table[int(number) * size : (int(number) + 1) * size] = bytes.fromhex(action)
        place = self._put(bytes(table), 0x400)
        for number in checkpoint.signals():
            yield (syscalls_of("rt_sigaction"), number, place + number * size, 0, 8)

    def _thread_state(self, state: dict[str, Any]) -> Iterable[Call]:
        stack = bytes.fromhex(state["stack"])
        address, size, sign = state["rseq"]
        mask = self._put(int(state["blocked"], 16).to_bytes(8, "little"), 0x40)
        yield (syscalls_of("set_tid_address"), state["cleared"])
        yield (syscalls_of("rt_sigprocmask"), _SET_MASK, mask, 0, 8)
        if state["robust"][0]:
            yield (syscalls_of("set_robust_list"), *state["robust"])
        if not int.from_bytes(stack[8:12], "little") & _STACK_OFF:
            yield (syscalls_of("sigaltstack"), self._put(stack), 0)
        if address:
            yield (syscalls_of("rseq"), address, size, 0, sign)

    def _make_thread(self, state: dict[str, Any]) -> Thread:
        choose_number(self._proc, state["number"])
        thread = self._caller.make_thread((syscalls_of("clone"), _THREAD))
        self._made.append(thread)
        self._do(self._thread_state(state), "thread", thread)
        return thread

    def _kernel_instruction(self) -> int:
        """Where the kernel's own part of the memory makes a kernel call."""
        start, size = next(
            (start, size) for name, start, size in self._saved.description["kernels"] if name == "[vdso]"
        )
        return tracing.find_call(self._memory, start, size)


def _move(start: int, size: int, to: int) -> Call:
    return (syscalls_of("mremap"), start, size, size, _MOVE | _MOVE_TO, to)

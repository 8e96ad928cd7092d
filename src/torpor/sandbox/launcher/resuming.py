"""Letting a process go on from a snapshot: another one, which has just been made, becomes what the saved one was.

It lends its pid, its namespaces, control groups, user and system call filter; everything in its memory is replaced.
"""

from __future__ import annotations

import mmap
import os
import signal
from collections.abc import Iterable, Sequence
from typing import Any

from . import checkpoint, memory_map, tracing
from .remaking import CALLS_SIZE, DATA_AT
from .tracing import Call, Caller, Thread, single, syscalls_of

_LOWEST, _HIGHEST = 0x10000, 0x7FFFFFFFF000
"""Where an ordinary process can have memory."""
_MOVE, _MOVE_TO = 1, 2
_UNREGISTER = 1
_THREAD = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000
"""CLONE_VM, FS, FILES, SIGHAND, THREAD and SYSVSEM."""


class Changed(Exception):
    """The snapshot does not fit this host any more; the text says why."""


def choose_number(proc: str, number: int) -> None:
    """Let the next process or thread that is made here have this number, if it is free. Raises OSError."""
    with open(f"{proc}/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(number - 1))


class Plan:
    """What is to be done with a child of this process that is to become a saved one."""

    def __init__(self, saved: checkpoint.Snapshot, proc: str = "/proc") -> None:
        """`proc` is a writable view of the kernel's process folders. Raises Changed."""
        self._saved = saved
        self._proc = proc
        self._own = memory_map.kernels(f"{proc}/self")  # a child has them in the same places
        self._scratch = saved.description["scratch"]
        self._calls = tracing.pack([*self._unmapping(), *self._kernels_placing()]) + saved.calls

    def resume(self, pid: int) -> None:
        """Replace that child, which waits in a kernel call and has made its page of calls, with the snapshot's memory
        under the number that its description says, and let it run.

        Raises OSError where the kernel refuses: the process is killed then."""
        thread = tracing.seize(pid, and_its_threads=True)
        memory = os.open(f"{self._proc}/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        made: list[Thread] = []
        try:
            self._replace(Caller(thread, memory, self._scratch, CALLS_SIZE), made)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            for other in made:
                other.wait_end()
            raise
        finally:
            os.close(memory)

    def _replace(self, caller: Caller, made: list[Thread]) -> None:
        description, thread = self._saved.description, caller.thread
        main, *others = description["threads"]
        self._make(tracing.pack(_unregistering(thread)) + self._calls, description["data"], caller, thread)
        self._write_stacks(caller.memory)
        threads = [(main, thread), *((state, self._make_thread(state, caller, made)) for state in others)]
        instruction = _instruction(caller.memory, description["kernels"])
        single(thread, caller.memory, (syscalls_of("munmap"), self._scratch, CALLS_SIZE), instruction)
        for state, each in threads:
            each.set_extended(bytes.fromhex(state["extended"]))
            each.set_registers(state["registers"])
        for _, each in reversed(threads):
            each.detach()

    def _make(self, calls: bytes, data: str, caller: Caller, thread: Thread) -> None:
        os.pwrite(caller.memory, bytes.fromhex(data), self._scratch + DATA_AT)
        results = caller.run_packed(calls, thread)
        failed = next((result for result in results if -4096 < result < 0), 0)
        if failed:
            raise OSError(-failed, f"restoring a process: {os.strerror(-failed)}")

    def _unmapping(self) -> Iterable[Call]:
        """Everything goes but what is the kernel's, and the page of calls."""
        kept = sorted([(self._scratch, CALLS_SIZE), *((start, size) for _, start, size in self._own)])
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
        aside, first = self._scratch + CALLS_SIZE, min(start for _, start, _ in self._own)
        for _, start, size in self._own:
            yield _move(start, size, aside + start - first)
        for (_, start, size), (_, to, _) in zip(self._own, wanted, strict=True):
            yield _move(aside + start - first, size, to)

    def _write_stacks(self, memory: int) -> None:
        """What must stay able to grow is copied."""
        for start, size, at in self._saved.description["stacks"]:
            with mmap.mmap(self._saved.memory, size, prot=mmap.PROT_READ, offset=at) as content:
                os.pwrite(memory, content, start)

    def _make_thread(self, state: dict[str, Any], caller: Caller, made: list[Thread]) -> Thread:
        choose_number(self._proc, state["number"])
        thread = caller.make_thread((syscalls_of("clone"), _THREAD))
        made.append(thread)
        self._make(bytes.fromhex(state["calls"]), state["data"], caller, thread)
        return thread


def _unregistering(thread: Thread) -> Iterable[Call]:
    """The kernel no longer writes to its area for restartable sequences."""
    address, size, sign = thread.rseq()
    if address:
        yield (syscalls_of("rseq"), address, size, _UNREGISTER, sign)


def _instruction(memory: int, kernels: Sequence[Sequence[Any]]) -> int:
    """Where the kernel's own part of the memory makes a kernel call. Raises Lost."""
    for name, start, size in kernels:
        if name == "[vdso]":
            return tracing.find_call(memory, start, size)
    raise tracing.Lost("the kernel has put nothing into a process")


def _move(start: int, size: int, to: int) -> Call:
    return (syscalls_of("mremap"), start, size, size, _MOVE | _MOVE_TO, to)

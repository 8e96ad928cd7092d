"""Taking a process's snapshot: its memory, registers and what the kernel keeps for it, into a file in memory.

The process is stopped while it waits in a kernel call and does not go on afterwards. What can be taken along is what
one program of its own holds: threads, memory, open files, pipes and event queues. Connections are not: their other end
is elsewhere, so the restored process finds them closed by their peer.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from . import descriptors, memory_map, remaking, tracing
from .descriptors import Unfit
from .memory_map import PAGE, Area
from .tracing import Caller, Thread, syscalls_of

_SCRATCH_AT = 16 * PAGE
"""Where in the page of calls results of calls are left."""
_STACK_SIZE = 24
_RED_ZONE = 128
_DELETED = " (deleted)"
_PIECE = 64 * 1024
_ZEROS = bytes(_PIECE)
_RECEIVING = frozenset(map(syscalls_of, ("read", "recvfrom", "recvmsg")))
_CALLS_MOST = 1_500
"""Of those that make a process again, less those that clear the one it is made of."""
_PR_GET_TID_ADDRESS = 40
_STAT_ADDRESSES = (22, 23, 24, 41, 42, 43, 44, 45, 46, 47)
"""Of code, stack, data, heap, arguments and environment in `/proc/*/stat`, counted behind the process's state."""
_RESTARTS = {-512: True, -513: True, -514: True, -516: False}
"""Results of interrupted calls that the kernel would make again: as they were, or (False) only as if they were new."""
_EINTR = 4
_SEALED = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Snapshot:
    """A saved process: what is to be known of it, the calls that map its memory, and a file with that memory."""

    description: dict[str, Any]
    calls: bytes
    memory: int


def take(pid: int, given: Collection[int], most: int, proc: str = "/proc") -> Snapshot:
    """Save a process. Raises Unfit, and OSError where the kernel refuses.

    The process is ended in any case. Descriptors in `given` are not described: the restored process has them of its
    own; `most` bounds the bytes that it may hold. `proc` is a writable view of the kernel's process folders."""
    threads: dict[int, Thread] = {}
    folder = f"{proc}/{pid}"
    try:
        _refuse_children(folder)
        _seize_all(pid, folder, threads)
        memory = os.open(f"{folder}/mem", os.O_RDWR | os.O_CLOEXEC)
        try:
            return _taken(pid, folder, list(threads.values()), memory, given, most)
        finally:
            os.close(memory)
    finally:
        _end(pid, threads)


def _taken(pid: int, folder: str, threads: list[Thread], memory: int, given: Collection[int], most: int) -> Snapshot:
    asking = _asking(threads[0].registers())
    states = [_thread_state(thread, f"{folder}/task/{thread.number}") for thread in threads]
    maps = [area for area in memory_map.areas(folder) if area.path != "[vsyscall]"]
    files = descriptors.describe(folder, given)
    number = max([0, *given, *(known["number"] for known in files)]) + 1
    if os.readlink(f"{folder}/cwd").endswith(_DELETED):
        raise Unfit("its working folder was deleted")
    image, places, held = _dump(folder, maps, most)
    scratch = memory_map.gap(maps, 2 * remaking.CALLS_SIZE, remaking.LOWEST)
    kernels = next(area for area in maps if area.path == "[vdso]")
    instruction = tracing.find_call(memory, kernels.start, kernels.size)
    tracing.make_page(threads[0], memory, scratch, remaking.CALLS_SIZE, instruction)
    caller = Caller(threads[0], memory, scratch, remaking.CALLS_SIZE)
    for state, thread in zip(states, threads, strict=True):
        state.update(_kernel_state(caller, thread, memory))
    whole = {
        "outside": pid,
        "layout": _layout(folder, caller),
        "title": _title(folder),
        "actions": _actions(caller, memory),
    }
    data = remaking.Data(scratch + remaking.DATA_AT)
    main = [
        *remaking.mappings(zip(maps, places, strict=True), number),
        *remaking.process(folder, whole, number, data),
        *remaking.thread(states[0], data),
    ]
    pointer = states[0]["registers"]["rsp"]
    stacks = [_live(area, at, pointer) for area, at in zip(maps, places, strict=True) if area.grows and at >= 0]
    description = {
        "pid": _inner_number(folder),
        "files": files,
        "asking": asking,
        "held": held,
        "memory": number,
        "scratch": scratch,
        "kernels": [[area.path, area.start, area.size] for area in maps if area.is_kernels],
        "stacks": stacks,
        "threads": [_described(state, scratch) for state in states],
        "data": data.content.hex(),
    }
    if len(main) > _CALLS_MOST:
        os.close(image)
        raise Unfit(f"its memory lies in {len(maps)} pieces, more than can be made again")
    return Snapshot(description, tracing.pack(main), image)


def _live(area: Area, at: int, pointer: int) -> list[int]:
    """Start, size and offset of what a stack holds: below its pointer (and what may be used beyond) is nothing."""
    unused = (pointer - _RED_ZONE) // PAGE * PAGE - area.start if area.start <= pointer < area.end else 0
    unused = max(unused, 0)
    return [area.start + unused, area.size - unused, at + unused]


def _asking(values: dict[str, int]) -> int:
    """The descriptor on which its first thread waits for an answer; -1 if it waits for something else."""
    return values["rdi"] if values["orig_rax"] in _RECEIVING else -1


def _described(state: dict[str, Any], scratch: int) -> dict[str, Any]:
    """A thread as it is to be made again."""
    data = remaking.Data(scratch + remaking.DATA_AT)
    calls = tracing.pack(remaking.thread(state, data))
    return {
        "number": state["number"],
        "registers": state["registers"],
        "extended": state["extended"].hex(),
        "calls": calls.hex(),
        "data": data.content.hex(),
    }


def _refuse_children(folder: str) -> None:
    for task in os.listdir(f"{folder}/task"):
        with open(f"{folder}/task/{task}/children") as file:
            if children := file.read().split():
                raise Unfit(f"it has {len(children)} child processes that still run; end them before the snapshot")


def _end(pid: int, threads: dict[int, Thread]) -> None:
    """Its first thread is left to be reaped as its parent does; the others are known to us alone."""
    os.kill(pid, signal.SIGKILL)
    for number, thread in threads.items():
        if number != pid:
            thread.wait_end()


def _seize_all(pid: int, folder: str, found: dict[int, Thread]) -> None:
    """Stop every thread, the first one first; threads may come while others are being stopped."""
    while missing := {int(task) for task in os.listdir(f"{folder}/task")} - found.keys():
        for number in sorted(missing, key=lambda number: (number != pid, number)):
            try:
                found[number] = tracing.seize(number)
            except tracing.Lost:
                if number == pid:
                    raise


def _inner_number(folder: str) -> int:
    with open(f"{folder}/status", errors="surrogateescape") as file:
        return next(int(line.split()[-1]) for line in file if line.startswith("NSpid:"))


def _thread_state(thread: Thread, folder: str) -> dict[str, Any]:
    values = thread.registers()
    _settle_call(values)
    with open(f"{folder}/status", errors="surrogateescape") as file:
        blocked = next(line.split()[1] for line in file if line.startswith("SigBlk:"))
    address, size, sign = thread.rseq()
    return {
        "number": _inner_number(folder),
        "registers": values,
        "extended": thread.extended(),
        "blocked": blocked,
        "rseq": [address, size, sign],
    }


def _settle_call(values: dict[str, int]) -> None:
    """It was stopped in a kernel call, which it is to make once more where it goes on."""
    if values["orig_rax"] >> 63:
        return
    result = values["rax"] - (1 << 64) if values["rax"] >> 63 else values["rax"]
    again = _RESTARTS.get(result)
    if again:
        values["rax"] = values["orig_rax"]
        values["rip"] -= 2
    elif again is not None:
        values["rax"] = (1 << 64) - _EINTR
    values["orig_rax"] = (1 << 64) - 1


def _kernel_state(caller: Caller, thread: Thread, memory: int) -> dict[str, Any]:
    """What the kernel keeps for one thread and tells itself only."""
    scratch = caller.at + _SCRATCH_AT
    os.pwrite(memory, bytes(64), scratch)
    caller.run(
        [
            (syscalls_of("prctl"), _PR_GET_TID_ADDRESS, scratch),
            (syscalls_of("get_robust_list"), 0, scratch + 8, scratch + 16),
            (syscalls_of("sigaltstack"), 0, scratch + 24),
        ],
        thread,
    )
    cleared, robust, length = struct.unpack("=QQQ", os.pread(memory, 24, scratch))
    return {
        "cleared": cleared,
        "robust": [robust, length],
        "stack": os.pread(memory, _STACK_SIZE, scratch + 24),
    }


def _actions(caller: Caller, memory: int) -> dict[int, bytes]:
    """What is done on each signal, as the kernel keeps it, where that is not the default."""
    scratch = caller.at + _SCRATCH_AT
    wanted = remaking.signals()
    os.pwrite(memory, bytes(remaking.ACTION_SIZE * 65), scratch)
    call = syscalls_of("rt_sigaction")
    caller.run([(call, number, 0, scratch + number * remaking.ACTION_SIZE, 8) for number in wanted])
    table = os.pread(memory, remaking.ACTION_SIZE * 65, scratch)
    actions = {number: table[number * remaking.ACTION_SIZE :][: remaking.ACTION_SIZE] for number in wanted}
    return {number: action for number, action in actions.items() if any(action)}


def _layout(folder: str, caller: Caller) -> list[int]:
    """Addresses that the kernel shows of a process, and the end of its heap last."""
    with open(f"{folder}/stat", "rb") as status:
        fields = [int(field) for field in status.read().rpartition(b")")[2].split()[1:]]
    return [*(fields[at] for at in _STAT_ADDRESSES), *caller.run([(syscalls_of("brk"), 0)])]


def _title(folder: str) -> str:
    with open(f"{folder}/comm", errors="surrogateescape") as file:
        return file.read().rstrip("\n")


def _dump(folder: str, maps: list[Area], most: int) -> tuple[int, list[int], int]:
    """A file with the content of each area that has any, and where in it that is, -1 for the others; and how many bytes
    of it show no file.

    What shows files is taken in too: what comes of the file afterwards is then of no matter."""
    places, end = [], 0
    for area in maps:
        places.append(end if _has_content(area) else -1)
        end += area.size if _has_content(area) else 0
    image = os.memfd_create("snapshot", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(image, end)
    held = _fill(folder, image, most, [(area, at) for area, at in zip(maps, places, strict=True) if at >= 0])
    seal(image)
    return image, places, held


def seal(descriptor: int) -> None:
    """From now on nobody changes this file in memory, whoever maps it."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALED)


def _has_content(area: Area) -> bool:
    return bool(area.protection) and not area.is_kernels and not area.is_forgetful


def _fill(folder: str, image: int, most: int, places: list[tuple[Area, int]]) -> int:
    held = 0
    pagemap = os.open(f"{folder}/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    source = os.open(f"{folder}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        for area, at in places:
            whole = [(area.start, area.end)] if area.is_file else memory_map.filled(pagemap, area)
            for start, end in whole:
                size = _copy(source, image, at + start - area.start, start, end, is_file=area.is_file)
                most -= size
                held += 0 if area.is_file else size
                if most < 0:
                    raise Unfit("it holds more than the memory that it may have")
    finally:
        os.close(source)
        os.close(pagemap)
    return held


def _copy(source: int, image: int, to: int, start: int, end: int, *, is_file: bool) -> int:
    """How many bytes there were; zeros are left out. What lies behind the end of a file cannot be read, and nobody
    has."""
    held = 0
    for position in range(start, end, _PIECE):
        try:
            piece = os.pread(source, min(_PIECE, end - position), position)
        except OSError:
            if is_file:
                return held
            raise
        if piece != _ZEROS[: len(piece)]:
            held += os.pwrite(image, piece, to + position - start)
    return held

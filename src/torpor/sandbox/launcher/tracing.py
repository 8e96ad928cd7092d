"""Steering another process from outside: stop it, read and set its state, let it make kernel calls (x86-64 only).

A traced process makes calls by a loop of a dozen instructions put into a page of its own, which walks a table of calls:
one stop for all of them.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Iterable, Sequence
from typing import Any

from .syscall_numbers import X86_64

SUPPORTED = os.uname().machine == "x86_64"

_SEIZE, _INTERRUPT, _CONTINUE, _DETACH = 0x4206, 0x4207, 7, 17
_SINGLE_STEP, _GET_EVENT = 9, 0x4201
_GET_SET, _PUT_SET, _GET_RSEQ = 0x4204, 0x4205, 0x420F
_GENERAL, _EXTENDED = 1, 0x202
_WAIT_ALL = 0x40000000
_TRACE_CLONE, _EXIT_KILL = 0x08, 0x100000
_EVENT_STOP, _EVENT_CLONE = 128, 3
_EXTENDED_MOST = 64 * 1024
_RSEQ = struct.Struct("=QIIII")

REGISTERS = (
    *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi"),
    *("orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"),
)
_GENERAL_SET = struct.Struct(f"={len(REGISTERS)}Q")

_LOOP = bytes.fromhex(
    "488b03"  # mov rax, [rbx]: the call's number, then its arguments
    "488b7b08488b7310488b53184c8b53204c8b43284c8b4b30"
    "0f05"  # syscall
    "48894338"  # mov [rbx+56], rax: the result
    "4883c340"  # add rbx, 64
    "49ffcc"  # dec r12
    "75d6"  # jnz to the start
    "cc"  # int3
)
_SYSCALL = b"\x0f\x05"
_CALL = struct.Struct("=Q6Qq")
CALLS_AT = 64
"""Where the table of calls starts in a page of calls."""
CALL_BYTES = _CALL.size

_OWN_PLACE = 0x2 | 0x20 | 0x100000
"""Private, without a file, and only where nothing is yet."""

Call = tuple[int, ...]
"""A kernel call: its number, and up to six arguments."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Lost(OSError):
    """A traced process has ended, or did something else than it was told."""


def _ptrace(request: int, thread: int, address: int = 0, data: Any = 0) -> int:
    result: int = _libc.ptrace(request, thread, address, data)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"tracing a process: {os.strerror(number)}")
    return result


class Thread:
    """One stopped thread under our control."""

    def __init__(self, number: int) -> None:
        self.number = number

    def registers(self) -> dict[str, int]:
        return dict(zip(REGISTERS, _GENERAL_SET.unpack(self._get(_GENERAL, _GENERAL_SET.size)), strict=True))

    def set_registers(self, values: dict[str, int]) -> None:
        self._put(_GENERAL, _GENERAL_SET.pack(*(values[name] for name in REGISTERS)))

    def extended(self) -> bytes:
        """Floating point and vector registers, in the processor's own form."""
        return self._get(_EXTENDED, _EXTENDED_MOST)

    def set_extended(self, state: bytes) -> None:
        self._put(_EXTENDED, state)

    def rseq(self) -> tuple[int, int, int]:
        """Address, size and signature of the area for restartable sequences; address 0 if it has none."""
        buffer = ctypes.create_string_buffer(_RSEQ.size)
        try:
            _ptrace(_GET_RSEQ, self.number, _RSEQ.size, ctypes.addressof(buffer))
        except OSError:  # before Linux 5.13
            return 0, 0, 0
        address, size, sign, _, _ = _RSEQ.unpack(buffer.raw)
        return address, size, sign

    def resume(self, number: int = 0) -> None:
        _ptrace(_CONTINUE, self.number, 0, number)

    def step(self) -> None:
        """Let it do one instruction."""
        _ptrace(_SINGLE_STEP, self.number)
        self.wait_stop(signal.SIGTRAP)

    def wait_stop(self, wanted: int) -> int:
        """Wait until it stops for this signal; the event that came with it. Raises Lost."""
        number, event = self.wait_any_stop()
        if number != wanted:
            raise Lost(f"a traced process stopped for signal {number}")
        return event

    def wait_any_stop(self) -> tuple[int, int]:
        """Wait until it stops: the signal, and the event that came with it. Raises Lost if it ends."""
        _, status = os.waitpid(self.number, _WAIT_ALL)
        if not os.WIFSTOPPED(status):
            raise Lost(f"a traced process ended ({status:#x})")
        return os.WSTOPSIG(status), status >> 16

    def wait_end(self) -> None:
        """Wait until it has ended, after it was killed."""
        while not os.WIFSIGNALED(os.waitpid(self.number, _WAIT_ALL)[1]):
            continue

    def detach(self) -> None:
        _ptrace(_DETACH, self.number)

    def _get(self, kind: int, size: int) -> bytes:
        buffer = ctypes.create_string_buffer(size)
        vector = _Vector(ctypes.addressof(buffer), size)
        _ptrace(_GET_SET, self.number, kind, ctypes.addressof(vector))
        return buffer.raw[: vector.length]

    def _put(self, kind: int, data: bytes) -> None:
        buffer = ctypes.create_string_buffer(data, len(data))
        vector = _Vector(ctypes.addressof(buffer), len(data))
        _ptrace(_PUT_SET, self.number, kind, ctypes.addressof(vector))


def seize(number: int, *, and_its_threads: bool = False) -> Thread:
    """Take hold of a thread and stop it; the calls that it waits in are interrupted. If we end, it ends. With
    `and_its_threads` those that it makes later are held too. Raises Lost if it has ended."""
    try:
        _ptrace(_SEIZE, number, 0, _EXIT_KILL | (_TRACE_CLONE if and_its_threads else 0))
        _ptrace(_INTERRUPT, number)
    except ProcessLookupError as error:
        raise Lost("a thread ended while it was to be stopped") from error
    thread = Thread(number)
    while (stopped := thread.wait_any_stop()) != (signal.SIGTRAP, _EVENT_STOP):
        number, event = stopped
        thread.resume(0 if event else number)  # a signal that was on its way is delivered
    return thread


class Caller:
    """Makes kernel calls in a stopped process, through a page at `at` that nothing else of it uses (`page_call`)."""

    def __init__(self, thread: Thread, memory: int, at: int, size: int) -> None:
        """`memory` is the process's, open for reading and writing; `size` is that of the page with its table."""
        self.thread = thread
        self.memory = memory
        self.at = at
        self.size = size
        os.pwrite(memory, _LOOP, at)

    def run(self, calls: Sequence[Call], thread: Thread | None = None) -> list[int]:
        """Make these calls one after the other, all of them; their results. Raises Lost if the process ends."""
        found: list[int] = []
        most = (self.size - CALLS_AT) // CALL_BYTES
        for start in range(0, len(calls), most):
            found += self._run(calls[start : start + most], thread or self.thread)
        return found

    def make_thread(self, call: Call) -> Thread:
        """Make one more thread by this call; it is stopped before its first step. Raises Lost."""
        thread = self.thread
        self._begin([call], thread)
        if thread.wait_stop(signal.SIGTRAP) != _EVENT_CLONE:
            raise Lost("a thread could not be made")
        number = ctypes.c_ulong()
        _ptrace(_GET_EVENT, thread.number, 0, ctypes.addressof(number))
        made = Thread(number.value)
        made.wait_stop(signal.SIGTRAP)
        thread.resume()
        thread.wait_stop(signal.SIGTRAP)
        return made

    def _run(self, calls: Sequence[Call], thread: Thread) -> list[int]:
        return self._results(self._begin(calls, thread), thread)

    def _results(self, size: int, thread: Thread) -> list[int]:
        thread.wait_stop(signal.SIGTRAP)
        done = os.pread(self.memory, size, self.at + CALLS_AT)
        return [_CALL.unpack_from(done, offset)[7] for offset in range(0, size, CALL_BYTES)]

    def run_packed(self, table: bytes, thread: Thread) -> list[int]:
        """As `run`, of calls that are packed already. Raises ValueError if there are more than there is room for."""
        if len(table) > self.size * 7 // 8 - CALLS_AT:
            raise ValueError(f"{len(table) // CALL_BYTES} calls are too many at once")
        self._start(table, thread)
        return self._results(len(table), thread)

    def _begin(self, calls: Sequence[Call], thread: Thread) -> int:
        table = pack(calls)
        self._start(table, thread)
        return len(table)

    def _start(self, table: bytes, thread: Thread) -> None:
        os.pwrite(self.memory, table, self.at + CALLS_AT)
        values = thread.registers()
        values.update(rip=self.at, rbx=self.at + CALLS_AT, r12=len(table) // CALL_BYTES, orig_rax=(1 << 64) - 1)
        thread.set_registers(values)
        thread.resume()


def page_call(at: int, size: int) -> Call:
    """The call that makes a page of calls."""
    return (syscalls_of("mmap"), at, size, 7, _OWN_PLACE, 0xFFFFFFFFFFFFFFFF, 0)


def make_page(thread: Thread, memory: int, at: int, size: int, instruction: int) -> None:
    """Let a stopped process make its page of calls; at `instruction` it makes a kernel call. Raises OSError."""
    result = single(thread, memory, page_call(at, size), instruction)
    if result < 0:
        raise OSError(-result, f"a page for calls: {os.strerror(-result)}")


def pack(calls: Iterable[Call]) -> bytes:
    """Calls as the loop reads them."""
    return b"".join(_CALL.pack(*call, *[0] * (7 - len(call)), 0) for call in calls)


def find_call(memory: int, start: int, size: int) -> int:
    """Where in this part of a process's memory an instruction makes a kernel call. Raises Lost."""
    at = os.pread(memory, size, start).find(_SYSCALL)
    if at < 0:
        raise Lost("no instruction that makes a kernel call was found")
    return start + at


def syscalls_of(name: str) -> int:
    """The number of a kernel call."""
    return X86_64[name]


def single(thread: Thread, memory: int, call: Call, instruction: int) -> int:
    """Make one call by the instruction at this address; the registers are changed."""
    values = thread.registers()
    names = ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9")
    values.update(zip(names, (*call, *[0] * (7 - len(call))), strict=True))
    values.update(rip=instruction, orig_rax=(1 << 64) - 1)
    thread.set_registers(values)
    thread.step()
    result = thread.registers()["rax"]
    return result - (1 << 64) if result >> 63 else result

"""The system call filter of every function: an allow-list, compiled here to the kernel's classic BPF.

What is answered to a call that is not allowed is chosen so that programs cope:

* known to us and not allowed: EPERM, as if a privilege were missing;
* unknown to us (newer than this table, or no call at all): ENOSYS, since programs try new calls first and fall back to
  older ones on exactly that answer, while EPERM would make them give up;
* `clone3`: ENOSYS too. Its flags lie in memory, where a filter cannot read them; C libraries fall back to `clone`,
  whose flags can be read, and new namespaces are refused there;
* another processor mode than the native one (32-bit calls): the process is killed; calls of the x32 mode lie above all
  known numbers and get ENOSYS.

Left out on purpose though no privilege guards them: `io_uring_*` (a large and often broken surface that also evades
this filter), `userfaultfd`, `bpf`, `perf_event_open`, the key ring, and every call on namespaces, mounts and file
handles. Kept on purpose: `ptrace`, `process_vm_*`, for debuggers, as all processes of a sandbox serve one function
anyway and kernels since 4.8 filter after the tracer's changes; `landlock_*` and `seccomp`, which only take rights away.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable

from .syscall_numbers import AARCH64, X86_64

_ALLOWED_NAMES = """
read write open close stat fstat newfstatat lstat statx poll ppoll select pselect6 lseek pread64 pwrite64 readv
writev preadv pwritev preadv2 pwritev2 access faccessat faccessat2 pipe pipe2 dup dup2 dup3 fcntl flock fsync
fdatasync sync syncfs sync_file_range truncate ftruncate fallocate fadvise64 readahead cachestat getdents getdents64
getcwd chdir fchdir rename renameat renameat2 mkdir mkdirat rmdir creat link linkat unlink unlinkat symlink
symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes
futimesat utimensat mknod mknodat openat openat2 close_range copy_file_range sendfile splice tee vmsplice statfs
fstatfs file_getattr file_setattr setxattr lsetxattr fsetxattr getxattr lgetxattr fgetxattr listxattr llistxattr
flistxattr removexattr lremovexattr fremovexattr setxattrat getxattrat listxattrat removexattrat inotify_init
inotify_init1 inotify_add_watch inotify_rm_watch

mmap munmap mremap mprotect brk msync mincore madvise process_madvise process_mrelease mlock mlock2 munlock mlockall
munlockall remap_file_pages memfd_create memfd_secret mseal map_shadow_stack pkey_mprotect pkey_alloc pkey_free
get_mempolicy membarrier

fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill getpid getppid gettid getpgid setpgid
getpgrp getsid setsid getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid
setresuid setresgid setgroups setfsuid setfsgid capget capset prctl arch_prctl uname sysinfo times getrusage
getrlimit setrlimit prlimit64 getpriority setpriority ioprio_get ioprio_set getcpu sched_yield sched_setparam
sched_getparam sched_setscheduler sched_getscheduler sched_get_priority_max sched_get_priority_min
sched_rr_get_interval sched_setaffinity sched_getaffinity sched_setattr sched_getattr set_tid_address
set_robust_list get_robust_list restart_syscall rseq futex futex_waitv futex_wake futex_wait futex_requeue ptrace
process_vm_readv process_vm_writev pidfd_open pidfd_send_signal getrandom uretprobe uprobe seccomp
landlock_create_ruleset landlock_add_rule landlock_restrict_self

rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_tgsigqueueinfo
rt_sigsuspend sigaltstack pause signalfd signalfd4 eventfd eventfd2 alarm getitimer setitimer nanosleep time
gettimeofday clock_gettime clock_getres clock_nanosleep timer_create timer_settime timer_gettime timer_getoverrun
timer_delete timerfd_create timerfd_settime timerfd_gettime

epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 io_setup io_destroy io_getevents
io_pgetevents io_submit io_cancel

socketpair connect accept accept4 bind listen shutdown getsockname getpeername getsockopt setsockopt sendto recvfrom
sendmsg recvmsg sendmmsg recvmmsg

shmget shmat shmctl shmdt semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend
mq_timedreceive mq_notify mq_getsetattr
"""
ALLOWED = frozenset(_ALLOWED_NAMES.split())
"""Calls allowed whatever their arguments; a name a machine does not have counts for nothing there."""

_LOAD, _AND, _JUMP, _IF_EQUAL, _IF_AT_LEAST, _IF_ANY, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16

_NEW_NAMESPACES = 0x7E020000
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM = 1, 2
_TCP, _UDP, _ROUTE = 6, 17, 0
_PUSH_TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX
_PERSONALITIES = (0, 0xFFFFFFFF)  # the plain one, and the question which it is

_MACHINES: dict[str, tuple[int, dict[str, int]]] = {"x86_64": (0xC000003E, X86_64), "aarch64": (0xC00000B7, AARCH64)}

Line = tuple[int, int, str, str]
"""Code, operand, and the labels jumped to if true and if false; an empty label is the next line."""
_Range = tuple[int, "int | str"]
"""First number, and its verdict: a filter result, or the label of further checks."""


def _errno(number: int) -> int:
    return _ERRNO | number


class _Assembler:
    """Collects lines and labels, then turns labels into distances."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._labels: dict[str, int] = {}
        self._made = 0

    def label(self, name: str = "") -> str:
        self._made += 1
        return name or f"_{self._made}"

    def place(self, label: str) -> None:
        self._labels[label] = len(self._lines)

    def add(self, code: int, operand: int = 0, then: str = "", other: str = "") -> None:
        self._lines.append((code, operand, then, other))

    def argument(self, index: int) -> None:
        # All arguments judged here are 32 bits wide to the kernel, which ignores the upper half, and so must we.
        self.add(_LOAD, _ARGUMENTS_AT + 8 * index)

    def allow_if_equal(self, values: Iterable[int], otherwise: int) -> None:
        for value in values:
            self.add(_IF_EQUAL, value, "allow")
        self.add(_RETURN, otherwise)

    def assemble(self) -> bytes:
        return b"".join(self._encode(at, line) for at, line in enumerate(self._lines))

    def _encode(self, at: int, line: Line) -> bytes:
        code, operand, then, other = line
        if code == _JUMP:
            return struct.pack("=HBBI", code, 0, 0, self._distance(at, then))
        return struct.pack("=HBBI", code, self._distance(at, then), self._distance(at, other), operand)

    def _distance(self, at: int, label: str) -> int:
        return self._labels[label] - at - 1 if label else 0


def program(machine: str) -> bytes:
    """The filter for a machine (`x86_64`, `aarch64`) as packed `sock_filter` values; the same bytes every time.

    Raises ValueError for any other machine.
    """
    if machine not in _MACHINES:
        raise ValueError(f"no system call filter for {machine}; there is one for {' and '.join(_MACHINES)}")
    architecture, numbers = _MACHINES[machine]
    assembler = _Assembler()
    assembler.add(_LOAD, _ARCHITECTURE_AT)
    assembler.add(_IF_EQUAL, architecture, "native")
    assembler.add(_RETURN, _KILL)
    assembler.place("native")
    assembler.add(_LOAD, _NUMBER_AT)
    _search(assembler, _ranges(numbers))
    _checks(assembler)
    return assembler.assemble()


def load() -> None:
    """Put this process, all its threads and children for good under the filter for this machine.

    The no-new-privileges flag must be set already. Raises OSError.
    """
    if not _PROGRAM:
        raise OSError(errno.ENOSYS, f"no system call filter for {os.uname().machine}")
    result: int = _libc.syscall(_SECCOMP, 1, 1, ctypes.byref(_HANDED))
    if result != 0:  # above 0 it names a thread that could not follow
        number = ctypes.get_errno() if result < 0 else errno.EBUSY
        raise OSError(number, f"cannot load the system call filter: {os.strerror(number)}")


def verdict(name: str) -> int | str:
    """What the filter decides about a known call: a filter result, or the label of the checks of its arguments."""
    if name in ("clone", "socket", "ioctl", "personality"):
        return name
    if name == "clone3":
        return _errno(errno.ENOSYS)
    return _ALLOW if name in ALLOWED else _errno(errno.EPERM)


def _ranges(numbers: dict[str, int]) -> list[_Range]:
    """The whole number line as runs of one verdict each, ascending, the first from 0."""
    verdicts = {number: verdict(name) for name, number in numbers.items()}
    unknown = _errno(errno.ENOSYS)
    ranges: list[_Range] = []
    for number in range(max(verdicts) + 2):
        decided = verdicts.get(number, unknown)
        if not ranges or ranges[-1][1] != decided:
            ranges.append((number, decided))
    return ranges


def _search(assembler: _Assembler, ranges: list[_Range]) -> None:
    """A binary search over the ranges, written out as comparisons."""
    if len(ranges) > 1:
        middle = len(ranges) // 2
        upper = assembler.label()
        assembler.add(_IF_AT_LEAST, ranges[middle][0], upper)
        _search(assembler, ranges[:middle])
        assembler.place(upper)
        _search(assembler, ranges[middle:])
    elif isinstance(decided := ranges[0][1], str):
        assembler.add(_JUMP, 0, decided)
    else:
        assembler.add(_RETURN, decided)


def _checks(assembler: _Assembler) -> None:
    refused = _errno(errno.EPERM)
    assembler.place("clone")
    assembler.argument(0)
    assembler.add(_IF_ANY, _NEW_NAMESPACES, "refuse", "allow")
    assembler.place("ioctl")
    assembler.argument(1)
    for request in _PUSH_TERMINAL_INPUT:
        assembler.add(_IF_EQUAL, request, "refuse")
    assembler.add(_JUMP, 0, "allow")
    assembler.place("personality")
    assembler.argument(0)
    assembler.allow_if_equal(_PERSONALITIES, refused)
    _socket_checks(assembler)
    assembler.place("allow")
    assembler.add(_RETURN, _ALLOW)
    assembler.place("refuse")
    assembler.add(_RETURN, refused)


def _socket_checks(assembler: _Assembler) -> None:
    """Unix, TCP, UDP and route netlink sockets; each refusal is the one a kernel without that protocol gives."""
    no_protocol = _errno(errno.EPROTONOSUPPORT)
    assembler.place("socket")
    assembler.argument(0)
    for family, label in ((_INET, "inet"), (_INET6, "inet"), (_NETLINK, "netlink")):
        assembler.add(_IF_EQUAL, family, label)
    assembler.allow_if_equal([_UNIX], _errno(errno.EAFNOSUPPORT))
    assembler.place("netlink")
    assembler.argument(2)
    assembler.allow_if_equal([_ROUTE], no_protocol)
    assembler.place("inet")
    assembler.argument(1)
    assembler.add(_AND, 0xF)
    assembler.add(_IF_EQUAL, _STREAM, "stream")
    assembler.add(_IF_EQUAL, _DATAGRAM, "datagram", "refuse")
    for label, protocol in (("stream", _TCP), ("datagram", _UDP)):
        assembler.place(label)
        assembler.argument(2)
        assembler.allow_if_equal([0, protocol], no_protocol)


class _Handed(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.c_char_p)]


# Compiled and laid out once on import, so that a forked child only makes the one call.
_libc = ctypes.CDLL(None, use_errno=True)
_PROGRAM = program(os.uname().machine) if os.uname().machine in _MACHINES else b""
_SECCOMP = _MACHINES[os.uname().machine][1]["seccomp"] if _PROGRAM else 0
_HANDED = _Handed(len(_PROGRAM) // 8, _PROGRAM)

"""Kernel calls the standard library lacks on some supported versions. Failures are `OSError`."""

from __future__ import annotations

import ctypes
import os
import signal
import struct
from collections.abc import Sequence

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38

_ATTR_RDONLY = 0x1
_ATTR_NOSUID = 0x2
_ATTR_NODEV = 0x4
_ATTR_IDMAP = 0x100000
_EMPTY_PATH = 0x1000
_TREE_CLONE, _FROM_EMPTY_PATH = 1, 4
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_ARM = os.uname().machine == "aarch64"
_MOUNT_SETATTR = 442
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_CLOSE_RANGE = 436
_CLONE = 220 if _ARM else 56
_PIVOT_ROOT = 41 if _ARM else 155
_LAST_CAPABILITY = 63
_CAPABILITY_VERSION = 0x20080522
_EINVAL = 22

_libc = ctypes.CDLL(None, use_errno=True)
_holding = ctypes.PyDLL(None, use_errno=True)
"""The same library, called without letting go of the interpreter lock, whose state a child inherits."""
_holding.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.sbrk.restype = ctypes.c_void_p
_libc.syscall.restype = ctypes.c_long


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace")]


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def make(call: Sequence[int]) -> None:
    """Make any call: its number, and its arguments."""
    _check(_libc.syscall(*(ctypes.c_ulong(part) for part in call)), f"kernel call {call[0]}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    _check(_libc.setns(descriptor, kind), "setns")


def fork_into(namespaces: int) -> int:
    """Fork a child that is the first process of new namespaces, as `os.fork` otherwise; for single-threaded programs.

    The C library's own note of the child's thread number is stale, as it is not told; its children have the right one.
    """
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _holding.syscall(ctypes.c_long(_CLONE), ctypes.c_ulong(namespaces | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone: {os.strerror(number)}")
    return pid


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode() or None, flags, data.encode() or None)
    _check(result, f"mount {source} at {target}")


def unmount(target: str) -> None:
    """Take a whole tree of mounts off; files still open in it stay usable."""
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def protect(target: str, *, read_only: bool = True, devices: bool = False, recursive: bool = True) -> None:
    """Set nosuid, and unless told otherwise read-only and nodev, on a mount and those below it."""
    bits = _ATTR_NOSUID | (_ATTR_RDONLY if read_only else 0) | (0 if devices else _ATTR_NODEV)
    attributes = _MountAttributes(bits, 0, 0, 0)
    result = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(target.encode()),
        ctypes.c_uint(_AT_RECURSIVE if recursive else 0),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    _check(result, f"mount_setattr {target}")


def clone_tree(path: str, *, recursive: bool = True) -> int:
    """A descriptor of a copy of the mount at this path, not mounted anywhere yet."""
    flags = _TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    descriptor: int = _libc.syscall(
        ctypes.c_long(_OPEN_TREE), ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(path.encode()), ctypes.c_uint(flags)
    )
    _check(descriptor, f"open_tree {path}")
    return descriptor


def map_ids(tree: int, user_namespace: int) -> None:
    """Show the owners of files in a copied mount as the namespace maps them. It must not be mounted yet."""
    attributes = _MountAttributes(_ATTR_IDMAP, 0, 0, user_namespace)
    result = _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        ctypes.c_int(tree),
        ctypes.c_char_p(b""),
        ctypes.c_uint(_EMPTY_PATH),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )
    _check(result, "mount_setattr")


def attach(tree: int, target: str) -> None:
    """Mount a copied mount and close its descriptor."""
    try:
        result = _libc.syscall(
            ctypes.c_long(_MOVE_MOUNT),
            ctypes.c_int(tree),
            ctypes.c_char_p(b""),
            ctypes.c_int(_AT_FDCWD),
            ctypes.c_char_p(target.encode()),
            ctypes.c_uint(_FROM_EMPTY_PATH),
        )
        _check(result, f"move_mount {target}")
    finally:
        os.close(tree)


def pivot_root(new: str, old: str) -> None:
    result = _libc.syscall(ctypes.c_long(_PIVOT_ROOT), ctypes.c_char_p(new.encode()), ctypes.c_char_p(old.encode()))
    _check(result, f"pivot_root {new}")


def prctl(option: int, value: int = 0) -> None:
    _check(_libc.prctl(option, value, 0, 0, 0), f"prctl {option}")


def prctl_buffer(option: int, value: int, data: bytes) -> None:
    """The forms of prctl that take a structure."""
    buffer = ctypes.create_string_buffer(data, len(data))
    _check(_libc.prctl(option, value, ctypes.addressof(buffer), len(data), 0), f"prctl {option}")


def heap_end() -> int:
    return int(_libc.sbrk(0) or 0)


def set_process_name(name: str) -> None:
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _check(_libc.prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0), "prctl name")


def drop_bounding_capabilities(kept: frozenset[int] = frozenset()) -> None:
    for capability in range(_LAST_CAPABILITY + 1):
        if capability in kept:
            continue
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == _EINVAL:
                return
            raise


def drop_capabilities(kept: frozenset[int] = frozenset()) -> None:
    """Give up every other capability this process has; changing the user alone does so only for a former root."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    low = sum(1 << capability for capability in kept)
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(low, low, 0, 0, 0, 0)), "capset")


def watch(queue: int, descriptor: int, events: int, data: int) -> bool:
    """Let an event queue tell of a descriptor, with these 64 bits for whoever waits; False if it cannot be watched."""
    packed = struct.pack("=IQ" if not _ARM else "=I4xQ", events, data)
    return bool(_libc.epoll_ctl(queue, 1, descriptor, packed) == 0)


def close_from(first: int) -> None:
    """Close every descriptor from this number on."""
    result = _libc.syscall(
        ctypes.c_long(_CLOSE_RANGE), ctypes.c_uint(first), ctypes.c_uint(0xFFFFFFFF), ctypes.c_uint(0)
    )
    if result != 0:
        os.closerange(first, os.sysconf("SC_OPEN_MAX"))

"""The sandbox's own `/tmp`: an ext4 image of its own on disk, or a size-limited tmpfs where that cannot be had.

On disk its content is not charged to the function's memory, and full means `No space left on device`. The image is an
unnamed file behind a self-clearing loop device, so nothing of it outlives the last process that uses it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess

from . import places, syscalls

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_FLAGS_AUTOCLEAR = 4
_LOOP_CONFIG = struct.Struct("=II40x12xI160x16x64x")
_ATTEMPTS = 16
_MIB = 1024 * 1024
_INODES_PER_MIB = 64
_INODE_BYTES = 256
_RESERVED_SHARE = 50
_RESERVED_MOST = 16 * _MIB
_EBUSY = 16

DISK = "disk"
MEMORY = "memory"
_FORMATTERS = ("/sbin/mke2fs", "/usr/sbin/mke2fs")


def formatter() -> str | None:
    """The program that makes file systems, if there is one."""
    return next((path for path in _FORMATTERS if os.access(path, os.X_OK)), None) or shutil.which("mke2fs")


def mount_tmp(megabytes: int, *, disk: bool) -> tuple[str, str]:
    """Mount `/tmp`; tells what it is made of, DISK or MEMORY, and why not of what was wanted."""
    problem = ""
    if disk:
        try:
            _mount_disk(megabytes)
            return DISK, ""
        except (OSError, subprocess.SubprocessError) as error:
            problem = str(error)
    syscalls.mount("tmp", places.TMP, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, f"mode=1777,size={megabytes}m")
    return MEMORY, problem


def unmount_tmp() -> None:
    syscalls.unmount(places.TMP)


def _mount_disk(megabytes: int) -> None:
    device, descriptor = _attach(_copy(_template(megabytes)))
    try:
        syscalls.mount(device, places.TMP, "ext4", syscalls.MS_NOSUID | syscalls.MS_NODEV, "noinit_itable")
    finally:
        os.close(descriptor)
    os.chmod(places.TMP, 0o1777)
    os.rmdir(f"{places.TMP}/lost+found")


def _template(megabytes: int) -> str:
    """An empty file system of this size, made once per size."""
    path = f"{places.STATE}/tmp-{megabytes}.ext4"
    if os.path.exists(path):
        return path
    program = formatter()
    if program is None:
        raise FileNotFoundError("mke2fs")
    making = f"{path}.{os.urandom(8).hex()}"
    with open(making, "wb") as file:
        file.truncate(_image_bytes(megabytes))
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"
    command = [program, "-q", "-F", "-t", "ext4", "-O", "^has_journal,^resize_inode", "-m", "0", "-b", "4096"]
    command += ["-N", str(megabytes * _INODES_PER_MIB), "-I", str(_INODE_BYTES), "-E", options, making]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, env={})
    os.rename(making, path)
    return path


def _image_bytes(megabytes: int) -> int:
    """Size of the image that leaves this much to an ordinary user, beside inode tables and what is reserved."""
    usable = megabytes * _MIB
    tables = megabytes * _INODES_PER_MIB * _INODE_BYTES
    reserved = min(usable // (_RESERVED_SHARE - 1), _RESERVED_MOST)
    return (usable + tables + reserved + 2 * _MIB) // _MIB * _MIB


def _copy(template: str) -> int:
    """An unnamed file with the same content, holes kept."""
    target = os.open(places.STATE, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    source = os.open(template, os.O_RDONLY | os.O_CLOEXEC)
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(source, position, os.SEEK_DATA)
        except OSError:
            break
        position = os.lseek(source, start, os.SEEK_HOLE)
        _copy_range(source, target, start, position)
    os.close(source)
    return target


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    while start < end:
        done = os.pwrite(target, os.pread(source, min(end - start, _MIB), start), start)
        start += done


def _attach(backing: int) -> tuple[str, int]:
    """A loop device showing this file, and the descriptor that keeps it until it is mounted."""
    control = os.open(f"{places.DEVICES}/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            device = f"{places.DEVICES}/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(descriptor, _LOOP_CONFIGURE, _LOOP_CONFIG.pack(backing, 0, _FLAGS_AUTOCLEAR))
                return device, descriptor
            except OSError as error:
                os.close(descriptor)
                if error.errno != _EBUSY:  # another took it meanwhile
                    raise
    finally:
        os.close(control)
        os.close(backing)
    raise OSError(_EBUSY, "no free loop device")

"""What this host offers the real sandbox, told to people."""

import os
import re
from collections.abc import Iterator

from torpor.sandbox.launcher import cgroups, tmpdisk, tracing
from torpor.sandbox.port import SNAPSHOTS, Capability

_KERNEL = (5, 12)
"""The first that can make a whole tree of mounts read-only in one call."""
_MAPPED_LAYERS = (5, 19)
_SYS_ADMIN = 21
_NAMESPACES = "/proc/sys/user/max_user_namespaces"
_LAST_PID = "/proc/sys/kernel/ns_last_pid"
_TRACING = "/proc/sys/kernel/yama/ptrace_scope"
_NO_TRACING = 3
_RESTRICTED = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


def capabilities(*, rootless: bool, boot_only: bool) -> tuple[Capability, ...]:
    """Everything looked at, best news or not."""
    return (
        _kernel(os.uname().release),
        _rights(rootless=rootless),
        _user_namespaces(rootless=rootless),
        *_groups(),
        _tmp(rootless=rootless),
        *_changes(rootless=rootless),
        Capability(
            name="clones",
            available=not boot_only,
            detail="every process is booted, as set" if boot_only else "managed interpreters are cloned",
        ),
    )


def snapshots() -> Capability:
    """Whether processes can be saved and go on elsewhere: that takes tracing them, and a word with the kernel."""
    reason = next(_against_snapshots(), "")
    return Capability(name=SNAPSHOTS, available=not reason, detail=reason or "processes are saved while they wait")


def _against_snapshots() -> Iterator[str]:
    if not tracing.SUPPORTED:
        yield f"not for {os.uname().machine} processors: x86_64 only"
    if not (os.path.exists(_LAST_PID) and os.path.exists(f"/proc/self/task/{os.getpid()}/children")):
        yield "the kernel was built without CHECKPOINT_RESTORE"
    if _number(_TRACING) == _NO_TRACING:
        yield f"nobody may trace processes: {_TRACING} is {_NO_TRACING}"


def maps_ids() -> bool:
    """Whether this kernel lays overlays over mounts whose files have other owners than on disk."""
    return _release(os.uname().release) >= _MAPPED_LAYERS


def _release(release: str) -> tuple[int, int]:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)


def _kernel(release: str) -> Capability:
    enough = _release(release) >= _KERNEL
    wanted = ".".join(map(str, _KERNEL))
    return Capability(
        name="kernel", available=enough, detail=release if enough else f"{release}: real sandboxes need Linux {wanted}"
    )


def _rights(*, rootless: bool) -> Capability:
    if rootless:
        return Capability(name="root", available=True, detail="not needed: rootless sandboxes")
    if os.geteuid() != 0:
        return Capability(name="root", available=False, detail="not root: use the rootless rung")
    if not _effective_capabilities() >> _SYS_ADMIN & 1:
        detail = "root without CAP_SYS_ADMIN, as in a container: use the rootless rung, or add the capability"
        return Capability(name="root", available=False, detail=detail)
    return Capability(name="root", available=True, detail="yes")


def _user_namespaces(*, rootless: bool) -> Capability:
    most = _number(_NAMESPACES)
    if most == 0:
        return Capability(name="user namespaces", available=False, detail=f"switched off: raise {_NAMESPACES}")
    if rootless and os.geteuid() != 0 and _number(_RESTRICTED) == 1:
        detail = f"kept from ordinary users: write 0 to {_RESTRICTED}, or run as root"
        return Capability(name="user namespaces", available=False, detail=detail)
    return Capability(name="user namespaces", available=True, detail=f"up to {most}")


def _groups() -> tuple[Capability, ...]:
    found = cgroups.detect()
    usable = found.kind != "none"
    general = Capability(name="control groups", available=usable, detail=f"kind {found.kind}")
    return (
        general,
        *(
            Capability(name="control groups", available=False, detail=f"{loss}: {why}; {advice}")
            for loss, why, advice in found.problems
        ),
    )


def _tmp(*, rootless: bool) -> Capability:
    name = "/tmp on disk"
    if rootless:
        detail = "rootless: /tmp lies in memory and counts towards the function's"
        return Capability(name=name, available=False, detail=detail)
    if tmpdisk.formatter() is None:
        return Capability(name=name, available=False, detail="no mke2fs: install e2fsprogs; /tmp lies in memory")
    if not os.path.exists("/dev/loop-control"):
        return Capability(name=name, available=False, detail="no /dev/loop-control: load the loop module")
    return Capability(name=name, available=True, detail="an ext4 image for each sandbox")


def _changes(*, rootless: bool) -> tuple[Capability, ...]:
    """What sandboxes with changeable directories, or with root inside, can do here."""
    whole = not rootless and maps_ids()
    reason = "rootless" if rootless else f"before Linux {'.'.join(map(str, _MAPPED_LAYERS))}"
    less = f"{reason}: in /usr files can be added, but those of the host not be changed; other directories are whole"
    root = "ids 0 to 65535 inside, unprivileged ones on the host"
    alone = "id 0 inside is the server's own account; no other ids, so that changing owners fails"
    return (
        Capability(name="changeable directories", available=whole, detail="all usual ones" if whole else less),
        Capability(name="root inside", available=not rootless, detail=alone if rootless else root),
    )


def _effective_capabilities() -> int:
    with open("/proc/self/status") as file:
        return next((int(line.split()[1], 16) for line in file if line.startswith("CapEff:")), 0)


def _number(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return -1

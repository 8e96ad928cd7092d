"""What this host offers the real sandbox, told to people."""

import os

from torpor.sandbox.launcher import cgroups, tmpdisk
from torpor.sandbox.port import Capability

_NAMESPACES = "/proc/sys/user/max_user_namespaces"
_RESTRICTED = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


def capabilities(*, rootless: bool, boot_only: bool) -> tuple[Capability, ...]:
    """Everything looked at, best news or not."""
    return (
        _rights(rootless=rootless),
        _user_namespaces(rootless=rootless),
        *_groups(),
        _tmp(rootless=rootless),
        Capability(
            name="clones",
            available=not boot_only,
            detail="every process is booted, as set" if boot_only else "managed interpreters are cloned",
        ),
    )


def _rights(*, rootless: bool) -> Capability:
    if rootless:
        return Capability(name="root", available=True, detail="not needed: rootless sandboxes")
    root = os.geteuid() == 0
    return Capability(name="root", available=root, detail="yes" if root else "no: use the rootless rung")


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


def _number(path: str) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return -1

"""Control groups of one host: found, made, joined, steered and removed, on cgroup v2, hybrid and v1 hosts.

A *hierarchy* is one mounted tree. A v2 host has one (`unified`); a v1 host has one for each controller; a hybrid host
has v1 controllers and a v2 tree without controllers, whose freezer and `cgroup.kill` still work. Groups are made
beneath the group this process itself is in, so that limits and ownership set from outside (a service unit, a container,
a delegated user slice) go on holding.

What the hot path does (freeze, thaw, limits, counters) is a single read or write on a descriptor opened beforehand; the
descriptors may be handed to another process. Errors are `OSError`: this folder stands on the standard library alone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterator

from .controls import CONTROL_FILES, CPU_PERIOD_US, Controls, read_pids

__all__ = ["CgroupHost", "Controls", "EnvironmentGroups", "Problem", "detect", "enable_controllers"]

UNIFIED = "unified"
LEAF = "server"
_WANTED = ("memory", "cpu", "pids")
_V1 = ("memory", "cpu", "cpuacct", "pids", "freezer")
_LOSS = {
    "memory": "memory is watched only, by looking often",
    "cpu": "the CPU share is not enforced",
    "pids": "the number of processes is not limited",
    "freezer": "idle environments are stopped by signals instead of being frozen",
}
_DELEGATE = "run it as root, as a service with Delegate=yes, or under `systemd-run --user --scope -p Delegate=yes`"

Problem = tuple[str, str, str]
"""What does not work, why, and what to do about it."""


class EnvironmentGroups:
    """The groups of one sandbox: one folder in each hierarchy."""

    def __init__(self, kind: str, folders: dict[str, str]) -> None:
        self.kind = kind
        self.folders = folders

    def procs_fds(self) -> list[int]:
        """Descriptors of each group's `cgroup.procs`; a process joins all groups by writing `b"0"` to each.

        The kernel judges the write by the rights of whoever opened the file, so a process may join after it has lost
        its own. The caller closes them.
        """
        return [os.open(f"{folder}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in self._distinct()]

    def open_controls(self) -> dict[str, int]:
        """Open what `Controls` needs, as far as this host has it: file name to descriptor, owned by the caller."""
        opened: dict[str, int] = {}
        for folder in self._distinct():
            unified = folder == self.folders.get(UNIFIED)
            for name, mode in CONTROL_FILES.items():
                # A v1 `cpu.stat` counts throttling, not time used: only the v2 one is what `Controls` reads.
                if name in opened or (name == "cpu.stat" and not unified):
                    continue
                with contextlib.suppress(OSError):
                    opened[name] = os.open(f"{folder}/{name}", mode | os.O_CLOEXEC)
        return opened

    def processes(self) -> tuple[int, ...]:
        """The pids of all live processes in these groups, in no order."""
        found: set[int] = set()
        for folder in self._distinct():
            found.update(_group_pids(folder))
        return tuple(found)

    def kill(self) -> None:
        """SIGKILL everything inside, frozen or not, without waiting for it to be gone."""
        for folder in self._distinct():
            _kill_group(folder)

    def remove(self, timeout: float = 2.0) -> bool:
        """Kill what is inside, wait for it up to `timeout` seconds and remove the groups; whether they are gone."""
        deadline = time.monotonic() + timeout
        pause = 0.0005
        while not self.try_remove():
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(pause * 2, 0.02)
        return True

    def try_remove(self) -> bool:
        """One step of `remove` that never waits; call again until it returns True."""
        gone = [_remove_group(folder) for folder in self._distinct()]
        if all(gone):
            return True
        self.kill()
        return False

    def _distinct(self) -> list[str]:
        return list(dict.fromkeys(self.folders.values()))


class CgroupHost:
    """What the host offers and where groups are made. `kind` is `v2`, `hybrid`, `v1` or `none`."""

    def __init__(self, kind: str, bases: dict[str, str], problems: list[Problem], root: str) -> None:
        self.kind = kind
        self.bases = bases
        self.problems = problems
        self._root = root
        self._ready: set[str] = set()

    def make(self, parent: str, name: str) -> EnvironmentGroups:
        """Make the group `parent/name` in every hierarchy. Raises OSError if the host refuses."""
        self._prepare(parent)
        folders = {hierarchy: f"{base}/{parent}/{name}" for hierarchy, base in self.bases.items()}
        groups = EnvironmentGroups(self.kind, folders)
        try:
            for folder in dict.fromkeys(folders.values()):
                os.mkdir(folder)
        except OSError:
            self._ready.discard(parent)
            groups.try_remove()
            raise
        period = f"{folders['cpu']}/cpu.cfs_period_us" if self.kind != "v2" and "cpu" in folders else ""
        if period:
            _write(period, str(CPU_PERIOD_US))
        return groups

    def remove_tree(self, parent: str, timeout: float = 2.0) -> bool:
        """Remove every group named `parent` with all beneath it, wherever an earlier life made it; whether all went.

        Whatever still runs in one is thawed as far as needed and killed.
        """
        self._ready.discard(parent)
        groups = [group for tree in self._trees(parent) for group, _, _ in os.walk(tree, topdown=False)]
        for group in groups:  # all first: what one hierarchy holds frozen cannot leave the others
            _kill_group(group)
        return all([EnvironmentGroups(self.kind, {"group": group}).remove(timeout) for group in groups])

    def _trees(self, parent: str) -> list[str]:
        found = []
        for top in dict.fromkeys([*self.bases.values(), *self._hierarchy_roots()]):
            found += [f"{at}/{parent}" for at, names, _ in os.walk(top) if parent in names]
        return list(dict.fromkeys(os.path.realpath(folder) for folder in found))

    def _hierarchy_roots(self) -> list[str]:
        return [self._root] if self.kind == "v2" else [f"{self._root}/{name}" for name in (*_V1, UNIFIED)]

    def _prepare(self, parent: str) -> None:
        if parent in self._ready:
            return
        for base in dict.fromkeys(self.bases.values()):
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{base}/{parent}")
        if self.kind == "v2":
            base = self.bases[UNIFIED]
            enable_controllers(base)
            enable_controllers(f"{base}/{parent}")
        self._ready.add(parent)


def detect(root: str = "/sys/fs/cgroup", proc: str = "/proc") -> CgroupHost:
    """Find out what this process may do with control groups; changes nothing and never raises.

    `problems` lists every loss; with kind `none` nothing can be made at all.
    """
    own = _own_groups(proc)
    if os.path.exists(f"{root}/cgroup.controllers"):
        return _detect_v2(root, own)
    if not os.path.isdir(root):
        return _none(root, f"there is no {root}", "mount cgroup v2 there")
    return _detect_v1(root, own)


def enable_controllers(folder: str) -> None:
    """Hand memory, CPU and process limits to the children of a v2 group, as far as it has them itself.

    A group with children under control may hold no processes (the root group aside), so ours move to a leaf first.
    """
    offered = _read(f"{folder}/cgroup.controllers").split()
    switch = f"{folder}/cgroup.subtree_control"
    for name in _WANTED:
        if name not in offered or name in _read(switch).split():
            continue
        if _write(switch, f"+{name}") == errno.EBUSY:
            _vacate(folder)
            _write(switch, f"+{name}")


def _detect_v2(root: str, own: dict[str, str]) -> CgroupHost:
    base = _existing(root, own.get("", "/"))
    above = os.path.dirname(base)
    if os.path.basename(base) == LEAF and base != root and _may_group(above):
        base = above
    if not _may_group(base):
        return _none(root, f"{base} is not writable for this account", _DELEGATE)
    if os.geteuid() == 0:
        _enable_down(root, base)
    offered = _read(f"{base}/cgroup.controllers").split()
    lacking = [name for name in _WANTED if name not in offered]
    problems = [_missing(name, f"{base} has no {name} controller", _DELEGATE) for name in lacking]
    return CgroupHost("v2", {UNIFIED: base, **dict.fromkeys(_WANTED, base)}, problems, root)


def _detect_v1(root: str, own: dict[str, str]) -> CgroupHost:
    bases: dict[str, str] = {}
    unified = f"{root}/{UNIFIED}"
    if os.path.exists(f"{unified}/cgroup.controllers"):
        bases[UNIFIED] = _existing(unified, own.get("", "/"))
    for name in _V1:
        if os.path.isdir(f"{root}/{name}"):
            bases[name] = _existing(os.path.realpath(f"{root}/{name}"), own.get(name, "/"))
    refused = {name: base for name, base in bases.items() if not _may_group(base)}
    usable = {name: base for name, base in bases.items() if name not in refused}
    if UNIFIED in usable:
        usable.pop("freezer", None)
        usable.pop("cpuacct", None)
    if not usable:
        why = f"{', '.join(sorted(refused.values()))} not writable for this account" if refused else f"{root} is empty"
        return _none(root, why, "run the server as root, or boot the host with cgroup v2")
    kind = "hybrid" if UNIFIED in usable else "v1"
    wanted = _WANTED if kind == "hybrid" else (*_WANTED, "freezer")
    problems = [_missing(n, _why_v1(n, refused, root), "mount it writable") for n in wanted if n not in usable]
    return CgroupHost(kind, usable, problems, root)


def _why_v1(name: str, refused: dict[str, str], root: str) -> str:
    return f"{refused[name]} is not writable" if name in refused else f"there is no {root}/{name}"


def _missing(name: str, why: str, advice: str) -> Problem:
    return (_LOSS[name], why, advice)


def _none(root: str, why: str, advice: str) -> CgroupHost:
    loss = "no control groups: memory is watched only, CPU and processes are not limited"
    return CgroupHost("none", {}, [(loss, why, advice)], root)


def _own_groups(proc: str) -> dict[str, str]:
    """Controller (empty for v2) to this process's group in that hierarchy."""
    own: dict[str, str] = {}
    for line in _read(f"{proc}/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return own


def _existing(top: str, path: str) -> str:
    """The group's folder; the top where a container shows only its own part of the tree."""
    folder = f"{top}/{path.strip('/')}".rstrip("/")
    return folder if ".." not in path.split("/") and os.path.isdir(folder) else top


def _may_group(folder: str) -> bool:
    return all(os.access(path, os.W_OK) for path in (folder, f"{folder}/cgroup.procs"))


def _enable_down(root: str, base: str) -> None:
    """As root, pass controllers down from the root group to ours; groups that hold processes are left as they are."""
    folder = root
    for part in [p for p in os.path.relpath(base, root).split("/") if p != "."]:
        for name in _WANTED:
            _write(f"{folder}/cgroup.subtree_control", f"+{name}")
        folder = f"{folder}/{part}"


def _vacate(folder: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{folder}/{LEAF}")
    for _ in range(10):  # processes started meanwhile appear in the old group
        pids = _group_pids(folder)
        if not pids:
            return
        for pid in pids:
            _write(f"{folder}/{LEAF}/cgroup.procs", str(pid))


def _kill_group(folder: str) -> None:
    if _write(f"{folder}/cgroup.kill", "1") == 0:
        return
    for pid in _group_pids(folder):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    # A process of a frozen v1 group dies only once it is thawed, and it has its signal by now.
    _write(f"{folder}/freezer.state", "THAWED")
    _write(f"{folder}/cgroup.freeze", "0")


def _remove_group(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _group_pids(folder: str) -> tuple[int, ...]:
    with _opened(f"{folder}/cgroup.procs", os.O_RDONLY) as fd:
        return () if fd < 0 else read_pids(fd)


def _read(path: str) -> str:
    with _opened(path, os.O_RDONLY) as fd:
        if fd < 0:
            return ""
        chunks = []
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
        return b"".join(chunks).decode()


def _write(path: str, text: str) -> int:
    """Write a control file; 0, or the error number."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError as error:
        return error.errno or errno.EIO
    try:
        os.write(fd, text.encode())
    except OSError as error:
        return error.errno or errno.EIO
    finally:
        os.close(fd)
    return 0


@contextlib.contextmanager
def _opened(path: str, flags: int) -> Iterator[int]:
    try:
        fd = os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        yield -1
        return
    try:
        yield fd
    finally:
        os.close(fd)

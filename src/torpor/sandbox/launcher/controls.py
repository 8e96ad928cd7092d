"""The controls of one sandbox's groups: single reads and writes on descriptors kept open.

Every call is calm: where the host lacks the file, or the group is gone, a write returns False and a counter 0.
"""

from __future__ import annotations

import os

CPU_PERIOD_US = 100_000
"""Long enough that a short piece of work fits into what a small CPU share gets of one period: with 128 MB, 7 ms."""
_MINIMUM_QUOTA_US = 1_000
_UNLIMITED_V1 = (1 << 63) - 4096

CONTROL_FILES = {
    "cgroup.freeze": os.O_WRONLY,
    "freezer.state": os.O_WRONLY,
    "cgroup.kill": os.O_WRONLY,
    "cgroup.procs": os.O_RDONLY,
    "memory.max": os.O_WRONLY,
    "memory.swap.max": os.O_WRONLY,
    "memory.current": os.O_RDONLY,
    "memory.peak": os.O_RDONLY,
    "memory.events": os.O_RDONLY,
    "memory.limit_in_bytes": os.O_WRONLY,
    "memory.memsw.limit_in_bytes": os.O_WRONLY,
    "memory.usage_in_bytes": os.O_RDONLY,
    "memory.max_usage_in_bytes": os.O_RDONLY,
    "memory.oom_control": os.O_RDONLY,
    "cpu.max": os.O_WRONLY,
    "cpu.cfs_quota_us": os.O_WRONLY,
    "cpu.stat": os.O_RDONLY,
    "cpuacct.usage": os.O_RDONLY,
    "pids.max": os.O_WRONLY,
}
"""Names under which descriptors are kept, with how to open them."""


class Controls:
    """Steers and measures one sandbox's groups through `EnvironmentGroups.open_controls`, in whatever process.

    `kind` is the host's; `fds` maps names of `CONTROL_FILES` to descriptors, owned and closed by this object.
    """

    def __init__(self, kind: str, fds: dict[str, int]) -> None:
        self.kind = kind
        self.fds = fds
        self._freezer = fds.get("cgroup.freeze", fds.get("freezer.state", -1))
        by_state = "cgroup.freeze" not in fds
        self._frozen, self._thawed = (b"FROZEN", b"THAWED") if by_state else (b"1", b"0")

    @property
    def limits_memory(self) -> bool:
        """Does the host keep memory limits?"""
        return not self.fds.keys().isdisjoint(("memory.max", "memory.limit_in_bytes"))

    @property
    def counts_memory(self) -> bool:
        """Does the host keep the peak? Not without groups, nor on v2 before Linux 5.19."""
        return not self.fds.keys().isdisjoint(("memory.peak", "memory.max_usage_in_bytes"))

    def freeze(self) -> bool:
        """Stop every process inside; takes effect within a scheduler tick."""
        return _put(self._freezer, self._frozen)

    def thaw(self) -> bool:
        """Let every process inside run again."""
        return _put(self._freezer, self._thawed)

    def kill(self) -> bool:
        """SIGKILL every process inside in one step; False where the kernel cannot (v1, before Linux 5.14)."""
        return self._write("cgroup.kill", b"1")

    def set_memory(self, limit: int | None) -> bool:
        """Limit memory to `limit` bytes, swap included; None lifts the limit."""
        if "memory.max" in self.fds:
            self._write("memory.swap.max", b"max" if limit is None else b"0")
            return self._write("memory.max", b"max" if limit is None else b"%d" % limit)
        value = b"%d" % (_UNLIMITED_V1 if limit is None else limit)
        # Memory with swap may never be below memory: one of the two writes around fits, whichever way the limit moves.
        self._write("memory.memsw.limit_in_bytes", value)
        done = self._write("memory.limit_in_bytes", value)
        self._write("memory.memsw.limit_in_bytes", value)
        return done

    def set_cpu(self, cpus: float | None) -> bool:
        """Hold processes to `cpus` CPUs (0.01 at least); None lifts the limit."""
        quota = None if cpus is None else max(_MINIMUM_QUOTA_US, round(cpus * CPU_PERIOD_US))
        if "cpu.max" in self.fds:
            return self._write("cpu.max", (b"max" if quota is None else b"%d" % quota) + b" %d" % CPU_PERIOD_US)
        return self._write("cpu.cfs_quota_us", b"-1" if quota is None else b"%d" % quota)

    def set_pids(self, count: int) -> bool:
        """Allow at most `count` processes and threads."""
        return self._write("pids.max", b"%d" % count)

    def memory_usage(self) -> int:
        """Bytes used now."""
        return self._number("memory.current") or self._number("memory.usage_in_bytes")

    def memory_peak(self) -> int:
        """Most bytes used at once since the groups were made."""
        return self._number("memory.peak") or self._number("memory.max_usage_in_bytes")

    def oom_kills(self) -> int:
        """How many processes were killed for lack of memory since the groups were made."""
        return self._field("memory.events", b"oom_kill") or self._field("memory.oom_control", b"oom_kill")

    def cpu_seconds(self) -> float:
        """CPU time used by all processes since the groups were made."""
        return self._field("cpu.stat", b"usage_usec") / 1e6 or self._number("cpuacct.usage") / 1e9

    def processes(self) -> tuple[int, ...]:
        """The pids of all live processes inside, as this process numbers them."""
        return read_pids(self.fds.get("cgroup.procs", -1))

    def close(self) -> None:
        """Close the descriptors; every later call is a calm no-op."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}
        self._freezer = -1

    def _write(self, name: str, data: bytes) -> bool:
        return _put(self.fds.get(name, -1), data)

    def _number(self, name: str) -> int:
        digits = _get(self.fds.get(name, -1)).strip()
        return int(digits) if digits.isdigit() else 0

    def _field(self, name: str, key: bytes) -> int:
        for line in _get(self.fds.get(name, -1)).splitlines():
            word, _, value = line.partition(b" ")
            if word == key:
                return int(value)
        return 0


def read_pids(fd: int) -> tuple[int, ...]:
    """The pids in an open `cgroup.procs`; empty if it is gone. Foreign pid namespaces show as 0 and are left out."""
    data, offset = b"", 0
    while chunk := _get(fd, offset):
        data += chunk
        offset += len(chunk)
    return tuple(pid for pid in map(int, data.split()) if pid)


def _get(fd: int, offset: int = 0) -> bytes:
    if fd < 0:
        return b""
    try:
        return os.pread(fd, 65536, offset)
    except OSError:
        return b""


def _put(fd: int, data: bytes) -> bool:
    if fd < 0:
        return False
    try:
        os.pwrite(fd, data, 0)
    except OSError:
        return False
    return True

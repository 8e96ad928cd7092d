"""What the figures were measured on."""

import contextlib
import os
import platform
from pathlib import Path


def describe() -> dict[str, str]:
    """One line per fact that changes the figures; asked before measuring, the load is what others do."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.1f} GiB",
        "kernel": platform.release(),
        "system": _quoted("/etc/os-release", "PRETTY_NAME"),
        "python": platform.python_version(),
        "user": "root" if os.geteuid() == 0 else "not root",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def available_bytes() -> int:
    """Memory the host could still give away."""
    return int(_field("/proc/meminfo", "MemAvailable").split()[0]) * 1024


def pss_bytes(pid: int) -> int:
    """Proportional set size of a process; 0 if it is gone."""
    return _kilobytes(f"/proc/{pid}/smaps_rollup", "Pss")


def rss_bytes(pid: int) -> int:
    """Resident set size of a process; 0 if it is gone."""
    return _kilobytes(f"/proc/{pid}/status", "VmRSS")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, all its threads together; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return sum(int(task.read_text().split()[0]) for task in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9
    return 0.0


def _kilobytes(path: str, name: str) -> int:
    text = _field(path, name)
    return int(text.split()[0]) * 1024 if text else 0


def _field(path: str, name: str, separator: str = ":") -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(separator)[2].strip() for line in lines if line.split(separator)[0].strip() == name), ""
    )


def _quoted(path: str, name: str) -> str:
    return _field(path, name, "=").strip('"')

"""One server's folder: claimed by a lock, and swept by the next server when its own has died.

Launchers and keepers end by themselves when their server does; what can be left is a stopped launcher, control groups
and files. The folder names them all.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile

from torpor.sandbox.launcher import cgroups

_PREFIX = "linux-"
_LOCK = "linux.lock"
_LAUNCHERS = "launchers.json"
GROUP_PREFIX = "torpor-"


class Home:
    """A claimed folder. Opening sweeps those of dead servers first. Raises OSError."""

    def __init__(self, state_dir: str) -> None:
        os.makedirs(state_dir, mode=0o700, exist_ok=True)
        lock = os.open(os.path.join(state_dir, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _sweep(state_dir)
            self.folder = tempfile.mkdtemp(prefix=_PREFIX, dir=os.path.realpath(state_dir))
            self._claim = _claim(self.folder)
        finally:
            os.close(lock)
        self._launchers: dict[str, tuple[int, str]] = {}
        self._count = 0

    def group_name(self) -> str:
        """A new name for one launcher's control groups."""
        self._count += 1
        return f"{GROUP_PREFIX}{os.path.basename(self.folder)}-{self._count}"

    def note_launcher(self, group: str, pid: int) -> None:
        """Remember a launcher before it makes anything, for whoever has to sweep after us."""
        self._launchers[group] = (pid, _start_time(pid))
        path = os.path.join(self.folder, _LAUNCHERS)
        with open(f"{path}.new", "w") as file:
            json.dump(self._launchers, file)
        os.rename(f"{path}.new", path)

    def forget_launcher(self, group: str) -> None:
        self._launchers.pop(group, None)

    def release(self) -> None:
        """Remove the folder and give up the lock. Idempotent."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None


def _sweep(state_dir: str) -> None:
    with os.scandir(state_dir) as entries:
        folders = [entry.path for entry in entries if entry.name.startswith(_PREFIX) and entry.is_dir()]
    for folder in folders:
        claim = _claim(folder)
        if claim is None:
            continue
        try:
            _clean(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(claim)


def _clean(folder: str) -> None:
    try:
        with open(os.path.join(folder, _LAUNCHERS)) as file:
            launchers: dict[str, tuple[int, str]] = json.load(file)
    except (OSError, ValueError):
        return
    host = cgroups.detect()
    for group, (pid, started) in launchers.items():
        _kill(pid, started)
        host.remove_tree(group)


def _kill(pid: int, started: str) -> None:
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:
            # The handle pins the process; only now can the number not be another's.
            if started and _start_time(pid) == started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)


def _claim(folder: str) -> int | None:
    """A descriptor holding the folder's lock, or None if a live server holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _start_time(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except (OSError, IndexError):
        return ""

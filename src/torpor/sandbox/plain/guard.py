"""Finds and ends the processes of plain sandboxes, also after the server has died.

Run as a program it is the guard: standard library only, started with the server's folder as its argument and a pipe
from the server as its standard input. The server writes `+N` for every session it starts and `-N` when the leader has
been reaped and its group is empty. The end of the pipe means the server is gone: the guard ends what is left, removes
the folder and exits. It holds the folder's lock until then, so no other server touches the folder in between.
"""

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterator

END_WITHIN = 10.0
"""Seconds to go on killing before giving up (a process in uninterruptible sleep)."""
PAUSE = 0.005
DEAD_STATES = (b"Z", b"X")


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def identity(pid: int) -> tuple[int, int] | None:
    """Process group and session of a running process; None if it is gone or only a zombie."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    if len(fields) < 4 or fields[0] in DEAD_STATES:
        return None
    return int(fields[2]), int(fields[3])


def belongs(pid: int, folder: str, sessions: Collection[int]) -> bool:
    """Is this a running process of one of the sessions, or one whose first TMPDIR lies in the folder?"""
    found = identity(pid)
    if found is None:
        return False
    if found[0] in sessions or found[1] in sessions:
        return True
    return f"\0TMPDIR={folder}/".encode() in b"\0" + _read(f"/proc/{pid}/environ")


def _pids() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            yield int(name)


def find(folder: str, sessions: Collection[int]) -> list[int]:
    """Every running process that `belongs`."""
    return [pid for pid in _pids() if belongs(pid, folder, sessions)]


def kill_found(folder: str, sessions: Collection[int]) -> int:
    """SIGKILL every process that `belongs`; how many were found."""
    found = find(folder, sessions)
    for pid in found:
        with contextlib.suppress(OSError):
            _kill_checked(pid, folder, sessions)
    return len(found)


def _kill_checked(pid: int, folder: str, sessions: Collection[int]) -> None:
    handle = os.pidfd_open(pid)
    try:
        # The handle pins the process; only now can the number not be another's.
        if belongs(pid, folder, sessions):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    finally:
        os.close(handle)


def end_all(folder: str, sessions: Collection[int]) -> bool:
    """Kill until nothing is found any more; False if something is still there after `END_WITHIN` seconds."""
    last = time.monotonic() + END_WITHIN
    while kill_found(folder, sessions):
        if time.monotonic() > last:
            return False
        time.sleep(PAUSE)
    return True


def remove_tree(folder: str) -> None:
    """Remove a folder with all it holds, folders made read-only by their owner included. Never raises."""
    shutil.rmtree(folder, ignore_errors=True)
    if not os.path.isdir(folder):
        return
    for parent, names, _ in os.walk(folder):
        for path in [parent, *(os.path.join(parent, name) for name in names)]:
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def _note(line: bytes, sessions: set[int]) -> None:
    sign, number = line[:1], line[1:]
    if number.isdigit():
        (sessions.add if sign == b"+" else sessions.discard)(int(number))


def _follow(pipe: int) -> set[int]:
    """The sessions alive when the pipe ended."""
    sessions: set[int] = set()
    rest = b""
    while data := os.read(pipe, 4096):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            _note(line, sessions)
    return sessions


def main(folder: str) -> int:
    """Wait for the server's end, then clean up after it."""
    sessions = _follow(sys.stdin.fileno())
    ended = end_all(folder, sessions)
    remove_tree(folder)
    return 0 if ended else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

"""Server processes forked from one that has loaded Torpor already.

What each does is the same; what it is spared is the second and a half of loading modules, which a suite of a hundred
servers notices. `python -m tests.support.nursery DESCRIPTOR` is the parent, one for each run of tests.
"""

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

_REQUEST_BYTES = 1 << 18
_DESCRIPTORS = 3


class ServerProcess:
    """`torpor` with arguments, as `subprocess.Popen` would show it. Its output is read from `stdout`."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, errors: IO[Any]) -> None:
        self.returncode: int | None = None
        reading, writing = os.pipe()
        self._ended, ending = socket.socketpair()
        order = {"arguments": list(arguments), "environment": dict(environment), "folder": str(folder)}
        with ending:
            self.pid = _nursery().ask(order, [writing, errors.fileno(), ending.fileno()])
        os.close(writing)
        self.stdout = os.fdopen(reading, "rb")

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            told = self._ended.recv(64)
            self._ended.close()
            self.returncode = os.waitstatus_to_exitcode(int(told)) if told else -signal.SIGKILL
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Raises subprocess.TimeoutExpired."""
        if self.returncode is None and not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(["torpor"], timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended this moment
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Nursery:
    """The tests' side of the parent."""

    def __init__(self) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            theirs.set_inheritable(True)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.nursery", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self.close)

    def ask(self, order: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        socket.send_fds(self._channel, [json.dumps(order).encode()], descriptors)
        return int(self._channel.recv(64))

    def close(self) -> None:
        self._channel.close()
        self._process.wait()


@cache
def _nursery() -> _Nursery:
    return _Nursery()


def _serve(descriptor: int) -> None:
    """Fork a server for each order, and tell how each of them ends; returns with the tests' end."""
    import torpor.app.process
    import torpor.cli.program
    import torpor.cli.serving  # noqa: F401
    from torpor.sandbox.interpreters import discover

    discover()
    gc.freeze()
    channel = socket.socket(fileno=descriptor)
    ending: dict[int, socket.socket] = {}
    wake, write = os.pipe()
    os.set_blocking(write, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    while True:
        for ready in select.select([channel, wake], [], [])[0]:
            if ready == wake:
                os.read(wake, 4096)
            elif not _obey(channel, ending):
                return
        _tell_ended(ending)


def _obey(channel: socket.socket, ending: dict[int, socket.socket]) -> bool:
    data, descriptors, _, _ = socket.recv_fds(channel, _REQUEST_BYTES, _DESCRIPTORS)
    if not data:
        return False
    pid = os.fork()
    if pid == 0:
        for each in (channel, *ending.values()):
            each.detach()
        _become_server(json.loads(data), *descriptors[:2])
    for each in descriptors[:2]:
        os.close(each)
    ending[pid] = socket.socket(fileno=descriptors[2])
    channel.send(str(pid).encode())
    return True


def _tell_ended(ending: dict[int, socket.socket]) -> None:
    for pid in list(ending):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            with ending.pop(pid) as told:
                told.send(str(status).encode())


def _become_server(order: dict[str, Any], output: int, errors: int) -> None:
    """Ends as an interpreter does that was started for it: by SystemExit."""
    from torpor.cli import run

    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    os.closerange(3, 1024)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"])
    tempfile.tempdir = None
    sys.exit(run(order["arguments"]))


if __name__ == "__main__":
    _serve(int(sys.argv[1]))

"""The launcher's two stages.

`enter_root`, run by any interpreter on the host, builds the private root and replaces itself by the wanted interpreter
inside it, so that this one's own paths are the inside ones. `serve` then forks a keeper for each sandbox asked for.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from typing import Any

from . import cgroups, clone, keeper, places, root, sharing, syscalls, wire

_PROGRAM = "import sys; sys.path.append(sys.argv[1]); from launcher.entry import {stage}; {stage}(int(sys.argv[2]))"
_RETRY_MS = 5
_ROOM = " " * 512
"""Makes the argument area long enough to show a program's own arguments there later."""


def command(executable: str, program: str, stage: str, descriptor: int) -> list[str]:
    """The command line that runs a stage of the launcher found in the folder `program`."""
    return [executable, "-S", "-c", _PROGRAM.format(stage=stage), program, str(descriptor), _ROOM]


def enter_root(descriptor: int) -> None:
    """Stage one. Does not return."""
    channel = socket.socket(fileno=descriptor)
    received = wire.receive(channel)
    if received is None:
        return
    settings = received[0]
    try:
        root.enter(settings)
        executable = settings["executable"]
        environment = {"LC_CTYPE": "C.UTF-8", "PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": settings["libraries"]}
        channel.set_inheritable(True)
        os.execve(executable, command(executable, places.PROGRAM, "serve", descriptor), environment)
    except OSError as error:
        with contextlib.suppress(OSError):  # a server that ends takes the folder with it, and does not listen any more
            wire.send(channel, {"event": "failed", "reason": f"{error}"})
        sys.exit(1)


def serve(descriptor: int) -> None:
    """Stage two, inside the private root."""
    channel = socket.socket(fileno=descriptor)
    channel.set_inheritable(False)
    received = wire.receive(channel)
    if received is None:
        return
    launcher = Launcher(channel, received[0])
    try:
        launcher.run()
    except clone.BecomeInterpreter as become:
        wanted = become
    else:
        return
    del launcher, channel
    clone.run(wanted)


class Launcher:
    """Forks keepers on demand, and removes the control groups of those that ended."""

    def __init__(self, channel: socket.socket, settings: dict[str, Any]) -> None:
        self._channel = channel
        self._settings = settings
        self._host = cgroups.detect()
        self._groups: dict[str, Any] = {}
        self._pids: dict[int, str] = {}
        self._ended: list[tuple[str, Any]] = []

    def run(self) -> None:
        """Serve until the server is gone, then end every sandbox."""
        self._ready()
        wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake, select.POLLIN)
        serving = True
        while serving or self._pids:
            for ready, _ in poll.poll(_RETRY_MS if self._ended else None):
                if ready == wake:
                    os.read(wake, 4096)
                elif not self._obey():
                    serving = False
                    poll.unregister(self._channel)
                    self._end_all()
            self._reap()
        self._remove_parent()

    def _ready(self) -> None:
        module = self._settings["clone_module"]
        if module:
            clone.preload(module, places.RUNTIME)
        sharing.freeze_memory()
        problems = [list(problem) for problem in self._host.problems]
        self._tell({"event": "ready", "cgroups": self._host.kind, "problems": problems})

    def _obey(self) -> bool:
        received = wire.receive(self._channel)
        if received is None:
            return False
        message, descriptors = received
        if message["do"] == "prepare":
            self._prepare(message, descriptors[0])
        elif message["do"] == "end":
            self._end(message["id"])
        return True

    def _prepare(self, order: wire.Message, control: int) -> None:
        name = order["id"]
        groups = self._make_groups(name)
        pid = syscalls.fork_into(syscalls.CLONE_NEWPID)
        if pid == 0:
            kept = socket.socket(fileno=os.dup2(control, 3, inheritable=False)) if control != 3 else None
            self._be_keeper(kept or socket.socket(fileno=control), order, groups)
            os._exit(0)
        os.close(control)
        self._pids[pid] = name
        self._groups[name] = groups
        self._tell({"event": "forked", "id": name, "pid": pid})

    def _be_keeper(self, control: socket.socket, order: wire.Message, groups: Any) -> None:
        signal.set_wakeup_fd(-1)
        self._channel.detach()
        syscalls.close_from(control.fileno() + 1)
        try:
            keeper.start(control, order, self._settings, groups)
        except Exception as error:
            with contextlib.suppress(OSError):
                wire.send(control, {"event": "failed", "reason": f"{type(error).__name__}: {error}"})

    def _make_groups(self, name: str) -> Any:
        if self._host.kind == "none":
            return None
        try:
            return self._host.make(self._settings["parent"], name)
        except OSError:
            return None

    def _end(self, name: str) -> None:
        for pid, known in self._pids.items():
            if known == name:
                self._kill(pid, name)
                return

    def _end_all(self) -> None:
        for pid, name in self._pids.items():
            self._kill(pid, name)

    def _kill(self, pid: int, name: str) -> None:
        os.kill(pid, signal.SIGKILL)
        if self._groups[name] is not None:
            # The dying namespace waits for its processes, and a frozen one of a v1 group would never end.
            self._groups[name].kill()

    def _reap(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self._pids:
                name = self._pids.pop(pid)
                self._ended.append((name, self._groups.pop(name)))
        self._ended = [ended for ended in self._ended if not self._tidy(*ended)]

    def _tidy(self, name: str, groups: Any) -> bool:
        """Remove what an ended sandbox leaves behind, and tell once that is done."""
        if groups is not None and not groups.try_remove():
            return False
        self._tell({"event": "ended", "id": name})
        return True

    def _tell(self, message: wire.Message) -> None:
        with contextlib.suppress(OSError):
            wire.send(self._channel, message)

    def _remove_parent(self) -> None:
        if self._host.kind != "none":
            self._host.remove_tree(self._settings["parent"])

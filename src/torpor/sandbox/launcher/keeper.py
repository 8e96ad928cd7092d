"""The keeper: first process of a sandbox's pid namespace. It builds the sandbox and starts, signals and reaps in it.

It stays outside the environment's control groups, so that freezing and running out of memory never touch it. It ends
with its control socket or with the launcher, and the kernel ends everything in the pid namespace with it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import time
from typing import Any

from . import filesystem, network, places, process, syscalls, title, wire, workers

_EVERYONE = -1
_KILLED_PAUSE = 0.001
_KILLED_LOOKS = 1000
"""Looks with such a pause (seconds) in between at whether all that was killed is gone."""
_USER_MAP = "0 0 1\n{inside} {outside} 1\n"
_NAMESPACES = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWNET | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWUTS


class Keeper:
    """Serves one sandbox over its control socket."""

    def __init__(self, control: socket.socket, order: wire.Message, settings: dict[str, Any]) -> None:
        self._control = control
        self._order = order
        self._settings = settings
        self._children: dict[int, tuple[str, process.Child]] = {}
        self._spare: process.Child | None = None
        self._network: network.NetworkSockets | None = None
        self._wake = -1
        self._workers = workers.Sockets()
        self._killed = False
        """Everyone was killed, and nothing was started since."""

    def run(self, groups: Any) -> None:
        """Build the sandbox, tell the server and serve until it goes away. Returns only in cloned interpreters' stead:
        they leave by `clone.BecomeInterpreter`."""
        try:
            self._build(groups)
        except OSError as error:
            wire.send(self._control, {"event": "failed", "reason": str(error)})
            return
        self._serve()

    def _build(self, groups: Any) -> None:
        procs = groups.procs_fds() if groups else []
        controls = groups.open_controls() if groups else {}
        syscalls.unshare(_NAMESPACES)
        socket.sethostname(places.HOST_NAME)
        sockets = network.configure()
        self._network = sockets
        proc = filesystem.mount_proc()
        tmp = filesystem.mount_own(self._order, self._settings)
        self._catch_child_signals()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._surroundings = process.Surroundings(
            user_namespace=_make_user_namespace(self._order["user"], proc, rootless=self._settings["rootless"]),
            output=writer,
            null=os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),
            proc=proc,
            procs=procs,
            rootless=self._settings["rootless"],
            clone_module=self._settings["clone_module"] or "",
        )
        filesystem.close_proc()
        self._announce(tmp, reader, controls)
        os.close(reader)
        wire.close_all(list(controls.values()))
        self._spare = process.fork(self._surroundings)

    def _announce(self, tmp: tuple[str, str], reader: int, controls: dict[str, int]) -> None:
        assert self._network is not None
        sockets = {"api": self._network.api, "egress": self._network.egress, "dns": self._network.dns}
        present = {name: item.fileno() for name, item in sockets.items() if item is not None}
        message = {
            "event": "ready",
            "tmp": tmp[0],
            "problem": tmp[1],
            "sockets": list(present),
            "controls": list(controls),
        }
        wire.send(self._control, message, (reader, *present.values(), *controls.values()))
        for item in sockets.values():
            if item is not None:
                item.close()

    def _catch_child_signals(self) -> None:
        self._wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._wake:
                    os.read(self._wake, 4096)
                elif not self._obey():
                    return
            self._reap()

    def _obey(self) -> bool:
        received = wire.receive(self._control)
        if received is None:
            return False
        message, descriptors = received
        # No `finally`: a clone unwinds through here with other descriptors under the same numbers.
        getattr(self, "_do_" + message["do"])(message, descriptors)
        wire.close_all(descriptors)
        return True

    def _do_assign(self, message: wire.Message, descriptors: list[int]) -> None:
        try:
            tmp = filesystem.assign(message, self._order, self._settings)
        except OSError as error:
            self._tell({"event": "failed", "reason": str(error)})
            return
        self._tell({"event": "assigned", "tmp": tmp[0], "problem": tmp[1]})

    def _do_start(self, message: wire.Message, descriptors: list[int]) -> None:
        if self._killed:
            self._killed = False
            self._await_killed()
        if message["worker_variable"]:
            self._open_workers(message)
        child, self._spare = self._spare or process.fork(self._surroundings), None
        self._children[child.pid] = (message["name"], child)
        child.begin(message, descriptors)

    def _open_workers(self, message: wire.Message) -> None:
        try:
            path, listening = self._workers.open(message["name"])
        except OSError:  # the variable is missing then: programs fall back to their ordinary output
            return
        message["environment"][message["worker_variable"]] = path
        with contextlib.suppress(OSError):
            wire.send(self._control, {"event": "workers", "name": message["name"]}, (listening.fileno(),))
        listening.close()

    def _do_signal(self, message: wire.Message, descriptors: list[int]) -> None:
        for pid, (name, _) in self._children.items():
            if name == message["name"]:
                for send in (os.kill, os.killpg):
                    with contextlib.suppress(ProcessLookupError):
                        send(pid, message["number"])
                return

    def _do_sockets(self, message: wire.Message, descriptors: list[int]) -> None:
        """Make TCP sockets in this network for the server to use from outside."""
        made: list[socket.socket] = []
        with contextlib.suppress(OSError):
            made.extend(_tcp_socket() for _ in range(message["count"]))
        answer = {"event": "sockets", "lacking": message["count"] - len(made)}
        with contextlib.suppress(OSError):
            wire.send(self._control, answer, tuple(item.fileno() for item in made))
        for item in made:
            item.close()

    def _do_everyone(self, message: wire.Message, descriptors: list[int]) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(_EVERYONE, message["number"])
        if message["number"] == signal.SIGKILL:
            self._killed = True
            if self._spare is not None:
                self._spare.close()
                self._spare = None
        self._tell({"event": "everyone", "number": message["number"]})

    def _await_killed(self) -> None:
        """Orphans are children of this process: none left means that nobody is. The new processes see no old ones."""
        for _ in range(_KILLED_LOOKS):
            if not self._reap():
                return
            time.sleep(_KILLED_PAUSE)

    def _reap(self) -> bool:
        """Whether children are left."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self._forget(pid, status, usage.ru_maxrss * 1024)

    def _forget(self, pid: int, status: int, peak: int) -> None:
        if self._spare is not None and self._spare.pid == pid:
            self._spare.close()
            self._spare = None
        known = self._children.pop(pid, None)
        if known is None:
            return
        name, child = known
        self._tell({"event": "exit", "name": name, "status": status, "peak": peak, "error": child.start_error()})
        child.close()

    def _tell(self, message: wire.Message) -> None:
        with contextlib.suppress(OSError):
            wire.send(self._control, message)


def _tcp_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)


def start(control: socket.socket, order: wire.Message, settings: dict[str, Any], groups: Any) -> None:
    """Be a keeper. The caller has forked and closed what is not a keeper's business."""
    gc.disable()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    syscalls.set_process_name("init")
    title.show(["init"])
    Keeper(control, order, settings).run(groups)


def _make_user_namespace(outside: int, proc: int, *, rootless: bool) -> int:
    """A user namespace in which the function's user stands for an unprivileged one outside."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.unshare(syscalls.CLONE_NEWUSER)
            theirs.send(b"1")
            ours.close()
            theirs.recv(1)
        finally:
            os._exit(0)
    theirs.close()
    if not ours.recv(1):
        raise OSError("the kernel makes no user namespaces")
    try:
        _map_ids(f"/proc/{pid}", outside, rootless=rootless)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)


def _map_ids(folder: str, outside: int, *, rootless: bool) -> None:
    for name, inside in (("uid_map", places.USER_ID), ("gid_map", places.GROUP_ID)):
        with open(f"{folder}/{name}", "w") as file:
            file.write(f"{inside} 0 1" if rootless else _USER_MAP.format(inside=inside, outside=outside))

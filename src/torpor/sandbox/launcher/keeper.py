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
import tarfile
import time
from typing import Any

from . import (
    checkpoint,
    filesystem,
    lending,
    network,
    places,
    process,
    resuming,
    saving,
    syscalls,
    title,
    wire,
    workers,
)
from .descriptors import Unfit

_EVERYONE = -1
_KILLED_PAUSE = 0.001
_KILLED_LOOKS = 1000
"""Looks with such a pause (seconds) in between at whether all that was killed is gone."""
_LENT_WITHIN = 10.0
"""Seconds in which a process must be ready to be replaced by a saved one."""
_LOWEST_PORT = "sys/net/ipv4/ip_unprivileged_port_start"
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
        self._saver = saving.Saver()
        self._uppers: dict[str, int] = {}
        self._code_at = places.TASK
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
            user_namespace=self._user_namespace(proc),
            output=writer,
            null=os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC),
            proc=proc,
            procs=procs,
            rootless=self._settings["rootless"],
            as_root=self._order["as_root"],
            clone_module=self._settings["clone_module"] or "",
        )
        if self._order["as_root"]:
            _open_low_ports(proc)
        filesystem.close_proc()
        self._announce(tmp, reader, controls)
        os.close(reader)
        wire.close_all(list(controls.values()))
        self._spare = process.fork(self._surroundings)

    def _user_namespace(self, proc: int) -> int:
        """One in which the sandbox's users stand for unprivileged ones outside."""
        outside, as_root, rootless = self._order["user"], self._order["as_root"], self._settings["rootless"]
        if rootless:
            users, groups = ("0 0 1",) * 2 if as_root else (f"{places.USER_ID} 0 1", f"{places.GROUP_ID} 0 1")
        elif as_root:
            users = groups = f"0 {outside} {places.ROOT_IDS}"
        else:
            users, groups = (_ordinary_map(inside, outside) for inside in (places.USER_ID, places.GROUP_ID))
        return _make_user_namespace(users, groups, proc)

    def _mapping(self, *, writable: bool) -> int | None:
        """A namespace for showing root's files as those of the sandbox's first user, where that is wanted and known."""
        if self._settings["rootless"] or not self._settings["map_ids"]:
            return None
        if self._order["as_root"]:
            return os.dup(self._surroundings.user_namespace)
        owner = f"0 {self._order['user']} 1"
        return _make_user_namespace(owner, owner, self._surroundings.proc) if writable else None

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
            mapping = self._mapping(writable=message["writable"])
            kind, problem, self._uppers = filesystem.assign(message, self._order, self._settings, mapping)
        except OSError as error:
            self._tell({"event": "failed", "reason": str(error)})
            return
        if mapping is not None:
            os.close(mapping)
        self._code_at = message["code_at"]
        self._tell({"event": "assigned", "tmp": kind, "problem": problem})

    def _do_save(self, message: wire.Message, descriptors: list[int]) -> None:
        try:
            self._saver.begin(self._code_at, self._uppers, descriptors[0])
        except OSError as error:
            self._tell({"event": "saved", "error": str(error)})

    def _do_start(self, message: wire.Message, descriptors: list[int]) -> None:
        if self._killed:
            self._killed = False
            self._await_killed()
        if message["worker_variable"]:
            self._open_workers(message)
        if message["saved"]:
            self._restore(message, descriptors)
            return
        child, self._spare = self._spare or process.fork(self._surroundings), None
        self._children[child.pid] = (message["name"], child)
        child.begin(message, descriptors)

    def _restore(self, message: wire.Message, descriptors: list[int]) -> None:
        """Start a process that goes on where a saved one was."""
        layout, memory, files = descriptors[-3:]
        saved = lending.read(layout, memory)
        child = self._child_with(saved.description["pid"])
        self._children[child.pid] = (message["name"], child)
        message["saved"].update((name, saved.description[name]) for name in ("files", "memory", "asking", "scratch"))
        try:
            child.begin(message, [*descriptors[:-3], memory, files])
            plan = resuming.Plan(saved, self._proc_path())  # while the child does its part
            child.await_lent(_LENT_WITHIN)
            plan.resume(child.pid)
            self._tell({"event": "restored", "held": saved.description["held"]})
        except (OSError, ValueError, resuming.Changed) as error:
            child.problem, child.stale = str(error), isinstance(error, resuming.Changed)
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)

    def _child_with(self, number: int) -> process.Child:
        """A child with this pid, if nobody else here has it."""
        spare, self._spare = self._spare, None
        if spare is not None and spare.pid == number:
            return spare
        if spare is not None:
            spare.close()
        with contextlib.suppress(OSError):
            resuming.choose_number(self._proc_path(), number)
        return process.fork(self._surroundings)

    def _proc_path(self) -> str:
        """A writable view of `/proc`."""
        return f"/proc/self/fd/{self._surroundings.proc}"

    def _do_checkpoint(self, message: wire.Message, descriptors: list[int]) -> None:
        """Save a process, which ends thereby."""
        told: wire.Message = {"event": "checkpointed", "error": "", "unfit": False}
        made: list[int] = []
        try:
            made = self._checkpointed(message)
        except (OSError, ValueError, RecursionError, MemoryError, tarfile.TarError) as error:
            told["error"] = str(error)
        except Unfit as error:
            told.update(error=str(error), unfit=True)
        with contextlib.suppress(OSError):
            wire.send(self._control, told, tuple(made))
        wire.close_all(made)

    def _checkpointed(self, message: wire.Message) -> list[int]:
        name, framed, most, most_files = (message[key] for key in ("name", "framed", "most", "most_files"))
        pid = next((pid for pid, (known, _) in self._children.items() if known == name), None)
        if pid is None:
            raise OSError("it has ended")
        given = (0, 1, 2, process.FRAMED) if framed else (0, 1, 2)
        saved = checkpoint.take(pid, given, most, self._proc_path())
        return [lending.write(saved), saved.memory, self._packed_files(most_files)]

    def _packed_files(self, most: int) -> int:
        """Nobody inside changes a file meanwhile, or what a name stands for."""
        self._signal_everyone(signal.SIGSTOP)
        try:
            return lending.pack(most)
        finally:
            self._signal_everyone(signal.SIGCONT)

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

    def _signal_everyone(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(_EVERYONE, number)

    def _do_everyone(self, message: wire.Message, descriptors: list[int]) -> None:
        self._signal_everyone(message["number"])
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
        saved = self._saver.ended(pid)
        if saved is not None:
            self._tell({"event": "saved", "error": saved})
        known = self._children.pop(pid, None)
        if known is None:
            return
        name, child = known
        self._tell(
            {
                "event": "exit",
                "name": name,
                "status": status,
                "peak": peak,
                "error": child.start_error(),
                "stale": child.stale,
            }
        )
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
    # The one signal an interpreter dies of that may come from inside, where the users are the same outside.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    syscalls.set_process_name("init")
    title.show(["init"])
    Keeper(control, order, settings).run(groups)


def _ordinary_map(inside: int, outside: int) -> str:
    """Only this one id is ever used. The others stand for ids that nobody has: becoming one of them, or giving files to
    one, is then refused for lack of rights, and not because there were no such id."""
    lower = f"1 {places.UNUSED_IDS + 1} {inside - 1}"
    upper = f"{inside + 1} {places.UNUSED_IDS + inside + 1} {places.ROOT_IDS - inside - 1}"
    return f"0 0 1\n{lower}\n{inside} {outside} 1\n{upper}\n"


def _open_low_ports(proc: int) -> None:
    """Let servers bind the ports below 1024, which elsewhere takes a privilege over the network."""
    with contextlib.suppress(OSError):
        descriptor = os.open(_LOWEST_PORT, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        os.write(descriptor, b"0")
        os.close(descriptor)


def _make_user_namespace(users: str, groups: str, proc: int) -> int:
    """A user namespace with these maps, as the kernel wants them written; `proc` is a writable view of `/proc`."""
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
    try:
        if not ours.recv(1):
            raise OSError("the kernel makes no user namespaces")
        for name, content in (("uid_map", users), ("gid_map", groups)):
            descriptor = os.open(f"{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
            os.write(descriptor, content.encode())
            os.close(descriptor)
        return os.open(f"{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    finally:
        ours.close()
        os.waitpid(pid, 0)

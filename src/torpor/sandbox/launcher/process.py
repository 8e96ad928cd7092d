"""One process of a sandbox, from the keeper's fork to the function's own first instruction.

A child is made in two halves. The first does all that needs no knowledge of what is to run (control groups, user,
privileges, system call filter) and may be done ahead; then the child waits for its specification and either executes a
program or becomes a cloned interpreter.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import tarfile
from dataclasses import dataclass
from typing import Any

from . import clone, lending, places, seccomp, syscalls, title, wire

_SPECIFICATION = 3
_FIRST_FREE = 4
FRAMED = _FIRST_FREE
"""The framed log, if a process has one."""
_OUT_OF_MEMORY_SCORE = "500"
_LOCKED_BYTES = 65536
_START_FAILED = 127
_ROOT_CAPABILITIES = frozenset((0, 1, 3, 4, 5, 6, 7, 10))
"""What root inside may do within its own user namespace: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID and
NET_BIND_SERVICE; nothing that mounts, traces, loads or configures."""
_HANDLED = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@dataclass(frozen=True)
class Surroundings:
    """What every process of one sandbox is given. Descriptors belong to the keeper."""

    user_namespace: int
    output: int
    null: int
    proc: int
    procs: list[int]
    rootless: bool
    as_root: bool
    clone_module: str


@dataclass
class Child:
    """A forked child as the keeper sees it: its pid in the sandbox and the socket it takes its specification from."""

    pid: int
    channel: socket.socket
    problem: str = ""
    """Why it could not be restored."""

    def begin(self, specification: wire.Message, descriptors: list[int]) -> None:
        with contextlib.suppress(OSError):
            wire.send(self.channel, specification, tuple(descriptors))

    def start_error(self) -> str:
        """Why it could not start; empty if it did. To be asked once it has ended."""
        if self.problem:
            return self.problem
        self.channel.setblocking(False)
        try:
            received = wire.receive(self.channel)
        except OSError:
            return ""
        return str(received[0]["error"]) if received else ""

    def await_lent(self, within: float) -> None:
        """Return once it is ready to be replaced by a saved process. Raises OSError if it is not, within so many
        seconds."""
        self.channel.settimeout(within)
        received = wire.receive(self.channel)
        self.channel.settimeout(None)
        if received is None or "error" in received[0]:
            raise OSError(received[0]["error"] if received else "its process ended")

    def close(self) -> None:
        self.channel.close()


def fork(surroundings: Surroundings) -> Child:
    """Fork a child up to where it waits for its specification.

    In the child this never returns: it executes a program, ends, or raises `clone.BecomeInterpreter`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return Child(pid, ours)
    try:
        channel = _prepare(surroundings, theirs)
        _run(surroundings, channel)
    except Exception as error:
        # Whatever went wrong, the keeper's own frames below must not go on running in the child.
        _give_up(f"the sandbox could not be entered: {error}")
    os._exit(_START_FAILED)


def _prepare(surroundings: Surroundings, theirs: socket.socket) -> socket.socket:
    _reset_signals()
    os.setsid()
    for descriptor in surroundings.procs:
        os.write(descriptor, b"0")
    with contextlib.suppress(OSError):
        syscalls.unshare(syscalls.CLONE_NEWCGROUP)
    _raise_oom_score(surroundings.proc)
    _arrange_descriptors(surroundings, theirs.detach())
    _become_user(surroundings)
    seccomp.load()
    return socket.socket(fileno=_SPECIFICATION)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in _HANDLED:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _raise_oom_score(proc: int) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=proc)
        os.write(descriptor, _OUT_OF_MEMORY_SCORE.encode())
        os.close(descriptor)


def _arrange_descriptors(surroundings: Surroundings, channel: int) -> None:
    """Keep 0, 1, 2 and the channel; enter the user namespace on the way, before its descriptor is closed."""
    os.dup2(surroundings.null, 0)
    os.dup2(surroundings.output, 1)
    os.dup2(surroundings.output, 2)
    syscalls.setns(surroundings.user_namespace, syscalls.CLONE_NEWUSER)
    if channel != _SPECIFICATION:
        os.dup2(channel, _SPECIFICATION, inheritable=False)
    syscalls.close_from(_FIRST_FREE)


def _become_user(surroundings: Surroundings) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (_LOCKED_BYTES, _LOCKED_BYTES))
    kept = _ROOT_CAPABILITIES if surroundings.as_root else frozenset()
    user, group = (0, 0) if surroundings.as_root else (places.USER_ID, places.GROUP_ID)
    syscalls.drop_bounding_capabilities(kept)
    if not surroundings.rootless:
        os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    syscalls.drop_capabilities(kept)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    # Changing the user hides a process from its own kind in /proc; nothing of value is in this copy's memory.
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def _run(surroundings: Surroundings, channel: socket.socket) -> None:
    received = wire.receive(channel)
    if received is None:
        os._exit(0)
    message, descriptors = received
    argv, environment = message["argv"], message["environment"]
    if message["own_output"]:
        _replace_output(descriptors.pop(0))
    if message["framed_variable"]:
        _place_framed(descriptors.pop(0))
        environment[message["framed_variable"]] = str(FRAMED)
    if message["saved"]:
        _lend(message, channel, descriptors)
    try:
        _set_limits(message)
        os.chdir(message["cwd"])
    except (OSError, ValueError) as error:
        _give_up(f"{getattr(error, 'strerror', None) or error}: {message['cwd']}")
    if message["clone"]:
        channel.close()
        title.show(argv, environment)
        raise clone.BecomeInterpreter(surroundings.clone_module, argv, environment)
    _execute(argv, environment)


def _lend(message: wire.Message, channel: socket.socket, descriptors: list[int]) -> None:
    try:
        _limit_processes(message)
        lending.lend(channel, message["saved"], *descriptors[-2:])
    except (OSError, ValueError, tarfile.TarError) as error:
        with contextlib.suppress(OSError):
            wire.send(channel, {"error": f"{error}"})
    os._exit(_START_FAILED)


def _place_framed(descriptor: int) -> None:
    if descriptor != FRAMED:
        os.dup2(descriptor, FRAMED)
        os.close(descriptor)
    os.set_inheritable(FRAMED, True)


def _replace_output(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _set_limits(message: wire.Message) -> None:
    files = min(message["files"], resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    _limit_processes(message)


def _limit_processes(message: wire.Message) -> None:
    if message["limit_processes"]:
        count = message["processes"]
        resource.setrlimit(resource.RLIMIT_NPROC, (count, count))


def _execute(argv: list[str], environment: dict[str, str]) -> None:
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        _give_up(f"{(error.strerror or 'failed').lower()}: {argv[0]}")


def _give_up(reason: str) -> Any:
    with contextlib.suppress(OSError):
        connection = socket.socket(fileno=_SPECIFICATION)
        wire.send(connection, {"error": reason})
    os._exit(_START_FAILED)

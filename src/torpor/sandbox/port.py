"""The port every isolation adapter implements.

A *provider* makes sandboxes; a *sandbox* is one isolated place in which the processes of one environment run, one set
after another (a reset ends the processes and keeps the place, so `/tmp` survives). Every call is cheap and never
blocks, except the two coroutines `create` and `destroy`. What happens inside is told through `SandboxListener`,
always from the event loop's thread. After a sandbox has died or was destroyed every call on it is a calm no-op.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class Isolation(StrEnum):
    """The rungs of the isolation ladder, strongest first."""

    ROOT = "sandbox"
    ROOTLESS = "sandbox-rootless"
    PROCESS = "process"
    MEMORY = "memory"


class Stream(StrEnum):
    """Where a piece of output came from."""

    OUTPUT = "output"
    """stdout and stderr of all processes but those with an output of their own, in the order they were written."""
    FRAMED = "framed"
    """The framed log pipe, whose number the process finds in an environment variable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxSpec:
    """What a sandbox is made for. Paths are on the host and exist until the sandbox is destroyed."""

    name: str
    """Unique among live sandboxes, `[a-z0-9-]{1,40}`; names cgroups and folders."""
    runtime: str
    """The runtime identifier: which interpreter stands at `/var/lang` and which client at `/var/runtime`."""
    code: str
    """Folder shown at `code_at`, read-only unless the sandbox is `writable`."""
    code_at: str = "/var/task"
    """One of `/var/task`, `/code` and `/app`."""
    layers: tuple[str, ...] = ()
    """Folders merged read-only at `/opt`, later ones winning."""
    memory_mb: int = 128
    tmp_mb: int = 512
    cpu_share: float = 1.0
    """CPUs this sandbox may use when limited (0.07 for a 14th of one)."""
    processes: int = 1024
    files: int = 1024
    as_root: bool = False
    """Processes are root inside: user 0 of a user namespace of their own, in which they may change owners and modes,
    become other users and bind low ports. On the host they are unprivileged."""
    writable: bool = False
    """The code folder's place, `/dev/shm` and the usual directories (`/usr`, `/etc`, `/var`, `/opt`, `/home`, `/root`,
    ...) can be changed, as far as the provider's capabilities say. Changes are private to the sandbox, end with it and
    count towards `tmp_mb`."""
    system: str = ""
    """The `system` folder of an earlier `Sandbox.save`: its changes show in the usual directories of this sandbox."""
    restored: bool = False
    """Its runtime will go on from an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessImage:
    """A saved process, to go on from where it was in any number of sandboxes of the same runtime, code and layers.

    Open files in memory, sealed; whoever holds the image may read and map them."""

    layout: int
    """What the process held, in the launcher's own form."""
    memory: int
    files: int
    """An archive of `/tmp`; empty if there was nothing."""

    def copy(self) -> "ProcessImage":
        """The same, for somebody else to close."""
        return ProcessImage(layout=os.dup(self.layout), memory=os.dup(self.memory), files=os.dup(self.files))

    @property
    def size(self) -> int:
        """Bytes of memory that it may hold."""
        return sum(os.fstat(part).st_size for part in (self.layout, self.memory, self.files))

    def close(self) -> None:
        """Give the memory back once no process uses it."""
        for descriptor in (self.layout, self.memory, self.files):
            os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process to start inside."""

    name: str
    """Unique among the sandbox's live processes; the name in `process_exited`."""
    argv: tuple[str, ...]
    """Program and arguments as seen inside. For a managed runtime the adapter may clone a warm interpreter instead of
    executing `argv`, if `clone` allows it and the result is the same to the code inside."""
    environment: Mapping[str, str]
    cwd: str = ""
    """Empty for the place of the code."""
    clone: bool = False
    own_output: bool = False
    """Its stdout and stderr, and those of its children, are told by `SandboxListener.process_output`. What one process
    writes keeps its order; what two processes write has none."""
    framed_log_variable: str = ""
    """If set, the process gets a pipe for framed logs and finds its number in this variable."""
    worker_log_variable: str = ""
    """If set, the process finds in this variable the path of a Unix stream socket. Its workers connect there for their
    output, with a connection for each stream; see `SandboxListener.worker_output`."""
    worker_connections: int = 1024
    """How many of those are open at once; further ones wait until one ends."""
    image: ProcessImage | None = None
    """If set, the process goes on from there instead of running `argv`; `environment` and `cwd` are then the saved
    one's. Its connections are closed, as if by their peers; its output goes where this sandbox's does."""
    image_request: str = ""
    """What the saved process was waiting for an answer to, in ASCII: sent again on its behalf over a connection to
    `api_address`, which it finds in place of its own. Without it that connection is closed too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit:
    """How a process ended."""

    name: str
    code: int | None = None
    """Exit status, or None if a signal ended it."""
    signal: int | None = None
    out_of_memory: bool = False
    start_error: str = ""
    """Why the process never started (missing program, no permission); empty if it did run."""
    stale: bool = False
    """That is because its image does not fit this host any more."""


class SandboxListener(Protocol):
    """Told what happens inside; called from the event loop's thread, never re-entrantly from a call on the sandbox."""

    def process_exited(self, exit: ProcessExit) -> None:
        """A process started with `start` is gone and reaped. All its output has been delivered before."""
        ...

    def output(self, stream: Stream, data: bytes) -> None:
        """Raw bytes as they were written, at most 64 KiB a call."""
        ...

    def process_output(self, name: str, data: bytes) -> None:
        """Raw bytes that a process with `own_output` wrote, at most 64 KiB a call."""
        ...

    def worker_output(self, connection: int, data: bytes) -> None:
        """Raw bytes written to a connection of a `worker_log_variable` socket, at most 64 KiB a call.

        Numbers are not used twice in a sandbox's life."""
        ...

    def worker_closed(self, connection: int) -> None:
        """The connection has ended; all that was written to it has been delivered. Nothing is told of connections
        still open when the sandbox ends."""
        ...

    def sandbox_died(self, reason: str) -> None:
        """The sandbox itself is gone without having been asked to; nothing else will be told."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxStatistics:
    """What a sandbox uses now. Bytes; None where the host cannot tell."""

    memory_bytes: int | None = None
    memory_peak_bytes: int | None = None
    cpu_seconds: float | None = None
    processes: tuple[int, ...] = ()


class Sandbox(Protocol):
    """One isolated place."""

    @property
    def name(self) -> str: ...

    @property
    def api_socket(self) -> socket.socket:
        """A listening stream socket, reachable only by processes inside, at `api_address`. The caller accepts on it; if
        nothing inside uses it, the caller may close it, which leaves its port to servers inside."""
        ...

    @property
    def api_address(self) -> str:
        """`host:port` under which processes inside reach `api_socket`."""
        ...

    @property
    def paths(self) -> Mapping[str, str]:
        """Where the contract's folders stand for processes inside: keys `task`, `opt`, `runtime`, `lang`, `tmp`. The
        fixed paths in a real sandbox; host paths where there is no isolation."""
        ...

    @property
    def address(self) -> str:
        """The IPv4 address under which a socket of `open_socket` reaches a server inside that listens on all
        interfaces (`0.0.0.0`, or `::` for both protocols). One that listens on 127.0.0.1 only is not reached there."""
        ...

    def server_port(self, wanted: int) -> int:
        """The port a server inside shall listen on: `wanted`, or a free one where sandboxes share the host's network
        and another server has it already. The same answer each time it is asked."""
        ...

    async def open_socket(self) -> socket.socket:
        """A new IPv4 TCP socket in the sandbox's network: it reaches servers inside, at `address` and at 127.0.0.1,
        whether or not they are frozen. Not connected, non-blocking, close-on-exec; the caller's to close. Whoever
        answers is not to be trusted: never wait for it without a limit. Raises SandboxUnavailable."""
        ...

    def start(self, process: ProcessSpec) -> None:
        """Start a process; failures to start are told as `process_exited` with `start_error`."""
        ...

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process and its process group, if it still runs."""
        ...

    def kill_all(self) -> None:
        """SIGKILL every process inside, frozen ones and ones they started included; each `start`ed one is then told as
        exited. The sandbox stays usable."""
        ...

    def freeze(self) -> None:
        """Stop every process inside from running. Idempotent; takes effect at once or within a scheduler tick."""
        ...

    def thaw(self) -> None:
        """Let them run again. Idempotent."""
        ...

    def limit_cpu(self, limited: bool) -> None:
        """Hold processes to `cpu_share` (True) or let them use whole CPUs (False, the state after `create`)."""
        ...

    def drain_output(self) -> None:
        """Deliver what is already in the output pipes to the listener before returning."""
        ...

    def memory_peak(self) -> int:
        """Most bytes used at once since the sandbox was made, what it shares with other copies of an image included; 0
        where the host cannot tell."""
        ...

    def statistics(self) -> SandboxStatistics: ...

    async def checkpoint(self, name: str) -> ProcessImage:
        """Save a process that waits for something, and end it; the image is the caller's to close. Its exit is told as
        any other. Raises NotSavable if it holds what cannot be saved, and SandboxUnavailable."""
        ...

    async def save(self, folder: str) -> None:
        """Keep what a `writable` sandbox holds in an empty folder of the host.

        The content of the code's place comes to `code`; what changed in the usual directories, if anything did, to
        `system`, for `SandboxSpec.system`. Modes are kept; set-user bits, devices and sockets are not. Everything
        belongs to the server's user. Processes should have ended before. Raises SandboxUnavailable, leaving the
        folder partly filled."""
        ...

    async def destroy(self) -> None:
        """End all processes and remove every trace (processes, cgroups, mounts, folders). Idempotent; never raises."""
        ...


SNAPSHOTS = "snapshots"
"""The name of the capability to save processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One thing the host can or cannot do, for `torpor doctor`."""

    name: str
    available: bool
    detail: str
    """Why not, and what to do about it; or what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStatistics:
    """A provider's pool and live sandboxes."""

    isolation: Isolation
    live: int = 0
    prepared: Mapping[str, int] = field(default_factory=dict)


class SandboxProvider(Protocol):
    """Makes sandboxes of one rung."""

    @property
    def isolation(self) -> Isolation: ...

    async def open(self) -> None:
        """Make ready; removes what an earlier crashed life with the same state folder left behind."""
        ...

    async def warm(self, runtime: str, *, restored: bool = False) -> None:
        """A function with this runtime exists: make its first sandbox cheap (start its launcher, prepare sandboxes), or
        with `restored` the first whose runtime goes on from an image.

        Raises RuntimeMissing if the host has no such interpreter or client, naming those it has."""
        ...

    async def create(self, spec: SandboxSpec, listener: SandboxListener) -> Sandbox:
        """Make a sandbox. Raises SandboxUnavailable or RuntimeMissing."""
        ...

    def snapshots(self) -> Capability:
        """Can processes be saved here, and go on in other sandboxes?"""
        ...

    def capabilities(self) -> tuple[Capability, ...]: ...

    def statistics(self) -> ProviderStatistics: ...

    async def close(self) -> None:
        """Destroy every sandbox and launcher. Idempotent."""
        ...

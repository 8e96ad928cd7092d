"""A sandbox without processes: programs are Python coroutines in the server's own event loop.

For tests and simulation of everything above the sandbox port. Programs are registered under the path they are started
by (`argv[0]` as seen inside). Freezing really stops them: a frozen program is not resumed from whatever it awaits,
without its help. A kill closes the coroutine where it stands. Output, exits, signals and memory behave as on a real
rung; there is no isolation whatever, and time is the loop's.
"""

import asyncio
import os
import shutil
import signal
import socket
from collections import deque
from collections.abc import Collection, Mapping
from tempfile import TemporaryDirectory

from torpor.model.errors import RuntimeMissing, SandboxUnavailable
from torpor.sandbox.memory_process import MemoryProcess, Program, run
from torpor.sandbox.port import (
    SNAPSHOTS,
    Capability,
    Isolation,
    ProcessExit,
    ProcessImage,
    ProcessSpec,
    ProviderStatistics,
    SandboxListener,
    SandboxSpec,
    SandboxStatistics,
    Stream,
)
from torpor.sandbox.ports import PortBook
from torpor.sandbox.saved import save_code

__all__ = ["MemoryProcess", "MemoryProvider", "MemorySandbox", "Program"]

PATHS = {"task": "/var/task", "opt": "/opt", "runtime": "/var/runtime", "lang": "/var/lang", "tmp": "/tmp"}
CHUNK = 64 * 1024
ADDRESS = "127.0.0.2"
"""Loopback too, but not where servers listen that mean to be reached from their own host only."""


class MemorySandbox:
    """One sandbox of coroutines."""

    def __init__(self, spec: SandboxSpec, listener: SandboxListener, provider: "MemoryProvider") -> None:
        self.spec = spec
        self.tmp: dict[str, bytes] = {}
        self._own_code = TemporaryDirectory(prefix="torpor-memory-") if spec.writable else None
        self.code = os.path.join(self._own_code.name, "code") if self._own_code else spec.code
        """The code folder, a copy if it may change."""
        if spec.writable:
            shutil.copytree(spec.code, self.code, symlinks=True)
        self.running = asyncio.Event()
        """Set while not frozen."""
        self.running.set()
        self.cpu_limited = False
        """What `limit_cpu` was last told."""
        self.base_memory = 0
        """Bytes the sandbox uses besides its programs; settable."""
        self._listener = listener
        self._provider = provider
        self._loop = asyncio.get_running_loop()
        self._api = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._api.setblocking(False)
        self._address = "{}:{}".format(*self._api.getsockname())
        self._live: dict[int, MemoryProcess] = {}
        self._pids = 0
        self._peak = 0
        self._written: deque[tuple[Stream | str | int, bytes]] = deque()
        """To a stream, to the output of the process with this name, or to a worker's connection; no bytes mean its
        end."""
        self._connections = 0
        self._pending_signals: list[tuple[MemoryProcess, int]] = []
        self._gone = False

    @property
    def name(self) -> str:
        """The name from the spec."""
        return self.spec.name

    @property
    def api_socket(self) -> socket.socket:
        """A listener on a free port of loopback."""
        return self._api

    @property
    def api_address(self) -> str:
        """Its address."""
        return self._address

    @property
    def paths(self) -> Mapping[str, str]:
        """The fixed paths: the names programs are registered under, whatever the code's place."""
        return {**PATHS, "task": self.spec.code_at}

    @property
    def address(self) -> str:
        """On the host's loopback: programs are part of the server."""
        return ADDRESS

    def server_port(self, wanted: int) -> int:
        """`wanted` unless it is taken on this host."""
        return self._provider.ports.give(self.name, wanted)

    async def open_socket(self) -> socket.socket:
        """A socket of the host."""
        if self._gone:
            raise SandboxUnavailable(f"The sandbox {self.name} is gone.")
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def next_pid(self) -> int:
        """A number no process of this sandbox has had."""
        self._pids += 1
        return self._pids

    def start(self, process: ProcessSpec) -> None:
        """Run the program registered under `argv[0]`."""
        if self._gone:
            return
        program = self._provider.programs.get(process.argv[0]) or self._provider.programs.get(self._fixed(process))
        if program is None:
            exit = ProcessExit(name=process.name, start_error=self._why_missing(process.argv[0]))
            self._loop.call_soon(self._tell_exit, exit)
            return
        self.launch(MemoryProcess(self, process, self.next_pid(), None), program)

    def _fixed(self, process: ProcessSpec) -> str:
        """The program's name had the code its usual place."""
        inside = process.argv[0].removeprefix(self.spec.code_at + "/")
        return process.argv[0] if inside == process.argv[0] else f"{PATHS['task']}/{inside}"

    def _why_missing(self, program: str) -> str:
        inside = program.removeprefix(self.spec.code_at + "/")
        there = inside != program and os.path.exists(os.path.join(self.code, inside))
        return f"{'Permission denied' if there else 'No such file or directory'}: {program}"

    def launch(self, process: MemoryProcess, program: Program) -> None:
        """Run a program as this process."""
        process.task = self._loop.create_task(run(program, process))
        self._live[process.pid] = process
        process.task.add_done_callback(lambda task: self._ended(process, task))

    def _ended(self, process: MemoryProcess, task: "asyncio.Task[int | None]") -> None:
        process.close_files()
        del self._live[process.pid]
        code = None if task.cancelled() else task.result() or 0
        self.drain_output()
        number = (process.ended_by or signal.SIGKILL) if code is None else None
        oom = code is None and process.out_of_memory
        if process.parent is None:
            self._tell_exit(ProcessExit(name=process.spec.name, code=code, signal=number, out_of_memory=oom))

    def _tell_exit(self, exit: ProcessExit) -> None:
        if not self._gone:
            self._listener.process_exited(exit)

    def write(self, stream: Stream | str | int, data: bytes) -> None:
        """Take a program's output, to a stream, its own output or a worker's connection; delivered from the loop, in
        order."""
        self._deliver_later([(stream, data[at : at + CHUNK]) for at in range(0, len(data), CHUNK)])

    def open_connection(self) -> int:
        """The number of a worker's new connection."""
        self._connections += 1
        return self._connections

    def close_connection(self, connection: int) -> None:
        """A worker's connection ends."""
        self._deliver_later([(connection, b"")])

    def _deliver_later(self, pieces: list[tuple[Stream | str | int, bytes]]) -> None:
        if not self._written:
            self._loop.call_soon(self.drain_output)
        self._written.extend(pieces)

    def drain_output(self) -> None:
        """Deliver what programs have written."""
        while self._written and not self._gone:
            stream, data = self._written.popleft()
            if isinstance(stream, Stream):
                self._listener.output(stream, data)
            elif isinstance(stream, str):
                self._listener.process_output(stream, data)
            elif data:
                self._listener.worker_output(stream, data)
            else:
                self._listener.worker_closed(stream)

    def signal(self, name: str, number: int) -> None:
        """Signal the named process and its children; while frozen it waits for the thaw, SIGKILL excepted."""
        for process in list(self._live.values()):
            if process.spec.name == name:
                if self.running.is_set() or number == signal.SIGKILL:
                    process.receive(number)
                else:
                    self._pending_signals.append((process, number))

    def kill_all(self) -> None:
        """End every program and the children they forked. What starts next is not frozen."""
        for process in list(self._live.values()):
            process.end(signal.SIGKILL)
        self._pending_signals.clear()
        self.running.set()

    def freeze(self) -> None:
        """No program is resumed from here on."""
        self.running.clear()

    def thaw(self) -> None:
        """Resume; signals that waited arrive first."""
        self.running.set()
        waiting, self._pending_signals = self._pending_signals, []
        for process, number in waiting:
            process.receive(number)

    def limit_cpu(self, limited: bool) -> None:
        """Only remembered."""
        self.cpu_limited = limited

    def note_memory(self) -> int:
        """Bytes used now; the peak follows."""
        used = self.base_memory + sum(process.memory_bytes for process in self._live.values())
        self._peak = max(self._peak, used)
        return used

    def memory_peak(self) -> int:
        """The most that `use_memory` and `base_memory` came to."""
        if not self._gone:
            self.note_memory()
        return self._peak

    def statistics(self) -> SandboxStatistics:
        """Memory as programs declared it; no CPU time; made-up process numbers."""
        used = 0 if self._gone else self.note_memory()
        return SandboxStatistics(memory_bytes=used, memory_peak_bytes=self._peak, processes=tuple(self._live))

    def die(self, reason: str) -> None:
        """Simulate the sandbox's death: everything inside ends untold, the listener hears the reason."""
        if not self._gone:
            self._end()
            self._loop.call_soon(self._listener.sandbox_died, reason)

    def _end(self) -> None:
        self.kill_all()
        self._gone = True
        self._written.clear()
        self.tmp.clear()

    async def checkpoint(self, name: str) -> ProcessImage:
        """There is no process to save."""
        raise SandboxUnavailable("Sandboxes in memory cannot save a process.")

    async def save(self, folder: str) -> None:
        """Copy the code."""
        if not self.spec.writable or self._gone:
            raise SandboxUnavailable(f"The sandbox {self.name} cannot be changed or is gone: nothing can be saved.")
        await save_code(self.code, folder)

    async def destroy(self) -> None:
        """End all programs and wait for them."""
        if not self._gone:
            self._end()
        self._api.close()
        tasks = [process.task for process in self._live.values() if process.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        if self._own_code is not None:
            self._own_code.cleanup()
        self._provider.forget(self.name)


class MemoryProvider:
    """Makes memory sandboxes. `sandboxes` and `programs` are open to the tests and simulations that use it."""

    def __init__(self, programs: Mapping[str, Program], runtimes: Collection[str] | None = None) -> None:
        """`runtimes` are those `create` and `warm` accept; None accepts every one."""
        self.programs = dict(programs)
        self.sandboxes: dict[str, MemorySandbox] = {}
        self.ports = PortBook()
        self._runtimes = runtimes
        self._open = False

    @property
    def isolation(self) -> Isolation:
        """Always `memory`."""
        return Isolation.MEMORY

    async def open(self) -> None:
        """Accept `create` from here on."""
        self._open = True

    async def warm(self, runtime: str, *, restored: bool = False) -> None:
        """Check the runtime. Raises RuntimeMissing."""
        if self._runtimes is not None and runtime not in self._runtimes:
            raise RuntimeMissing(f"Runtime {runtime} is not served; present here: {', '.join(self._runtimes)}.")

    async def create(self, spec: SandboxSpec, listener: SandboxListener) -> MemorySandbox:
        """Make a sandbox. Raises SandboxUnavailable or RuntimeMissing."""
        await self.warm(spec.runtime)
        if not self._open or spec.name in self.sandboxes:
            raise SandboxUnavailable(f"The sandbox {spec.name} cannot be made: name taken or provider not open.")
        sandbox = self.sandboxes[spec.name] = MemorySandbox(spec, listener, self)
        return sandbox

    def forget(self, name: str) -> None:
        """A sandbox is destroyed."""
        self.sandboxes.pop(name, None)
        self.ports.release(name)

    def snapshots(self) -> Capability:
        return Capability(name=SNAPSHOTS, available=False, detail="Sandboxes in memory hold no process.")

    def capabilities(self) -> tuple[Capability, ...]:
        """Says what it is."""
        return (
            Capability(name="isolation", available=False, detail="programs are coroutines of the server itself"),
            Capability(name="changeable directories", available=False, detail="a copy of the code only"),
        )

    def statistics(self) -> ProviderStatistics:
        """Live sandboxes."""
        return ProviderStatistics(isolation=self.isolation, live=len(self.sandboxes))

    async def close(self) -> None:
        """Destroy every sandbox."""
        self._open = False
        await asyncio.gather(*(sandbox.destroy() for sandbox in list(self.sandboxes.values())))

"""One sandbox of the `process` rung."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.gauge import Gauge, family
from torpor.sandbox.plain import guard
from torpor.sandbox.plain.folders import PathTranslation
from torpor.sandbox.plain.output import OutputPipe
from torpor.sandbox.plain.processes import (
    Command,
    PlainProcess,
    outside_groups,
    send,
    spawn,
)
from torpor.sandbox.port import (
    ProcessExit,
    ProcessImage,
    ProcessSpec,
    SandboxListener,
    SandboxSpec,
    SandboxStatistics,
    Stream,
)
from torpor.sandbox.ports import PortBook
from torpor.sandbox.saved import save_code
from torpor.sandbox.watch import MemoryWatch
from torpor.sandbox.workers import BACKLOG, WorkerOutputs

DESTROY_PAUSE = 0.005
"""Seconds between two looks at whether everything killed is gone."""
_MIB = 1024 * 1024
DESTROY_LOOKS = 1000
ADDRESS = "127.0.0.2"
"""Loopback too, but not where servers listen that mean to be reached from their own host only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the provider prepared for one sandbox."""

    folder: str
    """Private folder, removed on destroy."""
    paths: Mapping[str, str]
    api: socket.socket


class PlainSandbox:
    """Processes of the server's own user that belong together. See the package for what this cannot do."""

    def __init__(
        self,
        spec: SandboxSpec,
        place: Place,
        listener: SandboxListener,
        note_session: Callable[[str, int], None],
        forget: Callable[[str], None],
        ports: PortBook,
    ) -> None:
        """`note_session` tells the guard of a session (`+`) or its end (`-`); `forget` is told the name at the end."""
        self._spec = spec
        self._place = place
        self._listener = listener
        self._note_session = note_session
        self._forget = forget
        self._ports = ports
        self._loop = asyncio.get_running_loop()
        self._translation = PathTranslation(place.paths, spec.code_at)
        self._outputs = {Stream.OUTPUT: OutputPipe(self._loop, self._deliver_output)}
        self._own: dict[str, OutputPipe] = {}
        """The outputs of processes that have one of their own, by name."""
        self._workers = WorkerOutputs(self._loop, listener)
        self._worker_sockets = 0
        self._processes: dict[int, PlainProcess] = {}
        self._orphaned: set[int] = set()
        """Sessions whose leader is reaped but whose group still has members."""
        self._stopped: set[int] = set()
        """Processes outside the leaders' groups that `freeze` has stopped one by one."""
        self._frozen = False
        self._exhausted = False
        self._watch = MemoryWatch(self._loop, spec.memory_mb * _MIB, self._sample, self._exhaust)
        self._gauge = Gauge()
        self._cpu_of_ended = 0.0
        self._all_ended = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """The name from the spec."""
        return self._spec.name

    @property
    def api_socket(self) -> socket.socket:
        """A listener on a free port of loopback."""
        return self._place.api

    @property
    def api_address(self) -> str:
        """The listener's address, the same for everybody on the host."""
        host, port = self._place.api.getsockname()[:2] if self._place.api.fileno() >= 0 else ("127.0.0.1", 0)
        return f"{host}:{port}"

    @property
    def paths(self) -> Mapping[str, str]:
        """Host folders standing in for the fixed ones."""
        return self._place.paths

    @property
    def address(self) -> str:
        """On the host's own loopback."""
        return ADDRESS

    def server_port(self, wanted: int) -> int:
        """`wanted` unless it is taken on this host."""
        return self._ports.give(self.name, wanted)

    async def open_socket(self) -> socket.socket:
        """A socket of the host."""
        if self._ending is not None:
            raise SandboxUnavailable(f"The sandbox {self.name} is gone.")
        return _tcp_socket()

    def start(self, process: ProcessSpec) -> None:
        """Execute the program on the host as it is; `clone` is never used."""
        if self._ending is not None:
            return
        try:
            started = spawn(process.name, self._command(process))
        except (OSError, ValueError) as error:
            exit = ProcessExit(name=process.name, start_error=_explain(error))
            self._loop.call_soon(self._tell_exit, exit)
            return
        self._watch.start()
        self._processes[started.pid] = started
        self._note_session("+", started.pid)
        started.watch(self._loop, self._process_ended)
        if self._frozen:
            started.signal_group(signal.SIGSTOP)

    def _command(self, process: ProcessSpec) -> Command:
        environment = self._translation.translate_environment(process.environment, self.paths["tmp"])
        inherited: tuple[int, ...] = ()
        if process.framed_log_variable:
            inherited = (self._framed().writer,)
            environment[process.framed_log_variable] = str(inherited[0])
        if process.worker_log_variable:
            environment[process.worker_log_variable] = self._open_workers(process)
        return Command(
            argv=[self._translation.translate(argument) for argument in process.argv],
            environment=environment,
            cwd=self._translation.translate(process.cwd or self._spec.code_at),
            output=self._output_of(process).writer,
            inherited=inherited,
            files=self._spec.files,
        )

    def _open_workers(self, process: ProcessSpec) -> str:
        """Listen for the workers of this process; where. Raises OSError."""
        self._worker_sockets += 1
        path = os.path.join(self._place.folder, f"w{self._worker_sockets}")
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listening.bind(path)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        self._workers.open(process.name, listening, process.worker_connections)
        return path

    def _output_of(self, process: ProcessSpec) -> OutputPipe:
        if not process.own_output:
            return self._outputs[Stream.OUTPUT]
        name = process.name
        if name not in self._own:
            self._own[name] = OutputPipe(self._loop, partial(self._listener.process_output, name))
        return self._own[name]

    def _framed(self) -> OutputPipe:
        if Stream.FRAMED not in self._outputs:
            self._outputs[Stream.FRAMED] = OutputPipe(self._loop, self._deliver_framed)
        return self._outputs[Stream.FRAMED]

    def _deliver_output(self, data: bytes) -> None:
        self._listener.output(Stream.OUTPUT, data)

    def _deliver_framed(self, data: bytes) -> None:
        self._listener.output(Stream.FRAMED, data)

    def _process_ended(self, process: PlainProcess) -> None:
        del self._processes[process.pid]
        self._cpu_of_ended += process.cpu_seconds
        self._note_if_orphaned(process.pid)
        if not self._processes:
            self._all_ended.set()
            self._watch.pause()
        self.drain_output()
        code = process.exit_code or 0
        number = -code if code < 0 else None
        exhausted = self._exhausted and number == signal.SIGKILL
        self._exhausted = self._exhausted and not exhausted
        status = code if number is None else None
        self._tell_exit(ProcessExit(name=process.name, code=status, signal=number, out_of_memory=exhausted))

    def _note_if_orphaned(self, session: int) -> None:
        try:
            os.killpg(session, 0)
        except OSError:
            self._note_session("-", session)
        else:
            self._orphaned.add(session)

    def _tell_exit(self, exit: ProcessExit) -> None:
        if self._ending is None:
            self._listener.process_exited(exit)

    def signal(self, name: str, number: int) -> None:
        """Signal the process's group. A stopped process acts on it once thawed, SIGKILL excepted."""
        for process in self._processes.values():
            if process.name == name:
                process.signal_group(number)

    def kill_all(self) -> None:
        """SIGKILL to every process that can be found (the package tells which cannot); what starts next runs."""
        if self._ending is None:
            self._exhausted = False
            self._kill()
            self._frozen = False

    def _exhaust(self, pid: int) -> None:
        """The processes use more than they may, this one most, and nobody but us sees to it."""
        self._exhausted = True
        send([pid], signal.SIGKILL)

    def _kill(self) -> int:
        self._sample()
        relatives = self._strays()
        for process in self._processes.values():
            process.signal_group(signal.SIGKILL)
        send(relatives, signal.SIGKILL)
        self._stopped.clear()
        return guard.kill_found(self._place.folder, self._sessions())

    def _sessions(self) -> set[int]:
        # A number that is a running process again was handed out anew: its session is no longer ours.
        for session in [number for number in self._orphaned if guard.identity(number)]:
            self._orphaned.discard(session)
            self._note_session("-", session)
        return self._orphaned | self._processes.keys()

    def _strays(self) -> list[int]:
        """Living descendants outside the leaders' groups, and members of groups that lost their leader."""
        loose = outside_groups(family(self._processes), self._processes)
        if not self._orphaned:
            return loose
        return list({*loose, *guard.find(self._place.folder, self._sessions())} - self._processes.keys())

    def freeze(self) -> None:
        """SIGSTOP to the groups, then to descendants that have left them."""
        if self._frozen or self._ending is not None:
            return
        self._frozen = True
        self._watch.pause()
        for process in self._processes.values():
            process.signal_group(signal.SIGSTOP)
        self._stopped = set(self._strays())
        send(self._stopped, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT to all that were stopped."""
        if not self._frozen or self._ending is not None:
            return
        self._frozen = False
        self._watch.start()
        send(self._stopped, signal.SIGCONT)
        self._stopped.clear()
        for process in self._processes.values():
            process.signal_group(signal.SIGCONT)

    def limit_cpu(self, limited: bool) -> None:
        """Nothing: without isolation the CPU share is not limited."""

    def drain_output(self) -> None:
        """Deliver what the pipes hold."""
        if self._ending is None:
            for pipe in (*self._outputs.values(), *self._own.values()):
                pipe.drain()
            self._workers.drain()

    def memory_peak(self) -> int:
        """The largest sum of the processes' own peaks seen at a look: here, in `statistics` and before a kill."""
        if self._ending is None:
            self._sample()
        return self._gauge.peak

    def _sample(self) -> SandboxStatistics:
        return self._gauge.look(family(self._processes), self._cpu_of_ended)

    def statistics(self) -> SandboxStatistics:
        """What the started processes and their living descendants use; shared pages count once for each process."""
        if self._ending is not None:
            return SandboxStatistics(memory_bytes=0, memory_peak_bytes=self._gauge.peak, cpu_seconds=self._cpu_of_ended)
        return self._sample()

    async def checkpoint(self, name: str) -> ProcessImage:
        """Nobody here may look into a process, and one that went on elsewhere would meet its own files."""
        raise SandboxUnavailable("Without isolation a process cannot be saved; see torpor doctor for what is missing.")

    async def save(self, folder: str) -> None:
        """Copy the code; nothing else of this rung's is private."""
        if not self._spec.writable or self._ending is not None:
            raise SandboxUnavailable(f"The sandbox {self.name} cannot be changed or is gone: nothing can be saved.")
        await save_code(self.paths["task"], folder)

    async def destroy(self) -> None:
        """End all, remove the folder. The listener is told nothing from here on."""
        if self._ending is None:
            self._ending = self._loop.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        self._watch.stop()
        self._workers.close()
        self._place.api.close()
        await self._end_processes()
        for pipe in (*self._outputs.values(), *self._own.values()):
            pipe.close()
        for session in self._orphaned:
            self._note_session("-", session)
        # Nothing listens any more: the next start may have the port while the folder is still being removed.
        self._ports.release(self.name)
        await asyncio.to_thread(guard.remove_tree, self._place.folder)
        self._forget(self.name)

    async def _end_processes(self) -> None:
        for _ in range(DESTROY_LOOKS):
            if not self._kill() and not self._processes:
                return
            self._all_ended.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_ended.wait(), DESTROY_PAUSE)


def _tcp_socket() -> socket.socket:
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:
        raise SandboxUnavailable(f"No socket can be opened: {error}.") from error


def _explain(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)

"""The server's side of one sandbox."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from torpor.model.errors import NotSavable, SandboxUnavailable
from torpor.sandbox.gauge import Gauge
from torpor.sandbox.images import RuntimeImage
from torpor.sandbox.launcher import places, wire
from torpor.sandbox.linux.fidelity import may_clone
from torpor.sandbox.linux.prepared import PreparedSandbox
from torpor.sandbox.linux.sockets import SocketStock
from torpor.sandbox.output import OutputReader
from torpor.sandbox.port import (
    ProcessExit,
    ProcessImage,
    ProcessSpec,
    SandboxListener,
    SandboxSpec,
    SandboxStatistics,
    Stream,
)
from torpor.sandbox.watch import MemoryWatch
from torpor.sandbox.workers import WorkerOutputs

API_ADDRESS = f"{places.API_HOST}:9001"
PATHS = {
    "task": places.TASK,
    "opt": places.OPT,
    "runtime": places.RUNTIME,
    "lang": places.LANG,
    "tmp": places.TMP,
}
_MIB = 1024 * 1024
_BESIDE_MB = 512
"""What a snapshot may hold beside a function's own memory: the files that its programs are made of."""


class Egress(Protocol):
    """Carries a sandbox's outgoing connections and name queries; owns the descriptors it is given."""

    def attach(self, name: str, tcp_fd: int, udp_fd: int) -> None: ...

    def detach(self, name: str) -> None: ...


class LinuxSandbox:
    """See `torpor.sandbox.port.Sandbox`. Made by `LinuxProvider.create`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        spec: SandboxSpec,
        prepared: PreparedSandbox,
        image: RuntimeImage,
        listener: SandboxListener,
        egress: Egress | None,
        on_gone: Callable[["LinuxSandbox"], None],
    ) -> None:
        self._loop = loop
        self._spec = spec
        self._prepared = prepared
        self._image = image
        self._listener = listener
        self._egress = egress
        self._on_gone = on_gone
        self._controls = prepared.controls
        self._api = prepared.sockets["api"]
        self._sockets = SocketStock(loop, lambda count: prepared.channel.send({"do": "sockets", "count": count}))
        self._workers = WorkerOutputs(loop, listener)
        self._worker_limits: dict[str, int] = {}
        self._running: set[str] = set()
        self._framed: dict[str, OutputReader] = {}
        self._own: dict[str, OutputReader] = {}
        """The outputs of processes that have one of their own, by name."""
        self._by_signal = not {"cgroup.freeze", "freezer.state"} & set(self._controls.fds)
        self._gauge = None if self._controls.counts_memory else Gauge()
        limit = spec.memory_mb * _MIB
        kept = self._controls.limits_memory
        self._watch = None if kept else MemoryWatch(loop, limit, self.statistics, self._exhaust)
        self._exhausted = False
        self._frozen = False
        self._killed: set[str] = set()
        self._oom_seen = 0
        self._shared = 0
        """Bytes of a snapshot that its copies have in common, and are not counted for."""
        self._dead = False
        self._destroying: asyncio.Task[None] | None = None
        self._saving: asyncio.Future[str] | None = None
        self._checkpoint: asyncio.Future[ProcessImage] | None = None
        descriptor, prepared.output = prepared.output, -1
        self._output = OutputReader(loop, descriptor, self._deliver_output)
        self._set_limits()
        self._attach_egress()
        prepared.listen(self)

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def api_socket(self) -> socket.socket:
        return self._api

    @property
    def api_address(self) -> str:
        return API_ADDRESS

    @property
    def paths(self) -> Mapping[str, str]:
        return {**PATHS, "task": self._spec.code_at}

    @property
    def address(self) -> str:
        return places.API_HOST

    def server_port(self, wanted: int) -> int:
        return wanted

    async def open_socket(self) -> socket.socket:
        return await self._sockets.take()

    @property
    def tmp_kind(self) -> str:
        """What `/tmp` is made of: `disk` or `memory`."""
        return self._prepared.tmp

    def start(self, process: ProcessSpec) -> None:
        if self._dead:
            return
        message = self._start_message(process)
        writers = self._open_pipes(process)
        saved = process.image
        if saved is not None:
            writers += tuple(os.dup(part) for part in (saved.layout, saved.memory, saved.files))
        self._running.add(process.name)
        self._worker_limits[process.name] = process.worker_connections
        self._killed.discard(process.name)
        if self._watch is not None:
            self._watch.start()
        try:
            self._prepared.channel.send(message, writers)
        except wire.TooLong as error:
            exit = ProcessExit(name=process.name, start_error=f"arguments and environment are too large: {error}")
            self._loop.call_soon(self._tell_exit, exit)

    def signal(self, name: str, number: int) -> None:
        if not self._dead and name in self._running:
            self._prepared.channel.send({"do": "signal", "name": name, "number": number})

    def kill_all(self) -> None:
        if self._dead:
            return
        self._killed |= self._running
        self._controls.kill()
        self._prepared.channel.send({"do": "everyone", "number": signal.SIGKILL})
        self._frozen = False
        if "cgroup.kill" in self._controls.fds:
            self._controls.thaw()

    def freeze(self) -> None:
        if self._dead or self._frozen:
            return
        self._frozen = True
        if self._watch is not None:
            self._watch.pause()
        if self._by_signal:
            self._prepared.channel.send({"do": "everyone", "number": signal.SIGSTOP})
        else:
            self._controls.freeze()

    def thaw(self) -> None:
        if self._dead or not self._frozen:
            return
        self._frozen = False
        if self._watch is not None:
            self._watch.start()
        if self._by_signal:
            self._prepared.channel.send({"do": "everyone", "number": signal.SIGCONT})
        else:
            self._controls.thaw()

    def limit_cpu(self, limited: bool) -> None:
        if not self._dead:
            self._controls.set_cpu(self._spec.cpu_share if limited else None)

    def drain_output(self) -> None:
        if not self._dead:
            self._output.drain()
            for reader in (*self._own.values(), *self._framed.values()):
                reader.drain()
            self._workers.drain()

    def memory_peak(self) -> int:
        if self._dead:
            return 0
        if self._gauge is None:
            own = self._controls.memory_peak()
        else:
            self._prepared.look(self._gauge)
            own = self._gauge.peak
        return min(own + self._shared, max(own, self._spec.memory_mb * _MIB))

    def statistics(self) -> SandboxStatistics:
        if self._dead:
            return SandboxStatistics()
        if self._gauge is not None:
            return self._prepared.look(self._gauge)
        return SandboxStatistics(
            memory_bytes=self._controls.memory_usage(),
            memory_peak_bytes=self._controls.memory_peak(),
            cpu_seconds=self._controls.cpu_seconds(),
            processes=self._controls.processes(),
        )

    async def checkpoint(self, name: str) -> ProcessImage:
        if self._dead or name not in self._running or self._checkpoint is not None:
            raise SandboxUnavailable(f"The process {name} is gone or is being saved already.")
        self._killed.add(name)
        taken = self._checkpoint = self._loop.create_future()
        most, most_files = (self._spec.memory_mb + _BESIDE_MB) * _MIB, self._spec.tmp_mb * _MIB
        order = {"name": name, "framed": name in self._framed, "most": most, "most_files": most_files}
        self._prepared.channel.send({"do": "checkpoint", **order})
        return await asyncio.shield(taken)

    async def save(self, folder: str) -> None:
        if not self._spec.writable:
            raise SandboxUnavailable(f"The sandbox {self.name} cannot be changed, so there is nothing to save.")
        if self._dead or (self._saving is not None and not self._saving.done()):
            raise SandboxUnavailable(f"The sandbox {self.name} is gone or is being saved already.")
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SandboxUnavailable(f"Nothing can be saved to {folder}: {error}.") from error
        self._saving = self._loop.create_future()
        self._prepared.channel.send({"do": "save"}, (descriptor,))
        problem = await asyncio.shield(self._saving)
        if problem:
            raise SandboxUnavailable(f"The sandbox {self.name} could not be saved: {problem}.")

    async def destroy(self) -> None:
        if self._destroying is None:
            self._destroying = self._loop.create_task(self._tear_down())
        await asyncio.shield(self._destroying)

    def on_event(self, message: wire.Message, descriptors: list[int]) -> None:
        """Told by the keeper."""
        event = message["event"]
        if event == "sockets":
            self._sockets.deliver(descriptors, message["lacking"])
        elif event == "checkpointed":
            self._end_checkpoint(message, descriptors)
        elif event == "workers" and not self._dead:
            listening = socket.socket(fileno=descriptors[0])
            self._workers.open(message["name"], listening, self._worker_limits[message["name"]])
        else:
            wire.close_all(descriptors)
            self._on_plain_event(message)

    def _on_plain_event(self, message: wire.Message) -> None:
        if message["event"] == "exit":
            self._on_exit(message)
        elif message["event"] == "restored":
            self._shared = message["held"]
        elif message["event"] == "saved":
            self._end_saving(message["error"])
        elif message["event"] == "everyone" and message["number"] == signal.SIGKILL and not self._frozen:
            # The killed processes of a frozen v1 group end only now.
            self._controls.thaw()

    def on_keeper_gone(self) -> None:
        """The keeper ended, and with it everything inside."""
        if self._dead:
            return
        self.drain_output()
        self._die()
        self._listener.sandbox_died("its keeper process ended")
        self._destroying = self._loop.create_task(self._tear_down())

    def _start_message(self, process: ProcessSpec) -> wire.Message:
        return {
            "do": "start",
            "name": process.name,
            "argv": list(process.argv),
            "environment": dict(process.environment),
            "cwd": process.cwd or self._spec.code_at,
            "clone": self._prepared.launcher.plan.clone and may_clone(process, self._image),
            "saved": process.image and {"request": process.image_request, "address": self.api_address},
            "framed_variable": process.framed_log_variable,
            "own_output": process.own_output,
            "worker_variable": process.worker_log_variable,
            "files": self._spec.files,
            "processes": self._spec.processes,
            "limit_processes": "pids.max" not in self._controls.fds,
        }

    def _open_pipes(self, process: ProcessSpec) -> tuple[int, ...]:
        """The writing ends of the pipes that this process gets beside the shared output, in the launcher's order."""
        writers: list[int] = []
        if process.own_output:
            deliver = partial(self._listener.process_output, process.name)
            writers.append(self._open_pipe(self._own, process.name, deliver))
        if process.framed_log_variable:
            writers.append(self._open_pipe(self._framed, process.name, self._deliver_framed))
        return tuple(writers)

    def _open_pipe(self, readers: dict[str, OutputReader], name: str, deliver: Callable[[bytes], None]) -> int:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        earlier = readers.pop(name, None)
        if earlier is not None:
            earlier.drain()
            earlier.close()
        readers[name] = OutputReader(self._loop, reader, deliver)
        return writer

    def _deliver_output(self, data: bytes) -> None:
        self._listener.output(Stream.OUTPUT, data)

    def _deliver_framed(self, data: bytes) -> None:
        self._listener.output(Stream.FRAMED, data)

    def _on_exit(self, message: wire.Message) -> None:
        self.drain_output()
        name, status, error = message["name"], message["status"], message["error"]
        if self._gauge is not None:
            self._gauge.note(message["peak"])
        if error:
            self._tell_exit(ProcessExit(name=name, start_error=error, stale=message["stale"]))
        elif os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            exhausted = number == signal.SIGKILL and self._ran_out_of_memory() and name not in self._killed
            self._tell_exit(ProcessExit(name=name, signal=number, out_of_memory=exhausted))
        else:
            self._tell_exit(ProcessExit(name=name, code=os.WEXITSTATUS(status)))

    def _exhaust(self, pid: int) -> None:
        """The processes use more than they may, this one most, and nobody but us sees to it."""
        self._exhausted = True
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)

    def _ran_out_of_memory(self) -> bool:
        if self._exhausted:
            self._exhausted = False
            return True
        kills = self._controls.oom_kills()
        grew, self._oom_seen = kills > self._oom_seen, kills
        return grew

    def _tell_exit(self, exit: ProcessExit) -> None:
        self._running.discard(exit.name)
        if self._watch is not None and not self._running:
            self._watch.pause()
        if not self._dead:
            self._listener.process_exited(exit)

    def _set_limits(self) -> None:
        self._controls.set_memory(self._spec.memory_mb * _MIB)
        self._controls.set_pids(self._spec.processes)

    def _attach_egress(self) -> None:
        sockets = self._prepared.sockets
        if "egress" not in sockets or "dns" not in sockets:
            return
        tcp, udp = sockets.pop("egress"), sockets.pop("dns")
        if self._egress is None:
            tcp.close()
            udp.close()
        else:
            self._egress.attach(self.name, tcp.detach(), udp.detach())

    def _end_checkpoint(self, message: wire.Message, descriptors: list[int]) -> None:
        taken, self._checkpoint = self._checkpoint, None
        if taken is None or taken.done():
            wire.close_all(descriptors)
        elif message["error"]:
            kind = NotSavable if message["unfit"] else SandboxUnavailable
            taken.set_exception(kind(f"The process cannot be saved: {message['error']}."))
        else:
            layout, memory, files = descriptors
            taken.set_result(ProcessImage(layout=layout, memory=memory, files=files))

    def _end_saving(self, problem: str) -> None:
        if self._saving is not None and not self._saving.done():
            self._saving.set_result(problem)

    def _die(self) -> None:
        self._dead = True
        self._end_saving("it is gone")
        self._end_checkpoint({"error": "the sandbox is gone", "unfit": False}, [])
        self._sockets.close(f"The sandbox {self.name} is gone.")
        if self._watch is not None:
            self._watch.stop()
        self._output.close()
        for reader in (*self._own.values(), *self._framed.values()):
            reader.close()
        self._own.clear()
        self._framed.clear()
        self._workers.close()

    async def _tear_down(self) -> None:
        if not self._dead:
            self._die()
        if self._egress is not None:
            self._egress.detach(self.name)
        await self._prepared.discard()
        self._on_gone(self)

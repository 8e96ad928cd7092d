"""The processes of a memory sandbox: coroutines that a freeze really stops and a kill closes where they stand."""

import asyncio
import contextlib
import errno
import inspect
import os
import signal
import socket
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any

from torpor.sandbox.port import ProcessSpec, Stream

if TYPE_CHECKING:
    from torpor.sandbox.memory import MemorySandbox

Program = Callable[["MemoryProcess"], "Awaitable[int | None] | int | None"]
"""What a process runs: called with its view of the sandbox; the result is the exit status, None meaning 0. An exception
is written to the output and exits with 1."""

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""What a server does with one connection."""

MIB = 1024 * 1024
IGNORED = frozenset({signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH})


class _Gated:
    """Runs a coroutine that is resumed only while the gate is open and the process is not ended."""

    def __init__(self, program: Coroutine[Any, Any, int | None], process: "MemoryProcess") -> None:
        self._program = program
        self._process = process

    def __await__(self) -> Generator[Any, Any, int | None]:
        error: BaseException | None = None
        while True:
            error = (yield from self._pass_gate()) or error
            try:
                step = self._program.send(None) if error is None else self._program.throw(error)
            except StopIteration as end:
                result: int | None = end.value
                return result
            error = None
            try:
                yield step
            except BaseException as thrown:
                error = thrown

    def _pass_gate(self) -> Generator[Any, Any, BaseException | None]:
        """Wait for the gate; what the program's own time-outs threw at it meanwhile reaches it afterwards."""
        error: BaseException | None = None
        while True:
            if self._process.ended_by is not None:
                self._close()
                raise asyncio.CancelledError
            if self._process.sandbox.running.is_set():
                return error
            try:
                yield from self._process.sandbox.running.wait().__await__()
            except asyncio.CancelledError as thrown:
                error = thrown

    def _close(self) -> None:
        # A killed process gets no say, so one that awaits in its clean-up is cut off there.
        with contextlib.suppress(RuntimeError):
            self._program.close()


class MemoryProcess:
    """A program's view of the sandbox: the system calls it has."""

    def __init__(self, sandbox: "MemorySandbox", spec: ProcessSpec, pid: int, parent: "MemoryProcess | None") -> None:
        self.sandbox = sandbox
        self.spec = spec
        self.pid = pid
        self.parent = parent
        self.ended_by: int | None = None
        """The signal that ended it."""
        self.out_of_memory = False
        self.memory_bytes = 0
        self._handlers: dict[int, Callable[[], None]] = {}
        self._connections: list[asyncio.StreamWriter] = []
        self._worker_connections: set[int] = set()
        self._servers: list[asyncio.Server] = []
        self._answering: set[asyncio.Task[int | None]] = set()
        self._closed = False
        self.task: asyncio.Task[int | None] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment variables it was given."""
        return self.spec.environment

    @property
    def tmp(self) -> dict[str, bytes]:
        """The sandbox's `/tmp`: file name to content; outlives the process."""
        return self.sandbox.tmp

    def read_code(self, name: str) -> bytes:
        """A file of the code folder. Raises OSError."""
        with open(os.path.join(self.sandbox.code, name), "rb") as file:
            return file.read()

    def write_code(self, name: str, data: bytes) -> None:
        """Write a file of the code folder. Raises OSError, unless the sandbox is writable."""
        if not self.sandbox.spec.writable:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)
        with open(os.path.join(self.sandbox.code, name), "wb") as file:
            file.write(data)

    def write(self, data: bytes) -> None:
        """Write to stdout."""
        self.sandbox.write(self.spec.name if self.spec.own_output else Stream.OUTPUT, data)

    def write_framed(self, data: bytes) -> None:
        """Write to the framed log pipe. Raises OSError if the process was started without one."""
        if not self.spec.framed_log_variable:
            raise OSError("the process has no framed log pipe")
        self.sandbox.write(Stream.FRAMED, data)

    def connect_worker(self) -> int:
        """A connection to the worker socket. Raises OSError if the process was started without one, or has too many."""
        if not self.spec.worker_log_variable or len(self._worker_connections) >= self.spec.worker_connections:
            raise OSError("the process has no worker socket, or no connection left")
        connection = self.sandbox.open_connection()
        self._worker_connections.add(connection)
        return connection

    def write_worker(self, connection: int, data: bytes) -> None:
        """Write to a connection of the worker socket."""
        self.sandbox.write(connection, data)

    def close_worker(self, connection: int) -> None:
        """End a connection of the worker socket."""
        self._worker_connections.remove(connection)
        self.sandbox.close_connection(connection)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to the API socket; it breaks when the process ends."""
        host, _, port = self.sandbox.api_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self._connections.append(writer)
        return reader, writer

    async def serve(self, answer: Answer, port: int, host: str = "0.0.0.0") -> None:
        """Listen until the process ends; on `::` for both protocols. Each connection is given to `answer`.

        A freeze stops answers too. Raises OSError if the address is in use."""

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self._closed:
                writer.transport.abort()
                return
            self._connections.append(writer)
            task = asyncio.create_task(run(lambda process: _answer(answer, reader, writer), self))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
        self._servers.append(await asyncio.start_server(accept, sock=listener))

    def fork(self, program: Program) -> None:
        """Start a child nobody is told about; it may outlive this process."""
        self.sandbox.launch(MemoryProcess(self.sandbox, self.spec, self.sandbox.next_pid(), self), program)

    def on_signal(self, number: int, handler: Callable[[], None]) -> None:
        """Handle a signal instead of being ended by it (SIGKILL excepted)."""
        self._handlers[number] = handler

    def use_memory(self, size: int) -> None:
        """Use this many bytes from now on; beyond the sandbox's limit the process is ended out of memory."""
        self.memory_bytes = size
        if self.sandbox.note_memory() > self.sandbox.spec.memory_mb * MIB:
            self.out_of_memory = True
            self.end(signal.SIGKILL)

    def receive(self, number: int) -> None:
        """Take a signal: a handler runs, otherwise its default happens."""
        if number != signal.SIGKILL and number in self._handlers:
            self._handlers[number]()
        elif number not in IGNORED:
            self.end(number)

    def end(self, number: int) -> None:
        """End by a signal; at once if it waits, at its next wait if it is just running."""
        if self.ended_by is None and self.task is not None and not self.task.done():
            self.ended_by = number
            self.task.cancel()

    def close_files(self) -> None:
        """Break the connections, as the end of a process does."""
        self.memory_bytes = 0
        self._closed = True
        for connection in sorted(self._worker_connections):
            self.close_worker(connection)
        for server in self._servers:
            server.close()
        for task in self._answering:
            task.cancel()
        for writer in self._connections:
            with contextlib.suppress(RuntimeError):
                writer.transport.abort()


async def _answer(answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await answer(reader, writer)
    writer.close()


async def _perform(program: Program, process: MemoryProcess) -> int | None:
    try:
        outcome = program(process)
        return await outcome if inspect.isawaitable(outcome) else outcome
    except Exception:
        process.write(traceback.format_exc().encode())
        return 1


async def run(program: Program, process: MemoryProcess) -> int | None:
    """Be this process: a coroutine resumed only while the sandbox is not frozen. The result is the exit status."""
    return await _Gated(_perform(program, process), process)

"""The server's side of the relay process: starts it, hands it sandboxes, starts it again should it die."""

import asyncio
import collections
import contextlib
import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.linux.destinations import EgressPolicy

__all__ = ["EgressPolicy", "EgressRelay", "EgressStatistics"]

_START_SECONDS = 20.0
_END_SECONDS = 2.0
_PAUSE_SECONDS = 0.05
_PAUSE_LIMIT_SECONDS = 5.0
_INHERITED = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG")

_Message = tuple[dict[str, Any], tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressStatistics:
    """The relay now. Counts other than `restarts` and `attached` come from the present process, a moment late."""

    running: bool
    restarts: int
    attached: int
    open: int = 0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    queries: int = 0


class EgressRelay:
    """Carries outgoing connections and name queries of sandboxes in a process of its own.

    Should that process die, connections then open are reset and a new process takes over all attached sandboxes.
    """

    def __init__(self, policy: EgressPolicy) -> None:
        self._policy = policy
        self._attached: dict[str, tuple[int | None, int | None]] = {}
        self._outbox: collections.deque[tuple[str, str]] = collections.deque()
        self._control: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] | None = None
        self._running = False
        self._restarts = 0
        self._counts: dict[str, int] = {}

    async def start(self) -> None:
        """Start the process and wait until it serves. Raises SandboxUnavailable."""
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._task = loop.create_task(self._keep_running())
        try:
            async with asyncio.timeout(_START_SECONDS):
                await asyncio.shield(self._ready)
        except (OSError, TimeoutError) as error:
            await self.close()
            raise SandboxUnavailable(f"the egress relay does not start: {error or 'it never answered'}") from error

    def attach(self, name: str, tcp_fd: int | None, udp_fd: int | None) -> None:
        """Serve a sandbox from now on: the listening `egress` and the `dns` socket of its network, either may be None.

        The descriptors belong to the relay from here on; it closes them on `detach`. May be called at any time.
        """
        self.detach(name)
        self._attached[name] = (tcp_fd, udp_fd)
        self._queue("attach", name)

    def detach(self, name: str) -> None:
        """Stop serving a sandbox: its open connections are reset. Calm if it is not attached."""
        if name in self._attached:
            self._close_descriptors(name)
            self._queue("detach", name)

    def statistics(self) -> EgressStatistics:
        """How the relay is doing now."""
        attached = len(self._attached)
        return EgressStatistics(running=self._running, restarts=self._restarts, attached=attached, **self._counts)

    @property
    def process_id(self) -> int | None:
        """The present relay process, None while there is none."""
        return self._process.pid if self._process is not None else None

    async def close(self) -> None:
        """End the process and let go of every sandbox. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for name in list(self._attached):
            self._close_descriptors(name)

    def _close_descriptors(self, name: str) -> None:
        for fd in self._attached.pop(name):
            if fd is not None:
                os.close(fd)

    async def _keep_running(self) -> None:
        pause = _PAUSE_SECONDS
        while True:
            started = asyncio.get_running_loop().time()
            failure = OSError("it ended at once")
            try:
                await self._run_once()
            except OSError as error:
                failure = error
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(failure)
                return
            lived = asyncio.get_running_loop().time() - started
            pause = _PAUSE_SECONDS if lived > _PAUSE_LIMIT_SECONDS else min(pause * 2, _PAUSE_LIMIT_SECONDS)
            await asyncio.sleep(pause)
            self._restarts += 1

    async def _run_once(self) -> None:
        """One life of the process, from its start to its end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = await self._spawn(theirs)
            ours.setblocking(False)
            self._control = ours
            self._greet()
            asyncio.get_running_loop().add_reader(ours.fileno(), self._readable)
            await self._process.wait()
        finally:
            self._hang_up(ours)
            await self._reap()

    async def _spawn(self, theirs: socket.socket) -> asyncio.subprocess.Process:
        # Without the working folder in the import path, and without the server's secrets in the environment.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "torpor.sandbox.linux.relay",
            str(theirs.fileno()),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            start_new_session=True,
        )

    def _greet(self) -> None:
        self._outbox.clear()
        self._queue("policy", "")
        for name in self._attached:
            self._queue("attach", name)

    def _hang_up(self, control: socket.socket) -> None:
        self._running = False
        self._control = None
        self._counts = {}
        loop = asyncio.get_running_loop()
        loop.remove_reader(control.fileno())
        loop.remove_writer(control.fileno())
        control.close()

    async def _reap(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _queue(self, do: str, name: str) -> None:
        if self._control is not None:
            self._outbox.append((do, name))
            if len(self._outbox) == 1:
                self._flush()

    def _flush(self) -> None:
        if self._control is None:
            return
        loop = asyncio.get_running_loop()
        while self._outbox:
            message, descriptors = self._compose(*self._outbox[0])
            try:
                socket.send_fds(self._control, [json.dumps(message).encode()], descriptors)
            except BlockingIOError:
                loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError:
                return  # it has died; its successor is told everything
            self._outbox.popleft()
        loop.remove_writer(self._control.fileno())

    def _compose(self, do: str, name: str) -> _Message:
        if do == "policy":
            policy = self._policy
            denied = [str(network) for network in policy.denied_networks]
            ports = sorted(policy.allow_loopback_ports)
            return {"do": do, "ports": ports, "denied": denied, "resolvers": policy.resolvers}, ()
        if do == "detach" or name not in self._attached:
            return {"do": "detach", "name": name}, ()
        tcp, dns = self._attached[name]
        message = {"do": do, "name": name, "tcp": tcp is not None, "dns": dns is not None}
        return message, tuple(fd for fd in (tcp, dns) if fd is not None)

    def _readable(self) -> None:
        if self._control is None:
            return
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            if self._process is not None and self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
            return
        message = json.loads(data)
        self._counts = message.get("counts", self._counts)
        if "ready" in message:
            self._running = True
            if self._ready is not None and not self._ready.done():
                self._ready.set_result(None)

"""A sandbox that is built but belongs to no function yet: everything is done but code, identity and limits."""

import asyncio
import logging
import socket
from dataclasses import asdict, dataclass
from typing import Any

from torpor.model.errors import SandboxUnavailable
from torpor.sandbox.gauge import Gauge, cpu_of_reaped, family
from torpor.sandbox.launcher import wire
from torpor.sandbox.launcher.controls import Controls
from torpor.sandbox.linux.channel import Channel, pair
from torpor.sandbox.linux.launcher_process import LauncherProcess
from torpor.sandbox.port import SandboxStatistics

ANSWER_SECONDS = 20.0

_log = logging.getLogger(__name__)


class KeeperGone(SandboxUnavailable):
    """A sandbox ended before it was used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a sandbox shows. Folders are relative to the code root."""

    code: str
    code_at: str = "/var/task"
    layers: tuple[str, ...] = ()
    system: str = ""
    tmp_mb: int
    writable: bool = False


class PreparedSandbox:
    """One keeper. `make`, then `assign`, then hand it to whoever listens; or `discard` it at any time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, launcher: LauncherProcess, name: str) -> None:
        self.launcher = launcher
        self.name = name
        self.tmp = ""
        self.output = -1
        self.sockets: dict[str, socket.socket] = {}
        self.controls = Controls("none", {})
        self._loop = loop
        self._answer: asyncio.Future[wire.Message] | None = None
        self._listener: Any = None
        self._alive = True
        ours, self._theirs = pair()
        self.channel = Channel(loop, ours, self._on_message, self._on_closed)

    @property
    def is_alive(self) -> bool:
        return self._alive

    def look(self, gauge: Gauge) -> SandboxStatistics:
        """What lives inside, the keeper itself left out, and what it uses, as `/proc` tells it."""
        keeper = self.launcher.keepers.get(self.name)
        if keeper is None:
            return SandboxStatistics()
        return gauge.look(family([keeper])[1:], cpu_of_reaped(keeper))

    async def make(self, runtime: str, user: int, tmp_mb: int, *, as_root: bool = False) -> None:
        """Build it. `user` is the first of its users on the host. Raises SandboxUnavailable."""
        order = {"id": self.name, "runtime": runtime, "user": user, "tmp_mb": tmp_mb, "as_root": as_root}
        self.launcher.prepare(order, self._theirs.detach())
        await self._wait("built")

    def assign(self, contents: Contents) -> None:
        """Begin to show the function's code inside, for good; `assigned` is to be awaited before anything else is.

        Raises wire.TooLong."""
        self.channel.send({"do": "assign", **asdict(contents)})

    async def assigned(self) -> None:
        """Return when the code is shown. Raises SandboxUnavailable."""
        self._note_tmp(await self._wait("assigned"))

    def listen(self, listener: Any) -> None:
        """From now on tell `listener` (`on_event(message, descriptors)`, whose descriptors are then its own, and
        `on_keeper_gone()`) what happens."""
        self._listener = listener

    async def discard(self) -> None:
        """End it, wait until it is gone with all it holds. Idempotent; never raises."""
        self._alive = False
        self.channel.close()
        await self.launcher.end(self.name)
        self._release()

    def _release(self) -> None:
        self.controls.close()
        if self.output >= 0:
            wire.close_all([self.output])
            self.output = -1
        for item in self.sockets.values():
            item.close()
        self.sockets = {}

    async def _wait(self, what: str) -> wire.Message:
        self._answer = self._loop.create_future()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                message = await self._answer
        except TimeoutError as error:
            raise SandboxUnavailable(f"A sandbox was not {what} in {ANSWER_SECONDS:g} s.") from error
        finally:
            self._answer = None
        if message["event"] == "failed":
            kind = SandboxUnavailable if self._alive else KeeperGone
            raise kind(f"A sandbox could not be {what}: {message['reason']}.")
        return message

    def _on_message(self, message: wire.Message, descriptors: list[int]) -> None:
        waited_for = self._answer is not None and message["event"] in ("ready", "assigned", "failed")
        if message["event"] == "ready":
            self._adopt(message, descriptors)
        elif waited_for or self._listener is None:
            wire.close_all(descriptors)
        if waited_for:
            self._settle(message)
        elif self._listener is not None and message["event"] != "ready":
            self._listener.on_event(message, descriptors)

    def _settle(self, message: wire.Message) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def _adopt(self, message: wire.Message, descriptors: list[int]) -> None:
        self._note_tmp(message)
        names = message["sockets"]
        self.output = descriptors[0]
        for name, descriptor in zip(names, descriptors[1:], strict=False):
            self.sockets[name] = socket.socket(fileno=descriptor)
        controls = dict(zip(message["controls"], descriptors[1 + len(names) :], strict=True))
        self.controls = Controls(self.launcher.cgroup_kind, controls)

    def _note_tmp(self, message: wire.Message) -> None:
        self.tmp = message["tmp"] or self.tmp
        if message["problem"]:
            _log.warning("a sandbox has its /tmp in memory: %s", message["problem"])

    def _on_closed(self) -> None:
        self._alive = False
        if self._answer is not None and not self._answer.done():
            self._settle({"event": "failed", "reason": "its keeper ended"})
        elif self._listener is not None:
            self._listener.on_keeper_gone()

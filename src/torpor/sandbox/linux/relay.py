"""The relay process: carries what functions send outside, so that no byte of theirs takes time from the server.

Started by `egress.EgressRelay` as `python -m torpor.sandbox.linux.relay DESCRIPTOR`; the descriptor is a socket of
whole messages, on which the server hands over policy and sandboxes and sees counts coming back. The process gives up
root before the first sandbox is attached and ends when the server does.
"""

import asyncio
import contextlib
import encodings.idna  # noqa: F401  looked up by sockets, and perhaps unreadable once root is given up
import errno
import json
import os
import resource
import socket
import sys
from ipaddress import IPv4Network
from typing import Any

import uvloop

from ..launcher.network import DNS_PORT, HOST_ADDRESS, original_destination
from .destinations import EgressPolicy
from .relay_names import NameRelay, Resolvers
from .relay_streams import Stream, reset

CONNECTION_LIMIT = 1024
"""Open connections of one sandbox."""
_REPORT_SECONDS = 0.1
_NOBODY = 65534
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Counts:
    """What happened so far, reported to the server a moment after it changed."""

    def __init__(self) -> None:
        self.accepted = self.open = self.refused = self.failed = self.queries = 0

    def query(self) -> None:
        self.queries += 1


class AttachedSandbox:
    """Accepts the connections of one sandbox and answers its name queries."""

    def __init__(self, policy: EgressPolicy, resolvers: Resolvers, counts: Counts) -> None:
        self._policy = policy
        self._resolvers = resolvers
        self._counts = counts
        self._streams: set[Stream] = set()
        self._listener: socket.socket | None = None
        self._names: NameRelay | None = None
        self._loop = asyncio.get_running_loop()

    def open(self, listener: socket.socket | None, names: socket.socket | None) -> None:
        if names is not None:
            self._names = NameRelay(names, self._resolvers, self._counts.query)
        if listener is not None:
            listener.setblocking(False)
            self._listener = listener
            self._listen()

    def close(self) -> None:
        if self._names is not None:
            self._names.close()
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for stream in list(self._streams):
            stream.reset()

    def _listen(self) -> None:
        if self._listener is not None:
            self._loop.add_reader(self._listener.fileno(), self._acceptable)

    def _acceptable(self) -> None:
        for _ in range(32):
            if self._listener is None:
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._loop.remove_reader(self._listener.fileno())
                    self._loop.call_later(0.1, self._listen)
                return
            self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        target = self._target(connection)
        if target is None or len(self._streams) >= CONNECTION_LIMIT:
            self._counts.refused += 1
            reset(connection)
            return
        self._counts.accepted += 1
        self._counts.open += 1
        stream = Stream(connection, self._gone)
        self._streams.add(stream)
        stream.connect(*target, self._failed)

    def _target(self, connection: socket.socket) -> tuple[str, int] | None:
        try:
            address, port = original_destination(connection)
        except OSError:  # it came to the listener itself, not by the rule
            return None
        if (address, port) == (HOST_ADDRESS, DNS_PORT):
            resolvers = [resolver for resolver in self._resolvers() if ":" not in resolver]
            return (resolvers[0], DNS_PORT) if resolvers else None
        target = self._policy.target(address, port, own=_is_own(address))
        return (target, port) if target is not None else None

    def _failed(self) -> None:
        self._counts.failed += 1

    def _gone(self, stream: Stream) -> None:
        self._streams.discard(stream)
        self._counts.open -= 1


class Relay:
    """The process's whole state: talks with the server and holds the attached sandboxes."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._counts = Counts()
        self._reported: dict[str, int] = {}
        self._sandboxes: dict[str, AttachedSandbox] = {}
        self._policy = EgressPolicy()
        self._resolvers = Resolvers()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Serve until the server is gone."""
        loop = asyncio.get_running_loop()
        self._control.setblocking(False)
        loop.add_reader(self._control.fileno(), self._readable)
        self._tell({"ready": True})
        while not self._ended.is_set():
            self._report()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _REPORT_SECONDS)
        loop.remove_reader(self._control.fileno())

    def _readable(self) -> None:
        for _ in range(32):
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, 65536, 2)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._ended.set()
                return
            self._obey(json.loads(data), [socket.socket(fileno=fd) for fd in descriptors])

    def _obey(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        match message["do"]:
            case "policy":
                self._policy = EgressPolicy(
                    allow_loopback_ports=frozenset(message["ports"]),
                    denied_networks=tuple(IPv4Network(network) for network in message["denied"]),
                    resolvers=tuple(message["resolvers"]),
                )
                self._resolvers = Resolvers(self._policy.resolvers)
            case "attach":
                self._detach(message["name"])
                sandbox = AttachedSandbox(self._policy, self._resolvers, self._counts)
                self._sandboxes[message["name"]] = sandbox
                listener = sockets.pop(0) if message["tcp"] else None
                sandbox.open(listener, sockets.pop(0) if message["dns"] else None)
            case "detach":
                self._detach(message["name"])

    def _detach(self, name: str) -> None:
        if sandbox := self._sandboxes.pop(name, None):
            sandbox.close()

    def _report(self) -> None:
        counts = dict(vars(self._counts))
        if counts != self._reported:
            self._reported = counts
            self._tell({"counts": counts})

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # a server too busy to read loses a report; the next one says more
            self._control.send(json.dumps(message).encode())


def _is_own(address: str) -> bool:
    """Whether the address is one of this host's: only then is it also the one packets to it come from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:
            return False
        return bool(probe.getsockname()[0] == address)


def _give_up_root() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def main() -> None:
    """Entry point of the process."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _give_up_root()

    async def serve() -> None:
        await Relay(control).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


if __name__ == "__main__":
    main()

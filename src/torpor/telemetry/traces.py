"""Trace segments: kept beside the logs, and sent on to a trace daemon if there is one.

The daemon's protocol: one datagram for each segment, a line of JSON that names the format before the document.
"""

import contextlib
import logging
import socket
from collections.abc import Sequence

from torpor.model.errors import InvalidRequest
from torpor.telemetry.entries import LogEvent
from torpor.telemetry.journal import Journal

HEADER = b'{"format":"json","version":1}\n'
_GROUP = "traces:"
"""No log group's name can begin so."""

_log = logging.getLogger(__name__)


class Traces:
    """All segments of a server. `daemon` is `host:port`, or empty to keep them only."""

    def __init__(self, journal: Journal, daemon: str = "") -> None:
        """Raises InvalidRequest if the daemon's address is none."""
        self._journal = journal
        self._socket = _connect(daemon) if daemon else None
        self._complained = False

    def export(self, function: str, stream: str, wall: float, documents: Sequence[bytes]) -> None:
        """Keep and send the documents of one invocation that was over at `wall`, in seconds since the epoch."""
        self._journal.append(_GROUP + function, stream, wall, [document.decode() for document in documents])
        for document in documents:
            self._send(HEADER + document)

    def read(self, function: str, after: int = 0, limit: int = 1000) -> list[LogEvent]:
        """The kept documents of a function, as the journal's events."""
        return self._journal.read(_GROUP + function, after, limit)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _send(self, datagram: bytes) -> None:
        if self._socket is None:
            return
        try:
            self._socket.send(datagram)
        except OSError as error:
            # Nobody listens, or not fast enough: a trace is lost, as with any daemon of this protocol; it is kept here.
            if not self._complained:
                _log.warning("Trace segments are kept, but the trace daemon does not take them: %s.", error.strerror)
            self._complained = True


def _connect(daemon: str) -> socket.socket:
    host, _, port = daemon.rpartition(":")
    try:
        if not 0 < int(port) < 65_536:
            raise ValueError(f"{port} is no port")
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_DGRAM)
        # Daemons listen on 127.0.0.1, and localhost is often ::1 too.
        family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
        with contextlib.ExitStack() as undo:
            connected = undo.enter_context(socket.socket(family, kind, protocol))
            connected.setblocking(False)
            connected.connect(address)
            undo.pop_all()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"The trace daemon {daemon} cannot be used: {error}.", what="trace_daemon") from error
    return connected

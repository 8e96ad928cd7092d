"""The output side of one connection."""

import asyncio
import os
import socket
import struct

from torpor.transport.exchange import Exchange
from torpor.transport.response import BODILESS, AnyHeaders, encode_head

JOINED = 16 * 1024
"""Bodies up to this many bytes are copied behind their head, so that one write carries both."""
_DEFAULT_OUTPUT = 64 * 1024
"""What event loops set by themselves."""
_RESET = struct.pack("ii", 1, 0)


class Output:
    """Sends bytes and watches how the peer takes them."""

    __slots__ = ("_descriptor", "_seen", "blocked", "loop", "transport")

    def __init__(self, transport: asyncio.Transport, output_bytes: int) -> None:
        if output_bytes != _DEFAULT_OUTPUT:
            transport.set_write_buffer_limits(high=output_bytes)
        self.transport = transport
        self.loop = asyncio.get_running_loop()  # kept, as asking for it is a system call
        self.blocked = False
        """Whether more output waits for the peer than the limits allow."""
        self._seen = 0
        raw = transport.get_extra_info("socket")
        self._descriptor: int = raw.fileno() if raw is not None else -1

    def write(self, data: bytes) -> None:
        """Past the event loop's own queue, which is emptied only after everything else of this turn has run: the peer
        works on a short answer while the server goes on with its turn. Never once the transport is closing: the
        descriptor may then be another connection's."""
        transport = self.transport
        rest: bytes | memoryview = data
        if self._descriptor >= 0 and not transport.get_write_buffer_size():
            try:
                sent = os.write(self._descriptor, data)
            except OSError:  # full, or gone: the event loop finds out and tells
                sent = 0
            if sent == len(data):
                return
            rest = memoryview(data)[sent:]
        if self.blocked:
            self._seen += len(rest)
        transport.write(rest)

    def acknowledge(self) -> None:
        """Confirm at once what has come: a peer that sends small pieces may wait for it."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def progressed(self) -> bool:
        """Whether the peer has read something since the last call."""
        size = self.transport.get_write_buffer_size()
        earlier, self._seen = self._seen, size
        return size < earlier

    def reset(self) -> None:
        """Close at once, and so that the peer sees a broken connection (a Unix socket cannot say so)."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX and not self.transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class ResponseWriter(Output):
    """Encodes whole answers."""

    __slots__ = ()

    def send(self, exchange: Exchange, status: int, headers: AnyHeaders, body: bytes) -> None:
        head = encode_head(status, headers, len(body), keep_alive=exchange.keep_alive, http10=exchange.http10)
        content = b"" if exchange.method == "HEAD" or status in BODILESS else body
        if len(content) <= JOINED:
            self.write(head + content)
            return
        # Not writelines: on some Python versions it forgets to pause the protocol.
        self.transport.write(head)
        self.transport.write(content)

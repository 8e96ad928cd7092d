"""The output side of one connection."""

import asyncio
from collections.abc import Sequence

from torpor.transport.exchange import Exchange
from torpor.transport.response import encode_answer

_JOINED = 16 * 1024
"""Bodies up to this many bytes are copied behind their head, so that one write carries both."""
_DEFAULT_OUTPUT = 64 * 1024
"""What event loops set by themselves."""


class ResponseWriter:
    """Encodes answers and watches how the peer takes them."""

    __slots__ = ("_seen", "blocked", "transport")

    def __init__(self, transport: asyncio.Transport, output_bytes: int) -> None:
        if output_bytes != _DEFAULT_OUTPUT:
            transport.set_write_buffer_limits(high=output_bytes)
        self.transport = transport
        self.blocked = False
        """Whether more output waits for the peer than the limits allow."""
        self._seen = 0

    def send(self, exchange: Exchange, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
        head, content = encode_answer(
            status,
            headers,
            body,
            head_only=exchange.method == "HEAD",
            keep_alive=exchange.keep_alive,
            http10=exchange.http10,
        )
        if len(content) > _JOINED:
            # Not writelines: on some Python versions it forgets to pause the protocol.
            self.transport.write(head)
            self.transport.write(content)
        else:
            self.transport.write(head + content)

    def progressed(self) -> bool:
        """Whether the peer has read something since the last call."""
        size = self.transport.get_write_buffer_size()
        earlier, self._seen = self._seen, size
        return size < earlier

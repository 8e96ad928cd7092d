"""Copying between two connections, each end's closing, half-closing and resetting passed on to the other."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import cast

_CONNECT_SECONDS = 10.0
_RESET = struct.pack("=ii", 1, 0)


def reset(connection: socket.socket) -> None:
    """Close a connection so that the other end sees it reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    connection.close()


class Side(asyncio.Protocol):
    """One of the two connections; `peer` is the other. Reads nothing until `start`."""

    def __init__(self, connection: socket.socket, gone: Callable[[], None]) -> None:
        self.peer: Side
        self._connection = connection
        self._gone = gone
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._lost = False
        self._early: list[bytes] = []
        """What the peer had for it before it was there: a loop may read although it was told to pause."""
        self._early_end: Callable[[], None] | None = None

    def start(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close once everything written is sent."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._early_end = self.close

    def reset(self) -> None:
        """Drop everything and let the other end see a reset."""
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
        else:
            self._early_end = self.reset

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own classes do not derive from it
        self._transport.pause_reading()
        self._transport.writelines(self._early)
        self._early.clear()
        if self._early_end is not None:
            self._early_end()

    def data_received(self, data: bytes) -> None:
        self.peer._write(data)

    def eof_received(self) -> bool:
        self._ended = True
        self.peer._write_eof()
        if self.peer._ended:
            self.close()
            self.peer.close()
        return True

    def pause_writing(self) -> None:
        if self.peer._transport is not None:
            self.peer._transport.pause_reading()

    def resume_writing(self) -> None:
        if self.peer._transport is not None and not self.peer._ended:
            self.peer._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport, self._lost = None, True
        if error is None:
            self.peer.close()
        else:
            self.peer.reset()
        self._gone()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
        elif not self._lost:
            self._early.append(data)

    def _write_eof(self) -> None:
        if self._transport is not None:
            with contextlib.suppress(OSError):
                self._transport.write_eof()
        else:
            self._early_end = self._write_eof


class Stream:
    """One connection of a sandbox and its counterpart outside; `gone` is called once when both are closed."""

    def __init__(self, near: socket.socket, gone: Callable[["Stream"], None]) -> None:
        self._near_socket = near
        self._told = gone
        self._open = 2
        self._near: Side | None = None
        self._task: asyncio.Task[bool] | None = None
        self._connecting = True
        self._doomed = False

    def connect(self, address: str, port: int, failed: Callable[[], None]) -> None:
        """Connect to the outside and copy; `failed` is called if that cannot be reached, the connection then reset."""

        def done(task: asyncio.Task[bool]) -> None:
            self._task = None
            if task.cancelled() or not task.result():
                reset(self._near_socket)
                failed()
                self._told(self)

        self._task = asyncio.get_running_loop().create_task(self._run(address, port))
        self._task.add_done_callback(done)

    def reset(self) -> None:
        """End both connections at once."""
        self._doomed = True
        if self._task is not None and self._connecting:
            self._task.cancel()
        elif self._near is not None:
            self._near.reset()
            self._near.peer.reset()

    async def _run(self, address: str, port: int) -> bool:
        loop = asyncio.get_running_loop()
        far_socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.sock_connect(far_socket, (address, port))
        except OSError:
            reset(far_socket)
            return False
        except asyncio.CancelledError:
            reset(far_socket)
            raise
        self._connecting = False
        await self._join(loop, far_socket)
        return True

    async def _join(self, loop: asyncio.AbstractEventLoop, far_socket: socket.socket) -> None:
        near, far = Side(self._near_socket, self._side_gone), Side(far_socket, self._side_gone)
        near.peer, far.peer = far, near
        await self._hand_over(loop, far, far_socket)
        await self._hand_over(loop, near, self._near_socket)
        self._near = near
        if self._doomed:
            self.reset()
        near.start()
        far.start()

    async def _hand_over(self, loop: asyncio.AbstractEventLoop, side: Side, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.connect_accepted_socket(lambda: side, connection)

    def _side_gone(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._told(self)

"""The way of telemetry to one subscriber: batches to its listener inside the sandbox, again until they are taken.

A batch is on its way until the listener has acknowledged it, so events may come twice, and in order. While the
environment is frozen nothing is sent and no time-out runs.
"""

import asyncio
import logging
import socket
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from typing import Protocol

from torpor.engine.inquiry import Inquiry
from torpor.model.errors import TorporError
from torpor.model.telemetry import Subscription
from torpor.sandbox.port import Sandbox
from torpor.telemetry import Batches
from torpor.transport import ClientConnection, ClientLimits, connect, encode_request

log = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
ATTEMPTS = 10
"""After so many a batch is dropped."""
_ANSWER_WITHIN = 10.0
"""Seconds for a listener to take a batch."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_DISCARDED = 64 * 1024
_READ_MAX = 1024 * 1024
"""Bytes of a listener's answer, which mean nothing, after which it counts as none."""
_SUCCESS = range(200, 300)


class Channel(Protocol):
    """One form of delivery."""

    async def open(self) -> None:
        """Reach the listener. Raises OSError or TorporError."""
        ...

    async def send(self, events: list[bytes]) -> bool:
        """Whether the listener took them. Raises OSError or TorporError."""
        ...

    def close(self) -> None: ...


class HttpChannel:
    """A request with an array of events; a connection is used again while the listener keeps it."""

    def __init__(self, sandbox: Sandbox, subscription: Subscription, digest_header: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._sandbox = sandbox
        self._subscription = subscription
        self._digest_header = digest_header
        self._connection: ClientConnection | None = None

    async def open(self) -> None:
        """Listeners may start later."""

    async def send(self, events: list[bytes]) -> bool:
        body = b"[" + b",".join(events) + b"]"
        connection, self._connection = self._connection, None
        if connection is None or not connection.idle:
            sock = await self._sandbox.open_socket()
            connection = await connect(sock, (LOOPBACK, self._subscription.port), ClientLimits())
            if not connection.idle:
                raise ConnectionError("the listener closed the connection at once, or spoke first")
        status = await self._asked(connection, body)
        return status in _SUCCESS

    async def _asked(self, connection: ClientConnection, body: bytes) -> int:
        inquiry = Inquiry(self._loop, read_max=_READ_MAX)
        try:
            connection.send(self._head(body), body, inquiry)
            status, _, _ = await inquiry.answer
        except BaseException:
            connection.abort()
            raise
        if inquiry.reusable:
            self._connection = connection
        else:
            connection.close()
        return status

    def _head(self, body: bytes) -> bytes:
        subscription = self._subscription
        fields = [("Host", subscription.host), ("Content-Type", "application/json")]
        if self._digest_header:
            fields.append((self._digest_header, b64encode(sha256(body).digest()).decode()))
        return encode_request(subscription.method, subscription.target, fields, len(body))

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class LineChannel:
    """A TCP connection with an event a line."""

    def __init__(self, sandbox: Sandbox, subscription: Subscription) -> None:
        self._loop = asyncio.get_running_loop()
        self._sandbox = sandbox
        self._address = (LOOPBACK, subscription.port)
        self._socket: socket.socket | None = None

    async def open(self) -> None:
        sock = await self._sandbox.open_socket()
        try:
            await self._loop.sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        self._socket = sock

    async def send(self, events: list[bytes]) -> bool:
        if self._socket is not None and self._has_ended(self._socket):
            self.close()
        if self._socket is None:
            await self.open()
        sock = self._socket
        assert sock is not None, "it has been opened"
        try:
            await self._loop.sock_sendall(sock, b"\n".join(events) + b"\n")
        except BaseException:
            self.close()  # how much of it has arrived is not known
            raise
        return True

    def _has_ended(self, sock: socket.socket) -> bool:
        """Has the listener closed the connection? What it says is passed over."""
        try:
            while True:
                if not sock.recv(_DISCARDED):
                    return True
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        sock, self._socket = self._socket, None
        if sock is not None:
            sock.close()


class Subscriber:
    """One subscription's events and their delivery."""

    def __init__(
        self, subscription: Subscription, channel: Channel, batches: Batches, dropped: Callable[[int, int], bytes]
    ) -> None:
        """`dropped` makes the event that tells of so many dropped events, of so many bytes."""
        self.subscription = subscription
        self.batches = batches
        self._channel = channel
        self._dropped = dropped
        self._loop = asyncio.get_running_loop()
        self._work: asyncio.Task[None] | None = None
        self._attempt: asyncio.Task[bool] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._nap: asyncio.Future[None] | None = None
        self._attempts = 0
        self._frozen = False
        self._closed = False
        self._on_empty: Callable[[], None] | None = None

    def redirect(self, subscription: Subscription, channel: Channel, dropped: Callable[[int, int], bytes]) -> None:
        """It has another subscription now: what waits goes there, what is on its way arrives where it was sent to."""
        self.subscription = subscription
        self.batches.limit(subscription.buffering)
        self._dropped = dropped
        earlier, self._channel = self._channel, channel
        if self._attempt is None:
            earlier.close()
        else:
            self._attempt.add_done_callback(lambda attempt: earlier.close())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._schedule()

    def add(self, event: bytes) -> None:
        """Deliver an event, with others."""
        self.batches.add(event, self._loop.time())
        if self._work is None:
            self._schedule()

    def hurry(self) -> None:
        """The environment ends soon: from now on deliver everything at once."""
        self.batches.hurry()
        self._attempts = 0
        if self._nap is not None and not self._nap.done():
            self._nap.set_result(None)
        self._schedule()

    def when_empty(self, then: Callable[[], None]) -> None:
        """Call `then` once all is delivered or given up; at once if it is."""
        self._on_empty = then
        self._tell_if_empty()

    def freeze(self) -> None:
        """The listener gets no CPU from now on."""
        self._frozen = True
        self._stop_timers()

    def thaw(self) -> None:
        self._frozen = False
        if self._attempt is not None:
            self._arm(self._attempt)
        if self._nap is not None and not self._nap.done():
            self._nap.set_result(None)
        self._schedule()

    def close(self) -> None:
        """Its listener is gone, or has another subscription. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop_timers()
        if self._work is not None:
            self._work.cancel()
        if self._attempt is None:
            self._channel.close()
        else:  # what it holds open is its own until it has noticed
            channel = self._channel
            self._attempt.add_done_callback(lambda attempt: channel.close())
            self._attempt.cancel()
        then, self._on_empty = self._on_empty, None
        if then is not None:
            then()

    def _schedule(self) -> None:
        """See that delivery begins when it is due."""
        due = self.batches.due_at
        if due is None or self._closed or self._frozen or self._work is not None:
            return
        wait = due - self._loop.time()
        if wait <= 0:
            self._begin()
        elif self._timer is None:
            self._timer = self._loop.call_later(wait, self._begin)

    def _begin(self) -> None:
        self._stop_timers()
        if self._work is None and not self._closed:
            self._work = self._loop.create_task(self._deliver())

    async def _deliver(self) -> None:
        """One batch after the other, as long as there are any and the environment is not frozen."""
        while not self._frozen and not self._closed:
            self._tell_dropped()
            events = self.batches.take(self._loop.time())
            if events is None:
                break
            if await self._taken(events):
                self.batches.done()
                self._attempts = 0
            elif not self._frozen:
                await self._pause()
        self._work = None
        self._tell_if_empty()
        self._schedule()

    async def _taken(self, events: list[bytes]) -> bool:
        attempt = self._attempt = self._loop.create_task(self._send(events))
        self._arm(attempt)
        await asyncio.wait((attempt,))
        self._attempt = None
        self._stop_timers()
        return not attempt.cancelled() and attempt.result()

    async def _send(self, events: list[bytes]) -> bool:
        try:
            return await self._channel.send(events)
        except (OSError, TorporError):
            return False
        except Exception:  # whatever it is, the other subscribers and the function have no part in it
            log.exception("telemetry cannot be delivered")
            return False

    async def _pause(self) -> None:
        """Before the next attempt; after the last one the batch is given up."""
        self._attempts += 1
        if self._attempts >= ATTEMPTS:
            self._attempts = 0
            self.batches.give_up()
            return
        nap: asyncio.Future[None] = self._loop.create_future()
        self._nap = nap
        seconds = min(_FIRST_PAUSE * 2.0 ** (self._attempts - 1), _LONGEST_PAUSE)
        timer = self._loop.call_later(seconds, _wake, nap)
        await nap
        timer.cancel()
        self._nap = None

    def _tell_dropped(self) -> None:
        count, size = self.batches.take_dropped()
        if count:
            self.batches.put_first(self._dropped(count, size), self._loop.time())

    def _arm(self, attempt: "asyncio.Task[bool]") -> None:
        if not self._frozen:
            self._alarm = self._loop.call_later(_ANSWER_WITHIN, attempt.cancel)

    def _stop_timers(self) -> None:
        for timer in (self._alarm, self._timer):
            if timer is not None:
                timer.cancel()
        self._alarm = self._timer = None

    def _tell_if_empty(self) -> None:
        then = self._on_empty
        if then is not None and self.batches.is_empty:
            self._on_empty = None
            then()


def _wake(nap: "asyncio.Future[None]") -> None:
    with suppress(asyncio.InvalidStateError):
        nap.set_result(None)

"""Streamed answers: what a runtime uploads goes on to its caller while it arrives.

An upload is read as fast as its caller takes it, and no faster than the contract allows. It ends once: with the body,
by breaking off, by growing too large, or because its invocation is over for another reason.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from torpor.engine.contract import PollerWire
from torpor.lifecycle import AgentCall
from torpor.lifecycle.events import AnswerBegun, Answered, AnswerRefused, Event
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.invocation import AnswerSink
from torpor.scheduling import TokenBucket
from torpor.transport import Exchange

UNHANDLED = "Unhandled"
_EXIT_EXPLAINS = 0.05
"""Seconds an upload that has broken off waits for the news that its process has ended."""
_TRUNCATED = "Runtime.TruncatedResponse"

Reply = Callable[[Exchange, int, bytes], None]


class Host(Protocol):
    """What uploads need of their environment."""

    @property
    def has_workers(self) -> bool: ...

    def feed(self, event: Event) -> None: ...

    def is_running(self, invocation_id: str) -> bool: ...

    def has_expired(self, invocation_id: str) -> bool: ...

    def require(self, call: AgentCall) -> None: ...

    def sink_of(self, invocation_id: str) -> AnswerSink | None:
        """Where the streamed answer to a running invocation goes; None if it is to be collected."""
        ...


class Collector:
    """The sink of an answer that its caller wants whole."""

    __slots__ = ("on_writable", "pieces")

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.on_writable: Callable[[], None] | None = None

    def begin(self, content_type: str) -> None:
        """The answer tells its type itself."""

    def data(self, chunk: bytes) -> bool:
        self.pieces.append(chunk)
        return True


class Uploads:
    """The uploads of one environment."""

    def __init__(self, host: Host, wire: PollerWire, reply: Reply) -> None:
        self.host = host
        self.wire = wire
        self.reply = reply
        self.open: dict[str, Upload] = {}
        """Those whose invocations wait for them."""
        self.announced = ""
        """The invocation that the last streamed answer is for, as its head says."""

    def begin(self, exchange: Exchange, invocation_id: str) -> None:
        """Read the streamed answer to a running invocation. Raises TransitionRefused if the runtime may not answer."""
        sink = self.host.sink_of(invocation_id)
        self.host.feed(AnswerBegun(invocation_id))
        self.announced = ""
        upload = self.open[invocation_id] = Upload(self, exchange, invocation_id, sink)
        upload.begin()

    def refuse(self, delivered: tuple[str, ...]) -> None:
        """A request could not be read. If it was a streamed answer whose first bytes were wrong already, nobody has
        seen it, and its invocation has failed by it."""
        if self.announced in delivered:
            self.host.feed(AnswerRefused(self.announced, _broken_off()))
        self.announced = ""

    def interrupt(self, invocation_id: str) -> int | None:
        """The runtime has an error to tell in place of what it still uploads; the bytes that have gone on."""
        upload = self.open.pop(invocation_id)
        upload.drop(400, self.wire.INVALID_REQUEST_ID)
        return upload.streamed

    def settle(self) -> bool:
        """The runtime goes on, so whatever broke off is not explained by its end. False if nothing had broken off."""
        broken = [upload for upload in self.open.values() if upload.lost]
        for upload in broken:
            upload.break_off()
        return bool(broken)

    def release(self, invocation_id: str) -> None:
        """The invocation is over: what is still uploaded for it is not wanted."""
        upload = self.open.pop(invocation_id, None)
        if upload is not None:
            upload.cut()


class Upload:
    """One streamed answer."""

    __slots__ = (
        "_at_pace",
        "_bucket",
        "_collector",
        "_exchange",
        "_id",
        "_max",
        "_over",
        "_sink",
        "_size",
        "_taken",
        "_type",
        "_uploads",
        "lost",
    )

    def __init__(self, uploads: Uploads, exchange: Exchange, invocation_id: str, sink: AnswerSink | None) -> None:
        wire = uploads.wire
        self._uploads = uploads
        self._exchange = exchange
        self._id = invocation_id
        self._max = wire.RESPONSE_MAX if sink is None else wire.STREAMED_MAX
        self._collector: Collector | None = None
        if sink is None:
            sink = self._collector = Collector()
        self._sink: AnswerSink = sink
        self._type = exchange.headers.get("content-type", "application/octet-stream")
        self._bucket = TokenBucket(wire.STREAM_BURST, wire.STREAM_RATE, asyncio.get_running_loop().time())
        self._size = 0
        self._over = False
        """Nothing that still comes is of interest."""
        self._taken = self._at_pace = True
        """Whether the caller takes more, and whether more may go on now."""
        self.lost = False
        """It has broken off, for a reason that may still turn out."""

    @property
    def streamed(self) -> int | None:
        """Bytes that its caller has had; None if none are until all are there."""
        return self._size if self._collector is None else None

    def begin(self) -> None:
        exchange = self._exchange
        self._sink.begin(self._type)
        if exchange.body:
            self._take(exchange.body)
        if self._over:
            return
        if exchange.source is None:
            self._ended(True)
        else:
            exchange.source.pump(self._take, self._ended)
            self._keep_pace()

    def drop(self, status: int, answer: bytes) -> None:
        """Take nothing more; the runtime is told why."""
        self._over = True
        self._uploads.reply(self._exchange, status, answer)

    def cut(self) -> None:
        """Its invocation is over. Where the runtime goes on, it is told so with its next piece."""
        if self._over:
            return
        if self._uploads.host.has_expired(self._id):
            self._taken = self._at_pace = True
            self._keep_pace()
        else:
            self._over = True
            self._exchange.abort()

    def break_off(self) -> None:
        """No more will come, and no end of the process explains that."""
        host = self._uploads.host
        if self._over:
            return
        if host.is_running(self._id) or host.has_expired(self._id):
            self._refuse(_broken_off())
        else:
            self._leave()

    # What the connection tells.

    def _take(self, piece: bytes) -> None:
        if self._over:
            return
        if not self._uploads.host.is_running(self._id):
            self._late()
            return
        size = self._size + len(piece)
        if size > self._max:
            self._refuse(Failure(kind=FailureKind.OVERSIZE, size=size, limit=float(self._max)))
            self._uploads.reply(self._exchange, 413, self._uploads.wire.TOO_LARGE)
            return
        self._size = size
        self._pass_on(piece)

    def _pass_on(self, piece: bytes) -> None:
        sink, loop = self._sink, asyncio.get_running_loop()
        if not sink.data(piece):
            self._taken = False
            sink.on_writable = self._caught_up
        delay = self._bucket.take(len(piece), loop.time())
        if delay:
            self._at_pace = False
            loop.call_later(delay, self._may_go_on)
        self._keep_pace()

    def _ended(self, whole: bool) -> None:
        if self._over:
            return
        host = self._uploads.host
        if whole and host.is_running(self._id):
            self._finish()
        elif whole:
            self._late()
        elif host.has_expired(self._id):
            self._refuse(Failure(kind=FailureKind.EXIT))
        else:
            self.lost = True
            asyncio.get_running_loop().call_later(_EXIT_EXPLAINS, self.break_off)

    # How it ends.

    def _finish(self) -> None:
        self._leave()
        # The runtime goes on to ask for more while the end of its answer is still on the way to the caller.
        self._uploads.reply(self._exchange, 202, self._uploads.wire.ACCEPTED)
        self._uploads.host.feed(Answered(self._id, self._answer()))

    def _answer(self) -> Answer:
        wire, trailers, collector = self._uploads.wire, self._exchange.trailers, self._collector
        payload, kind = b"" if collector is None else b"".join(collector.pieces), ""
        if trailers is not None:
            told, body = trailers.get(wire.ERROR_TYPE_HEADER), trailers.get(wire.ERROR_BODY_TRAILER)
            if told or body:
                kind, payload = wire.stream_error(told or UNHANDLED, body)
        return Answer(payload=payload, content_type=self._type, error_type=kind, streamed=self.streamed)

    def _refuse(self, failure: Failure) -> None:
        self._leave()
        self._uploads.host.feed(AnswerRefused(self._id, failure))

    def _late(self) -> None:
        """Its invocation has timed out alone, or is gone with whatever ran."""
        uploads = self._uploads
        self._leave()
        if uploads.host.has_expired(self._id):
            self.drop(410, uploads.wire.LATE)
            uploads.host.feed(Answered(self._id, Answer(payload=b"")))
        else:
            self.drop(400, uploads.wire.INVALID_REQUEST_ID)

    def _leave(self) -> None:
        self._over = True
        self._uploads.open.pop(self._id, None)

    # How fast it goes.

    def _caught_up(self) -> None:
        self._taken = True
        self._keep_pace()

    def _may_go_on(self) -> None:
        self._at_pace = True
        self._keep_pace()

    def _keep_pace(self) -> None:
        source = self._exchange.source
        if source is None or self._over:
            return
        if self._taken and self._at_pace:
            source.resume()
        else:
            source.pause()


def _broken_off() -> Failure:
    return Failure(kind=FailureKind.MALFORMED, error_type=_TRUNCATED, detail="The response was broken off")

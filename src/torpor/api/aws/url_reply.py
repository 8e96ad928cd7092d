"""The caller of a function URL, and the ways to answer: whole, or while the function still writes."""

from collections.abc import Callable
from dataclasses import dataclass, field

from torpor.api.aws.invocations import report
from torpor.contracts.lambda_.http_prelude import CONTENT_TYPE, MalformedPrelude, Prelude, PreludeReader
from torpor.contracts.lambda_.url_answer import BINARY, Fields, check_status, head_fields
from torpor.contracts.lambda_.url_cors import Cors, answer_fields, without_cors
from torpor.contracts.lambda_.url_failures import render_url_failure
from torpor.transport import Exchange


@dataclass(slots=True, eq=False)
class UrlReply:
    """What every answer to one request has in common."""

    exchange: Exchange
    request_id: str
    cors: Cors | None = None
    trace: str = ""
    origin: str = field(init=False)

    def __post_init__(self) -> None:
        self.origin = self.exchange.headers.get("origin")

    def send(self, status: int, fields: Fields, body: bytes) -> None:
        """Answer whole."""
        self.exchange.reply(status, self._fields(fields), body)

    def begin(self, head: Prelude, default_type: str, gone: Callable[[], None]) -> None:
        """Answer with a head that a body follows; `gone` is called if the caller goes away before its end."""
        self.exchange.on_disconnect = gone
        self.exchange.begin(head.status, self._fields(head_fields(head, default_type)))

    def refuse(self, error: Exception) -> None:
        """Say why there is no answer of the function's."""
        report(error, f"request {self.request_id} by function URL")
        told = render_url_failure(error, self.request_id)
        fields = [entry for entry in told.headers if entry[0] != "x-amzn-RequestId"]
        self.send(told.status, fields, told.body)

    def _fields(self, fields: Fields) -> Fields:
        own = [("x-amzn-RequestId", self.request_id)]
        if self.trace:
            own.append(("X-Amzn-Trace-Id", self.trace))
        if self.cors is None:
            return [*fields, *own]
        return [*without_cors(fields), *own, *answer_fields(self.cors, self.origin)]


class UrlStream:
    """Passes an answer on while the function writes it. See `torpor.model.invocation.AnswerSink`."""

    __slots__ = ("_broken", "_head", "_reader", "_reply", "begun", "on_writable")

    def __init__(self, reply: UrlReply) -> None:
        self._reply = reply
        self._reader: PreludeReader | None = None
        self._head: Prelude | None = None
        """It goes out with the first bytes: a function that fails before them is no more than one that fails."""
        self._broken = False
        """What came is no answer, and the caller has been told so."""
        self.begun = False
        """The function has begun to stream, which says nothing yet about what its caller has seen."""
        self.on_writable: Callable[[], None] | None = None

    def begin(self, content_type: str) -> None:
        self.begun = True
        if content_type.partition(";")[0].strip().lower() == CONTENT_TYPE:
            self._reader = PreludeReader()
        else:
            self._head = Prelude(headers=(("Content-Type", content_type or BINARY),))

    def data(self, chunk: bytes) -> bool:
        if self._broken:
            return True
        if self._reader is not None:
            body = self._read(self._reader, chunk)
            if body is None:
                return True
            chunk = body
        self._open()
        return self._write(chunk)

    def _read(self, reader: PreludeReader, chunk: bytes) -> bytes | None:
        """What has come of the body; None if that is yet to come, or never will."""
        try:
            read = reader.feed(chunk)
            if read is None:
                return None
            check_status(read[0])
        except MalformedPrelude as error:
            self._break(error)
            return None
        self._reader, self._head = None, read[0]
        return read[1]

    def end(self) -> None:
        """The function has written all there is."""
        self.on_writable = None
        if self._broken:
            return
        if self._reader is not None:
            self._break(MalformedPrelude("The response ends before its prelude does."))
        else:
            self._open()
            self._reply.exchange.finish()

    def fail(self, error: Exception) -> None:
        """The function was not through: nobody may take what came for the whole."""
        self.on_writable = None
        if self._broken:
            return
        if self._reader is not None or self._head is not None:
            self._break(error)
        else:
            self._reply.exchange.abort()

    def _break(self, error: Exception) -> None:
        self._broken = True
        self._reply.refuse(error)

    def _open(self) -> None:
        head, self._head = self._head, None
        if head is not None:
            self._reply.begin(head, BINARY, self._caught_up)

    def _write(self, chunk: bytes) -> bool:
        exchange = self._reply.exchange
        if not chunk or exchange.write(chunk) or exchange.closed:
            return True
        exchange.on_writable = self._caught_up
        return False

    def _caught_up(self) -> None:
        """The caller has read what was written for it, or reads nothing more. Who is to be told has said so only after
        the piece that was too much."""
        told, self.on_writable = self.on_writable, None
        if told is not None:
            told()

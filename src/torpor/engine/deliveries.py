"""One invocation on its way to a server inside and back: what comes of the answer, buffered or passed on.

A delivery is the sink of one request's answer. It ends exactly once: by what the server answers, by what is lost, or by
being released because nobody waits for it any more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torpor.engine.contract import RawFields, ServerWire
from torpor.lifecycle.events import Answered, AnswerRefused, Cancelled, Event
from torpor.model.failure import Answer, Failure, FailureKind
from torpor.model.function import FunctionVersion
from torpor.model.invocation import Fields, HeaderLines, HttpRequest, Invocation
from torpor.transport import AnswerFields, ClientConnection, Loss, LossKind, encode_request

_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
_KINDS = {
    LossKind.GARBAGE: FailureKind.MALFORMED,
    LossKind.HEAD_TOO_LARGE: FailureKind.MALFORMED,
    LossKind.TIMEOUT: FailureKind.NO_ANSWER,
}


class Courier(Protocol):
    """The endpoint, as its deliveries see it."""

    @property
    def wire(self) -> ServerWire: ...

    @property
    def version(self) -> FunctionVersion: ...

    @property
    def identity(self) -> str:
        """The environment's id."""
        ...

    @property
    def buffered_max(self) -> int | None:
        """Bytes of an answer that is kept until it is whole; None if there is no bound."""
        ...

    @property
    def relayed_max(self) -> int | None:
        """Bytes of an answer that is passed on."""
        ...

    def feed(self, event: Event) -> None: ...

    def give_back(self, connection: ClientConnection) -> None:
        """The connection may carry another request."""
        ...

    def again(self, delivery: "Delivery") -> None:
        """The connection was dead already: send it over a new one."""
        ...

    def lost(self, delivery: "Delivery", failure: Failure) -> None:
        """No answer will come; a process that has just ended may be the better explanation."""
        ...

    def ended(self, delivery: "Delivery") -> None:
        """Only the connection's end says that the answer is whole; a process that has just ended says it is not."""
        ...


class Delivery:
    """What buffered and relayed deliveries share."""

    __slots__ = (
        "_courier",
        "_fields",
        "_reused",
        "_size",
        "_status",
        "began",
        "connection",
        "invocation",
        "over",
        "retried",
    )

    def __init__(self, courier: Courier, invocation: Invocation, began: float) -> None:
        self.began = began
        self.invocation = invocation
        self.connection: ClientConnection | None = None
        self.over = False
        self.retried = False
        self._courier = courier
        self._reused = False
        self._size = 0
        self._status = 0
        self._fields: RawFields = ()

    def begin(self, connection: ClientConnection, *, reused: bool) -> None:
        """Send the request over this connection."""
        self.connection, self._reused = connection, reused
        self._send(connection)

    def release(self) -> None:
        """Nobody waits any more: whatever the server still does, its connection is closed."""
        self.over = True
        if self.connection is not None:
            self.connection.abort()
            self.connection = None

    def fail(self, failure: Failure) -> None:
        """End without an answer; the invocation is told why."""
        if not self.over:
            self.release()
            self._courier.feed(AnswerRefused(self.invocation.id, failure))

    def complete(self, reusable: bool) -> None:
        """The answer is whole."""
        raise NotImplementedError

    # What the connection tells.

    def end(self, reusable: bool) -> None:
        if self.over:
            return
        if reusable or is_framed(self._fields):
            self.complete(reusable)
        else:
            self._courier.ended(self)

    def informed(self, status: int, fields: RawFields) -> None:
        """Interim answers are not passed on."""

    def lost(self, loss: Loss) -> None:
        if self.over:
            return
        self.connection = None
        if self._reused and loss.kind is LossKind.CLOSED and self._may_repeat() and not self.retried:
            self.retried = True
            self._courier.again(self)
            return
        kind = _KINDS.get(loss.kind, FailureKind.NO_ANSWER)
        self._courier.lost(self, Failure(kind=kind, detail=loss.reason))

    def writable(self) -> None: ...

    def _send(self, connection: ClientConnection) -> None:
        raise NotImplementedError

    def _may_repeat(self) -> bool:
        raise NotImplementedError

    def _within(self, size: int, limit: int | None) -> bool:
        """Is the size of the body within the bound? If not, the invocation has failed."""
        if limit is None or size <= limit:
            return True
        self.fail(Failure(kind=FailureKind.OVERSIZE, size=size, limit=float(limit)))
        return False

    def _answered(self, answer: Answer, reusable: bool) -> None:
        courier, connection = self._courier, self.connection
        self.over, self.connection = True, None
        if connection is not None:
            courier.give_back(connection) if reusable else connection.close()
        courier.feed(Answered(self.invocation.id, answer))


class BufferedDelivery(Delivery):
    """An invocation whose result is the answer's whole body."""

    __slots__ = ("_body",)

    def __init__(self, courier: Courier, invocation: Invocation, began: float) -> None:
        super().__init__(courier, invocation, began)
        self._body: list[bytes] = []

    def head(self, status: int, headers: AnswerFields) -> None:
        if not self.over and self._within(headers.content_length() or 0, self._courier.buffered_max):
            self._status, self._fields = status, headers.pairs

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if not self.over and self._within(self._size, self._courier.buffered_max):
            self._body.append(chunk)

    def complete(self, reusable: bool) -> None:
        if not self.over:
            courier, body = self._courier, b"".join(self._body)
            answer = courier.wire.answer(courier.version, self.invocation, self._status, self._fields, body)
            self._answered(answer, reusable)

    def upgraded(self, status: int, headers: AnswerFields, rest: bytes) -> None:
        self.fail(Failure(kind=FailureKind.MALFORMED, detail="the server changed the protocol unasked"))

    def _send(self, connection: ClientConnection) -> None:
        courier = self._courier
        call = courier.wire.call(courier.version, self.invocation, courier.identity)
        head = encode_request(call.method, call.target, call.fields, len(call.body))
        connection.send(head, call.body, self)

    def _may_repeat(self) -> bool:
        return False  # it may have been begun, and an event must not run twice unnoticed


@dataclass(frozen=True, slots=True)
class _Passed:
    """What the head of a server's answer becomes on its way to a caller. Servers repeat themselves, so it is kept with
    the fields: a connection belongs to one environment, whose wire and version are always the same."""

    fields: Fields | HeaderLines
    length: int | None
    answer: Answer


class RelayedDelivery(Delivery):
    """A request that is passed on, and its answer while it arrives."""

    __slots__ = ("_http", "_passed")

    _passed: _Passed

    def __init__(self, courier: Courier, invocation: Invocation, began: float, http: HttpRequest) -> None:
        super().__init__(courier, invocation, began)
        self._http = http

    def head(self, status: int, headers: AnswerFields) -> None:
        if self.over:
            return
        passed = headers.kept or self._pass(status, headers)
        if passed is None or not self._within(passed.length or 0, self._courier.relayed_max):
            return
        self._passed, self._fields = passed, headers.pairs
        self._http.relay.head(status, passed.fields, passed.length)

    def _pass(self, status: int, headers: AnswerFields) -> _Passed | None:
        """None if the invocation has failed by it."""
        wire, version = self._courier.wire, self._courier.version
        fields = wire.returned(version, status, headers.pairs)
        if isinstance(fields, Failure):
            self.fail(fields)
            return None
        answer = wire.answer(version, self.invocation, status, headers.pairs, b"")
        headers.kept = passed = _Passed(fields, headers.content_length(), answer)
        return passed

    def data(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self.over or not self._within(self._size, self._courier.relayed_max):
            return
        connection, relay = self.connection, self._http.relay
        if not relay.data(chunk) and connection is not None:
            connection.pause()
            relay.on_writable = self._caught_up

    def _caught_up(self) -> None:
        """The caller reads on; the connection may serve another request by now."""
        if self.connection is not None:
            self.connection.resume()

    def complete(self, reusable: bool) -> None:
        if not self.over:
            self._http.relay.end()
            self._answered(self._passed.answer, reusable)

    def upgraded(self, status: int, headers: AnswerFields, rest: bytes) -> None:
        courier = self._courier
        if self.over or self.connection is None:
            return
        answer = courier.wire.answer(courier.version, self.invocation, status, headers.pairs, b"")
        self._passed = _Passed((), None, answer)
        self._http.relay.join(status, headers.pairs, self.connection.tunnel(rest), self._parted)

    def _parted(self) -> None:
        if not self.over:
            self._answered(self._passed.answer, False)

    def writable(self) -> None:
        if self._http.body is not None:
            self._http.body.resume()

    def _send(self, connection: ClientConnection) -> None:
        courier, http = self._courier, self._http
        fields = courier.wire.forwarded(courier.version, self.invocation, courier.identity)
        payload = self.invocation.payload
        length = http.length if http.body is not None else len(payload)
        head = encode_request(http.method, http.target, fields, length, upgrade=http.upgrade)
        if http.body is None:
            connection.send(head, payload, self, head_only=http.method == "HEAD", upgrade=bool(http.upgrade))
            return
        connection.send(head, payload, self, head_only=http.method == "HEAD", more=True, chunked=length is None)
        http.body.pump(self._pass_on(connection), self._body_ended)

    def _pass_on(self, connection: ClientConnection) -> Callable[[bytes], None]:
        body = self._http.body

        def write(piece: bytes) -> None:
            if not self.over and not connection.write(piece) and body is not None:
                body.pause()

        return write

    def _body_ended(self, complete: bool) -> None:
        if self.over or self.connection is None:
            return
        if complete:
            self.connection.finish_body()
        else:
            self._courier.feed(Cancelled(self.invocation.id))

    def _may_repeat(self) -> bool:
        return self._http.body is None and self._http.method in _IDEMPOTENT and not self._http.relay.begun


def is_framed(fields: RawFields) -> bool:
    """Does an answer's head say how its end is known?"""
    return any(name.lower() in _FRAMING for name, _ in fields)


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})

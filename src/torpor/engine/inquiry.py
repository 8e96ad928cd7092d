"""A request of the platform's own to a server inside, and its whole answer."""

import asyncio

from torpor.engine.contract import RawFields
from torpor.transport import AnswerFields, Loss, LossKind

_ANSWER_MAX = 64 * 1024


class Inquiry:
    """The sink of such a request; `answer` is status, fields and body, or a ConnectionError."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, read_max: int | None = None) -> None:
        """A body is kept up to a bound, and read up to `read_max` bytes if there is such a limit."""
        self._read_max = read_max
        self._read = 0
        self.answer: asyncio.Future[tuple[int, RawFields, bytes]] = loop.create_future()
        self.reusable = False
        self._head: tuple[int, RawFields] = (0, ())
        self._body = b""

    def informed(self, status: int, fields: RawFields) -> None:
        """Interim answers mean nothing here."""

    def head(self, status: int, headers: AnswerFields) -> None:
        self._head = (status, headers.pairs)

    def data(self, chunk: bytes) -> None:
        self._body += chunk[: _ANSWER_MAX - len(self._body)]
        self._read += len(chunk)
        if self._read_max is not None and self._read > self._read_max and not self.answer.done():
            self.answer.set_exception(ConnectionError("the answer has no end"))

    def end(self, reusable: bool) -> None:
        self.reusable = reusable
        if not self.answer.done():
            self.answer.set_result((*self._head, self._body))

    def lost(self, loss: Loss) -> None:
        if not self.answer.done():
            self.answer.set_exception(ConnectionError(loss.reason))

    def upgraded(self, status: int, headers: AnswerFields, rest: bytes) -> None:
        self.lost(Loss(kind=LossKind.GARBAGE, reason="the server changed the protocol unasked", started=True))

    def writable(self) -> None:
        """Inquiries are small, or wait for their answer anyway."""

"""A caller who takes a function's answer as a stream of events, while the function writes it."""

from collections.abc import Callable
from typing import Protocol, TypeAlias

from torpor.contracts.lambda_ import streaming
from torpor.contracts.lambda_.failures_api import not_restored, render_failure
from torpor.contracts.lambda_.wire import ApiResponse
from torpor.model.errors import PlatformError, TorporError
from torpor.model.invocation import Fields, Outcome, OutcomeStatus

Report: TypeAlias = Callable[[Exception, str], None]


class Caller(Protocol):
    """The exchange with whoever called."""

    on_disconnect: Callable[[], None] | None
    on_writable: Callable[[], None] | None

    @property
    def closed(self) -> bool: ...

    def reply(self, status: int, headers: Fields = (), body: bytes = b"") -> bool: ...

    def begin(self, status: int, fields: Fields = (), length: int | None = None) -> bool: ...

    def write(self, data: bytes) -> bool: ...

    def finish(self) -> None: ...


class EventStream:
    """See `torpor.model.invocation.AnswerSink`. A caller that goes away misses the rest; its function goes on (9.8)."""

    def __init__(self, caller: Caller, fields: Fields, request_id: str, report: Report, *, wants_log: bool) -> None:
        self._caller = caller
        self._fields = fields
        self._request_id = request_id
        self._report = report
        self._wants_log = wants_log
        self._begun = False
        self.on_writable: Callable[[], None] | None = None

    def begin(self, content_type: str) -> None:
        self._begun = True
        self._caller.on_disconnect = self._caught_up
        self._caller.begin(200, self._fields)

    def data(self, chunk: bytes) -> bool:
        caller = self._caller
        if caller.closed or caller.write(streaming.chunk(chunk)) or caller.closed:
            return True
        caller.on_writable = self._caught_up
        return False

    def done(self, result: Outcome | TorporError) -> None:
        """The invocation is over."""
        if not self._begun:
            refusal = self._refusal(result)
            if refusal is not None:
                self._caller.reply(refusal.status, refusal.headers, refusal.body)
                return
        if isinstance(result, TorporError):  # of an invocation that runs nobody can say that it may not
            result = Outcome(status=OutcomeStatus.FAILURE, payload=str(result).encode())
        if not self._begun:
            self.begin(result.content_type)
            if result.payload:
                self.data(result.payload)
        self.on_writable = None
        if not self._caller.closed:
            self._caller.write(streaming.complete(result, wants_log=self._wants_log))
            self._caller.finish()

    def _refusal(self, result: Outcome | TorporError) -> ApiResponse | None:
        """An answer like any other call's, if nothing has run; None if something has."""
        if isinstance(result, Outcome):
            if result.failure is not None and result.failure.restoring:
                result = not_restored(result.failure)
            elif result.status is not OutcomeStatus.FAILURE or result.error_type:
                return None
            else:
                result = PlatformError(
                    "The function could not be run because the platform failed. Send the request again."
                )
        self._report(result, f"invocation {self._request_id}")
        return render_failure(result, self._request_id)

    def _caught_up(self) -> None:
        """The caller has read what was written for it, or reads nothing more."""
        told, self.on_writable = self.on_writable, None
        if told is not None:
            told()

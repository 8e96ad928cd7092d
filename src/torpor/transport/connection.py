"""One connection: what is read, what waits, what is written, and which time-out holds now.

A connection serves one exchange at a time. Input that arrives meanwhile is kept unparsed (bounded; beyond the bound
the peer is no longer read), so answers go out in order and parked exchanges cost nothing. Input is parsed in slices,
so that one packet full of small requests cannot become thousands of objects.

A peer that shuts its sending side down is gone: a killed process looks the same, and whoever parks an exchange must
hear of that. What is already written still reaches it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from torpor.transport.answering import StreamedAnswer
from torpor.transport.exchange import Exchange
from torpor.transport.host import ENDING, PHASE_OF, STALLING, Host, Phase
from torpor.transport.parser import Refusal, RequestParser
from torpor.transport.response import CONTINUE, AnyHeaders, encode_answer
from torpor.transport.wheel import TICK, Timed
from torpor.transport.writer import ResponseWriter

SLICE = 16 * 1024
"""Bytes parsed in one go: also what bounds how deep a row of declined upgrades takes the parser."""

_log = logging.getLogger("torpor.transport")
_APPLICATION_FAILED = "The server failed to handle the request."


class Connection(asyncio.Protocol, Timed):
    """A peer, from accept to close."""

    __slots__ = (
        "_body_start",
        "_busy",
        "_continue_due",
        "_current",
        "_host",
        "_open_ended",
        "_parser",
        "_peer",
        "_phase",
        "_ready",
        "_stash",
        "_unread",
        "_watcher",
        "_writer",
    )

    _writer: ResponseWriter

    def __init__(self, host: Host) -> None:
        Timed.__init__(self)
        self._host = host
        self._parser = self._new_parser()
        self._phase = Phase.IDLE
        self._current: Exchange | None = None
        self._ready: deque[Exchange | Refusal] = deque()
        self._stash = bytearray()
        self._unread = False
        self._busy = False
        self._continue_due = False
        self._open_ended = False
        self._body_start = 0
        self._peer: str | None = None
        self._watcher: Callable[[], None] | None = None

    def _new_parser(self) -> RequestParser:
        return RequestParser(self._host.limits, self)

    @property
    def peer(self) -> str:
        if self._peer is None:
            address = self._writer.transport.get_extra_info("peername")
            self._peer = str(address[0]) if isinstance(address, tuple) else ""
        return self._peer

    @property
    def serving(self) -> bool:
        """Whether an exchange is in flight."""
        return self._current is not None

    # Told by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        host = self._host
        self._writer = ResponseWriter(cast(asyncio.Transport, transport), host.limits.output_bytes)
        if host.joined(self):
            host.wheel.arm(self, host.ticks.head)
        else:
            self._refuse(Refusal(503, "The server has as many connections as it takes; try again later."))

    def data_received(self, data: bytes) -> None:
        self._host.attention.attend()
        if self._phase in ENDING:
            return
        if self._current is not None or self._stash or self._ready or self._writer.blocked:
            self._put_aside(data)
            return
        self._busy = True
        self._parse(data)
        self._busy = False
        if not self.serving or self._stash:
            self._go_on()

    def eof_received(self) -> bool:
        self._lose_current()
        if self._open_ended:
            self.abort()
        elif self._phase not in ENDING:
            self._finish()
        return False

    def pause_writing(self) -> None:
        self._writer.blocked = True
        if self._current is not None:  # a streamed answer
            self._writer.progressed()
            self._host.wheel.arm(self, self._host.ticks.write)

    def resume_writing(self) -> None:
        self._writer.blocked = False
        if (exchange := self._current) is not None:
            self.deadline = 0
            try:
                exchange.caught_up()
            except Exception:
                self._failed(exchange)
        if not self._busy:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._phase = Phase.CLOSING
        self._host.wheel.forget(self)
        self._ready.clear()
        self._stash.clear()
        self._lose_current()
        self._parser.close()
        self._host.left(self)
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher()

    def watch(self, lost: Callable[[], None]) -> None:
        """For the exchange."""
        self._watcher = lost

    # Told by the parser.

    def received(self, exchange: Exchange) -> None:
        if self._phase in ENDING:
            return
        self._phase = Phase.SERVING
        self.deadline = 0
        self._continue_due = False
        if self._current is None and not self._ready and not self._writer.blocked:
            self._serve(exchange)
        else:
            self._ready.append(exchange)

    def continue_wanted(self) -> None:
        if self._current is None and not self._ready:
            self._writer.transport.write(CONTINUE)
        else:
            self._continue_due = True

    # Told by the exchange and the server.

    def answer(self, exchange: Exchange, status: int, headers: AnyHeaders, body: bytes) -> bool:
        """Send the answer of the exchange in flight and go on with what waits."""
        self._current = None
        writer = self._writer
        if writer.transport.is_closing():
            return False
        if self._host.draining:
            exchange.keep_alive = False
        writer.send(exchange, status, headers, body)
        if not exchange.keep_alive:
            self._finish()
        elif not self._busy:
            self._go_on()
        return True

    def begin(self, exchange: Exchange, status: int, fields: AnyHeaders, length: int | None) -> StreamedAnswer | None:
        """Open the answer of the exchange in flight; `finished` or `break_off` ends it."""
        if self._writer.transport.is_closing():
            return None
        if self._host.draining:
            exchange.keep_alive = False
        stream = StreamedAnswer(self, self._writer, exchange, status, fields, length)
        self._open_ended = stream.open_ended
        return stream

    def finished(self, exchange: Exchange) -> None:
        """The streamed answer is complete: go on with what waits."""
        self._current, self._open_ended = None, False
        if self._writer.transport.is_closing():
            return
        if not exchange.keep_alive:
            self._finish()
        elif not self._busy:
            self._go_on()

    def break_off(self, exchange: Exchange) -> None:
        """The application gives the exchange in flight up."""
        self._current = None
        self.abort()

    def retire(self) -> None:
        """The server drains: close now if nothing is under way."""
        if self._phase is Phase.IDLE:
            self._finish()

    def abort(self) -> None:
        """Close at once; an exchange in flight is told that its peer is gone."""
        self._phase = Phase.CLOSING
        if self._open_ended:
            self._writer.reset()
        else:
            self._writer.transport.abort()

    def expire(self) -> None:
        """The time-out of the present phase has passed."""
        phase = self._phase
        if phase is Phase.IDLE:
            self._finish()
        elif phase is Phase.HEAD or phase is Phase.BODY:
            self._host.timeouts += 1
            self._refuse(Refusal(408, f"The request's {phase.value} did not arrive in time."))
        elif phase in STALLING and self._writer.progressed():
            self._host.wheel.arm(self, self._host.ticks.write)
        else:
            self._host.timeouts += 1
            self.abort()

    # Reading on.

    def _put_aside(self, data: bytes | memoryview) -> None:
        if self._phase in ENDING:
            return
        self._stash += data
        if len(self._stash) > self._host.limits.pipelined_bytes and not self._unread:
            self._unread = True
            self._writer.transport.pause_reading()

    def _read_again(self) -> None:
        if self._unread:
            self._unread = False
            self._writer.transport.resume_reading()

    def _go_on(self) -> None:
        """Serve whatever can be served now. Answers given meanwhile do not come back in here."""
        if self._ready or self._stash:
            self._catch_up()
        if self._phase not in ENDING:
            self._settle()

    def _catch_up(self) -> None:
        self._busy = True
        while (self._ready or self._stash) and self._may_go_on():
            if self._ready:
                self._take(self._ready.popleft())
            else:
                waiting = bytes(self._stash)
                self._stash.clear()
                self._parse(waiting)
        self._busy = False

    def _may_go_on(self) -> bool:
        return self._current is None and not self._writer.blocked and self._phase not in ENDING

    def _take(self, item: Exchange | Refusal) -> None:
        if isinstance(item, Refusal):
            self._refuse(item)
        else:
            self._serve(item)

    def _parse(self, data: bytes) -> None:
        refusal = self._parser.feed(data) if len(data) <= SLICE else self._parse_slices(memoryview(data))
        if refusal is None:
            return
        if self._may_go_on() and not self._ready:
            self._refuse(refusal)
        elif self._phase not in ENDING:
            self._ready.append(refusal)

    def _parse_slices(self, data: memoryview) -> Refusal | None:
        for start in range(0, len(data), SLICE):
            if not self._may_go_on() or self._ready or self._stash:
                self._put_aside(data[start:])
                return None
            refusal = self._parser.feed(data[start : start + SLICE])
            if refusal is not None:
                return refusal
        return None

    # Serving and ending.

    def _serve(self, exchange: Exchange) -> None:
        host = self._host
        host.requests += 1
        self._current = exchange
        exchange.attach(self)
        try:
            host.app(exchange)
        except Exception:
            self._failed(exchange)

    def _failed(self, exchange: Exchange) -> None:
        """The application raised: so the exchange fails, as far as it still can."""
        _log.exception("%s %s failed in the application", exchange.method, exchange.path)
        if exchange.begun:
            exchange.abort()
        elif not exchange.closed:
            exchange.reply(500, *self._error(500, _APPLICATION_FAILED))

    def _error(self, status: int, reason: str) -> tuple[Sequence[tuple[str, str]], bytes]:
        try:
            return self._host.on_error(status, reason)
        except Exception:
            _log.exception("shaping the error %d failed", status)
            return (), b""

    def _refuse(self, refusal: Refusal) -> None:
        """Answer with an error, then read and drop the rest so that the answer is not lost with it."""
        self._host.refusals += 1
        headers, body = self._error(refusal.status, refusal.reason)
        self._ready.clear()
        self._stash.clear()
        transport = self._writer.transport
        if transport.is_closing():
            return
        head, content = encode_answer(refusal.status, headers, body, keep_alive=False)
        transport.write(head + content)
        self._linger()

    def _linger(self) -> None:
        """End the output, then read and drop what still comes: to close at once would take the answer back."""
        self._read_again()
        self._phase = Phase.LINGER
        transport, times = self._writer.transport, self._host.ticks
        transport.write_eof()
        self._writer.progressed()
        self._host.wheel.arm(self, times.write if transport.get_write_buffer_size() else times.linger)

    def _finish(self) -> None:
        """Close once everything written is out, or the peer stops reading."""
        self._phase = Phase.CLOSING
        self._ready.clear()
        self._stash.clear()
        self._writer.transport.close()
        self._writer.progressed()
        self._host.wheel.arm(self, self._host.ticks.write)

    def _lose_current(self) -> None:
        exchange, self._current = self._current, None
        if exchange is None:
            return
        try:
            exchange.vanish()
        except Exception:
            _log.exception("%s %s failed at the peer's disconnect", exchange.method, exchange.path)

    # Time-outs.

    def _settle(self) -> None:
        """Name the phase and set its deadline; a phase that goes on keeps the one it has, but for bodies."""
        if self._unread and len(self._stash) <= self._host.limits.pipelined_bytes:
            self._read_again()
        if self._current is not None:
            if self._phase is Phase.SERVING:
                return
            phase = Phase.SERVING
        elif self._writer.blocked:
            phase = Phase.BLOCKED
        else:
            phase = PHASE_OF[self._parser.reading]
            if phase is Phase.IDLE and self._host.draining:
                self._finish()
                return
            if phase is Phase.BODY and self._continue_due:
                self._continue_due = False
                self._writer.transport.write(CONTINUE)
        if phase is not self._phase or phase is Phase.BODY:
            self._enter(phase)

    def _enter(self, phase: Phase) -> None:
        entered, self._phase = phase is not self._phase, phase
        if phase is Phase.SERVING:
            self.deadline = 0
        elif phase is Phase.BODY:
            self._await_body(entered)
        else:
            times = self._host.ticks
            if phase is Phase.BLOCKED:
                self._writer.progressed()
            longest = times.idle if phase is Phase.IDLE else times.head if phase is Phase.HEAD else times.write
            self._host.wheel.arm(self, longest)

    def _await_body(self, entered: bool) -> None:
        """Silence is bounded, and so is the whole: a body must keep up its rate after the first `body_timeout`."""
        wheel, longest = self._host.wheel, self._host.ticks.body
        if entered:
            self._body_start = wheel.now
        earned = int(self._parser.size / (self._host.limits.body_rate * TICK))
        wheel.arm(self, min(longest, max(1, self._body_start + longest + earned - wheel.now)))

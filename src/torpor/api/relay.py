"""A relay over the connection of the caller: what a server inside answers goes out while it comes in."""

from collections.abc import Callable, Sequence
from typing import Protocol

from torpor.model.invocation import Fields
from torpor.transport import AnyHeaders, Tunnel, header_lines, splice

_HELD = 64 * 1024
"""Bodies up to this many bytes wait for their end, so that one write carries the whole answer."""


class Caller(Protocol):
    """The exchange with whoever called, as a relay uses it."""

    @property
    def method(self) -> str: ...

    @property
    def upgrade(self) -> str:
        """The protocol that the caller wants to change to; empty if none."""
        ...

    on_writable: Callable[[], None] | None

    def reply(self, status: int, headers: AnyHeaders = (), body: bytes = b"") -> bool: ...

    def begin(self, status: int, fields: AnyHeaders = (), length: int | None = None) -> bool: ...

    def write(self, data: bytes) -> bool: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...

    def tunnel(self, head: bytes) -> Tunnel | None: ...


class CallerRelay:
    """See `torpor.model.invocation.Relay`. `extra` are the platform's own fields beside the server's."""

    __slots__ = ("_caller", "_extra", "_fields", "_held", "_length", "_status", "begun", "on_writable")

    def __init__(self, caller: Caller, extra: Fields = ()) -> None:
        self._caller = caller
        self._extra = extra
        self.begun = False
        self.on_writable: Callable[[], None] | None = None
        self._held: bytes | None = None
        self._status = 0
        self._fields: AnyHeaders = ()
        self._length = 0

    def head(self, status: int, fields: AnyHeaders, length: int | None) -> None:
        self.begun = True
        if self._extra:
            fields = header_lines(fields) + header_lines(self._extra)
        if length is not None and 0 < length <= _HELD and self._caller.method != "HEAD":
            self._status, self._fields, self._length, self._held = status, fields, length, b""
        else:
            self._caller.begin(status, fields, length)

    def data(self, chunk: bytes) -> bool:
        if self._held is not None:
            if not self._held and len(chunk) == self._length:
                self._held = chunk
                return True
            self._let_go()
        return self._write(chunk)

    def end(self) -> None:
        held = self._held
        if held is not None and len(held) == self._length:
            self._held = None
            self._caller.reply(self._status, self._fields, held)
            return
        self._let_go()
        self._caller.finish()

    def fail(self) -> None:
        self._let_go()
        self._caller.abort()

    def join(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], upstream: Tunnel, ended: Callable[[], None]
    ) -> None:
        self.begun = True
        line = b"HTTP/1.1 %d Switching Protocols\r\n" % status
        tunnel = self._caller.tunnel(b"".join([line, *(b"%b: %b\r\n" % field for field in fields), b"\r\n"]))
        if tunnel is None:  # the caller went away
            upstream.abort()
            ended()
            return
        splice(tunnel, upstream, lambda whole: ended())

    def answer(self, status: int, fields: Fields, body: bytes) -> None:
        """A whole answer of the platform's own; breaks off one that was begun."""
        if self.begun:
            self.fail()
        else:
            self._caller.reply(status, [*fields, *self._extra], body)

    def _let_go(self) -> None:
        """The body does not come in one piece: send what was held back."""
        held, self._held = self._held, None
        if held is not None:
            self._caller.begin(self._status, self._fields, self._length)
            if held:
                self._write(held)

    def _write(self, chunk: bytes) -> bool:
        if self._caller.write(chunk):
            return True
        self._caller.on_writable = self._caught_up
        return False

    def _caught_up(self) -> None:
        # What is to be told is set only after the write that was too much.
        if self.on_writable is not None:
            self.on_writable()


class NoCaller:
    """A relay for calls whose answer nobody reads."""

    def __init__(self) -> None:
        self.begun = False
        self.on_writable: Callable[[], None] | None = None

    def head(self, status: int, fields: AnyHeaders, length: int | None) -> None:
        self.begun = True

    def data(self, chunk: bytes) -> bool:
        return True

    def end(self) -> None:
        """Nothing is left to do."""

    def fail(self) -> None:
        """Nobody to tell."""

    def join(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], upstream: Tunnel, ended: Callable[[], None]
    ) -> None:
        upstream.abort()
        ended()

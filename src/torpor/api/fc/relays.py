"""The caller's side of a request that is passed on to a server inside."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torpor.contracts.http import ApiResponse
from torpor.model.invocation import Fields


class Caller(Protocol):
    """The exchange with whoever called."""

    on_writable: Callable[[], None] | None

    def reply(self, status: int, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> bool: ...

    def begin(self, status: int, fields: Sequence[tuple[str, str]] = (), length: int | None = None) -> bool: ...

    def write(self, data: bytes) -> bool: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class CallerRelay:
    """Hands an answer on while it arrives, with the platform's own fields beside the server's."""

    def __init__(self, caller: Caller, extra: Fields) -> None:
        self._caller = caller
        self._extra = tuple(extra)
        self.begun = False
        self._over = False

    @property
    def on_writable(self) -> Callable[[], None] | None:
        """Set by the sender; called once the caller has caught up."""
        return self._caller.on_writable

    @on_writable.setter
    def on_writable(self, told: Callable[[], None] | None) -> None:
        self._caller.on_writable = told

    def head(self, status: int, fields: Fields, length: int | None) -> None:
        self.begun = True
        self._caller.begin(status, [*fields, *self._extra], length)

    def data(self, chunk: bytes) -> bool:
        return self._caller.write(chunk)

    def end(self) -> None:
        self._over = True
        self._caller.finish()

    def fail(self) -> None:
        """An answer that was begun and not ended cannot be mended: it is broken off."""
        if self.begun and not self._over:
            self._over = True
            self._caller.abort()

    def tunnel(self, status: int, fields: Any) -> Any:
        """The caller's connection itself, after a change of protocol. Raises ValueError where there is none."""
        tunnel = getattr(self._caller, "tunnel", None)
        if tunnel is None:
            raise ValueError("the caller's connection cannot change its protocol")
        self.begun = self._over = True
        return tunnel(status, fields)

    def answer(self, response: ApiResponse) -> None:
        """A whole answer of the platform's own, if none was begun."""
        if not self.begun:
            self.begun = self._over = True
            self._caller.reply(response.status, [*response.headers, *self._extra], response.body)


class NoCaller:
    """Nobody reads the answer of an asynchronous call."""

    def __init__(self) -> None:
        self.begun = False
        self.on_writable: Callable[[], None] | None = None

    def head(self, status: int, fields: Fields, length: int | None) -> None:
        self.begun = True

    def data(self, chunk: bytes) -> bool:
        return True

    def end(self) -> None:
        """Nothing is left to do."""

    def fail(self) -> None:
        """Nobody to tell."""

    def tunnel(self, status: int, fields: Any) -> Any:
        raise ValueError("an asynchronous call cannot change its protocol")

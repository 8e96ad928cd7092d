"""The caller's side of a request that is passed on to a server inside."""

from collections.abc import Callable, Sequence

from torpor.api.relay import ExchangeRelay
from torpor.contracts.http import ApiResponse
from torpor.model.invocation import Fields
from torpor.transport import Exchange, Tunnel


class CallerRelay(ExchangeRelay):
    """Hands an answer on while it arrives, with the platform's own fields beside the server's."""

    __slots__ = ("_caller", "_extra", "_over")

    def __init__(self, exchange: Exchange, extra: Fields) -> None:
        super().__init__(exchange)
        self._caller = exchange
        self._extra = tuple(extra)
        self._over = False

    def head(self, status: int, fields: Fields, length: int | None) -> None:
        super().head(status, [*fields, *self._extra], length)

    def end(self) -> None:
        self._over = True
        super().end()

    def fail(self) -> None:
        """An answer that was begun and not ended cannot be mended: it is broken off."""
        if self.begun and not self._over:
            self._over = True
            super().fail()

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

    def join(
        self, status: int, fields: Sequence[tuple[bytes, bytes]], upstream: Tunnel, ended: Callable[[], None]
    ) -> None:
        """There is nobody to talk to."""
        self.begun = True
        ended()

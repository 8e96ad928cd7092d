"""Bodies of requests while they arrive, within a limit."""

from collections.abc import Callable

from torpor.model.invocation import BodySource


class BoundedSource:
    """A source that ends, as if its caller had gone away, once more than `limit` bytes have come."""

    __slots__ = ("_left", "_source", "is_exceeded")

    def __init__(self, source: BodySource, limit: int | None) -> None:
        self._source = source
        self._left = limit
        self.is_exceeded = False

    def pump(self, write: Callable[[bytes], None], ended: Callable[[bool], None]) -> None:
        """See `BodySource`."""
        if self._left is None:
            self._source.pump(write, ended)
            return

        def counted(piece: bytes) -> None:
            if self.is_exceeded:
                return
            self._left = (self._left or 0) - len(piece)
            if self._left < 0:
                self.is_exceeded = True
                ended(False)
            else:
                write(piece)

        def over(complete: bool) -> None:
            if not self.is_exceeded:
                ended(complete)

        self._source.pump(counted, over)

    def pause(self) -> None:
        self._source.pause()

    def resume(self) -> None:
        self._source.resume()

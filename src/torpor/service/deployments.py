"""One attempt to deploy a service: how far it is, what its build wrote, and how it ended."""

import asyncio
from enum import StrEnum


class Stage(StrEnum):
    WAITING = "waiting"
    """Another build is under way."""
    BUILDING = "building"
    STORING = "storing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


ENDED = frozenset({Stage.SUCCEEDED, Stage.FAILED})


class Deployment:
    """Told of by whoever performs it, read by whoever waits for it."""

    def __init__(self, number: int, *, output_limit: int) -> None:
        self.number = number
        self.stage = Stage.WAITING
        self.message = ""
        """Why it failed."""
        self.exit_status: int | None = None
        """Of a build command that failed."""
        self._output = bytearray()
        self._dropped = 0
        self._limit = output_limit
        self._news = asyncio.Event()

    @property
    def is_over(self) -> bool:
        return self.stage in ENDED

    @property
    def size(self) -> int:
        """Bytes of output so far, those that are not kept any more included."""
        return self._dropped + len(self._output)

    def output(self, after: int = 0) -> tuple[bytes, int]:
        """What was written behind byte number `after`, as far as it is kept, and the number to go on with."""
        start = max(0, after - self._dropped)
        return bytes(self._output[start:]), self.size

    def write(self, data: bytes) -> None:
        """Output of the build; the oldest goes once there is more than is kept."""
        self._output += data
        surplus = len(self._output) - self._limit
        if surplus > 0:
            del self._output[:surplus]
            self._dropped += surplus
        self._tell()

    def enter(self, stage: Stage) -> None:
        """Go on to another stage."""
        self.stage = stage
        self._tell()

    def fail(self, message: str, exit_status: int | None = None) -> None:
        self.message, self.exit_status = message, exit_status
        self.enter(Stage.FAILED)

    async def wait(self, after: int, stage: str, seconds: float) -> None:
        """Return once there is output behind `after` or another stage than `stage`, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self.size <= after and self.stage == stage and not self.is_over:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return

    def _tell(self) -> None:
        self._news.set()

"""A server of the transport's own for the length of a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from torpor.transport import Application, ErrorFace, HttpLimits, HttpServer, Streams, json_error, listen


@asynccontextmanager
async def serving(
    app: Application,
    *,
    limits: HttpLimits | None = None,
    on_error: ErrorFace = json_error,
    streams: Streams | None = None,
) -> AsyncIterator[HttpServer]:
    """Serve on a free port of this machine."""
    server = await listen(app, port=0, limits=limits, on_error=on_error, streams=streams)
    try:
        yield server
    finally:
        server.close()
        await server.wait_closed()


async def until(check: Callable[[], bool]) -> None:
    """Let the loop go on until this is so; the test's own time-out bounds it."""
    while not check():  # noqa: ASYNC110
        await asyncio.sleep(0.005)

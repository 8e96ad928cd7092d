"""A small service in FastAPI: a greeting, a counter in /tmp, and a stream of events."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

app = FastAPI(title="Torpor example")
COUNTER = Path("/tmp/count")


@app.get("/")
def greet(request: Request, name: str = "world") -> dict[str, str]:
    """Who was greeted, and by which address the caller came."""
    return {
        "hello": name,
        "framework": "fastapi",
        "host": request.headers["host"],
        "prefix": request.headers.get("x-forwarded-prefix", ""),
    }


@app.post("/count")
def count() -> dict[str, int]:
    """Requests counted by this instance: /tmp is kept as long as it lives."""
    value = int(COUNTER.read_text()) + 1 if COUNTER.exists() else 1
    COUNTER.write_text(str(value))
    return {"count": value, "instance": os.getpid()}


@app.get("/events")
def events() -> StreamingResponse:
    """Three lines, each sent when it is there."""

    async def lines() -> AsyncIterator[str]:
        for number in range(3):
            yield f"event {number}\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(lines(), media_type="text/plain")

"""Blocking clients beside a server in the test's own event loop."""

import asyncio
import http.client
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


async def blocking(call: Callable[[], Result]) -> Result:
    """What the call gives, from a thread of its own."""
    return await asyncio.get_running_loop().run_in_executor(None, call)


def fetch(port: int, method: str = "GET", target: str = "/") -> tuple[int, dict[str, str], bytes]:
    """One answer as the standard library's client reads it, which is strict about its end."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, target)
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()

"""Web services for tests: versions as values, and folders with small servers."""

from typing import Any

from torpor.model.function import LATEST, CodeRef, FunctionVersion
from torpor.model.server import ServerSettings


def service_version(command: str = "python server.py", *, port: int = 8080, **fields: Any) -> FunctionVersion:
    """A version of the service `shop`."""
    given: dict[str, Any] = {
        "function": "web/shop",
        "version": LATEST,
        "resource": "shop",
        "revision": "1",
        "contract": "web",
        "runtime": "server",
        "handler": "",
        "code": CodeRef(digest="0" * 64, packed_bytes=1, unpacked_bytes=1),
        "memory_mb": 512,
        "timeout_s": 900.0,
        "concurrency": 80,
        "server": ServerSettings(command=("/bin/bash", "-c", command), port=port),
    }
    return FunctionVersion(**(given | fields))

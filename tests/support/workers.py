"""What the tests of runtimes that serve several invocations at a time share."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.runtime_api import WAIT, Posted, Runtime


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until it holds. Raises AssertionError when it does not in time."""
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def invoke_all(runtime: Runtime, events: list[Any], **headers: str) -> dict[str, Posted]:
    """Send all events at once; what was posted for each, by request id."""
    ids = [runtime.api.send(event, **headers) for event in events]
    posted = {each.request_id: each for each in (runtime.api.receive() for _ in ids)}
    assert set(posted) == set(ids)
    return {request_id: posted[request_id] for request_id in ids}


@contextmanager
def log_provider(path: Path) -> Iterator[list[bytearray]]:
    """A socket for logs; yields what has come over each connection to it."""
    streams: list[bytearray] = []

    def collect(connection: socket.socket, into: bytearray) -> None:
        with connection:
            while data := connection.recv(65536):
                into += data

    def accept() -> None:
        with suppress(OSError):  # The listener is shut down when the test is over.
            while True:
                connection, _ = listener.accept()
                streams.append(bytearray())
                threading.Thread(target=collect, args=(connection, streams[-1]), daemon=True).start()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        yield streams
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()

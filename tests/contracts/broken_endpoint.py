"""A server of queues that can be told to answer with nonsense, and otherwise passes everything on to a real one."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

JSON = "application/x-amz-json-1.0"
Answer = tuple[int, str, bytes]
"""Status, content type and body."""


def page(status: int = 200) -> Answer:
    return status, "text/html", b"<html><body>" + b"It works! " * 100 + b"</body></html>"


def document(value: Any) -> Answer:
    return 200, JSON, json.dumps(value).encode()


@dataclass
class Endpoint:
    """What it answers, by operation; nothing by default, which means the real server's answers."""

    real: str
    answers: dict[str, Callable[[bytes], Answer | None]] = field(default_factory=dict)
    """None breaks the connection off."""
    asked: list[str] = field(default_factory=list)
    """All operations, in order."""
    address: str = ""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what hangs."""

    def all(self, answer: Callable[[bytes], Answer | None]) -> None:
        """Answer everything so."""
        for name in ("ReceiveMessage", "GetQueueAttributes", "DeleteMessageBatch", "ChangeMessageVisibilityBatch"):
            self.answers[name] = answer

    def hang(self, _body: bytes) -> Answer | None:
        self.released.wait(30)
        return None

    def count(self, operation: str) -> int:
        return self.asked.count(operation)

    def mend(self) -> None:
        self.answers.clear()

    def __call__(self, operation: str, body: bytes, headers: dict[str, str]) -> Answer | None:
        self.asked.append(operation)
        if (answer := self.answers.get(operation)) is not None:
            return answer(body)
        return self._pass_on(body, headers)

    def _pass_on(self, body: bytes, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.real).netloc, timeout=20)
        try:
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", JSON), answer.read()
        finally:
            connection.close()


@contextmanager
def broken_endpoint(real: str) -> Iterator[Endpoint]:
    """One until the block ends."""
    endpoint = Endpoint(real)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            operation = self.headers.get("X-Amz-Target", "").partition(".")[2]
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            answer = endpoint(operation, body, headers)
            self.close_connection = True
            if answer is None:
                return
            status, kind, text = answer
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    endpoint.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.released.set()
        server.shutdown()
        server.server_close()
        thread.join()

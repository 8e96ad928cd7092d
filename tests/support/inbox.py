"""A web address at which results of events arrive, which does not always take them."""

import json
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Inbox:
    """What arrived, by the `number` of the event that it is the result of."""

    def __init__(self, fails: Callable[[], bool]) -> None:
        self.fails = fails
        self.taken: Counter[int] = Counter()
        self.refused = 0
        self.url = ""
        self._lock = threading.Lock()

    def put(self, record: Any) -> bool:
        with self._lock:
            if self.fails():
                self.refused += 1
                return False
            self.taken[record["requestPayload"]["number"]] += 1
            return True

    @property
    def twice(self) -> int:
        """Results that arrived beyond the first of their event."""
        return sum(number - 1 for number in self.taken.values())


@contextmanager
def inbox(share: float = 0.0) -> Iterator[Inbox]:
    """One that answers 500 to this share of what is sent to it."""
    dice = random.Random(1)
    made = Inbox(lambda: dice.random() < share)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            record = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204 if made.put(record) else 500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.url = f"http://127.0.0.1:{server.server_port}/results"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

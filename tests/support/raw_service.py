"""A web service that says whatever bytes it is told to, and callers that do so too."""

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.support.web_services import Service

SOURCE = """
import json, os, signal, socket, struct, sys, threading, time

SEEN = []


def read(conn):
    data = b""
    while b"\\r\\n\\r\\n" not in data:
        block = conn.recv(65536)
        if not block:
            return None
        data += block
    head, _, body = data.partition(b"\\r\\n\\r\\n")
    if b" /deaf " in head:
        time.sleep(5)
    length = 0
    for line in head.split(b"\\r\\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    pieces, left = [body], length - len(body)
    while left > 0:
        try:
            block = conn.recv(65536)
        except OSError:
            block = b""
        if not block:
            SEEN.append(b"upload broke off")
            return None
        left -= len(block)
        pieces.append(block)
    return head, b"".join(pieces)


def say(conn, body):
    conn.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))


def reset(conn):
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    conn.close()


def echo(conn):
    conn.sendall(b"HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: websocket\\r\\n\\r\\n")
    while block := conn.recv(65536):
        if block == b"die":
            os._exit(5)
        conn.sendall(block)


def serve(conn):
    try:
        while (got := read(conn)) is not None:
            head, body = got
            method, target, _ = head.split(b"\\r\\n")[0].split(b" ", 2)
            if target == b"/seen":
                say(conn, json.dumps([one.decode("latin-1") for one in SEEN]).encode())
            elif target == b"/echo":
                try:
                    echo(conn)
                finally:
                    SEEN.append(b"echo ended")
                break
            elif target == b"/sink":
                while conn.recv(65536):
                    pass
            elif target == b"/count":
                say(conn, b"%d" % len(body))
            elif target in (b"/run", b"/invoke"):
                exec(body, {**globals(), "conn": conn})
            elif (name := "ON" + target.decode("latin-1").upper().replace("/", "_").replace("-", "_")) in os.environ:
                exec(os.environ[name], {**globals(), "conn": conn})
            else:
                SEEN.append(head)
                say(conn, b"up")
    except OSError:
        pass
    conn.close()


listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])), backlog=1000)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
"""What it does upon a request: `/run` and `/invoke` run their body as code with `conn` to the caller, and `/some-path`
runs the variable ON_SOME_PATH if it is set; `/seen` tells the heads of all other requests."""
START = ("--start", "exec python server.py")


@dataclass(frozen=True)
class Reply:
    """One answer as it came. `whole` if its end was told by its framing; `closed` if the connection ended then."""

    status: int
    head: str
    body: bytes
    whole: bool
    closed: bool

    def fields(self, name: str) -> list[str]:
        return re.findall(rf"(?mi)^{re.escape(name)}: (.*?)\r?$", self.head)

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class Caller:
    """A bare connection to the server."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._data = b""
        self._ended = False

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reply(self, *, head_only: bool = False) -> Reply:
        """The next answer."""
        head = self.reply_head()
        assert head, "the connection ended without an answer"
        status = int(head.split()[1])
        length = re.search(r"(?mi)^content-length: (\d+)", head)
        if head_only or status in (204, 304):
            body, whole = b"", True
        elif length is not None:
            body, whole = self._take(int(length[1]))
        elif re.search(r"(?mi)^transfer-encoding: chunked", head):
            body, whole = self._chunks()
        else:
            while self._more():
                pass
            body, whole, self._data = self._data, True, b""
        return Reply(status, head, body, whole, self._ended)

    def reply_head(self) -> str:
        """The next head alone."""
        while b"\r\n\r\n" not in self._data and self._more():
            pass
        raw, _, self._data = self._data.partition(b"\r\n\r\n")
        return raw.decode("latin-1")

    def take(self, size: int) -> bytes:
        """So many bytes, or what comes before the end."""
        return self._take(size)[0]

    def ended(self) -> bool:
        """Wait for the end of the connection; False if something else came."""
        return not self._data and not self._more()

    def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            while b"\r\n" not in self._data:
                if not self._more():
                    return body, False
            line, _, self._data = self._data.partition(b"\r\n")
            piece, whole = self._take(int(line.partition(b";")[0], 16) + 2)
            if not whole:
                return body + piece, False
            if piece == b"\r\n":
                return body, True
            body += piece[:-2]

    def _take(self, size: int) -> tuple[bytes, bool]:
        while len(self._data) < size and self._more():
            pass
        found, self._data = self._data[:size], self._data[size:]
        return found, len(found) == size

    def _more(self) -> bool:
        try:
            block = b"" if self._ended else self.socket.recv(1 << 20)
        except ConnectionError:
            block = b""
        self._ended = self._ended or not block
        self._data += block
        return bool(block)


class RawService:
    """A deployed service with that source."""

    def __init__(self, service: Service) -> None:
        self.service = service

    @contextmanager
    def caller(self) -> Iterator[Caller]:
        with self.service.connect() as sock:
            yield Caller(sock)

    def request(self, text: str, body: bytes = b"") -> bytes:
        """A request with its Host field and line ends, from lines."""
        lines = [*text.strip("\n").split("\n")]
        lines.insert(1, f"Host: {self.service.host}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + body

    def run(self, code: str, *, method: str = "POST", head_only: bool = False) -> Reply:
        """The answer to a request upon which the service runs this code, with `conn` to the caller."""
        with self.caller() as caller:
            caller.send(self.running(code, method))
            return caller.reply(head_only=head_only)

    def running(self, code: str, method: str = "POST") -> bytes:
        body = code.encode()
        return self.request(f"{method} /run HTTP/1.1\nContent-Length: {len(body)}", body)

    def answers(self, data: bytes) -> Reply:
        """What becomes of an answer of these bytes, after which the service waits for more on the same connection."""
        return self.run(f"conn.sendall({data!r})")

    def ask(self, text: str, body: bytes = b"") -> Reply:
        with self.caller() as caller:
            caller.send(self.request(text, body))
            return caller.reply()

    def seen(self) -> list[str]:
        """The heads of the plain requests so far."""
        found: list[str] = json.loads(self.ask("GET /seen HTTP/1.1").body)
        return found

    def works(self) -> bool:
        reply: Any = self.ask("GET / HTTP/1.1")
        return (reply.status, reply.body) == (200, b"up")

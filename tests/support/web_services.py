"""Web services on a real server, deployed with the command line tool and called over HTTP as their users do."""

import http.client
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from tests.support.server import TorporServer, eventually

PORT = 8080
ASKED = """
import http.server, json, os, socket, sys, threading, time

STATE = {"requests": []}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        STATE["requests"].append((self.path, self.headers.get("User-Agent", ""), time.time()))
        if self.path == "/":
            self.answer(200, b"up")
        else:
            self.answer(404, b"")

    def do_POST(self):
        STATE["requests"].append((self.path, self.headers.get("User-Agent", ""), time.time()))
        code = self.rfile.read(int(self.headers["Content-Length"])).decode()
        scope = {"STATE": STATE, "result": None}
        try:
            exec(code, scope)
            value, status = scope["result"], 200
        except Exception as error:
            print("failed:", error, file=sys.stderr, flush=True)
            value, status = f"{type(error).__name__}: {error}", 500
        self.answer(status, value if isinstance(value, bytes) else json.dumps(value).encode())

    def log_message(self, format, *args):
        print(format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100


BEFORE
Server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
"""Does what it is asked: `POST /` with Python code answers with what the code leaves in `result`."""


def asked(before: str = "") -> dict[str, str]:
    """The source of such a server, which does `before` before it listens."""
    return {"server.py": ASKED.replace("BEFORE", before)}


def vendored(folder: Path, *names: str) -> None:
    """Copy installed distributions, and all that they need, beside a service's own files."""
    wanted, done = list(names), set[str]()
    while wanted:
        name = wanted.pop()
        if name in done:
            continue
        done.add(name)
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                target = folder / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(distribution.locate_file(file), target)
        needs = [Requirement(text) for text in distribution.requires or ()]
        wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def write_source(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@dataclass(frozen=True)
class Answer:
    status: int
    fields: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Deployed:
    """How `torpor deploy` ended."""

    code: int
    output: str
    errors: str


class Service:
    """One service by name, whether or not it is deployed."""

    def __init__(self, server: TorporServer, name: str) -> None:
        self.server = server
        self.name = name

    @property
    def host(self) -> str:
        return f"{self.name}.localhost:{urlsplit(self.server.url).port}"

    def deploy(self, folder: Path, *options: str) -> Deployed:
        """Run `torpor deploy --web`."""
        done = subprocess.run(
            [sys.executable, "-m", "torpor", "deploy", "--web", str(folder), "--name", self.name, *options,
             "--endpoint", self.server.url],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        return Deployed(done.returncode, done.stdout, done.stderr)

    def request(
        self, method: str = "GET", target: str = "/", body: bytes = b"", *, timeout: float = 60.0, **fields: str
    ) -> Answer:
        connection = http.client.HTTPConnection(urlsplit(self.server.url).netloc, timeout=timeout)
        try:
            sent = {name.replace("_", "-"): value for name, value in fields.items()}
            connection.request(method, target, body or None, {"Host": self.host} | sent)
            reply = connection.getresponse()
            return Answer(reply.status, reply.msg, reply.read())
        finally:
            connection.close()

    def ask(self, code: str, *, timeout: float = 60.0) -> Any:
        """What the code leaves in `result`, run by the server inside."""
        answer = self.request("POST", "/", code.encode(), timeout=timeout)
        assert answer.status == 200, answer.text
        return answer.json

    def error(self, code: str) -> str:
        """The error that the code ends with inside."""
        answer = self.request("POST", "/", code.encode())
        assert answer.status == 500, answer.text
        return str(answer.json)

    def configure(self, **settings: Any) -> None:
        """Change settings over the operator's own route."""
        route = f"{self.server.url}/_torpor/services/{self.name}"
        body, fields = json.dumps(settings).encode(), {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(route, body, fields, method="PUT"), timeout=30) as answer:
            assert answer.status == 200

    def log(self) -> str:
        return self.server.command("logs", self.name)

    def logged(self, text: str) -> str:
        """The log once the text stands in it."""
        return eventually(lambda: found if text in (found := self.log()) else "", what=f"{text!r} in the log")

    def shown(self) -> dict[str, Any]:
        """How `torpor list` shows it."""
        listed = json.loads(self.server.command("list", "--json"))["services"]
        return next(service for service in listed if service["name"] == self.name)

    def environments(self) -> list[dict[str, Any]]:
        return self.server.environments(f"web/{self.name}")

    def wait_until_frozen(self) -> None:
        eventually(
            lambda: [entry["phase"] for entry in self.environments()] == ["frozen"], what=f"{self.name} being frozen"
        )

    def connect(self) -> socket.socket:
        """A connection to the server, for other protocols than HTTP."""
        place = urlsplit(self.server.url)
        return socket.create_connection((place.hostname or "", place.port or 0), timeout=30)

    def end_instances(self, folder: Path, *options: str) -> None:
        """Scale to zero: deployed again, the service has no instance left."""
        assert self.deploy(folder, *options).code == 0
        eventually(lambda: not self.environments(), what=f"instances of {self.name} ending")


@contextmanager
def service(
    server: TorporServer, folder: Path, files: Mapping[str, str], *options: str, starts: bool = True
) -> Iterator[Service]:
    """A deployed service, deleted at the end. A persistent one that does not start is told when it is deployed."""
    made = Service(server, f"test-{uuid.uuid4().hex[:12]}")
    deployed = made.deploy(write_source(folder / made.name, files), *options)
    try:
        assert (deployed.code == 0) == starts, deployed.errors
        assert starts or "is deployed but does not start" in deployed.errors
        yield made
    finally:
        server.command("delete", made.name)


def cpu_seconds(pids: list[int]) -> float:
    """Processor time that these processes have used."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / 100


def until(moment: float) -> None:
    """Sleep until a monotonic time."""
    time.sleep(max(0.0, moment - time.monotonic()))

"""A small, real Runtime API over HTTP, for tests that run a guest without a sandbox."""

import json
import os
import queue
import select
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PREFIX = "/2018-06-01/runtime"
WAIT = 10.0
GONE = 0.1
"""Seconds until it is noticed that a client that asked for an event has gone."""
HANG_UP: tuple[bytes, dict[str, str]] = (b"", {})
"""Put among the events, it closes the connection over which the next one is asked for; None answers it with 403."""
FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
VARIABLES = {
    "AWS_LAMBDA_FUNCTION_NAME": "f",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
    "AWS_LAMBDA_LOG_STREAM_NAME": "stream",
    "AWS_REGION": "us-east-1",
}


@dataclass(frozen=True, slots=True)
class Posted:
    """What the runtime posted: `kind` is response, error or init/error."""

    kind: str
    request_id: str
    body: bytes
    headers: Mapping[str, str]
    port: int = 0
    """The client's end of the connection it came over."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class RuntimeApi:
    """Hands out events one at a time and collects what comes back."""

    server: ThreadingHTTPServer | None = None
    events: "queue.Queue[tuple[bytes, dict[str, str]] | None]" = field(default_factory=queue.Queue)
    posted: "queue.Queue[Posted]" = field(default_factory=queue.Queue)
    connections: int = 0
    waiting: list[int] = field(default_factory=list)
    """The client's ends of the connections on which an event is asked for now."""
    refusals: "queue.Queue[int]" = field(default_factory=queue.Queue)
    """Statuses that the next answers to posts have instead of 202."""

    @property
    def address(self) -> str:
        assert self.server is not None
        return f"127.0.0.1:{self.server.server_address[1]}"

    def send(self, event: Any, **headers: str) -> str:
        """Offer an event to the runtime; extra headers use underscores for dashes."""
        request_id = str(uuid.uuid4())
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        told = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + 10) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": FUNCTION_ARN,
            "Content-Type": "application/json",
        }
        told.update({name.replace("_", "-"): value for name, value in headers.items()})
        self.events.put((body, told))
        return request_id

    def receive(self) -> Posted:
        return self.posted.get(timeout=WAIT)

    def invoke(self, event: Any, **headers: str) -> Posted:
        request_id = self.send(event, **headers)
        posted = self.receive()
        assert posted.request_id in (request_id, "")
        return posted


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Runtimes are killed at the end of a test; their broken connections are no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: RuntimeApi

    def setup(self) -> None:
        super().setup()
        self.api.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        offered = self._next_event() if self.path == f"{PREFIX}/invocation/next" else None
        if offered is HANG_UP:
            self.close_connection = True
        elif offered is None:
            self._answer(403, b"{}", {})
        else:
            self._answer(200, *offered)

    def do_POST(self) -> None:
        body = self._body()
        parts = self.path.removeprefix(PREFIX + "/").split("/")
        kind, request_id = ("init/error", "") if parts[0] == "init" else (parts[2], parts[1])
        self.api.posted.put(Posted(kind, request_id, body, dict(self.headers.items()), self.client_address[1]))
        status = 202 if self.api.refusals.empty() else self.api.refusals.get()
        self._answer(status, b'{"status":"OK"}\n', {})

    def _next_event(self) -> tuple[bytes, dict[str, str]] | None:
        """Wait for an event; one whose client has gone meanwhile takes none."""
        port = self.client_address[1]
        self.api.waiting.append(port)
        try:
            while not select.select([self.connection], [], [], 0)[0]:
                with suppress(queue.Empty):
                    return self.api.events.get(timeout=GONE)
            return None
        finally:
            self.api.waiting.remove(port)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while (line := self.rfile.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            self.headers[name] = value.strip()
        return body

    def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving() -> Iterator[RuntimeApi]:
    """A Runtime API on a free loopback port."""
    api = RuntimeApi()
    handler = type("Handler", (_Handler,), {"api": api, "disable_nagle_algorithm": True, "wbufsize": -1})
    with _Server(("127.0.0.1", 0), handler) as server:
        api.server = server
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
            api.events.put(None)


@dataclass
class Runtime:
    """A runtime process under test."""

    process: "subprocess.Popen[bytes]"
    api: RuntimeApi

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def ended(self) -> tuple[int, str]:
        """Exit status (negative for a signal) and all output, after the process ended by itself."""
        output, _ = self.process.communicate(timeout=WAIT)
        return self.process.returncode, output.decode()

    def stopped(self) -> str:
        """All output, after ending the process and those it started."""
        self.kill()
        return self.ended()[1]


@contextmanager
def running(
    argv: Sequence[str], task: Path, handler: str, *, pass_fds: Sequence[int] = (), **environment: str
) -> Iterator[Runtime]:
    """A runtime serving `handler` of the package in `task`; `environment` adds to the contract's variables."""
    with serving() as api:
        process = subprocess.Popen(
            argv,
            cwd=task,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            env={
                "PATH": os.environ["PATH"],
                "AWS_LAMBDA_RUNTIME_API": api.address,
                "LAMBDA_TASK_ROOT": str(task),
                "_HANDLER": handler,
                **VARIABLES,
                **environment,
            },
        )
        runtime = Runtime(process, api)
        try:
            yield runtime
        finally:
            runtime.kill()
            process.communicate(timeout=WAIT)

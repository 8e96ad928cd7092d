"""Runs a server for event functions as a plain process, and speaks the platform's half of the contract to it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAIT = 10.0
REQUEST_ID = "1-65081d42-12345678-0123456789ab"
HEADERS = {
    "x-fc-request-id": REQUEST_ID,
    "x-fc-access-key-id": "key",
    "x-fc-access-key-secret": "secret",
    "x-fc-security-token": "token",
    "x-fc-function-name": "f",
    "x-fc-function-memory": "512",
    "x-fc-function-timeout": "60",
    "x-fc-region": "cn-hangzhou",
    "x-fc-account-id": "123456",
    "x-fc-qualifier": "LATEST",
    "x-fc-version-id": "",
    "x-fc-service-name": "",
    "x-fc-service-logproject": "project",
    "x-fc-service-logstore": "store",
    "x-fc-retry-count": "0",
}


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer; `status` is the outcome reported by header, `kind` the type of error reported."""

    status: str
    kind: str | None
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class EventServer:
    """A running server, reached over one kept-open connection. Its output is read as it comes."""

    def __init__(self, process: "subprocess.Popen[bytes]", port: int) -> None:
        self.process = process
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)
        self._output = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What has been read of the output so far."""
        return self._output.decode()

    def invoke(self, event: bytes = b"", **headers: str) -> Answered:
        return self.call("POST", "/invoke", event, **headers)

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answered:
        """One request; extra headers use underscores for dashes."""
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request(method, path, body, {**HEADERS, **more})
        answer = self._connection.getresponse()
        return Answered(answer.headers["x-fc-status"], answer.headers["x-fc-error-type"], answer.read())

    def ready(self) -> None:
        """Wait until the port is open. Raises AssertionError with the output if it never is."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline and self.process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.005)
        raise AssertionError(f"not listening: {self.stopped()}")

    def ended(self) -> tuple[int, str]:
        """Exit status (negative for a signal) and all output, after the process ended by itself."""
        status = self.process.wait(WAIT)
        self._reader.join(WAIT)
        return status, self.output

    def stopped(self) -> str:
        """All output, after killing the process and those it started."""
        self._connection.close()
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.ended()[1]

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            while data := os.read(stream.fileno(), 65536):
                self._output += data


@contextmanager
def serving(
    argv: Sequence[str], code: Path, files: Mapping[str, str], handler: str, *, ready: bool = True, **environment: str
) -> Iterator[EventServer]:
    """A server for `handler` of the package in `code`, with its port open unless not wanted `ready`."""
    for name, text in files.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(text)
    port = _free_port()
    process = subprocess.Popen(
        argv,
        cwd=code,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={
            "PATH": os.environ["PATH"],
            "FC_FUNC_CODE_PATH": str(code),
            "FC_SERVER_PORT": str(port),
            "FC_FUNCTION_NAME": "f",
            "FC_FUNCTION_HANDLER": handler,
            "FC_FUNCTION_MEMORY_SIZE": "512",
            **environment,
        },
    )
    server = EventServer(process, port)
    try:
        if ready:
            server.ready()
        yield server
    finally:
        server.stopped()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

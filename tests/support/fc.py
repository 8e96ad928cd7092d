"""Function Compute functions on a real server: called through the vendor's own clients, or by plain HTTP."""

import base64
import contextlib
import http.client
import io
import json
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import dedent
from typing import Any
from urllib.parse import urlsplit

import fc2
import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_fc20230330.client import Client as V3Client
from alibabacloud_tea_openapi.models import Config
from alibabacloud_tea_util.models import RuntimeOptions
from tests.support.functions import BOOT, archive
from tests.support.server import LogEvent, TorporServer, eventually

from torpor.sandbox.images import DEFAULT_ROOT, ImageCatalog
from torpor.sandbox.interpreters import discover

_CATALOG = ImageCatalog(DEFAULT_ROOT, discover())
PYTHON = next((name for name in ("python3.10", "python3.12", "python3.11") if _CATALOG.installed(f"event-{name}")), "")
"""A built-in Python runtime that this host can serve."""
NODE = "nodejs20"
V3 = "2023-03-30"
CLASSIC = "2016-08-15"
PATIENCE = 700.0
"""Seconds after which a caller gives up: longer than any test that is not slow may take."""

fc_warnings = pytest.mark.filterwarnings(
    # The clients' own: they use what Python and their own packages have deprecated.
    "ignore::DeprecationWarning:(alibabacloud|Tea|fc2|darabonba).*",
    "ignore::SyntaxWarning",
)

Files = Mapping[str, str | bytes]
SERVER = """
import http.server, json, os, sys, time, uuid
BOOT = uuid.uuid4().hex
with open("/proc/self/cmdline") as file:
    ARGV = file.read().split("\\0")[:-1]
HOST, PORT = os.environ.get("SERVE_AT", "0.0.0.0"), int(os.environ.get("SERVE_ON", "9000"))
connections, closing = set(), 0

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def answer(self):
        global closing
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        connections.add(self.client_address)
        closing += self.headers.get("connection", "").lower() == "close"
        if body.startswith("sleep "):
            time.sleep(float(body.split()[1]))
        told = {"boot": BOOT, "argv": ARGV, "folder": os.getcwd(),
                "code": os.environ["FC_FUNC_CODE_PATH"].rstrip("/"), "pid": os.getpid(), "method": self.command,
                "path": self.path, "body": body, "headers": {k.lower(): v for k, v in self.headers.items()},
                "connections": len(connections), "closing": closing}
        self.send_response(200)
        content = json.dumps(told).encode()
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

print("started with", json.dumps(ARGV), flush=True)
time.sleep(float(os.environ.get("SERVE_AFTER", "0")))
print("Listening on port", PORT, flush=True)
http.server.ThreadingHTTPServer((HOST, PORT), Handler).serve_forever()
"""
"""An HTTP server that tells, of each request, what it saw and who it is. The body `sleep N` makes it take its time."""
SERVED: dict[str, Any] = {
    "runtime": "custom",
    "handler": "unused",
    "customRuntimeConfig": {"command": ["python", "-u"], "args": ["server.py"]},
}
"""The configuration that starts it."""


def python(source: str) -> Files:
    """An event function: `source` defines `handler(event, context)` and finds `BOOT` and `BOOTED` defined."""
    return {"index.py": "import json\n" + BOOT + dedent(source)}


def node(source: str) -> Files:
    return {"index.js": dedent(source)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a caller got. Times are seconds since the epoch; names of headers are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    sent: float
    received: float

    @property
    def value(self) -> Any:
        return json.loads(self.body)

    @property
    def elapsed(self) -> float:
        return self.received - self.sent

    @property
    def error(self) -> str:
        return self.headers.get("x-fc-error-type", "")

    @property
    def request_id(self) -> str:
        return self.headers["x-fc-request-id"]

    @property
    def log(self) -> str:
        return base64.b64decode(self.headers["x-fc-log-result"]).decode()


def request(
    server: TorporServer, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> Result:
    """One plain HTTP request, without signature and without second try."""
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=PATIENCE)
    sent = time.time()
    with contextlib.closing(connection):
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        content = answer.read()
    fields = {name.lower(): value for name, value in answer.getheaders()}
    return Result(status=answer.status, body=content, headers=fields, sent=sent, received=time.time())


def statistics(server: TorporServer) -> dict[str, Any]:
    """What the platform counts, for its operator."""
    counted: dict[str, Any] = request(server, "GET", "/_torpor/statistics").value
    return counted


def clients(server: TorporServer) -> tuple[V3Client, fc2.Client]:
    """The clients of the current generation and of the one with services, only their end point set."""
    address = urlsplit(server.url).netloc
    config = Config(access_key_id="test", access_key_secret="test", endpoint=address, protocol="http")
    return V3Client(config), fc2.Client(endpoint=server.url, accessKeyID="test", accessKeySecret="test")


class ComputeFunction:
    """A deployed function."""

    def __init__(self, server: TorporServer, name: str, service: str = "") -> None:
        self.server = server
        self.name = name
        self.service = service
        self.record = f"fc/{service}/{name}" if service else f"fc/{name}"
        self.path = f"/{CLASSIC}/services/{service}/functions/{name}" if service else f"/{V3}/functions/{name}"
        self.current, self.classic = clients(server)

    def invoke(self, event: bytes | Any = b"", **headers: str) -> Result:
        """Call it through the current client; `headers` as `x_fc_log_type="Tail"`. Function errors are results."""
        given = v3.InvokeFunctionRequest(body=io.BytesIO(_bytes(event)))
        options = RuntimeOptions(read_timeout=int(PATIENCE * 1000), autoretry=False)
        sent = time.time()
        answer = self.current.invoke_function_with_options(
            self.name, given, v3.InvokeFunctionHeaders(**headers), options
        )
        body = answer.body.read() if answer.body else b""
        fields = {name.lower(): value for name, value in answer.headers.items()}
        return Result(status=answer.status_code, body=body, headers=fields, sent=sent, received=time.time())

    def post(self, event: bytes | Any = b"", headers: Mapping[str, str] | None = None) -> Result:
        """Call it by plain HTTP: whatever is refused is a result, and nothing is slow but the server."""
        return request(self.server, "POST", f"{self.path}/invocations", _bytes(event), headers)

    def start(self, event: bytes | Any = b"", headers: Mapping[str, str] | None = None) -> Future[Result]:
        """Call it by plain HTTP while the test goes on."""
        return self.server.submit(lambda: self.post(event, headers))

    def send(self, event: bytes | Any = b"") -> Result:
        """Call it asynchronously."""
        return self.post(event, {"x-fc-invocation-type": "Async"})

    def configuration(self) -> dict[str, Any]:
        shown: dict[str, Any] = request(self.server, "GET", self.path).value
        return shown

    def update(self, **configuration: Any) -> None:
        """Change its configuration, which ends idle environments."""
        answer = request(self.server, "PUT", self.path, json.dumps(configuration).encode())
        assert answer.status == 200, answer.body

    def recycle(self) -> None:
        """End every environment."""
        self.update(description=uuid.uuid4().hex)
        eventually(lambda: not self.environments(), what=f"environments of {self.name} ending")
        leave_port(self)

    @contextmanager
    def triggered(self, kind: str, **config: Any) -> Iterator[str]:
        """A trigger of this kind, deleted at the end; its URL if it has one."""
        name = f"trigger-{uuid.uuid4().hex[:8]}"
        given = v3.CreateTriggerInput(
            trigger_name=name, trigger_type=kind, trigger_config=json.dumps(config), source_arn="", invocation_role=""
        )
        made = self.current.create_trigger(self.name, v3.CreateTriggerRequest(body=given)).body
        try:
            yield made.http_trigger.url_internet if made.http_trigger is not None else ""
        finally:
            self.current.delete_trigger(self.name, name)

    def environments(self) -> list[dict[str, Any]]:
        return self.server.environments(self.record)

    def phases(self) -> list[dict[str, Any]]:
        return self.server.phases(self.record)

    def runs(self) -> list[dict[str, Any]]:
        """Its phases that are runs of its handler."""
        return [phase for phase in self.phases() if phase["phase"] == "invoke"]

    def logs(self) -> list[LogEvent]:
        return self.server.logs(self.record)

    def lines(self) -> list[str]:
        """Its whole log, line by line."""
        return [line for event in self.logs() for line in event.message.splitlines()]

    def printed(self, begin: str) -> list[str]:
        """The lines of its log that hold this text, from there on."""
        return [line[line.index(begin) :] for line in self.lines() if begin in line]


def default_of(setting: str) -> float:
    """The default of a server's setting, as its command line tells it."""
    command = [sys.executable, "-m", "torpor", "serve", "--help"]
    text = " ".join(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split())
    flag = "--" + setting.replace("_", "-")
    return float(text.partition(f" {flag} ")[2].partition("Default: ")[2].partition(" ")[0].rstrip("."))


def visit(server: TorporServer, url: str, path: str, *, method: str = "GET", body: bytes = b"") -> Result:
    """Request a page of a trigger's URL; its host need not be known to this machine's resolver."""
    return request(server, method, path, body, {"Host": urlsplit(url).netloc})


@contextmanager
def deployed(server: TorporServer, files: Files, **configuration: Any) -> Iterator[ComputeFunction]:
    """A new function of the current generation, deleted at the end. `configuration` as in CreateFunction."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    function = ComputeFunction(server, name)
    code = {"zipFile": base64.b64encode(archive(files, compression=zipfile.ZIP_STORED)).decode()}
    given = {"functionName": name, "code": code, "memorySize": 256, "timeout": 20, **configuration}
    body = v3.CreateFunctionInput().from_map({name: value for name, value in given.items() if value is not None})
    patient = RuntimeOptions(read_timeout=int(PATIENCE * 1000), autoretry=False)
    function.current.create_function_with_options(v3.CreateFunctionRequest(body=body), {}, patient)
    try:
        yield function
    finally:
        function.current.delete_function(name)
        leave_port(function)


@contextmanager
def deployed_classic(server: TorporServer, files: Files, **configuration: Any) -> Iterator[ComputeFunction]:
    """The same in the generation with services, in a service of its own. Only what is given is sent."""
    mark = uuid.uuid4().hex[:12]
    function = ComputeFunction(server, f"test-{mark}", f"service-{mark}")
    function.classic.create_service(function.service)
    code = {"zipFile": base64.b64encode(archive(files)).decode()}
    given = {"functionName": function.name, "code": code, **configuration}
    path = f"/{CLASSIC}/services/{function.service}/functions"
    made = request(server, "POST", path, json.dumps(given).encode(), {"Content-Type": "application/json"})
    assert made.status == 200, made.body
    try:
        yield function
    finally:
        function.classic.delete_function(function.service, function.name)
        function.classic.delete_service(function.service)
        leave_port(function)


def leave_port(function: ComputeFunction) -> None:
    """Where functions share the host's network, the next server needs the port of the one that is being removed."""
    server = function.server
    if not server.isolation.startswith("sandbox"):
        eventually(
            lambda: not function.environments() and statistics(server)["sandboxes"] == len(server.environments()),
            what=f"environments of {function.name} being removed",
        )


Deploy = Callable[..., ComputeFunction]


def _bytes(event: bytes | Any) -> bytes:
    return event if isinstance(event, bytes) else json.dumps(event).encode()

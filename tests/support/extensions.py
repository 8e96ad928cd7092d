"""External extensions as layers, made from source text."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from textwrap import dedent
from typing import Any

from tests.support.functions import PYTHON, Package, archive
from tests.support.server import Function, TorporServer

_CALLS = (
    f"#!/var/lang/bin/{PYTHON}"
    + """
import http.client, json, os, signal, sys, threading, time
NAME = os.path.basename(sys.argv[0])
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
identifier = ""

def say(*words):
    sys.stdout.write(" ".join([NAME, *map(str, words)]) + "\\n")
    sys.stdout.flush()

def call(method, path, body=None, **headers):
    named = {"Lambda-Extension-" + name.replace("_", "-"): value for name, value in headers.items()}
    api.request(method, "/2020-01-01/extension/" + path, body, named)
    answer = api.getresponse()
    return answer.status, answer.headers, answer.read()

def register(*events):
    global identifier
    status, headers, body = call("POST", "register", json.dumps({"events": events}), Name=NAME)
    identifier = headers["Lambda-Extension-Identifier"]
    return json.loads(body)

def next_event():
    return json.loads(call("GET", "event/next", Identifier=identifier)[2])
"""
)

WATCH = """
register("INVOKE", "SHUTDOWN")
say("registered", identifier)
while True:
    event = next_event()
    if event["eventType"] == "SHUTDOWN":
        say("SHUTDOWN", event["shutdownReason"])
        break
    say("INVOKE", event["requestId"])
"""
"""Registers for both events, tells each, and asks for the next one at once."""

SUBSCRIBES = """
import http.server
heard = []
news = threading.Condition()
class Listener(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        events = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for event in events:
            say("got", json.dumps(event))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        with news:
            heard.extend(events)
            news.notify_all()
    def log_message(self, *arguments):
        pass
def listen(port):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
def subscribe(port, types, schema="2022-12-13", **changes):
    destination = {"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}/telemetry"}
    body = {"schemaVersion": schema, "types": types, "destination": destination, "buffering": {"timeoutMs": 25}}
    api.request("PUT", "/2022-07-01/telemetry", json.dumps({**body, **changes}),
                {"Lambda-Extension-Identifier": identifier})
    answer = api.getresponse()
    return answer.status, answer.read().decode()
def wait_for(kind, request_id):
    told = lambda: any(e["type"] == kind and e["record"]["requestId"] == request_id for e in heard)
    with news:
        news.wait_for(told, 10)
def numbers():
    lines = [e["record"] for e in heard if e["type"] == "function"]
    return [int(line.split()[1]) for line in lines if line.startswith("number ")]
"""
"""For the beginning of a source: an HTTP listener that prints what it gets, and subscriptions to telemetry."""


def extension(source: str) -> str:
    """A program: `source` finds `say`, `register`, `next_event`, `call`, `identifier` and `NAME` defined."""
    return _CALLS + dedent(source)


@contextmanager
def layer(server: TorporServer, files: Mapping[str, str]) -> Iterator[str]:
    """A published layer version; its ARN."""
    name = f"layer-{uuid.uuid4().hex[:12]}"
    content = {"ZipFile": archive(files)}
    made = server.client.publish_layer_version(LayerName=name, Content=content)
    try:
        yield made["LayerVersionArn"]
    finally:
        server.client.delete_layer_version(LayerName=name, VersionNumber=made["Version"])


@contextmanager
def extended(
    server: TorporServer, package: Package, extensions: Mapping[str, str], **configuration: Any
) -> Iterator[Function]:
    """A function with one layer that holds these extensions (sources by name)."""
    files = {f"extensions/{name}": extension(source) for name, source in extensions.items()}
    with ExitStack() as stack:
        arn = stack.enter_context(layer(server, files))
        yield stack.enter_context(server.deployed(package, Layers=[arn], **configuration))

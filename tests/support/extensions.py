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

"""Extensions in managed instances: before the runtime, and whoever of them fails takes the environment along."""

import json
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from textwrap import dedent
from typing import Any

import pytest
from tests.journeys.conftest import MakeServer, require_sandbox
from tests.support.extensions import SUBSCRIBES, extension, layer
from tests.support.functions import PYTHON, python
from tests.support.managed import ManagedFunction, managed
from tests.support.remains import footprint, wait_until_gone
from tests.support.server import TorporServer, eventually

pytestmark = pytest.mark.privileged

RUNTIME = "python3.13"
WORKER = python(
    """
    print("entry", time.time(), flush=True)
    def handler(event, context):
        if event.get("mark"):
            open("/tmp/mark", "w").close()
        print("handles", flush=True)
        time.sleep(event.get("sleep", 0))
        return context.log_stream_name
    """,
    runtime=RUNTIME,
)


@contextmanager
def _extended(server: TorporServer, extensions: Mapping[str, str], **settings: Any) -> Iterator[ManagedFunction]:
    require_sandbox(server)
    if RUNTIME not in server.runtimes:
        pytest.skip(f"this host has no interpreter for {RUNTIME}")
    files = {f"extensions/{name}": extension(source).replace(PYTHON, RUNTIME, 1) for name, source in extensions.items()}
    with layer(server, files) as arn, managed(server, WORKER, concurrency=2, Layers=[arn], **settings) as function:
        yield function


def _words(function: ManagedFunction, start: str) -> list[list[str]]:
    return [line.split() for line in function.lines() if line.startswith(start)]


@pytest.mark.fact("M-003")
def test_extensions_are_registered_before_the_runtime_starts(server: TorporServer) -> None:
    source = """
        time.sleep(0.3 if NAME == "one" else 0.8)
        say("registers", time.time())
        register("SHUTDOWN")
        say("registered", identifier)
        next_event()
    """
    with _extended(server, {"one": source, "two": source}) as function:
        assert function.call().error == ""
        registers = [float(words[2]) for name in ("one", "two") for words in _words(function, f"{name} registers")]
        entries = [float(words[1]) for words in _words(function, "entry")]
        ready = [json.loads(line)["record"] for line in function.lines() if '"platform.extension"' in line]
    assert len(registers) == 2 and entries and max(registers) < min(entries)
    assert sorted(record["name"] for record in ready) == ["one", "two"]
    assert {record["state"] for record in ready} == {"Ready"}


@contextmanager
def _counter() -> Iterator[int]:
    """The port of a server that answers how often it was asked before."""
    asked = iter(range(1000))

    class Counter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = str(next(asked)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Counter) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.fact("M-020")
def test_extension_that_crashes_in_init_ends_its_environment_and_another_one_serves(make_server: MakeServer) -> None:
    source = """
        counter = http.client.HTTPConnection("host.torpor.internal", int(os.environ["COUNTER"]))
        counter.request("GET", "/")
        first = int(counter.getresponse().read()) == 0
        register("SHUTDOWN")
        say("first" if first else "later")
        time.sleep(1.0)
        if first:
            sys.exit(1)
        next_event()
    """
    with _counter() as port:
        server = make_server(host_ports=port)
        variables = {"Variables": {"COUNTER": str(port)}}
        with _extended(server, {"watch": source}, Environment=variables, wait=False) as function:
            eventually(lambda: _words(function, "watch first"), what="the first start")
            noted = footprint(function)
            faulty = next(event.stream for event in function.logs() if event.message.startswith("watch first"))
            answer = eventually(lambda: function.call().payload, within=20, what="an environment that serves")
            wait_until_gone([noted])
            assert answer != faulty
            assert faulty not in [entry["log_stream"] for entry in function.environments()]
            reports = [
                json.loads(event.message)["record"] for event in function.logs() if "initReport" in event.message
            ]
    assert "Extension.Crash" in [report.get("errorType") for report in reports]


@pytest.mark.fact("M-021")
def test_extension_that_crashes_in_operation_ends_its_environment_and_what_runs_in_it(server: TorporServer) -> None:
    source = """
        register("SHUTDOWN")
        def watch():
            while not os.path.exists("/tmp/mark"):
                time.sleep(0.02)
            os._exit(1)
        threading.Thread(target=watch, daemon=True).start()
        next_event()
    """
    with _extended(server, {"watch": source}) as function:
        eventually(lambda: len(_words(function, "entry")) == 2, what="two workers")
        noted, before = footprint(function), function.environments()[0]["id"]
        began = time.time()
        calls = function.together({"sleep": 15}, {"sleep": 15, "mark": True})
        assert [call.error for call in calls] == ["Unhandled"] * 2 and time.time() - began < 10
        assert {call.payload["errorType"] for call in calls} == {"Extension.Crash"}
        wait_until_gone([noted])
        eventually(lambda: function.call().error == "", within=20, what="another environment")
        assert before not in [entry["id"] for entry in function.environments()]


def test_extension_in_a_managed_instance_subscribes_to_telemetry(server: TorporServer) -> None:
    source = SUBSCRIBES + dedent("""
        register("SHUTDOWN")
        listen(4243)
        say("old", *subscribe(4243, ["platform"], schema="2022-12-13"))
        say("new", *subscribe(4243, ["platform", "function"], schema="2025-01-29"))
        api.request("PUT", "/2020-08-15/logs", "{}", {"Lambda-Extension-Identifier": identifier})
        answer = api.getresponse()
        say("logs", answer.status, answer.read().decode())
        next_event()
    """)
    with _extended(server, {"watch": source}) as function:
        eventually(lambda: not any(call.error for call in function.together({}, {})), what="two workers")

        def told() -> list[dict[str, Any]]:
            lines = [line.partition(" got ")[2] for line in function.lines() if line.startswith("watch got ")]
            events = [json.loads(line) for line in lines]
            return events if [event["type"] for event in events].count("platform.report") >= 2 else []

        events = eventually(told, what="two reports")
        answers = {words[1]: words[2] for words in _words(function, "watch ") if words[1] in ("old", "new", "logs")}
    assert answers == {"old": "400", "new": "200", "logs": "404"}
    kinds = {event["type"] for event in events}
    assert {"platform.initStart", "platform.initReport", "platform.start", "function"} <= kinds
    assert "platform.runtimeDone" not in kinds
    report = next(event["record"] for event in events if event["type"] == "platform.report")
    assert set(report["metrics"]) == {"durationMs"}
    start = next(event["record"] for event in events if event["type"] == "platform.start")
    assert start["functionArn"].endswith(f":{function.version}")

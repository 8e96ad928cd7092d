"""What the Telemetry API tells extensions, seen from outside: extensions in layers, as their makers write them."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.journeys.conftest import MakeServer, require
from tests.support.extensions import SUBSCRIBES, extended, layer
from tests.support.functions import PYTHON, node, python, shell
from tests.support.server import Function, TorporServer, eventually

pytestmark = pytest.mark.privileged
"""The extensions are programs for the `/var/lang` of a sandbox."""

SAMPLES = Path(__file__).parents[1] / "support" / "sample_extensions"
FUNCTION = python("""
    def handler(event, context):
        for line in event.get("lines", ()):
            print(line)
        for number in range(event.get("count", 0)):
            print("number", number)
        if event.get("exit"):
            sys.stdout.flush()
            os._exit(1)
        if event.get("raise"):
            raise ValueError("told")
        return BOOT
    import sys
""")
GREETS = """
export const handler = async () => {
  console.log('hello from node');
  return 1;
};
"""
TELLS = SUBSCRIBES + dedent("""
    register("INVOKE", "SHUTDOWN")
    listen(4243)
    say("subscribed", *subscribe(4243, ["platform", "function"]))
    while (event := next_event())["eventType"] == "INVOKE":
        wait_for("platform.runtimeDone", event["requestId"])
    time.sleep(0.3)
""")
"""Is done with an invocation once it knows that the runtime is; the listener prints what it gets."""


def told(function: Function, name: str = "watch") -> list[dict[str, Any]]:
    """The events that an extension has printed, in order."""
    lines = [line.partition(" ") for line in function.lines()]
    return [json.loads(text.removeprefix("got ")) for who, _, text in lines if who == name and text.startswith("got ")]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def _record(events: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [event["record"] for event in events if event["type"] == kind]
    record: dict[str, Any] = found
    return record


def _reports(function: Function, count: int) -> list[dict[str, Any]]:
    """All that was told, once so many reports were."""

    def complete() -> list[dict[str, Any]]:
        events = told(function)
        return events if kinds(events).count("platform.report") >= count else []

    return eventually(complete, within=20, what=f"{count} reports")


@pytest.mark.fact("L-006")
def test_extension_gets_the_functions_lines_and_the_platforms_events(server: TorporServer) -> None:
    require(server, PYTHON)
    with extended(server, FUNCTION, {"watch": TELLS}) as function:
        reply = function.invoke({"lines": ["hello-42"]})
        function.invoke()
        function.recycle()
        events = _reports(function, 2)
    assert kinds(events)[:10] == [
        "platform.initStart",
        "platform.telemetrySubscription",
        "platform.initRuntimeDone",
        "platform.extension",
        "platform.initReport",
        "platform.start",
        "function",
        "platform.runtimeDone",
        "platform.report",
        "platform.start",
    ]
    assert _record(events[:9], "platform.report")["requestId"] == reply.request_id
    assert "hello-42" in [event["record"] for event in events if event["type"] == "function"]
    start = _record(events[:9], "platform.initStart")
    assert (start["initializationType"], start["phase"]) == ("on-demand", "init")
    assert start["runtimeVersion"].startswith("python:") and start["instanceId"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", events[0]["time"])
    done = _record(events[:9], "platform.runtimeDone")
    spans = {span["name"]: span["durationMs"] for span in done["spans"]}
    assert sum(spans.values()) == pytest.approx(done["metrics"]["durationMs"], abs=0.01)


@pytest.mark.fact("L-066")
def test_init_inside_an_invocation_shows_in_telemetry_with_its_phase(server: TorporServer) -> None:
    require(server, PYTHON)
    with extended(server, FUNCTION, {"watch": TELLS}) as function:
        first = function.invoke()
        assert function.invoke({"exit": True}).payload["errorType"] == "Runtime.ExitError"
        eventually(lambda: [entry["phase"] for entry in function.environments()] == ["uninitialized"], what="the reset")
        third = function.invoke()
        assert first.payload != third.payload and not any("INIT" in line for line in third.tail)
        function.recycle()
        events = _reports(function, 3)
    phases = [(event["type"], event["record"]["phase"]) for event in events if ".init" in event["type"]]
    steps = ["platform.initStart", "platform.initRuntimeDone", "platform.initReport"]
    assert phases == [(kind, phase) for phase in ("init", "invoke") for kind in steps]
    ended = [event["record"]["status"] for event in events if event["type"] == "platform.runtimeDone"]
    assert ended == ["success", "error", "success"]


def test_five_thousand_lines_of_one_invocation_arrive_once_each_and_in_order(server: TorporServer) -> None:
    require(server, PYTHON)
    counts = TELLS.replace('say("got", json.dumps(event))', "pass") + '\nsay("numbers", json.dumps(numbers()))\n'
    with extended(server, FUNCTION, {"watch": counts}, MemorySize=1024) as function:
        function.invoke({"count": 5000})
        function.recycle()
        line = next(line for line in function.lines() if line.startswith("watch numbers"))
    assert json.loads(line.partition("numbers ")[2]) == list(range(5000))


def test_function_error_is_an_error_of_the_runtime_and_json_lines_are_objects(server: TorporServer) -> None:
    require(server, PYTHON)
    logging = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "DEBUG"}
    with extended(server, FUNCTION, {"watch": TELLS}, LoggingConfig=logging) as function:
        function.invoke({"raise": True, "lines": ['{"own": 1}', "plain"]})
        function.recycle()
        events = _reports(function, 1)
        logged = [json.loads(line)["type"] for line in function.lines() if line.startswith('{"time"')]
    lines = [event["record"] for event in events if event["type"] == "function"]
    assert {"own": 1} in lines and "plain" in lines
    assert any(isinstance(line, dict) and line.get("errorType") == "ValueError" for line in lines)
    assert _record(events, "platform.runtimeDone")["status"] == "error"
    assert [kind for kind in kinds(events) if kind.startswith("platform")] == logged


def test_levels_leave_lines_out(server: TorporServer) -> None:
    require(server, PYTHON)
    package = python("""
        import logging
        def handler(event, context):
            logging.getLogger().debug("own debug")
            logging.getLogger().warning("own warning")
            return os.environ.get("AWS_LAMBDA_LOG_LEVEL")
    """)
    quiet = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "WARN"}
    loud = {"LogFormat": "JSON", "ApplicationLogLevel": "DEBUG"}
    with server.deployed(package, LoggingConfig=quiet) as function:
        assert function.invoke().payload == "WARN"
        assert [json.loads(line)["message"] for line in function.lines()] == ["own warning"]
        server.client.update_function_configuration(FunctionName=function.name, LoggingConfig=loud)
        assert function.invoke().payload == "DEBUG"
        lines = [json.loads(line) for line in function.lines()]
    assert [line["message"] for line in lines if "message" in line] == ["own warning", "own debug", "own warning"]
    assert {"platform.initStart", "platform.start", "platform.report"} <= {line.get("type") for line in lines}


def test_platform_filters_lines_of_runtimes_that_do_not(server: TorporServer) -> None:
    time = '"timestamp":"2024-01-01T00:00:00Z"'
    package = shell(f"""
        while true; do
          next
          echo '{{"level":"debug",{time},"n":1}}'
          echo '{{"level":"ERROR",{time},"n":2}}'
          echo '{{"level":"debug","n":3}}'
          echo 'plain'
          respond '{{}}'
        done
    """)
    logging = {"LogFormat": "JSON", "ApplicationLogLevel": "WARN"}
    with server.deployed(package, LoggingConfig=logging) as function:
        function.invoke()
        lines = [line for line in function.lines() if "platform." not in line]
        assert [json.loads(line)["n"] for line in lines] == [2]
        server.client.update_function_configuration(FunctionName=function.name, LoggingConfig={"LogFormat": "JSON"})
        function.invoke()
        lines = [line for line in function.lines() if "platform." not in line]
    assert [line if line == "plain" else json.loads(line)["n"] for line in lines] == [2, 2, 3, "plain"]


# -- programs written as their makers publish them


@contextmanager
def _sampled(server: TorporServer, *names: str, **configuration: Any) -> Iterator[Function]:
    files = {f"extensions/{name}": (SAMPLES / name).read_text() for name in names}
    with ExitStack() as stack:
        arn = stack.enter_context(layer(server, files))
        yield stack.enter_context(server.deployed(FUNCTION, Layers=[arn], **configuration))


def test_sample_in_python_runs_unmodified(server: TorporServer) -> None:
    require(server, PYTHON)
    with _sampled(server, "telemetry-python") as function:
        for number in range(3):
            function.invoke({"lines": [f"hello-{number}"]})
        function.recycle()
        lines = [line for line in function.lines() if line.startswith("[telemetry-python]")]
    assert lines[:2] == [
        f"[telemetry-python] registered for {function.name}",
        "[telemetry-python] subscribed: OK",
    ]
    assert lines[-1] == "[telemetry-python] done: spindown"
    batches = [json.loads(line.partition("dispatching ")[2]) for line in lines if "dispatching" in line]
    events = [event for batch in batches for event in batch]
    counted = Counter(kinds(events))
    assert counted["platform.start"] == counted["platform.report"] == counted["function"] == 3
    assert [event["record"] for event in events if event["type"] == "function"] == ["hello-0", "hello-1", "hello-2"]


def test_sample_in_node_waits_for_the_runtime_to_be_done(make_server: MakeServer) -> None:
    server = make_server(any_node=True)
    package_runtime = next((name for name in server.runtimes if name.startswith("nodejs")), "")
    if not package_runtime:
        pytest.skip("this host has no Node.js")
    files = {"extensions/telemetry-nodejs": (SAMPLES / "telemetry-nodejs").read_text()}
    with layer(server, files) as arn, server.deployed(node(GREETS, runtime=package_runtime), Layers=[arn]) as function:
        for _ in range(3):
            function.invoke()
        function.recycle()
        lines = [line for line in function.lines() if line.startswith("[telemetry-nodejs]")]
    assert lines[0] == "[telemetry-nodejs] subscribed: OK"
    assert lines[-1] == "[telemetry-nodejs] done: spindown"
    events = [json.loads(line.partition("got ")[2]) for line in lines if " got " in line]
    assert kinds(events).count("platform.runtimeDone") == 3
    assert kinds(events).count("platform.report") >= 2  # it does not wait for the one that comes with its end
    assert any("hello from node" in event["record"] for event in events if event["type"] == "function")


def test_sample_in_bash_follows_the_life_cycle(server: TorporServer) -> None:
    require(server, PYTHON)
    with _sampled(server, "custom-bash") as function:
        reply = function.invoke()
        function.recycle()
        lines = [line for line in function.lines() if line.startswith("[custom-bash]")]
    assert "registering" in lines[0] and function.name in lines[1]
    assert reply.request_id in lines[2] and '"spindown"' in lines[3] and len(lines) == 4


def test_samples_beside_each_other(server: TorporServer) -> None:
    require(server, PYTHON)
    with _sampled(server, "telemetry-python", "custom-bash", Timeout=10) as function:
        replies = [function.invoke({"lines": ["x"]}) for _ in range(2)]
        function.recycle()
    assert len({reply.payload for reply in replies}) == 1

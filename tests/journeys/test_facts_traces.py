"""Exported trace segments of functions with active tracing."""

import json
import re
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import node, python
from tests.support.server import Function, TorporServer, eventually

CODE = """
def handler(event, context):
    if event.get("exit"):
        os._exit(1)
    if event.get("sleep"):
        time.sleep(event["sleep"])
    if event.get("fail"):
        raise KeyError("wanted")
    return os.environ.get("_X_AMZN_TRACE_ID", "")
"""
FAILURES = {
    "raise": ({"fail": True}, "KeyError"),
    "crash": ({"exit": True}, "Runtime.ExitError"),
    "time-out": ({"sleep": 30}, "Sandbox.Timedout"),
}
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "trace-segments.md"
ROOT, PARENT = "1-5f35ae12-0c0fec141ab77a00bc047aa2", "2be948a625588e32"


class Daemon:
    """Takes segments as X-Ray's daemon does."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(20)
        self.address = "{}:{}".format(*self._socket.getsockname())

    def take(self, count: int) -> list[dict[str, Any]]:
        """The next documents, in the order they came."""
        datagrams = [self._socket.recv(65_536).partition(b"\n") for _ in range(count)]
        assert {json.dumps(json.loads(header), sort_keys=True) for header, _, _ in datagrams} == {
            '{"format": "json", "version": 1}'
        }
        return [json.loads(document) for _, _, document in datagrams]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


def _kept(function: Function) -> list[dict[str, Any]]:
    with urllib.request.urlopen(f"{function.server.url}/_torpor/traces?function={function.name}") as answer:
        kept: list[dict[str, Any]] = json.loads(answer.read())["segments"]
    return kept


def _traced(function: Function, event: dict[str, Any], header: str = f"Root={ROOT};Parent={PARENT};Sampled=1") -> Any:
    """Invoke with a trace header, as a traced caller does; what the function says of it, without the part that counts
    the function's calls."""
    request = urllib.request.Request(
        f"{function.server.url}/2015-03-31/functions/{function.name}/invocations",
        data=json.dumps(event).encode(),
        headers={"X-Amzn-Trace-Id": header},
    )
    with urllib.request.urlopen(request) as answer:
        said = json.loads(answer.read())
    return said.partition(";Lineage=")[0] if isinstance(said, str) else said


def _documented() -> set[str]:
    """The fields that the page about segments names."""
    return set(re.findall(r'`"?(\w+)', PAGE.read_text()))


def _form(value: object) -> object:
    """The structure of a document: what is there, and of which type."""
    if isinstance(value, dict):
        return {key: _form(inner) for key, inner in value.items()}
    return [_form(inner) for inner in value] if isinstance(value, list) else type(value).__name__


@pytest.mark.fact("L-062")
@pytest.mark.parametrize("style", ["new", "old"])
@pytest.mark.parametrize("name", FAILURES)
def test_exported_segment_marks_the_failure_in_the_same_form_on_every_run(
    deploy: Deploy, make_server: MakeServer, daemon: Daemon, name: str, style: str
) -> None:
    event, kind = FAILURES[name]
    on: TorporServer = make_server(trace_daemon=daemon.address, log_style=style)
    function = deploy(python(CODE), on=on, Timeout=1, TracingConfig={"Mode": "Active"})

    runs = []
    for _ in range(2):
        _traced(function, event)
        runs.append(daemon.take(2))
        function.recycle()

    for service, inner in runs:
        assert (service["trace_id"], service["parent_id"]) == (ROOT, PARENT)
        assert (service["origin"], inner["origin"]) == ("AWS::Lambda", "AWS::Lambda::Function")
        assert (inner["trace_id"], inner["parent_id"]) == (ROOT, service["id"])
        assert service["fault"] is inner["fault"] is True
        assert [part["name"] for part in inner["subsegments"] if part.get("fault")] == ["Invocation"]
        assert inner["cause"]["exceptions"][0]["type"] == kind
        assert service["start_time"] <= inner["subsegments"][-1]["end_time"] <= service["end_time"]
        assert set(service) | set(inner) <= _documented()
    assert _form(runs[0]) == _form(runs[1])
    assert len({segment["id"] for run in runs for segment in run}) == 4


def test_function_sees_its_own_segment_as_parent_and_what_was_sent_is_kept(
    deploy: Deploy, make_server: MakeServer, daemon: Daemon
) -> None:
    function = deploy(
        python(CODE), on=make_server(trace_daemon=daemon.address, log_style="new"), TracingConfig={"Mode": "Active"}
    )

    seen = _traced(function, {})
    service, inner = sent = daemon.take(2)

    assert seen == f"Root={ROOT};Parent={inner['id']};Sampled=1"
    assert [part["name"] for part in inner["subsegments"]] == ["Initialization", "Invocation", "Overhead"]
    assert "fault" not in service | inner and "cause" not in inner
    assert _kept(function) == sent
    line = f"XRAY TraceId: {ROOT}\tSegmentId: {inner['id']}\tSampled: true\t"
    assert eventually(lambda: line in function.lines())


def test_node_tells_its_stack(deploy: Deploy) -> None:
    source = 'export const handler = async () => { throw new TypeError("not so") }'
    function = deploy(node(source), TracingConfig={"Mode": "Active"})

    _traced(function, {})
    (exception,) = eventually(lambda: _kept(function))[1]["cause"]["exceptions"]

    assert (exception["type"], exception["message"]) == ("TypeError", "not so")
    assert exception["stack"][0]["path"].endswith("index.mjs")


@pytest.mark.parametrize("mode, sampled", [("PassThrough", 1), ("Active", 0)])
def test_nothing_is_recorded_unless_the_function_and_the_caller_want_it(
    deploy: Deploy, mode: str, sampled: int
) -> None:
    function = deploy(python(CODE), TracingConfig={"Mode": mode})

    seen = _traced(function, {}, f"Root={ROOT};Parent={PARENT};Sampled={sampled}")

    assert seen.startswith(f"Root={ROOT};Parent=") and seen.endswith(f";Sampled={sampled}")
    assert (f"Parent={PARENT}" in seen) is (mode == "PassThrough")
    assert _kept(function) == []

"""Event functions of Function Compute: what calls them, what they get, and what their callers get."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import fc2
import pytest
from alibabacloud_fc20230330 import models as v3
from alibabacloud_tea_util.models import RuntimeOptions
from tests.support.fc import PYTHON, ComputeFunction, deployed, deployed_classic, fc_warnings, python, visit
from tests.support.npm import node_modules
from tests.support.server import TorporServer, eventually

pytestmark = [
    fc_warnings,
    pytest.mark.skipif(not PYTHON, reason="this host has no Python that event functions can use"),
]

HANDLER = python("""
def handler(event, context):
    print("event", event.decode("latin-1"), flush=True)
    if event.startswith(b"sleep "):
        time.sleep(float(event.split()[1]))
        print("slept", context.request_id, flush=True)
    if event == b"fail":
        raise ValueError("this is what went wrong")
    return b"got " + event
""")
CONFIGURATION = {"runtime": PYTHON, "handler": "index.handler"}
NODE_V3 = """
const { default: Client, InvokeFunctionRequest } = require("@alicloud/fc20230330");
const { Config } = require("@alicloud/openapi-core").$OpenApiUtil;
const { Readable } = require("stream");
const [endpoint, name] = process.argv.slice(1);
const client = new Client(new Config({ accessKeyId: "a", accessKeySecret: "b", endpoint, protocol: "http" }));
(async () => {
  const body = Readable.from([Buffer.from("hello")]);
  const answer = await client.invokeFunction(name, new InvokeFunctionRequest({ body }));
  const pieces = [];
  for await (const piece of answer.body) pieces.push(piece);
  console.log(JSON.stringify({ status: answer.statusCode, body: Buffer.concat(pieces).toString() }));
})();
"""
NODE_CLASSIC = """
const FC = require("@alicloud/fc2");
const [address, name, service] = process.argv.slice(1);
const client = new FC("123", {
  accessKeyID: "a", accessKeySecret: "b", region: "cn-hangzhou", endpoint: `http://${address}`,
});
(async () => {
  const answer = await client.invokeFunction(service, name, "hello");
  console.log(JSON.stringify({ status: 200, body: String(answer.data) }));
})();
"""


@pytest.fixture(scope="module")
def function(server: TorporServer) -> Iterator[ComputeFunction]:
    with deployed(server, HANDLER, **CONFIGURATION) as function:
        yield function


@pytest.fixture(scope="module")
def classic(server: TorporServer) -> Iterator[ComputeFunction]:
    with deployed_classic(server, HANDLER, **CONFIGURATION) as function:
        yield function


@pytest.mark.fact("F-001")
def test_events_of_triggers_make_the_platform_run_the_function(server: TorporServer) -> None:
    with (
        deployed(server, HANDLER, **CONFIGURATION) as function,
        function.triggered("http", authType="anonymous", methods=["GET"]) as url,
        function.triggered("timer", cronExpression="@every 1s", enable=True, payload="from the timer"),
    ):
        page = visit(server, url, "/page?a=b")
        by_timer = eventually(lambda: [line for line in function.printed("event ") if "triggerTime" in line])

    assert page.status == 200
    event = json.loads(page.body.removeprefix(b"got "))
    assert (event["rawPath"], event["queryParameters"]) == ("/page", {"a": "b"})
    assert json.loads(by_timer[0].removeprefix("event "))["payload"] == "from the timer"


@pytest.mark.fact("F-002")
def test_api_calls_it_directly(function: ComputeFunction, classic: ComputeFunction) -> None:
    assert function.invoke(b"hello").body == b"got hello"
    assert classic.classic.invoke_function(classic.service, classic.name, b"hello").data == b"got hello"


@pytest.mark.fact("F-003")
def test_header_tells_whether_the_caller_waits(function: ComputeFunction) -> None:
    waited = function.invoke(b"waiting", x_fc_invocation_type="Sync")
    left = function.invoke(b"leaving", x_fc_invocation_type="Async")

    assert (waited.status, waited.body) == (200, b"got waiting")
    assert (left.status, left.body) == (202, b"")
    eventually(lambda: "event leaving" in function.printed("event "), what="the asynchronous run")


@pytest.mark.fact("F-004")
@pytest.mark.parametrize("event", [b'{"key": ["value", 1]}', "plain text, \u6587".encode(), bytes(range(256)), b""])
def test_event_may_be_anything_and_arrives_byte_for_byte(function: ComputeFunction, event: bytes) -> None:
    assert function.invoke(event).body == b"got " + event


@pytest.mark.fact("F-005")
def test_current_client_for_node_calls_it_and_gets_the_result(
    function: ComputeFunction, request: pytest.FixtureRequest
) -> None:
    modules = node_modules(request.config.cache, "@alicloud/fc20230330@4.7.6")

    assert _by_node(modules, NODE_V3, function) == {"status": 200, "body": "got hello"}


@pytest.mark.fact("F-005")
def test_classic_client_for_node_calls_it_and_gets_the_result(
    classic: ComputeFunction, request: pytest.FixtureRequest
) -> None:
    modules = node_modules(request.config.cache, "@alicloud/fc2@2.6.6")

    assert _by_node(modules, NODE_CLASSIC, classic) == {"status": 200, "body": "got hello"}


def _by_node(modules: Path, script: str, function: ComputeFunction) -> dict[str, object]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("this host has no Node.js")
    address = function.server.url.removeprefix("http://")
    command = [node, "-e", script, "--", address, function.name, function.service]
    done = subprocess.run(command, cwd=modules.parent, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


@pytest.mark.fact("F-006")
def test_environment_is_made_at_once_for_a_caller_that_waits(server: TorporServer) -> None:
    with deployed(server, HANDLER, **CONFIGURATION) as function:
        result = function.post(b"hello")
        phases = function.phases()

    begins = [phase["time"] - phase["duration"] for phase in phases]
    assert [phase["phase"] for phase in phases] == ["fetch", "start", "init", "invoke"]
    assert result.sent <= begins[0] + 0.005
    assert begins[0] - result.sent < 0.1
    assert result.elapsed - sum(phase["duration"] for phase in phases) < 0.1


@pytest.mark.fact("F-007")
def test_waiting_caller_gets_the_result_or_the_error(function: ComputeFunction, classic: ComputeFunction) -> None:
    good, bad = function.invoke(b"hello"), function.invoke(b"fail")
    with pytest.raises(fc2.FcError) as raised:
        classic.classic.invoke_function(classic.service, classic.name, b"fail")

    assert (good.body, good.error) == (b"got hello", "")
    assert (bad.status, bad.error) == (200, "UnhandledInvocationError")
    assert (bad.value["errorType"], bad.value["errorMessage"]) == ("ValueError", "this is what went wrong")
    assert raised.value.status_code == 200
    assert "this is what went wrong" in str(raised.value)


@pytest.mark.fact("F-008")
def test_asynchronous_call_is_acknowledged_at_once_without_a_result(function: ComputeFunction) -> None:
    result = function.send(b"sleep 5")

    assert result.elapsed < 0.5
    assert (result.status, result.body, result.error) == (202, b"", "")
    slept = f"slept {result.request_id}"
    assert slept not in function.printed("slept")
    eventually(lambda: slept in function.printed("slept"), what="the end of the run")


@pytest.mark.fact("F-009")
def test_asynchronous_run_may_outlast_the_callers_patience(function: ComputeFunction) -> None:
    hasty = RuntimeOptions(read_timeout=1000, autoretry=False)
    headers = v3.InvokeFunctionHeaders(x_fc_invocation_type="Async")
    call = v3.InvokeFunctionRequest

    answer = function.current.invoke_function_with_options(function.name, call(body=b"sleep 3"), headers, hasty)
    with pytest.raises(Exception, match=r"(?i)timed out"):
        function.current.invoke_function_with_options(
            function.name, call(body=b"sleep 3"), v3.InvokeFunctionHeaders(), hasty
        )

    assert answer.status_code == 202
    slept = f"slept {answer.headers['x-fc-request-id']}"
    eventually(lambda: slept in function.printed("slept"), what="the end of the run")

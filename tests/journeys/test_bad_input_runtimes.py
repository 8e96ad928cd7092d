"""Runtimes that break the rules of the Runtime API: the API's own error for each, a clear one for its caller."""

import json
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import PROVIDED, Package, archive, python
from tests.support.remains import footprint, memory_of
from tests.support.server import Function, TorporServer, eventually

PYTHON = Path("/usr/bin/python3")
MIB = 1 << 20
RESPONSE_MAX = 6 * MIB + 100
INVALID_ID = {"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}
TOO_LARGE_FOR_CALLER = {
    "errorMessage": f"Response payload size exceeded maximum allowed payload size ({RESPONSE_MAX} bytes).",
    "errorType": "Function.ResponseSizeTooLarge",
}

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"the runtimes of these tests are programs for {PYTHON}"),
]

CALLS = """#!/usr/bin/python3
import http.client, json, os, socket, sys, time, uuid

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
BOOT = uuid.uuid4().hex

def call(method, path, body=None, **headers):
    connection = http.client.HTTPConnection(API)
    named = {"Lambda-Runtime-Function-" + name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, "/2018-06-01/runtime/" + path, body, named)
    answer = connection.getresponse()
    return answer.status, answer.read(), answer.headers

def raw(data):
    host, _, port = API.partition(":")
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        return peer.recv(65536).partition(b"\\r\\n")[0].decode()

def next_event():
    status, body, headers = call("GET", "invocation/next")
    return headers["Lambda-Runtime-Aws-Request-Id"], json.loads(body)

def tell(*answers):
    for status, body, headers in answers:
        is_json = headers["Content-Type"] == "application/json"
        print("told", json.dumps([status, json.loads(body) if is_json else body.decode()]), flush=True)

def post(what, body, **headers):
    return call("POST", f"invocation/{id}/{what}", body, **headers)
"""

SCENES = """
def garbage():
    post("response", bytes(range(256)))

def twice():
    post("response", '"first"')
    tell(post("response", '"second"'), post("error", "{}"))

def answer_the_one_before():
    global id
    own, id = id, before
    tell(post("response", '"stolen"'), post("error", "{}"))
    id = own
    post("response", '"own"')

def wrong_id():
    global id
    right, id = id, str(uuid.uuid4())
    tell(post("response", '"stolen"'), post("error", "{}"))
    id = "../../next"
    tell(post("response", '"stolen"'))
    id = right
    post("response", '"right"')

def wrong_order():
    tell(call("POST", "init/error", "{}"))
    again = call("GET", "invocation/next")
    assert again[2]["Lambda-Runtime-Aws-Request-Id"] == id
    post("response", again[1])
    tell(call("POST", "init/error", "{}"))

def too_large():
    tell(post("response", b"x" * event["size"]))

def too_large_error():
    tell(post("error", b"x" * event["size"]))

def large_error():
    body = json.dumps({"errorType": "Large", "errorMessage": "x" * event["size"]})
    tell(post("error", body, Error_Type="nonsense"))

def mode():
    tell(post("response", '"x"', Response_Mode="sideways"))

def no_http():
    path = f"/2018-06-01/runtime/invocation/{id}/response"
    print("raw", raw(b"GARBAGE\\r\\n\\r\\n"), flush=True)
    print("raw", raw(f"POST {path} HTTP/1.1\\r\\nContent-Length: 1000\\r\\n\\r\\ncut off".encode()), flush=True)
    print("raw", raw(b"GET /" + b"x" * 2000000 + b" HTTP/1.1\\r\\n\\r\\n"), flush=True)
    tell(call("GET", "nowhere"), call("POST", "invocation/next"), call("GET", f"invocation/{id}/response"))
    post("response", '"still here"')

def late():
    time.sleep(event["sleep"])
    print("late", post("response", '"late"')[0], flush=True)

def good():
    post("response", json.dumps(BOOT))

id = ""
while True:
    before = id
    id, event = next_event()
    globals()[event["scene"]]()
"""


def _runtime(source: str) -> Package:
    return Package(archive=archive({"bootstrap": CALLS + dedent(source)}), runtime=PROVIDED, handler="unused")


class Stage:
    """A function whose runtime misbehaves as told, and what its runtime was told in turn."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def play(self, scene: str, **event: Any) -> tuple[bytes, str, list[Any]]:
        """What the caller got and what the runtime was told; then the same runtime still answers."""
        boot, seen = self.good(), len(self._told())
        answer = self.function.server.client.invoke(
            FunctionName=self.function.name, Payload=json.dumps({"scene": scene, **event})
        )
        payload = answer["Payload"].read()
        self.function.wait_until_frozen()
        assert self.good() == boot, "the runtime was started anew"
        return payload, answer.get("FunctionError", ""), self._told()[seen:]

    def good(self) -> Any:
        reply = self.function.invoke({"scene": "good"})
        assert reply.error == ""
        return reply.payload

    def _told(self) -> list[Any]:
        return [json.loads(line[5:]) for line in self.function.lines() if line.startswith("told ")]


@pytest.fixture
def stage(deploy: Deploy) -> Stage:
    return Stage(deploy(_runtime(SCENES), MemorySize=1769, Timeout=8))


def _refused(source: str, target: str) -> dict[str, str]:
    text = f"State transition from {source} to {target} failed for runtime. Error: State transition is not allowed"
    return {"errorMessage": text, "errorType": "InvalidStateTransition"}


def test_answer_that_is_no_json_reaches_the_caller_as_it_is(stage: Stage) -> None:
    assert stage.play("garbage") == (bytes(range(256)), "", [])


def test_second_answer_is_refused_and_the_first_stands(stage: Stage) -> None:
    payload, error, told = stage.play("twice")

    assert (payload, error) == (b'"first"', "")
    assert told == [
        [403, _refused("RuntimeResponseSentState", "InvocationResponse")],
        [403, _refused("RuntimeResponseSentState", "InvocationErrorResponse")],
    ]


def test_second_answer_during_the_next_event_is_refused_and_goes_to_nobody(stage: Stage) -> None:
    payload, error, told = stage.play("answer_the_one_before")

    assert (payload, error) == (b'"own"', "")
    assert told == [[400, INVALID_ID]] * 2


def test_answer_for_another_id_is_refused_and_the_right_one_taken(stage: Stage) -> None:
    payload, error, told = stage.play("wrong_id")

    assert (payload, error) == (b'"right"', "")
    assert told[:2] == [[400, INVALID_ID]] * 2
    assert told[2][0] in (400, 404)


def test_call_out_of_turn_is_refused_and_next_gives_the_same_event_again(stage: Stage) -> None:
    payload, error, told = stage.play("wrong_order")

    assert (json.loads(payload), error) == ({"scene": "wrong_order"}, "")
    assert told == [
        [403, _refused("Running", "InitError")],
        [403, _refused("RuntimeResponseSentState", "InitError")],
    ]


@pytest.mark.parametrize("scene", ["too_large", "too_large_error"])
@pytest.mark.parametrize("size", [RESPONSE_MAX + 1, 40 * MIB])
def test_answer_that_is_too_large_is_told_to_runtime_and_caller(deploy: Deploy, scene: str, size: int) -> None:
    stage = Stage(deploy(_runtime(SCENES), MemorySize=1769, Timeout=60))  # sending it may take long on a busy host

    payload, error, told = stage.play(scene, size=size)

    assert json.loads(payload) == TOO_LARGE_FOR_CALLER
    assert error == "Unhandled"
    message = f"Exceeded maximum allowed payload size ({RESPONSE_MAX} bytes)."
    assert told == [[413, {"errorMessage": message, "errorType": "RequestEntityTooLarge"}]]


def test_runtime_that_ends_over_its_refused_answer_leaves_that_answer(deploy: Deploy) -> None:
    function = deploy(python("def handler(event, context):\n    return 'x' * event['size']\n"), MemorySize=512)

    reply = function.invoke({"size": RESPONSE_MAX + 1})

    assert (reply.error, reply.payload) == ("Unhandled", TOO_LARGE_FOR_CALLER)
    assert function.invoke({"size": 1}).payload == "x"


def test_answer_of_the_largest_size_reaches_the_caller(stage: Stage) -> None:
    payload, error, told = stage.play("large_error", size=5 * MIB)

    assert json.loads(payload) == {"errorType": "Large", "errorMessage": "x" * (5 * MIB)}
    assert (error, told) == ("Unhandled", [[202, {"status": "OK"}]])


def test_unknown_response_mode_is_told_to_runtime_and_caller(stage: Stage) -> None:
    payload, error, told = stage.play("mode")

    assert json.loads(payload)["errorType"] == "Runtime.InvalidResponseModeHeader"
    assert error == "Unhandled"
    body = {"errorMessage": "Invalid function response mode", "errorType": "InvalidFunctionResponseMode"}
    assert told == [[400, body]]


def test_calls_that_are_no_calls_harm_nothing(stage: Stage) -> None:
    payload, error, told = stage.play("no_http")

    assert (payload, error) == (b'"still here"', "")
    assert told == [[404, "404 page not found\n"], [405, ""], [405, ""]]
    raw = [line.split()[2] for line in stage.function.lines() if line.startswith("raw HTTP")]
    assert raw[0] == "400"
    assert raw[-1] in ("414", "431")


def test_answer_after_the_deadline_comes_from_nobody(deploy: Deploy) -> None:
    function = deploy(_runtime(SCENES), Timeout=1)
    boot = function.invoke({"scene": "good"}).payload
    running = function.start({"scene": "late", "sleep": 1.5})
    eventually(lambda: [entry for entry in function.environments() if entry["phase"] == "serving"])
    noted = footprint(function)

    reply = running.result()

    text = f"RequestId: {reply.request_id} Error: Task timed out after 1.00 seconds"
    assert reply.payload == {"errorType": "Sandbox.Timedout", "errorMessage": text}
    assert reply.error == "Unhandled"
    eventually(lambda: not noted.processes_left(), within=2.0)
    time.sleep(1.0)
    assert [line for line in function.lines() if line.startswith("late")] == []
    again = function.invoke({"scene": "good"})
    assert again.error == ""
    assert again.payload != boot


def test_huge_init_error_is_not_read_and_the_exit_is_told(server: TorporServer, deploy: Deploy) -> None:
    before = memory_of(server.process.pid)
    function = deploy(
        _runtime('call("POST", "init/error", b"x" * (20 << 20), Error_Type="Runtime.Huge")\nsys.exit(1)'),
        MemorySize=512,
    )

    answer = server.client.invoke(FunctionName=function.name)

    assert answer["FunctionError"] == "Unhandled"
    assert json.loads(answer["Payload"].read())["errorType"] == "Runtime.ExitError"
    assert memory_of(server.process.pid) < before + 64 * MIB


def test_init_error_then_wrong_calls_are_refused(deploy: Deploy) -> None:
    function = deploy(
        _runtime("""
        id = "0"
        tell(post("response", "1"), post("error", "{}"))
        tell(call("POST", "init/error", '{"errorType": "Mine", "errorMessage": "no"}'))
        tell(call("POST", "init/error", "{}"), call("GET", "invocation/next"))
        sys.exit(3)
        """)
    )

    reply = function.invoke()

    assert (reply.error, reply.payload) == ("Unhandled", {"errorType": "Mine", "errorMessage": "no"})
    told = [json.loads(line[5:]) for line in function.lines() if line.startswith("told ")]
    assert told[:5] == [
        [400, INVALID_ID],
        [400, INVALID_ID],
        [202, {"status": "OK"}],
        [403, _refused("InitError", "InitError")],
        [403, _refused("InitError", "Ready")],
    ]


def test_runtime_that_never_asks_is_ended_at_the_init_limit_and_at_the_timeout(
    make_server: MakeServer, deploy: Deploy
) -> None:
    server = make_server(init_limit=1.0)
    function = deploy(_runtime("time.sleep(60)"), on=server, Timeout=2)

    running = function.start()
    eventually(lambda: [entry for entry in function.environments() if entry["phase"] == "initializing"])
    first = footprint(function)
    reply = running.result()

    text = f"RequestId: {reply.request_id} Error: Task timed out after 2.00 seconds"
    assert reply.payload == {"errorType": "Sandbox.Timedout", "errorMessage": text}
    assert 2.9 < reply.elapsed < 5.0
    assert [line for line in function.lines() if line.startswith("INIT_REPORT") and "Status: timeout" in line]
    eventually(lambda: not first.processes_left() and not function.environments()[0]["pids"], within=2.0)

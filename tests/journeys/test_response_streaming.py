"""Functions that stream their responses, called through the official client."""

import base64
import json
import socket
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from tests.journeys.conftest import Deploy, MakeServer
from tests.support.functions import PROVIDED, Package, archive, node, python
from tests.support.managed import managed
from tests.support.server import Function, eventually

from torpor.contracts.lambda_.http_prelude import Prelude, PreludeReader

MIB = 1 << 20
MANAGED_NODE = "nodejs22.x"
SYSTEM_PYTHON = Path("/usr/bin/python3")

STREAMING = """
let boots = 0;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const scenes = {
  async steps(event, stream) {
    for (const step of event.steps) { stream.write(step); await sleep(event.pause); }
    stream.end();
  },
  async http(event, stream) {
    const metadata = { statusCode: 418, headers: { 'X-Kind': 'pot' }, cookies: ['a=1', 'b=2'] };
    const http = awslambda.HttpResponseStream.from(stream, metadata);
    http.write('short'); http.end(' and stout');
  },
  async early() { throw new RangeError('early'); },
  async midway(event, stream) { stream.write('part'); await sleep(20); throw new RangeError('midway'); },
  async hang(event, stream) { stream.write('part'); await sleep(60_000); },
  async exit(event, stream) { stream.write('part'); await sleep(100); process.exit(7); },
  async large(event, stream) {
    for (let left = event.size; left > 0; left -= 65536) {
      if (!stream.write(Buffer.alloc(Math.min(left, 65536), 'x'))) await new Promise((go) => stream.once('drain', go));
    }
    stream.end();
    console.log('wrote everything');
  },
  async count(event, stream) { stream.end(String(++boots)); },
};
export const handler = awslambda.streamifyResponse((event, stream) => scenes[event.scene](event, stream));
"""

BOOTSTRAP = """#!/usr/bin/python3
import base64, http.client, json, os, sys, time

API = os.environ["AWS_LAMBDA_RUNTIME_API"]
PREFIX = "/2018-06-01/runtime/invocation/"

class Stream:
    def __init__(self, id, kind="text/plain"):
        self.connection = http.client.HTTPConnection(API)
        self.connection.putrequest("POST", PREFIX + id + "/response")
        self.connection.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
        self.connection.putheader("Transfer-Encoding", "chunked")
        self.connection.putheader("Content-Type", kind)
        self.connection.endheaders()
    def write(self, data):
        self.connection.send(b"%x\\r\\n%b\\r\\n" % (len(data), data))
    def end(self, **trailers):
        lines = "".join(f"Lambda-Runtime-Function-{n.replace('_', '-')}: {v}\\r\\n" for n, v in trailers.items())
        self.connection.send(f"0\\r\\n{lines}\\r\\n".encode())
        answer = self.connection.getresponse()
        print("told", answer.status, answer.read().decode().strip(), flush=True)

def steps():
    stream = Stream(id)
    for step in event["steps"]:
        stream.write(step.encode())
        time.sleep(event["pause"])
    stream.end()

def fails():
    stream = Stream(id)
    stream.write(b"part")
    error = json.dumps({"errorType": "Mine", "errorMessage": "no"}).encode()
    stream.end(Error_Type="Mine", Error_Body=base64.b64encode(error).decode())

def garbage():
    stream = Stream(id)
    stream.write(b"part")
    stream.connection.send(b"this is no chunk\\r\\n")
    answer = stream.connection.getresponse()
    print("told", answer.status, answer.read().decode().strip(), flush=True)

def broken():
    stream = Stream(id)
    stream.write(b"part")
    stream.connection.close()

while True:
    asking = http.client.HTTPConnection(API)
    asking.request("GET", PREFIX + "next")
    given = asking.getresponse()
    id, event = given.headers["Lambda-Runtime-Aws-Request-Id"], json.loads(given.read())
    globals()[event["scene"]]()
"""


@dataclass(frozen=True, kw_only=True)
class Streamed:
    """What came of one call: pieces with their times, and what the last event says."""

    pieces: list[tuple[float, bytes]]
    code: str
    details: str
    log: str

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.pieces)


def opened(function: Function, **more: Any) -> Iterator[dict[str, Any]]:
    event = {name: more.pop(name) for name in list(more) if name[0].islower()}
    reply = function.server.client.invoke_with_response_stream(
        FunctionName=function.name, Payload=json.dumps(event), **more
    )
    return iter(reply["EventStream"])


def streamed(function: Function, **more: Any) -> Streamed:
    """Call it; names in lower case are the event's."""
    pieces, last = [], {}
    for entry in opened(function, **more):
        if "PayloadChunk" in entry:
            pieces.append((time.monotonic(), entry["PayloadChunk"]["Payload"]))
        else:
            last = entry["InvokeComplete"]
    log = base64.b64decode(last.get("LogResult", "")).decode()
    return Streamed(pieces=pieces, code=last.get("ErrorCode", ""), details=last.get("ErrorDetails", ""), log=log)


@pytest.fixture
def streaming(deploy: Deploy) -> Function:
    return deploy(node(STREAMING), Timeout=20)


@pytest.fixture
def provided(deploy: Deploy) -> Function:
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"the runtime of this test is a program for {SYSTEM_PYTHON}")
    files = {"bootstrap": dedent(BOOTSTRAP)}
    return deploy(Package(archive=archive(files), runtime=PROVIDED, handler="unused"), Timeout=10)


def test_each_piece_arrives_while_the_function_sleeps_before_the_next(streaming: Function) -> None:
    streamed(streaming, scene="count")
    began = time.monotonic()
    reply = streamed(streaming, scene="steps", steps=["one", "two", "three"], pause=400)
    times = [at for at, _ in reply.pieces]
    assert [piece for _, piece in reply.pieces] == [b"one", b"two", b"three"]
    assert times[0] - began < 0.35, "the first came before the function went on"
    assert all(0.3 < later - earlier < 0.8 for earlier, later in pairwise(times))
    assert (reply.code, reply.details, reply.log) == ("", "", "")


def test_response_made_for_http_passes_with_its_prelude(streaming: Function) -> None:
    reply = streamed(streaming, scene="http")
    found = PreludeReader().feed(reply.body)
    assert found == (
        Prelude(status=418, headers=(("X-Kind", "pot"),), cookies=("a=1", "b=2")),
        b"short and stout",
    )


def test_error_before_the_first_byte_comes_as_a_piece_and_one_behind_it_with_the_last_event(
    streaming: Function,
) -> None:
    early, midway = streamed(streaming, scene="early"), streamed(streaming, scene="midway")
    assert early.code == "Unhandled" and json.loads(early.body)["errorMessage"] == "early"
    assert (midway.body, midway.code) == (b"part", "RangeError")
    assert json.loads(midway.details)["errorMessage"] == "midway"
    assert streamed(streaming, scene="count").body == b"1", "the process goes on"


def test_streaming_handler_answers_an_ordinary_call_and_an_ordinary_one_a_streaming_call(
    streaming: Function, deploy: Deploy
) -> None:
    client = streaming.server.client
    event = json.dumps({"scene": "steps", "steps": ["one", "two"], "pause": 1})
    whole = client.invoke(FunctionName=streaming.name, Payload=event)
    assert (whole["Payload"].read(), whole.get("FunctionError")) == (b"onetwo", None)
    failed = client.invoke(FunctionName=streaming.name, Payload=json.dumps({"scene": "midway"}))
    assert failed["FunctionError"] == "Unhandled"
    assert json.loads(failed["Payload"].read())["errorMessage"] == "midway"
    plain = deploy(python("def handler(event, context):\n    return {'got': event}\n"))
    reply = streamed(plain, a=1)
    assert (len(reply.pieces), json.loads(reply.body)) == (1, {"got": {"a": 1}})


def test_streamed_answer_to_an_ordinary_call_may_be_no_larger_than_any_other(streaming: Function) -> None:
    client = streaming.server.client
    event = json.dumps({"scene": "large", "size": 6 * MIB + 101})
    answer = client.invoke(FunctionName=streaming.name, Payload=event)
    assert json.loads(answer["Payload"].read())["errorType"] == "Function.ResponseSizeTooLarge"
    assert streamed(streaming, scene="count").code == ""


def test_time_out_and_crash_cut_a_running_stream(deploy: Deploy) -> None:
    function = deploy(node(STREAMING), Timeout=1)
    streamed(function, scene="count")
    cut = streamed(function, scene="hang")
    assert (cut.body, cut.code) == (b"part", "Sandbox.Timedout")
    assert "Task timed out after 1.00 seconds" in json.loads(cut.details)["errorMessage"]
    gone = streamed(function, scene="exit")
    assert (gone.body, gone.code) == (b"part", "Runtime.ExitError")
    assert "exit status 7" in json.loads(gone.details)["errorMessage"]
    assert streamed(function, scene="count").body == b"1"


def test_log_of_the_invocation_comes_with_the_last_event(streaming: Function) -> None:
    reply = streamed(streaming, scene="large", size=10, LogType="Tail")
    assert reply.body == b"x" * 10
    assert "wrote everything" in reply.log and "\nREPORT RequestId: " in reply.log


def test_caller_that_goes_away_does_not_stop_the_function(streaming: Function) -> None:
    stream = opened(streaming, scene="large", size=8 * MIB)
    assert next(stream)
    where = urllib.parse.urlsplit(streaming.server.url)
    path = f"/2021-11-15/functions/{streaming.name}/response-streaming-invocations"
    body = json.dumps({"scene": "steps", "steps": ["a"] * 5, "pause": 100}).encode()
    with socket.create_connection((where.hostname or "", where.port or 0)) as peer:
        peer.sendall(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        assert b"200 OK" in peer.recv(1000)
    for _ in stream:
        pass
    eventually(lambda: sum(line.startswith("REPORT ") for line in streaming.lines()) == 2, what="both being reported")
    assert "Status:" not in "".join(line for line in streaming.lines() if line.startswith("REPORT "))


def test_large_stream_is_paced_and_costs_the_server_no_memory(streaming: Function) -> None:
    streamed(streaming, scene="count")
    before = _resident(streaming)
    began = time.monotonic()
    size = 0
    for number, entry in enumerate(opened(streaming, scene="large", size=9 * MIB)):
        size += len(entry.get("PayloadChunk", {}).get("Payload", b""))
        if number == 3:
            time.sleep(0.5)  # nothing is read meanwhile
            assert _resident(streaming) < before + 16 * MIB
    assert size == 9 * MIB
    assert time.monotonic() - began > 1.0, "3 MiB beyond the burst take 1.5 s at 2 MiB/s, less what was saved up"


def _resident(function: Function) -> int:
    pages = Path(f"/proc/{function.server.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


@pytest.mark.privileged
def test_any_runtime_may_stream_over_the_api(provided: Function) -> None:
    streamed(provided, scene="steps", steps=["warm"], pause=0)
    began = time.monotonic()
    reply = streamed(provided, scene="steps", steps=["one", "two"], pause=0.4)
    assert reply.body == b"onetwo" and reply.pieces[0][0] - began < 0.35
    failed = streamed(provided, scene="fails")
    assert (failed.body, failed.code) == (b"part", "Mine")
    assert json.loads(failed.details) == {"errorType": "Mine", "errorMessage": "no"}
    eventually(lambda: sum(line.startswith("told 202") for line in provided.lines()) == 3)


@pytest.mark.privileged
def test_runtime_that_breaks_its_stream_fails_that_invocation_alone(provided: Function) -> None:
    for scene in ("garbage", "broken"):
        reply = streamed(provided, scene=scene)
        assert reply.code == "Runtime.TruncatedResponse"
        assert b"part".startswith(reply.body) or json.loads(reply.body)["errorType"] == reply.code
    assert streamed(provided, scene="steps", steps=["on"], pause=0).body == b"on"
    body = {"errorMessage": "HTTP request detected as truncated", "errorType": "TruncatedHTTPRequest"}
    eventually(lambda: any(line.startswith("told 400") for line in provided.lines()))
    told = next(line for line in provided.lines() if line.startswith("told 400"))
    assert json.loads(told.removeprefix("told 400 ")) == body
    assert not [line for line in provided.lines() if line.startswith("INIT_REPORT")]


def _all_streamed(function: Function, *events: dict[str, Any]) -> list[Streamed]:
    """The answers to calls at once; none if there are fewer workers yet."""
    running = [function.server.submit(partial(streamed, function, **event)) for event in events]
    refused = [error for each in running if (error := each.exception()) is not None]
    if any(not isinstance(error, function.server.client.exceptions.TooManyRequestsException) for error in refused):
        raise refused[0]
    return [] if refused else [each.result() for each in running]


def test_invocations_of_a_managed_environment_stream_side_by_side_and_time_out_alone(make_server: MakeServer) -> None:
    server = make_server(any_node=True)
    with managed(server, node(STREAMING, runtime=MANAGED_NODE), Timeout=2) as function:
        one = {"scene": "steps", "steps": ["a", "b", "c"], "pause": 200, "Qualifier": function.version}
        slow = {"scene": "steps", "steps": ["a", "b", "c"], "pause": 900, "Qualifier": function.version}
        first, second, cut = eventually(lambda: _all_streamed(function, one, one, slow), what="three free workers")
        assert [(reply.body, reply.code) for reply in (first, second)] == [(b"abc", "")] * 2
        assert max(first.pieces[0][0], second.pieces[0][0]) < min(first.pieces[-1][0], second.pieces[-1][0])
        assert (cut.body, cut.code) == (b"abc", "Sandbox.Timedout")
        assert eventually(lambda: _all_streamed(function, one), what="a free worker")[0].body == b"abc"

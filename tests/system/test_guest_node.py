"""The Node.js runtime against a real Runtime API, without a sandbox."""

import base64
import json
import os
import re
import struct
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.support.runtime_api import FUNCTION_ARN, Runtime, running

import torpor.sandbox.images as images
from torpor.sandbox.interpreters import Language, choose, discover

GUEST = Path(images.__file__).parent / "guest" / "nodejs"
NODE = choose(discover(), Language.NODE)

pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js on this host")


def serve(
    task: Path, files: Mapping[str, str], handler: str = "index.handler", **more: Any
) -> AbstractContextManager[Runtime]:
    for name, text in files.items():
        file = task / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert NODE is not None
    return running([NODE.executable, str(GUEST / "index.mjs")], task, handler, **more)


def test_async_commonjs_handler_answers_its_result(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.js": "exports.handler = async (e) => ({got: e.x, warm: 'grün'})"}) as runtime:
        posted = runtime.api.invoke({"x": [1, "ü"]})
    assert (posted.kind, posted.json) == ("response", {"got": [1, "ü"], "warm": "grün"})
    assert posted.headers["Content-Type"] == "application/json"


def test_two_invocations_share_process_and_connection(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.mjs": "let n = 0; export const handler = async () => ++n"}) as runtime:
        assert [runtime.api.invoke({}).json for _ in range(3)] == [1, 2, 3]
        assert runtime.api.connections == 1


def test_large_event_and_result_pass_unchanged(tmp_path: Path) -> None:
    event = {"text": "é" * 1_500_000}
    with serve(tmp_path, {"index.mjs": "export const handler = async (e) => e"}) as runtime:
        assert runtime.api.invoke(event).json == event


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        ({"index.mjs": "const v = await Promise.resolve(7); export const handler = async () => v"}, "index.handler"),
        ({"package.json": '{"type":"module"}', "index.js": "export const handler = async () => 7"}, "index.handler"),
        ({"index.cjs": "exports.handler = async () => 7"}, "index.handler"),
        ({"src/app.js": "exports.handler = async () => 7"}, "src/app.handler"),
        ({"src/app.mjs": "export const handler = async () => 7"}, "src/app.handler"),
        ({"mod.js": "exports.obj = {deep: {fn: async () => 7}}"}, "mod.obj.deep.fn"),
        ({"node_modules/pkg/index.js": "exports.handler = async () => 7"}, "pkg.handler"),
        ({"index.mjs": "export default {handler: async () => 7}"}, "index.default.handler"),
    ],
)
def test_handler_is_found_wherever_node_would_look(tmp_path: Path, files: Mapping[str, str], handler: str) -> None:
    with serve(tmp_path, files, handler) as runtime:
        assert runtime.api.invoke({}).json == 7


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("(e, c, cb) => cb(null, 'called')", "called"),
        ("(e, c, cb) => { setTimeout(() => cb(null, 'later'), 20) }", "later"),
        ("(e, c) => c.succeed('context')", "context"),
        ("(e, c) => c.done(null, 'done')", "done"),
        ("() => {}", None),
        ("async () => undefined", None),
        ("() => 'not a promise'", None),
        ("(e, c, cb) => { cb(null, 1); cb(null, 2) }", 1),
    ],
)
def test_every_handler_style_ends_the_invocation(tmp_path: Path, body: str, expected: object) -> None:
    with serve(tmp_path, {"index.js": f"exports.handler = {body}"}) as runtime:
        for _ in range(2):
            posted = runtime.api.invoke({})
            assert (posted.kind, posted.json) == ("response", expected)


def test_callback_waits_for_the_event_loop_unless_told_otherwise(tmp_path: Path) -> None:
    code = """let fired = 0;
    exports.handler = (event, context, callback) => {
      context.callbackWaitsForEmptyEventLoop = event.wait;
      const before = fired;
      setTimeout(() => { fired++ }, 300);
      callback(null, {get fired() { return fired - before }});
    }"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        assert runtime.api.invoke({"wait": True}).json == {"fired": 1}
        assert runtime.api.invoke({"wait": False}).json == {"fired": 0}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("async () => { throw new TypeError('bad') }", ("TypeError", "bad")),
        ("() => { throw new RangeError('sync') }", ("RangeError", "sync")),
        ("(e, c, cb) => cb(new Error('cb'))", ("Error", "cb")),
        ("(e, c, cb) => cb('text')", ("string", "text")),
        ("(e, c) => c.fail('no')", ("string", "no")),
        ("async () => 10n", ("Error", "Unable to stringify response body")),
        ("async () => { const a = {}; a.a = a; return a }", ("Error", "Unable to stringify response body")),
    ],
)
def test_failing_handler_posts_the_error_and_lives_on(tmp_path: Path, body: str, expected: tuple[str, str]) -> None:
    with serve(tmp_path, {"index.js": f"exports.handler = {body}"}) as runtime:
        posted = [runtime.api.invoke({}) for _ in range(2)][1]
        output = runtime.stopped()
    assert posted.kind == "error"
    assert list(posted.json) == ["errorType", "errorMessage", "trace"]
    assert (posted.json["errorType"], posted.json["errorMessage"]) == expected
    assert f"{posted.request_id}\tERROR\tInvoke Error \t{{" in output


def test_thrown_error_carries_its_trace_and_xray_cause(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.js": "exports.handler = async () => { throw new Error('ü') }"}) as runtime:
        posted = runtime.api.invoke({})
    assert posted.json["trace"][0] == "Error: ü"
    assert str(tmp_path / "index.js") in posted.json["trace"][1]
    cause = json.loads(posted.headers["Lambda-Runtime-Function-XRay-Error-Cause"])
    assert cause["working_directory"] == str(tmp_path)
    assert cause["exceptions"][0]["message"] == "ü"
    assert cause["exceptions"][0]["stack"][0]["path"] == str(tmp_path / "index.js")


def test_async_handler_that_never_settles_fails_the_invocation(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.js": "exports.handler = async () => new Promise(() => {})"}) as runtime:
        assert runtime.api.invoke({}).json["errorType"] == "Runtime.NodeJsExit"
        assert runtime.api.invoke({}).json["errorType"] == "Runtime.NodeJsExit"


@pytest.mark.parametrize(
    ("files", "handler", "kind", "message"),
    [
        ({}, "index.handler", "Runtime.ImportModuleError", "Error: Cannot find module 'index'"),
        ({"index.js": "require('absent')"}, "index.handler", "Runtime.ImportModuleError", "Error: Cannot find module"),
        ({"index.js": "exports.other = 1"}, "index.handler", "Runtime.HandlerNotFound", "index.handler is undefined"),
        ({"index.js": "exports.handler = 1"}, "index.handler", "Runtime.HandlerNotFound", "index.handler is not a"),
        ({"index.js": ""}, "index", "Runtime.MalformedHandlerName", "Bad handler"),
        ({"index.js": ""}, "../x.y", "Runtime.MalformedHandlerName", "'../x.y' is not a valid handler name"),
        ({"index.js": "exports.handler = ("}, "index.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ({"index.mjs": "export const handler = ("}, "index.handler", "Runtime.UserCodeSyntaxError", "SyntaxError: "),
        ({"index.js": "throw new TypeError('top')"}, "index.handler", "TypeError", "top"),
        ({"index.mjs": "import 'absent'"}, "index.handler", "Error", "Cannot find package 'absent'"),
    ],
)
def test_failed_init_is_posted_and_ends_the_process(
    tmp_path: Path, files: Mapping[str, str], handler: str, kind: str, message: str
) -> None:
    with serve(tmp_path, files, handler) as runtime:
        posted = runtime.api.receive()
        status, output = runtime.ended()
    assert posted.kind == "init/error"
    assert posted.json["errorType"] == kind
    assert posted.json["errorMessage"].startswith(message)
    assert posted.headers["Lambda-Runtime-Function-Error-Type"] == kind
    assert status == 129
    assert f'undefined\tERROR\tUncaught Exception \t{{"errorType":"{kind}"' in output


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("() => new Promise(() => setTimeout(() => { throw new TypeError('x') }, 5))", "TypeError", 129),
        ("() => new Promise(() => { Promise.reject(new Error('x')) })", "Runtime.UnhandledPromiseRejection", 128),
    ],
)
def test_uncaught_error_fails_the_invocation_and_ends_the_process(
    tmp_path: Path, body: str, kind: str, status: int
) -> None:
    with serve(tmp_path, {"index.js": f"exports.handler = {body}"}) as runtime:
        posted = runtime.api.invoke({})
        assert runtime.ended()[0] == status
    assert (posted.kind, posted.json["errorType"]) == ("error", kind)


def test_context_tells_function_and_invocation(tmp_path: Path) -> None:
    code = """exports.handler = async (e, c) => (
      {...c, left: c.getRemainingTimeInMillis(), trace: process.env._X_AMZN_TRACE_ID ?? null})"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        posted = runtime.api.invoke(
            {},
            Lambda_Runtime_Trace_Id="Root=1-2-3",
            Lambda_Runtime_Client_Context='{"custom":{"a":"b"}}',
            Lambda_Runtime_Cognito_Identity='{"cognitoIdentityId":"i"}',
        )
        plain = runtime.api.invoke({})
    told = posted.json
    assert 5_000 < told.pop("left") <= 10_000
    assert told == {
        "callbackWaitsForEmptyEventLoop": True,
        "functionVersion": "$LATEST",
        "functionName": "f",
        "memoryLimitInMB": "128",
        "logGroupName": "/aws/lambda/f",
        "logStreamName": "stream",
        "clientContext": {"custom": {"a": "b"}},
        "identity": {"cognitoIdentityId": "i"},
        "invokedFunctionArn": FUNCTION_ARN,
        "awsRequestId": posted.request_id,
        "trace": "Root=1-2-3",
    }
    assert plain.json["trace"] is None


def test_invocation_id_is_echoed_with_result_and_error(tmp_path: Path) -> None:
    code = "exports.handler = async (e) => { if (e.fail) throw new Error('x') }"
    with serve(tmp_path, {"index.js": code}) as runtime:
        good = runtime.api.invoke({}, Lambda_Runtime_Invocation_Id="one")
        bad = runtime.api.invoke({"fail": True}, Lambda_Runtime_Invocation_Id="two")
        none = runtime.api.invoke({})
    assert [posted.headers.get("Lambda-Runtime-Invocation-Id") for posted in (good, bad, none)] == ["one", "two", None]


def test_console_writes_text_lines_with_time_request_and_level(tmp_path: Path) -> None:
    code = """console.log('start')
    exports.handler = async () => { console.warn('a\\nb', {x: 1}); console.debug('d %d', 3) }"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        posted = runtime.api.invoke({})
        lines = runtime.stopped().split("\n")
    fields = [line.split("\t") for line in lines if line]
    assert [line[1:] for line in fields] == [
        ["undefined", "INFO", "start"],
        [posted.request_id, "WARN", "a\rb { x: 1 }"],
        [posted.request_id, "DEBUG", "d 3"],
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line[0]) for line in fields)


def test_json_log_format_filters_by_level_and_spells_out_errors(tmp_path: Path) -> None:
    code = """exports.handler = async () => {
      console.info('quiet'); console.warn({key: 1}); console.error('failed', new TypeError('t')) }"""
    environment = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "AWS_LAMBDA_LOG_LEVEL": "WARN"}
    with serve(tmp_path, {"index.js": code}, **environment) as runtime:
        posted = runtime.api.invoke({})
        warned, failed = (json.loads(line) for line in runtime.stopped().splitlines())
    assert (warned["level"], warned["message"], warned["requestId"]) == ("WARN", {"key": 1}, posted.request_id)
    assert (failed["level"], failed["errorType"], failed["errorMessage"]) == ("ERROR", "TypeError", "t")
    assert failed["stackTrace"][0] == "TypeError: t"


def test_framed_log_descriptor_gets_one_frame_an_event(tmp_path: Path) -> None:
    code = """exports.handler = async () => {
      console.error('a\\nb'); return process.env._LAMBDA_TELEMETRY_LOG_FD ?? null }"""
    reader, writer = os.pipe()
    with serve(tmp_path, {"index.js": code}, pass_fds=[writer], _LAMBDA_TELEMETRY_LOG_FD=str(writer)) as runtime:
        os.close(writer)
        posted = runtime.api.invoke({})
        assert runtime.stopped() == ""
    with os.fdopen(reader, "rb") as file:
        frames = file.read()
    kind, length, micros = struct.unpack(">IIQ", frames[:16])
    assert posted.json is None
    assert kind == 0xA55A0003 | 0x14
    assert len(frames) == 16 + length
    assert micros > 1_600_000_000_000_000
    assert frames[16:].decode().endswith(f"\t{posted.request_id}\tERROR\ta\nb\n")


@pytest.mark.parametrize("file", ["index.mjs", "index.js"])
def test_package_in_node_path_is_found_by_import_and_require(tmp_path: Path, file: str) -> None:
    library = tmp_path / "runtime" / "node_modules" / "@scope" / "sdk"
    library.mkdir(parents=True)
    (library / "package.json").write_text('{"name":"@scope/sdk","exports":{".":"./main.js"}}')
    (library / "main.js").write_text("exports.name = 'sdk'")
    code = {
        "index.mjs": "import { name } from '@scope/sdk'; export const handler = async () => name",
        "index.js": "exports.handler = async () => require('@scope/sdk').name",
    }[file]
    with serve(tmp_path / "task", {file: code}, NODE_PATH=str(tmp_path / "runtime" / "node_modules")) as runtime:
        assert runtime.api.invoke({}).json == "sdk"


def test_streamed_response_leaves_in_chunks_with_its_type(tmp_path: Path) -> None:
    code = """exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      const http = awslambda.HttpResponseStream.from(stream, {statusCode: 201});
      http.write('one'); http.write('two'); http.end(); })"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        posted = [runtime.api.invoke({}) for _ in range(2)][1]
    assert posted.headers["Content-Type"] == "application/vnd.awslambda.http-integration-response"
    assert posted.headers["Lambda-Runtime-Function-Response-Mode"] == "streaming"
    assert posted.body == b'{"statusCode":201}' + bytes(8) + b"onetwo"


def test_stream_that_fails_midway_tells_the_error_in_trailers(tmp_path: Path) -> None:
    code = """exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      stream.write('part'); throw new RangeError('broke') })"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        posted = runtime.api.invoke({})
    assert posted.body == b"part"
    assert posted.headers["Lambda-Runtime-Function-Error-Type"] == "RangeError"
    told = json.loads(base64.b64decode(posted.headers["Lambda-Runtime-Function-Error-Body"]))
    assert told["errorMessage"] == "broke"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("async () => { throw new RangeError('early') }", "early"),
        ("async (event, stream) => { stream.setContentType('a/b') }", "Response stream is not finished."),
        ("(event, stream) => { stream.end() ?? null }", None),
        ("() => 1", "Streaming does not support non-async handlers."),
        ("async () => new Promise(() => {})", "Response stream is not finished."),
    ],
)
def test_streaming_handler_that_fails_before_its_first_byte_posts_the_error(
    tmp_path: Path, body: str, message: str | None
) -> None:
    with serve(tmp_path, {"index.js": f"exports.handler = awslambda.streamifyResponse({body})"}) as runtime:
        posted = [runtime.api.invoke({}) for _ in range(2)][1]
    if message is None:
        assert (posted.kind, posted.body) == ("response", b"")
    else:
        assert (posted.kind, posted.json["errorMessage"]) == ("error", message)


def test_uncaught_error_within_a_stream_is_told_behind_it_and_ends_the_process(tmp_path: Path) -> None:
    code = """exports.handler = awslambda.streamifyResponse((event, stream) => new Promise(() => {
      stream.write('part'); setTimeout(() => { throw new TypeError('späť') }, 5) }))"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        posted = runtime.api.invoke({})
        assert runtime.ended()[0] == 129
    assert (posted.kind, posted.body) == ("response", b"part")
    assert posted.headers["Lambda-Runtime-Function-Error-Type"] == "TypeError"
    told = json.loads(base64.b64decode(posted.headers["Lambda-Runtime-Function-Error-Body"]))
    assert told["errorMessage"] == "späť"


def test_pipeline_into_the_stream_passes_everything_in_order(tmp_path: Path) -> None:
    code = """const { pipeline } = require('node:stream/promises');
    const { Readable } = require('node:stream');
    exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      stream.setContentType('text/csv');
      await pipeline(Readable.from((function* () { for (let i = 0; i < event.n; i++) yield `${i},`.padEnd(1000) })()),
                     stream) }, {highWaterMark: 1024})"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        posted = runtime.api.invoke({"n": 2000})
        again = runtime.api.invoke({"n": 1})
    assert posted.headers["Content-Type"] == "text/csv"
    assert posted.body == b"".join(f"{number},".ljust(1000).encode() for number in range(2000))
    assert again.body == b"0,".ljust(1000)


def test_bytes_text_and_values_may_be_written_and_a_late_type_is_refused(tmp_path: Path) -> None:
    code = """exports.handler = awslambda.streamifyResponse(async (event, stream) => {
      stream.write(Buffer.from([0, 255])); stream.write('ü'); stream.write({a: 1});
      try { stream.setContentType('a/b') } catch (error) { stream.write(error.name) }
      stream.end('!') })"""
    with serve(tmp_path, {"index.js": code}) as runtime:
        posted = runtime.api.invoke({})
    assert posted.body == b"\x00\xff" + "ü".encode() + b'{"a":1}Runtime.InvalidStreamingOperation!'
    assert posted.headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(("value", "there"), [("1", False), ("true", False), ("0", True), ("", True)])
def test_global_object_is_left_out_where_that_is_wanted(tmp_path: Path, value: str, there: bool) -> None:
    code = "exports.handler = async () => typeof awslambda"
    with serve(tmp_path, {"index.js": code}, AWS_LAMBDA_NODEJS_NO_GLOBAL_AWSLAMBDA=value) as runtime:
        assert runtime.api.invoke({}).json == ("object" if there else "undefined")

"""The server for Node.js event functions as a plain process, under every Node.js on PATH."""

import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.support.event_server import REQUEST_ID, EventServer, serving
from tests.support.server import eventually

import torpor.sandbox.images as images
from torpor.sandbox.interpreters import Language, discover

GUEST = Path(images.__file__).parent / "guest" / "event_nodejs"
NODES = {i.version[0]: i.executable for i in discover() if i.language is Language.NODE}
NEWEST = max(NODES, default=0)
WITH_PROMISES = [major for major in NODES if major >= 18]
UP_TO_16 = [major for major in NODES if major <= 16]

pytestmark = pytest.mark.skipif(not NODES, reason="no Node.js on this host")
needs_promises = pytest.mark.skipif(not WITH_PROMISES, reason="no Node.js 18 or later on this host")

ECHO = "exports.handler = (event, context, callback) => callback(null, event)"


def serve(
    code: Path,
    files: Mapping[str, str],
    handler: str = "index.handler",
    *,
    major: int = NEWEST,
    ready: bool = True,
    **environment: str,
) -> AbstractContextManager[EventServer]:
    return serving([NODES[major], str(GUEST / "server.mjs")], code, files, handler, ready=ready, **environment)


@pytest.mark.parametrize("major", NODES)
def test_callback_handler_answers_on_every_version_found(tmp_path: Path, major: int) -> None:
    code = """let count = 0;
    exports.handler = (event, context, callback) => {
      callback(null, {count: ++count, event: event.toString(), id: context.requestId});
      callback(new Error('too late'));
    }"""
    with serve(tmp_path, {"index.js": code}, major=major) as server:
        first, second = server.invoke("ü".encode()), server.invoke(b"2")
    assert (first.status, first.kind) == ("200", None)
    assert first.json == {"count": 1, "event": "ü", "id": REQUEST_ID}
    assert second.json == {"count": 2, "event": "2", "id": REQUEST_ID}


@pytest.mark.parametrize("major", UP_TO_16)
def test_up_to_node_16_only_the_callback_ends_an_invocation(tmp_path: Path, major: int) -> None:
    code = """exports.handler = async (event, context, callback) => {
      setTimeout(() => callback(null, 'called'), 50);
      return 'promised';
    }"""
    with serve(tmp_path, {"index.js": code}, major=major) as server:
        assert server.invoke().body == b"called"


@pytest.mark.parametrize("major", WITH_PROMISES)
@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("index.js", "exports.handler = async () => 'done'"),
        ("index.js", "exports.handler = () => new Promise((resolve) => setTimeout(resolve, 5, 'done'))"),
        ("index.js", "module.exports = {handler: async (e, c, callback) => callback(null, 'done')}"),
        ("index.mjs", "const v = await Promise.resolve('done'); export const handler = async () => v"),
        ("index.mjs", "export const handler = (event, context, callback) => callback(null, 'done')"),
        ("index.cjs", "exports.handler = async () => 'done'"),
    ],
)
def test_since_node_18_promises_and_modules_count_too(tmp_path: Path, file: str, code: str, major: int) -> None:
    with serve(tmp_path, {file: code}, major=major) as server:
        assert server.invoke().body == b"done"


@pytest.mark.parametrize("event", [b'{"a": 1}', b"plain text", bytes(range(256)), b"", b"x" * 5_000_000])
def test_event_reaches_the_handler_as_a_buffer_and_comes_back_unchanged(tmp_path: Path, event: bytes) -> None:
    code = "exports.handler = (event, context, callback) => callback(null, Buffer.isBuffer(event) && event)"
    with serve(tmp_path, {"index.js": code}) as server:
        assert server.invoke(event).body == event


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ("null", b""),
        ("undefined", b""),
        ("'grün'", "grün".encode()),
        ("Buffer.from([0, 255])", b"\x00\xff"),
        ("12.5", b"12.5"),
        ("false", b"false"),
        ("{a: [1, null]}", b'{"a":[1,null]}'),
        ("'x'.repeat(20000000)", b"x" * 20_000_000),
    ],
)
def test_result_is_sent_as_its_kind_wants(tmp_path: Path, result: str, body: bytes) -> None:
    with serve(tmp_path, {"index.js": f"exports.handler = (e, c, callback) => callback(null, {result})"}) as server:
        assert server.invoke().body == body


@pytest.mark.parametrize("major", NODES)
@pytest.mark.parametrize(
    ("body", "kind", "told", "mark"),
    [
        ("throw new TypeError('oops')", "UnhandledInvocationError", ("TypeError", "oops"), "Unhandled"),
        ("callback(new RangeError('oops'))", "HandledInvocationError", ("RangeError", "oops"), "Handled"),
        ("callback('text')", "HandledInvocationError", ("FunctionHandledError", "text"), "Handled"),
        ("throw 'text'", "UnhandledInvocationError", ("FunctionUnhandledError", "text"), "Unhandled"),
        (
            "const a = {}; a.a = a; callback(null, a)",
            "UnhandledInvocationError",
            ("TypeError", "Converting circular structure to JSON"),
            "Unhandled",
        ),
    ],
)
def test_failing_handler_is_told_and_the_server_lives_on(
    tmp_path: Path, body: str, kind: str, told: tuple[str, str], mark: str, major: int
) -> None:
    code = f"exports.handler = (event, context, callback) => {{ {body} }}"
    with serve(tmp_path, {"index.js": code}, major=major) as server:
        answered = [server.invoke() for _ in range(2)][1]
        output = server.stopped()
    assert (answered.status, answered.kind) == ("404", kind)
    assert (answered.json["errorType"], answered.json["errorMessage"].split("\n")[0]) == told
    assert output.endswith(f"FC Invoke End RequestId: {REQUEST_ID}, Error: {mark} function error\n")


@needs_promises
def test_rejected_promise_is_told_with_the_functions_own_stack(tmp_path: Path) -> None:
    code = "export const handler = async () => { throw new Error('oops') }"
    with serve(tmp_path, {"index.mjs": code}) as server:
        answered = server.invoke()
        output = server.stopped()
    assert answered.kind == "UnhandledInvocationError"
    assert list(answered.json) == ["errorMessage", "errorType", "stackTrace"]
    assert answered.json["stackTrace"][0] == "Error: oops"
    assert f"at handler (file://{tmp_path}/index.mjs:1:" in answered.json["stackTrace"][1]
    assert str(GUEST) not in str(answered.json) + output
    assert f"{REQUEST_ID} [error] Error: oops\n" in output


@pytest.mark.parametrize("major", NODES)
def test_error_that_nothing_waits_for_fails_the_request_and_ends_the_process(tmp_path: Path, major: int) -> None:
    code = "exports.handler = () => { setTimeout(() => { throw new Error('apart') }, 5) }"
    with serve(tmp_path, {"index.js": code}, major=major) as server:
        answered = server.invoke()
        status, output = server.ended()
    assert (answered.kind, answered.json["errorMessage"]) == ("UnhandledInvocationError", "apart")
    assert status == 1
    assert output.count("FC Invoke End") == 1


def test_exit_in_a_handler_ends_the_process_with_its_status(tmp_path: Path) -> None:
    code = "exports.handler = () => { console.log('going'); process.exit(7) }"
    with serve(tmp_path, {"index.js": code}) as server:
        with pytest.raises(ConnectionError):
            server.invoke()
        status, output = server.ended()
    assert status == 7
    assert output.splitlines()[1].endswith(f"Z {REQUEST_ID} [verbose] going")
    assert output.splitlines()[2:] == [f"FC Invoke End RequestId: {REQUEST_ID}, Error: Unhandled function error"]


@pytest.mark.parametrize("major", NODES)
@pytest.mark.parametrize(
    ("files", "handler", "kind", "message"),
    [
        ({}, "index.handler", "ImportModuleError", "Unable to import module 'index'"),
        ({"index.js": "require('no')"}, "index.handler", "ImportModuleError", "Unable to import module 'index'"),
        ({"index.js": "const x ="}, "index.handler", "UserCodeSyntaxError", "Syntax error in module 'index'"),
        ({"index.js": ""}, "index.nothing", "HandlerNotFound", "Handler 'nothing' is missing on module 'index'"),
        ({"index.js": ""}, "index", "MalformedHandlerName", "Bad handler 'index': it must be module.function"),
        ({"index.js": "throw new RangeError('bad')"}, "index.handler", "RangeError", "bad"),
    ],
)
def test_code_that_cannot_be_loaded_is_told_by_every_request(
    tmp_path: Path, files: Mapping[str, str], handler: str, kind: str, message: str, major: int
) -> None:
    with serve(tmp_path, files, handler, major=major) as server:
        initialised = server.call("POST", "/initialize")
        invoked = server.invoke()
        output = server.stopped()
    assert (initialised.status, initialised.kind) == ("404", "InitializationError")
    assert (invoked.status, invoked.kind) == ("404", "UnhandledInvocationError")
    for answered in (initialised, invoked):
        assert (answered.json["errorType"], answered.json["errorMessage"]) == (kind, message)
    assert message in output


@pytest.mark.parametrize(("file", "handler"), [("app.js", "app.run"), ("src/deep/app.js", "src/deep/app.run")])
def test_handler_may_stand_in_folders(tmp_path: Path, file: str, handler: str) -> None:
    code = "exports.run = (event, context, callback) => callback(null, __filename)"
    with serve(tmp_path, {file: code}, handler) as server:
        assert server.invoke().body.decode() == str(tmp_path / file)


@pytest.mark.parametrize("major", NODES)
def test_code_outside_runs_once_before_the_initializer_and_that_before_the_handler(tmp_path: Path, major: int) -> None:
    code = """const now = String(process.hrtime.bigint());
    console.info('module');
    exports.initialize = (context, callback) => { console.info('initializer'); callback() };
    exports.handler = (event, context, callback) => { console.info('handler'); callback(null, now) };"""
    with serve(tmp_path, {"index.js": code}, major=major, FC_INITIALIZER_HANDLER="index.initialize") as server:
        eventually(lambda: server.output.endswith("Z - [info] module\n"), what="the line of the module")
        assert server.call("POST", "/initialize", x_fc_request_id="hook").status == "200"
        seen = {server.invoke().body for _ in range(10)}
        lines = server.stopped().splitlines()
    assert len(seen) == 1
    assert [line.partition("Z ")[2] or line for line in lines[:7]] == [
        "- [info] module",
        "FC Initialize Start RequestId: hook",
        "hook [info] initializer",
        "FC Initialize End RequestId: hook",
        f"FC Invoke Start RequestId: {REQUEST_ID}",
        f"{REQUEST_ID} [info] handler",
        f"FC Invoke End RequestId: {REQUEST_ID}",
    ]


def test_hooks_are_named_by_header_and_their_failure_is_told(tmp_path: Path) -> None:
    code = """exports.freeze = (context, callback) => { console.log('cold'); callback(null, 'ignored') };
    exports.stop = (context, callback) => callback(new Error('no'));"""
    with serve(tmp_path, {"index.js": code}) as server:
        frozen = server.call("GET", "/pre-freeze", x_fc_instance_lifecycle_pre_freeze_handler="index.freeze")
        stopped = server.call("GET", "/pre-stop", x_fc_instance_lifecycle_pre_stop_handler="index.stop")
        output = server.stopped()
    assert (frozen.status, frozen.body) == ("200", b"")
    assert (stopped.status, stopped.json["errorMessage"]) == ("404", "no")
    assert "FC PreFreeze Start" in output and "[verbose] cold\n" in output
    assert f"FC PreStop End RequestId: {REQUEST_ID}, Error: Handled function error\n" in output


def test_every_logger_writes_lines_with_time_request_and_level(tmp_path: Path) -> None:
    code = """exports.handler = (event, context, callback) => {
      for (const level of ['log', 'debug', 'info', 'warn', 'error']) {
        console[level]('%s ü', level);
        context.logger[level](level, {a: 1});
      }
      callback();
    }"""
    with serve(tmp_path, {"index.js": code}, TZ="Asia/Shanghai") as server:
        server.invoke()
        lines = server.stopped().splitlines()[1:-1]
    names = [("verbose", "log"), ("debug", "debug"), ("info", "info"), ("warn", "warn"), ("error", "error")]
    expected = [
        f"{REQUEST_ID} [{level}] {text}" for level, name in names for text in (f"{name} ü", f"{name} {{ a: 1 }}")
    ]
    assert [line.split(" ", 1)[1] for line in lines] == expected
    told = time.strftime("%Y-%m-%dT%H", time.gmtime())
    assert all(line.startswith(told) and line[23] == "Z" for line in lines)


def test_context_tells_function_rights_and_request(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.js": "exports.handler = (e, c, callback) => callback(null, c)"}) as server:
        told = server.invoke().json
    assert told == {
        "requestId": REQUEST_ID,
        "credentials": {"accessKeyId": "key", "accessKeySecret": "secret", "securityToken": "token"},
        "function": {"name": "f", "handler": "index.handler", "memory": 512, "timeout": 60},
        "service": {"logProject": "project", "logStore": "store", "qualifier": "LATEST", "versionId": ""},
        "region": "cn-hangzhou",
        "accountId": "123456",
        "logger": {},
    }


def test_port_opens_only_when_the_module_has_run(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = f"while (!require('fs').existsSync('{go}'));\n{ECHO}"
    with serve(tmp_path, {"index.js": code}, ready=False) as server:
        time.sleep(0.3)
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", server.port), 1):
            pass
        go.touch()
        server.ready()
        assert server.invoke(b"ok").body == b"ok"


@pytest.mark.parametrize("major", NODES)
def test_requests_are_served_one_at_a_time_and_silent_connections_stop_nobody(tmp_path: Path, major: int) -> None:
    code = """let running = 0;
    exports.handler = (event, context, callback) => {
      running++;
      setTimeout(() => callback(null, `${event} ${running--}`), 50);
    }"""
    with serve(tmp_path, {"index.js": code}, major=major) as server:
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address) as silent, socket.create_connection(address) as slow:
            slow.sendall(b"POST /invoke HTTP/1.1\r\nContent-Le")
            assert server.invoke(b"first").body == b"first 1"
            slow.sendall(b"ngth: 4\r\n\r\nslowPOST /invoke HTTP/1.1\r\nConnection: close\r\n\r\n")
            assert server.invoke(b"second").body == b"second 1"
            answers = b"".join(iter(lambda: slow.recv(65536), b""))
            assert answers.count(b"HTTP/1.1 200 OK") == 2 and b"\r\n\r\nslow 1" in answers
            silent.sendall(b"nonsense\r\n\r\n")
            assert silent.recv(100).startswith(b"HTTP/1.1 400")
        assert server.invoke(b"third").body == b"third 1"


def test_other_paths_are_refused(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.js": ECHO}) as server:
        assert server.call("GET", "/elsewhere").kind == "PathNotSupported"


def test_term_signal_ends_it_even_in_a_busy_handler(tmp_path: Path) -> None:
    code = "exports.handler = () => { for (;;); }"
    with serve(tmp_path, {"index.js": code}) as server, socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"POST /invoke HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + 5
        while "Start" not in server.output and time.monotonic() < deadline:
            time.sleep(0.01)
        server.process.terminate()
        status, _ = server.ended()
    assert status == -15

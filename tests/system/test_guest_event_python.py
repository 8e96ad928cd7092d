"""The server for Python event functions as a plain process: booted, and forked from a warm interpreter."""

import json
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.support.event_server import REQUEST_ID, EventServer, serving

import torpor.sandbox.images as images
from torpor.sandbox.interpreters import Language, discover

GUEST = Path(images.__file__).parent / "guest" / "event_python"
PYTHONS = {i.version[:2]: i.executable for i in discover() if i.language is Language.PYTHON}
OLD = Path.home() / ".pyenv" / "versions" / "3.9.18" / "bin" / "python3.9"
if OLD.exists():
    PYTHONS[3, 9] = str(OLD)  # older than any that functions of other contracts run on, so not discovered
NEWEST = max(PYTHONS, default=(0, 0))
WAYS = ["boot", "clone"]

pytestmark = pytest.mark.skipif(not PYTHONS, reason="no Python found on this host")

# What the launcher does, less the sandbox: preload with no function in sight, fork, be the function's interpreter.
FORK = """
import os, sys
runtime_dir, environment = sys.argv[1], dict(os.environ)
os.environ.clear()
sys.path.insert(0, runtime_dir)
from torpor_event import clone
clone.preload()
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256)
os.environ.update(environment)
clone.run("")
"""


def serve(
    code: Path,
    files: Mapping[str, str],
    handler: str = "index.handler",
    *,
    way: str = "boot",
    version: tuple[int, int] = NEWEST,
    ready: bool = True,
    **environment: str,
) -> AbstractContextManager[EventServer]:
    argv = [PYTHONS[version], "-S", str(GUEST / "server.py")]
    if way == "clone":
        argv = [PYTHONS[version], "-I", "-S", "-c", FORK, str(GUEST)]
    return serving(argv, code, files, handler, ready=ready, **environment)


@pytest.mark.parametrize("version", PYTHONS, ids=lambda version: "{}.{}".format(*version))
@pytest.mark.parametrize("way", WAYS)
def test_handler_answers_on_every_version_found(tmp_path: Path, version: tuple[int, int], way: str) -> None:
    code = """
import sys
count = 0
def handler(event, context):
    global count
    count += 1
    return [count, event.decode(), context.request_id, list(sys.version_info[:2])]
"""
    with serve(tmp_path, {"index.py": code}, way=way, version=version) as server:
        first, second = server.invoke("ü".encode()), server.invoke(b"2")
    assert (first.status, first.kind) == ("200", None)
    assert first.json == [1, "ü", REQUEST_ID, list(version)]
    assert second.json == [2, "2", REQUEST_ID, list(version)]


@pytest.mark.parametrize("event", [b'{"a": 1}', b"plain text", bytes(range(256)), b"", b"x" * 5_000_000])
def test_event_reaches_the_handler_and_comes_back_unchanged(tmp_path: Path, event: bytes) -> None:
    with serve(tmp_path, {"index.py": "def handler(event, context): return event"}) as server:
        assert server.invoke(event).body == event


@pytest.mark.parametrize(
    ("result", "body"),
    [
        ("'grün'", "grün".encode()),
        ("bytearray(b'raw')", b"raw"),
        ("None", b"null"),
        ("{'a': [1, None]}", b'{"a": [1, null]}'),
        ("'x' * 20_000_000", b"x" * 20_000_000),
    ],
)
def test_result_is_sent_as_it_is_or_as_json(tmp_path: Path, result: str, body: bytes) -> None:
    with serve(tmp_path, {"index.py": f"def handler(event, context): return {result}"}) as server:
        assert server.invoke().body == body


@pytest.mark.parametrize("result", ["{1, 2}", "object()", "'\\ud800'"])
def test_result_that_cannot_be_encoded_is_an_error(tmp_path: Path, result: str) -> None:
    with serve(tmp_path, {"index.py": f"def handler(event, context): return {result}"}) as server:
        answered = server.invoke()
    assert (answered.status, answered.kind) == ("404", "UnhandledInvocationError")
    assert answered.json["errorType"] in ("TypeError", "UnicodeEncodeError")


def test_raised_error_is_told_with_the_functions_own_frames_and_the_server_lives_on(tmp_path: Path) -> None:
    code = "def fail():\n    raise Exception('something is wrong')\ndef handler(event, context):\n    fail()\n"
    with serve(tmp_path, {"index.py": code}) as server:
        answered = [server.invoke() for _ in range(2)][1]
        output = server.stopped()
    file = f'File "{tmp_path}/index.py"'
    assert (answered.status, answered.kind) == ("404", "UnhandledInvocationError")
    assert answered.json == {
        "errorMessage": "something is wrong",
        "errorType": "Exception",
        "stackTrace": [
            [file, "line 4", "in handler", "fail()"],
            [file, "line 2", "in fail", "raise Exception('something is wrong')"],
        ],
    }
    assert output.count("Exception: something is wrong\n") == 2
    assert "torpor_event" not in output
    assert output.endswith(f"FC Invoke End RequestId: {REQUEST_ID}, Error: Unhandled function error\n")


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "GeneratorExit", "BaseException"])
def test_errors_outside_exception_are_answered_too(tmp_path: Path, error: str) -> None:
    code = f"def handler(event, context):\n    if event: raise {error}()\n    return 'on'"
    with serve(tmp_path, {"index.py": code}) as server:
        assert server.invoke(b"x").json["errorType"] == error
        assert server.invoke().body == b"on"


def test_exit_in_a_handler_ends_the_process_with_its_status(tmp_path: Path) -> None:
    code = "import sys\ndef handler(event, context):\n    print('going', end='')\n    sys.exit(7)"
    with serve(tmp_path, {"index.py": code}) as server:
        with pytest.raises(ConnectionError):
            server.invoke()
        status, output = server.ended()
    assert status == 7
    assert output.splitlines()[1:] == [f"goingFC Invoke End RequestId: {REQUEST_ID}, Error: Unhandled function error"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("files", "handler", "kind", "message"),
    [
        ({}, "index.handler", "ImportModuleError", "Unable to import module 'index'"),
        ({"index.py": "import nowhere"}, "index.handler", "ImportModuleError", "Unable to import module 'index'"),
        ({"index.py": "x ="}, "index.handler", "UserCodeSyntaxError", "Syntax error in module 'index'"),
        ({"index.py": ""}, "index.nothing", "HandlerNotFound", "Handler 'nothing' is missing on module 'index'"),
        ({"index.py": ""}, "index", "MalformedHandlerName", "Bad handler 'index': it must be module.function"),
        ({"index.py": "1 / 0"}, "index.handler", "ZeroDivisionError", "division by zero"),
    ],
)
def test_code_that_cannot_be_loaded_is_told_by_every_request(
    tmp_path: Path, files: Mapping[str, str], handler: str, kind: str, message: str, way: str
) -> None:
    with serve(tmp_path, files, handler, way=way) as server:
        initialised = server.call("POST", "/initialize")
        invoked = server.invoke()
    assert (initialised.status, initialised.kind) == ("404", "InitializationError")
    assert (invoked.status, invoked.kind) == ("404", "UnhandledInvocationError")
    for answered in (initialised, invoked):
        assert (answered.json["errorType"], answered.json["errorMessage"]) == (kind, message)


def test_missing_import_is_named_in_the_log_and_located_in_the_answer(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.py": "import nowhere"}) as server:
        answered = server.invoke()
        output = server.stopped()
    assert answered.json["stackTrace"] == [[f'File "{tmp_path}/index.py"', "line 1", "in <module>", "import nowhere"]]
    assert "ModuleNotFoundError: No module named 'nowhere'" in output
    assert "importlib" not in output


@pytest.mark.parametrize(
    ("file", "handler"), [("app.py", "app.run"), ("src/app.py", "src/app.run"), ("src/deep/app.py", "src.deep.app.run")]
)
def test_handler_may_stand_in_folders(tmp_path: Path, file: str, handler: str) -> None:
    with serve(tmp_path, {file: "def run(event, context): return __name__"}, handler) as server:
        assert server.invoke().body.decode() == handler.rpartition(".")[0].replace("/", ".")


@pytest.mark.parametrize("way", WAYS)
def test_code_outside_runs_once_before_the_initializer_and_that_before_the_handler(tmp_path: Path, way: str) -> None:
    code = """
import time
now = time.time_ns()
print("module")
def initialize(context): print("initializer", context.request_id)
def handler(event, context):
    print("handler")
    return str(now)
"""
    with serve(tmp_path, {"index.py": code}, way=way, FC_INITIALIZER_HANDLER="index.initialize") as server:
        assert server.output == "module\n"
        assert server.call("POST", "/initialize", x_fc_request_id="hook").status == "200"
        seen = {server.invoke().body for _ in range(10)}
        lines = server.stopped().splitlines()
    assert len(seen) == 1
    assert lines[:7] == [
        "module",
        "FC Initialize Start RequestId: hook",
        "initializer hook",
        "FC Initialize End RequestId: hook",
        f"FC Invoke Start RequestId: {REQUEST_ID}",
        "handler",
        f"FC Invoke End RequestId: {REQUEST_ID}",
    ]


def test_hooks_are_named_by_header_and_their_failure_is_told(tmp_path: Path) -> None:
    code = (
        "def freeze(context): print('cold')\ndef stop(context): raise OSError('no')\ndef handler(event, context): pass"
    )
    with serve(tmp_path, {"index.py": code}) as server:
        frozen = server.call("GET", "/pre-freeze", x_fc_instance_lifecycle_pre_freeze_handler="index.freeze")
        stopped = server.call("GET", "/pre-stop", x_fc_instance_lifecycle_pre_stop_handler="index.stop")
        output = server.stopped()
    assert (frozen.status, frozen.body) == ("200", b"")
    assert (stopped.status, stopped.json["errorMessage"]) == ("404", "no")
    assert "FC PreFreeze Start" in output and "\ncold\n" in output
    assert f"FC PreStop End RequestId: {REQUEST_ID}, Error: Unhandled function error\n" in output


def test_log_lines_have_time_request_and_level(tmp_path: Path) -> None:
    code = """
import logging
def handler(event, context):
    logger = logging.getLogger()
    logger.debug("quiet")
    logger.info("hello %s", "you")
    logging.getLogger("mine").warning("ü")
"""
    with serve(tmp_path, {"index.py": code}, TZ="Asia/Shanghai") as server:
        server.invoke()
        lines = server.stopped().splitlines()[1:-1]
    stamps = [line.split(" ", 1) for line in lines]
    assert [rest for _, rest in stamps] == [f"{REQUEST_ID} [INFO] hello you", f"{REQUEST_ID} [WARNING] ü"]
    told = time.strftime("%Y-%m-%dT%H", time.gmtime())
    assert all(stamp.startswith(told) and stamp.endswith("Z") and len(stamp) == 24 for stamp, _ in stamps)


@pytest.mark.parametrize("way", WAYS)
def test_output_is_in_the_pipe_before_the_answer(tmp_path: Path, way: str) -> None:
    code = "import sys\ndef handler(event, context):\n    print('no end', end='')\n    sys.stderr.write('either')"
    with serve(tmp_path, {"index.py": code}, way=way) as server:
        server.invoke()
        server.process.send_signal(signal.SIGKILL)
        output = server.stopped()
    assert output == (f"FC Invoke Start RequestId: {REQUEST_ID}\nno endeitherFC Invoke End RequestId: {REQUEST_ID}\n")


CONTEXT = """
import json
def handler(event, context):
    return json.dumps(context, default=lambda part: getattr(part, "__dict__", None) or type(part).__name__)
"""
FUNCTION = {"name": "f", "handler": "index.handler", "memory": 512, "timeout": 60}


@pytest.mark.parametrize("version", [v for v in PYTHONS if v < (3, 11)][-1:], ids=str)
def test_context_up_to_python_3_10_has_credentials_and_service(tmp_path: Path, version: tuple[int, int]) -> None:
    with serve(tmp_path, {"index.py": CONTEXT}, version=version) as server:
        told = server.invoke().json
    assert told == {
        "request_id": REQUEST_ID,
        "credentials": {"access_key_id": "key", "access_key_secret": "secret", "security_token": "token"},
        "function": FUNCTION,
        "service": {
            "name": "",
            "log_project": "project",
            "log_store": "store",
            "qualifier": "LATEST",
            "version_id": "",
        },
        "region": "cn-hangzhou",
        "account_id": "123456",
        "retry_count": 0,
        "tracing": {"span_context": "", "jaeger_endpoint": "", "span_baggages": ""},
    }


@pytest.mark.parametrize("version", [v for v in PYTHONS if v >= (3, 11)][-1:], ids=str)
def test_context_since_then_has_a_logger_and_no_credentials(tmp_path: Path, version: tuple[int, int]) -> None:
    with serve(tmp_path, {"index.py": CONTEXT}, version=version) as server:
        told = server.invoke().json
    assert told.pop("logger")
    assert told == {
        "request_id": REQUEST_ID,
        "function": {**FUNCTION, "version_id": "", "qualifier": "LATEST"},
        "region": "cn-hangzhou",
        "account_id": "123456",
        "log_project": "project",
        "log_store": "store",
    }


@pytest.mark.parametrize("way", WAYS)
def test_imports_come_from_the_code_then_from_added_folders_and_layers(tmp_path: Path, way: str) -> None:
    code = "import sys\ndef handler(event, context): return [sys.path, [m for m in sys.modules if m == 'server']]"
    with serve(tmp_path, {"index.py": code}, way=way, PYTHONPATH="/added") as server:
        path, modules = server.invoke().json
    assert path[:3] == [str(tmp_path), "/added", "/opt/python"]
    assert str(GUEST) not in path and "" not in path
    assert modules == []


def test_modules_of_the_function_may_have_the_servers_names(tmp_path: Path) -> None:
    names = ["server", "context", "log", "wire", "runtime", "handlers", "clone"]
    files = {f"{name}.py": f"NAME = 'my {name}'" for name in names}
    imports = "\n".join(f"import {name}" for name in names)
    code = f"{imports}\ndef handler(event, told): return [{', '.join(f'{name}.NAME' for name in names)}]"
    with serve(tmp_path, {**files, "index.py": code}) as server:
        assert server.invoke().json == [f"my {name}" for name in names]


def test_port_opens_only_when_the_module_has_run(tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\ndef handler(e, c): return 'ok'"
    with serve(tmp_path, {"index.py": code}, ready=False) as server:
        time.sleep(0.2)
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", server.port), 1):
            pass
        go.touch()
        server.ready()
        assert server.invoke().body == b"ok"


def test_connections_are_served_in_turn_and_silent_ones_stop_nobody(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.py": "def handler(event, context): return event"}) as server:
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address) as silent, socket.create_connection(address) as slow:
            slow.sendall(b"POST /invoke HTTP/1.1\r\nContent-Le")
            assert server.invoke(b"first").body == b"first"
            slow.sendall(b"ngth: 4\r\n\r\nsl")
            assert server.invoke(b"second").body == b"second"
            slow.sendall(b"owPOST /invoke HTTP/1.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            answers = b"".join(iter(lambda: slow.recv(65536), b""))
            assert answers.count(b"HTTP/1.1 200 OK") == 2 and b"\r\n\r\nslow" in answers
            silent.sendall(b"nonsense\r\n\r\n")
            assert silent.recv(100).startswith(b"HTTP/1.1 400")
        assert server.invoke(b"third").body == b"third"


def test_other_paths_are_refused(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.py": "def handler(event, context): return event"}) as server:
        assert server.call("GET", "/elsewhere").kind == "PathNotSupported"


def test_term_signal_ends_it_and_shows_where_a_handler_was(tmp_path: Path) -> None:
    code = "import time\ndef handler(event, context):\n    print('in')\n    time.sleep(60)"
    with serve(tmp_path, {"index.py": code}) as idle:
        idle.process.send_signal(signal.SIGTERM)
        assert idle.ended() == (143, "")
    with serve(tmp_path, {"index.py": code}) as busy, socket.create_connection(("127.0.0.1", busy.port)) as client:
        client.sendall(b"POST /invoke HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        deadline = time.monotonic() + 5
        while "in\n" not in busy.output and time.monotonic() < deadline:
            time.sleep(0.01)
        busy.process.send_signal(signal.SIGTERM)
        status, output = busy.ended()
    assert status == 143
    assert f'File "{tmp_path}/index.py", line 4 in handler' in output


def test_json_stays_readable_by_the_caller(tmp_path: Path) -> None:
    with serve(tmp_path, {"index.py": "def handler(event, context): raise ValueError('\\ud800 ü')"}) as server:
        assert json.loads(server.invoke().body)["errorMessage"] == "\ud800 ü"

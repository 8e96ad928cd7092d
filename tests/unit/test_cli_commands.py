"""The commands against a small server of the test's own: what they send, print and end with."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from torpor.cli import run

FUNCTIONS = "/2015-03-31/functions"
CONFIGURATION = {
    "FunctionName": "hello", "Runtime": "python3.12", "Handler": "app.handler", "MemorySize": 128, "Timeout": 3,
    "CodeSize": 1234, "LastModified": "2026-01-02T03:04:05.000+0000", "State": "Active",
    "LastUpdateStatus": "Successful",
}  # fmt: skip
RUNTIMES = ["python3.12"]
MISSING = (404, {}, {"Type": "User", "Message": "Function not found: arn"})

Reply = tuple[int, dict[str, str], Any]
Route = Reply | Callable[[dict[str, str]], Reply]


class FakeServer:
    """Answers as it is told by method and path, and keeps what it was sent."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.routes: dict[str, Route] = {}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Reply:
        parts = urlsplit(target)
        key = f"{method} {parts.path}"
        self.requests.append((f"{method} {target}", headers, body))
        route = self.routes.get(key, MISSING)
        return route({k: v[0] for k, v in parse_qs(parts.query).items()}) if callable(route) else route

    def sent(self, key: str) -> Any:
        """The JSON body of the only request of that method and path."""
        bodies = [body for target, _, body in self.requests if target == key]
        assert len(bodies) == 1
        return json.loads(bodies[0])


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers = {name.lower(): value for name, value in self.headers.items()}
        status, reply_headers, value = self.fake.answer(self.command, self.path, headers, body)
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {**reply_headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeServer]:
    monkeypatch.chdir(tmp_path)
    handler = type("Handler", (_Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    fake = FakeServer(f"http://127.0.0.1:{http.server_port}")
    handler.fake = fake  # type: ignore[attr-defined]
    monkeypatch.setenv("TORPOR_ENDPOINT", fake.url)
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    http.shutdown()
    thread.join()
    http.server_close()


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "app.py").write_text("def handler(event, context): return 1\n")
    return folder


def _new_function(server: FakeServer) -> None:
    server.routes |= {
        "GET /_torpor/health": (200, {}, {"status": "ok", "runtimes": RUNTIMES}),
        f"POST {FUNCTIONS}": (201, {}, CONFIGURATION),
        f"GET {FUNCTIONS}/hello/configuration": (200, {}, CONFIGURATION),
    }


def test_no_server_is_one_line_that_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--endpoint", "http://127.0.0.1:9"]) == 1

    assert capsys.readouterr().err == (
        "torpor: No Torpor server answers at http://127.0.0.1:9: start one with `torpor serve`, "
        "or name another with --endpoint.\n"
    )


@pytest.mark.parametrize(
    "arguments", [["frob"], ["deploy"], ["list", "--nope"], ["serve", "--port", "x"], ["serve", "--host", "0.0.0.0"]]
)
def test_misuse_is_one_line_and_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2

    captured = capsys.readouterr()
    assert captured.err.startswith("torpor: ")
    assert captured.err.count("\n") == 1


def test_server_that_is_none_of_ours_is_one_line(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes[f"GET {FUNCTIONS}/"] = (200, {}, b"<html>")

    assert run(["list"]) == 1
    assert "is that a Torpor server?" in capsys.readouterr().err


def test_deploy_of_a_new_folder_creates_it_and_says_what_was_guessed(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _new_function(server)

    assert run(["deploy", str(code), "--memory", "256", "--env", "A=b=c"]) == 0

    sent = server.sent(f"POST {FUNCTIONS}")
    assert base64.b64decode(sent["Code"].pop("ZipFile"))[:2] == b"PK"
    assert sent["Environment"] == {"Variables": {"A": "b=c"}}
    assert (sent["FunctionName"], sent["Runtime"], sent["Handler"], sent["MemorySize"]) == (
        "hello", "python3.12", "app.handler", 256,
    )  # fmt: skip
    captured = capsys.readouterr()
    assert "Taking runtime python3.12 and handler app.handler, for app.py defines `handler`" in captured.err
    assert captured.out.startswith("Created hello: python3.12, app.handler, 128 MB, 3 s, 1 kB of code")


def test_deploy_over_an_existing_function_changes_only_what_was_given(server: FakeServer, code: Path) -> None:
    existing = CONFIGURATION | {"Environment": {"Variables": {"KEPT": "1", "A": "old"}}}
    server.routes |= {
        f"GET {FUNCTIONS}/hello": (200, {}, {"Configuration": existing}),
        f"GET {FUNCTIONS}/hello/configuration": (200, {}, CONFIGURATION),
        f"PUT {FUNCTIONS}/hello/code": (200, {}, CONFIGURATION),
        f"PUT {FUNCTIONS}/hello/configuration": (200, {}, CONFIGURATION),
    }

    assert run(["deploy", str(code), "--timeout", "9", "--env", "A=new"]) == 0

    assert set(server.sent(f"PUT {FUNCTIONS}/hello/code")) == {"ZipFile"}
    assert server.sent(f"PUT {FUNCTIONS}/hello/configuration") == {
        "Timeout": 9,
        "Environment": {"Variables": {"KEPT": "1", "A": "new"}},
    }


URL = "/2021-10-31/functions/hello/url"
POLICY = f"{FUNCTIONS}/hello/policy"
MADE = {"FunctionUrl": "http://id.lambda-url.us-east-1.localhost:1/", "AuthType": "NONE"}


def test_deploy_with_a_url_makes_it_opens_it_and_shows_it(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _new_function(server)
    server.routes |= {f"POST {URL}": (201, {}, MADE), f"POST {POLICY}": (201, {}, {})}

    assert run(["deploy", str(code), "--url"]) == 0

    assert server.sent(f"POST {URL}") == {"AuthType": "NONE"}
    statement = server.sent(f"POST {POLICY}")
    assert (statement["Action"], statement["Principal"], statement["FunctionUrlAuthType"]) == (
        "lambda:InvokeFunctionUrl", "*", "NONE",
    )  # fmt: skip
    assert MADE["FunctionUrl"] in capsys.readouterr().out
    policy = {"Statement": [{"Sid": statement["StatementId"]}]}
    server.routes |= {f"GET {URL}": (200, {}, MADE), f"GET {POLICY}": (200, {}, {"Policy": json.dumps(policy)})}
    server.requests.clear()

    assert run(["deploy", str(code), "--url", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["FunctionUrl"] == MADE["FunctionUrl"]
    assert not [target for target, _, _ in server.requests if target in (f"POST {URL}", f"POST {POLICY}")]


def test_deploy_leaves_a_url_for_signed_requests_as_it_is(server: FakeServer, code: Path) -> None:
    _new_function(server)
    server.routes |= {f"GET {URL}": (200, {}, MADE | {"AuthType": "AWS_IAM"})}

    assert run(["deploy", str(code), "--url"]) == 0
    assert run(["deploy", str(code), "--web", "--url"]) == 2


def test_deploy_that_the_server_refuses_says_why(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _new_function(server)
    server.routes[f"POST {FUNCTIONS}"] = (400, {}, {"message": "1 validation error"})

    assert run(["deploy", str(code), "--json"]) == 1
    assert capsys.readouterr() == ("", "torpor: 1 validation error\n")


def test_deploy_of_a_function_that_fails_to_become_ready_says_why(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _new_function(server)
    failed = CONFIGURATION | {"State": "Failed", "StateReason": "no disk"}
    server.routes[f"GET {FUNCTIONS}/hello/configuration"] = (200, {}, failed)

    assert run(["deploy", str(code)]) == 1
    assert "hello could not be made ready: no disk." in capsys.readouterr().err


def test_deploy_with_a_malformed_variable_is_misuse(code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["deploy", str(code), "--env", "A"]) == 2
    assert "KEY=VALUE" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["text", "file", "stdin"])
def test_payload_may_be_text_file_or_standard_input(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    server.routes[f"POST {FUNCTIONS}/hello/invocations"] = (200, {}, 7)
    (tmp_path / "p.json").write_text('{"a":1}')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"a":1}')))

    assert run(["invoke", "hello", "-p", {"text": '{"a":1}', "file": "@p.json", "stdin": "-"}[form]]) == 0
    assert server.requests[0][2] == b'{"a":1}'


def test_invoke_prints_the_result_and_the_log_beside_it(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    log = base64.b64encode(b"START\nEND\n").decode()
    server.routes[f"POST {FUNCTIONS}/hello/invocations"] = (200, {"X-Amz-Log-Result": log}, {"x": 1})

    assert run(["invoke", "hello", "--tail", "--tenant-id", "blue"]) == 0

    sent = server.requests[0][1]
    assert (sent["x-amz-log-type"], sent["x-amz-tenant-id"]) == ("Tail", "blue")
    assert capsys.readouterr() == ('{"x": 1}\n', "START\nEND\n")


def test_an_event_is_left_and_its_id_is_told(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes[f"POST {FUNCTIONS}/hello/invocations"] = (202, {"x-amzn-RequestId": "7-a"}, b"")

    assert run(["invoke", "hello", "--event", "-p", "[1]"]) == 0
    sent = server.requests[0]
    assert (sent[1]["x-amz-invocation-type"], sent[2]) == ("Event", b"[1]")
    told = "Accepted as event 7-a; `torpor events show 7-a` tells what becomes of it.\n"
    assert capsys.readouterr().out == told

    assert run(["invoke", "hello", "--event", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"status": 202, "request_id": "7-a"}


def test_an_event_has_no_log_to_show(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["invoke", "hello", "--event", "--tail"]) == 2
    assert "--tail cannot be used with --event" in capsys.readouterr().err and not server.requests


def test_invoke_of_a_function_that_fails_ends_with_1_and_shows_its_error(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"errorMessage": "boom", "errorType": "ValueError"}
    server.routes[f"POST {FUNCTIONS}/hello/invocations"] = (200, {"X-Amz-Function-Error": "Unhandled"}, error)

    assert run(["invoke", "hello"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out) == error
    assert captured.err == "torpor: hello failed: boom; `torpor logs hello` shows its log.\n"

    assert run(["invoke", "hello", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "Unhandled"


@pytest.mark.parametrize("command", [["invoke", "nope"], ["delete", "nope"], ["logs", "nope"]])
def test_function_that_does_not_exist_is_one_line(
    server: FakeServer, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command) == 1
    assert capsys.readouterr().err == "torpor: There is no function nope: `torpor list` shows those there are.\n"


def test_list_reads_every_page(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    def page(query: dict[str, str]) -> Reply:
        marker = query.get("Marker")
        found = {"Functions": [CONFIGURATION | {"FunctionName": f"after-{marker}"}]}
        return 200, {}, found if marker else found | {"NextMarker": "m"}

    server.routes[f"GET {FUNCTIONS}/"] = page

    assert run(["list", "--json"]) == 0
    functions = json.loads(capsys.readouterr().out)["functions"]
    assert [function["FunctionName"] for function in functions] == ["after-None", "after-m"]

    assert run(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED"]
    assert lines[1].startswith("after-None  python3.12  app.handler  128 MB  3 s")


@pytest.mark.parametrize(("name", "path"), [("hello:3", "hello%3A3"), ("hello:live", "hello/aliases/live")])
def test_delete_of_a_version_or_alias_leaves_the_function(server: FakeServer, name: str, path: str) -> None:
    server.routes[f"GET {FUNCTIONS}/{path}"] = (200, {}, {})
    server.routes[f"DELETE {FUNCTIONS}/{path}"] = (204, {}, b"")

    assert run(["delete", name]) == 0
    deleted = [target for target, _, _ in server.requests if target.startswith("DELETE")]
    assert deleted == [f"DELETE {FUNCTIONS}/{path}"]


def test_delete_of_an_alias_that_is_not_there_says_so(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes[f"GET {FUNCTIONS}/hello"] = (200, {}, {})
    server.routes[f"DELETE {FUNCTIONS}/hello/aliases/typo"] = (204, {}, b"")

    assert run(["delete", "hello:typo"]) == 1
    assert capsys.readouterr().err == "torpor: hello has no version or alias typo.\n"


@pytest.mark.parametrize(("name", "tenant"), [("fc/hello", "blue"), ("hello", ""), ("hello", "a\nb"), ("hello", "é")])
def test_tenants_that_cannot_be_are_refused_before_anything_is_sent(
    server: FakeServer, name: str, tenant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["invoke", name, "--tenant-id", tenant]) == 2
    assert "--tenant-id" in capsys.readouterr().err and not server.requests


def test_delete_says_what_it_did(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes[f"DELETE {FUNCTIONS}/hello"] = (204, {}, b"")

    assert run(["delete", "hello"]) == 0
    assert capsys.readouterr().out == "Deleted hello.\n"


def test_logs_are_read_to_the_end(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    def page(query: dict[str, str]) -> Reply:
        after = int(query.get("after", "0"))
        events = [{"time": 1.5e12, "stream": "s", "message": f"line {after}\n"}] if after < 2 else []
        return 200, {}, {"events": events, "cursor": str(after + len(events))}

    server.routes["GET /_torpor/logs"] = page

    assert run(["logs", "hello"]) == 0
    assert [line.split("  ")[1] for line in capsys.readouterr().out.splitlines()] == ["line 0", "line 1"]


def test_ps_shows_each_environment(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    environment = {
        "id": "e1", "function": "hello", "version": "$LATEST", "phase": "frozen", "age_s": 75.0, "idle_s": 3.2,
        "memory_bytes": 12_345_678, "invocations": 4, "pids": [7, 8],
    }  # fmt: skip
    server.routes["GET /_torpor/environments"] = (200, {}, {"environments": [environment]})

    assert run(["ps"]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert row.split() == ["e1", "hello", "$LATEST", "frozen", "1m15s", "3s", "12.3", "MB", "4", "7,8"]


def test_requests_are_signed_only_if_keys_are_configured(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.routes["GET /_torpor/environments"] = (200, {}, {"environments": []})

    run(["ps"])
    monkeypatch.setenv("TORPOR_ACCESS_KEYS", "AKID:secret")
    run(["ps"])

    unsigned, signed = (headers.get("authorization", "") for _, headers, _ in server.requests)
    assert unsigned == ""
    assert signed.startswith("AWS4-HMAC-SHA256 Credential=AKID/")


def test_refusal_for_lack_of_keys_says_how_to_give_them(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes["GET /_torpor/environments"] = (403, {}, {"message": "Sign the request."})

    assert run(["ps"]) == 1
    told = "Sign the request. Set the server's access keys (TORPOR_ACCESS_KEYS=ID:SECRET)."
    assert capsys.readouterr().err == f"torpor: {told}\n"


def test_endpoint_follows_the_settings_file(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TORPOR_ENDPOINT")
    (tmp_path / "torpor.toml").write_text(f"port = {urlsplit(server.url).port}")
    server.routes["GET /_torpor/environments"] = (200, {}, {"environments": []})

    assert run(["ps"]) == 0
    assert "No environment exists now" in capsys.readouterr().out


def test_light_command_starts_without_the_libraries_it_does_not_need() -> None:
    heavy = "rich", "botocore", "sqlalchemy", "alembic", "uvloop", "httptools", "asyncio"
    program = (
        "import sys; from torpor.cli import run; run(['list', '--endpoint', 'http://127.0.0.1:9']);"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"


def test_program_runs_as_a_module_and_tells_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "torpor", "--version"], capture_output=True, text=True, check=True)

    assert done.stdout.startswith("torpor ")

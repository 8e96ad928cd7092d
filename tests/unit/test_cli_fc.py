"""Functions of Function Compute on the command line, against a small server of the test's own."""

import base64
import json
from email.utils import parsedate_to_datetime

import pytest
from tests.unit.test_cli_commands import CONFIGURATION, FUNCTIONS, FakeServer, Reply, server

from torpor.cli import run
from torpor.contracts.function_compute.signing import verify
from torpor.contracts.http import ApiRequest

__all__ = ["server"]
CURRENT = "/2023-03-30/functions"
CLASSIC = "/2016-08-15/services"
FUNCTION = {
    "functionName": "hello", "runtime": "python3.10", "handler": "index.handler", "memorySize": 128, "timeout": 3,
    "codeSize": 1234, "lastModifiedTime": "2026-01-02T03:04:05Z",
}  # fmt: skip


class Fields(dict[str, str]):
    def get(self, name: str, default: str = "", /) -> str:  # type: ignore[override]
        return super().get(name, default)


def test_list_shows_them_by_the_names_that_other_commands_take(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def page(query: dict[str, str]) -> Reply:
        last = {"functions": [FUNCTION | {"functionName": "second"}]}
        return 200, {}, last if "nextToken" in query else {"functions": [FUNCTION], "nextToken": "second"}

    server.routes |= {
        f"GET {FUNCTIONS}/": (200, {}, {"Functions": [CONFIGURATION]}),
        f"GET {CURRENT}": page,
        f"GET {CLASSIC}": (200, {}, {"services": [{"serviceName": "shop"}]}),
        f"GET {CLASSIC}/shop/functions": (200, {}, {"functions": [FUNCTION]}),
    }

    assert run(["list"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[3].split()[:3] == ["FUNCTION", "COMPUTE", "RUNTIME"]
    assert [line.split()[0] for line in lines[4:]] == ["fc/hello", "fc/second", "fc/shop/hello"]
    assert run(["list", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["function_compute"]][2] == "fc/shop/hello"


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("fc/hello", f"{CURRENT}/hello/invocations"),
        ("fc/hello:prod", f"{CURRENT}/hello/invocations?qualifier=prod"),
        ("fc/shop/hello", f"{CLASSIC}/shop/functions/hello/invocations"),
    ],
)
def test_invoke_prints_the_result_and_the_log_beside_it(
    server: FakeServer, name: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = base64.b64encode(b"FC Invoke Start").decode()
    server.routes[f"POST {target.partition('?')[0]}"] = (200, {"X-Fc-Log-Result": log}, {"x": 1})

    assert run(["invoke", name, "--tail"]) == 0

    assert server.requests[0][0] == f"POST {target}"
    assert server.requests[0][1]["x-fc-log-type"] == "Tail"
    assert capsys.readouterr() == ('{"x": 1}\n', "FC Invoke Start\n")


def test_an_event_is_left_and_its_id_is_told(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes[f"POST {CURRENT}/hello/invocations"] = (202, {"X-Fc-Request-Id": "7-a"}, b"")

    assert run(["invoke", "fc/hello", "--event"]) == 0
    assert server.requests[0][1]["x-fc-invocation-type"] == "Async"
    assert "`torpor events show 7-a`" in capsys.readouterr().out


def test_invoke_of_one_that_fails_ends_with_1(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"X-Fc-Error-Type": "UnhandledInvocationError"}
    server.routes[f"POST {CURRENT}/hello/invocations"] = (200, failed, {"errorMessage": "boom"})

    assert run(["invoke", "fc/hello:1"]) == 1
    assert capsys.readouterr().err == "torpor: fc/hello:1 failed: boom; `torpor logs fc/hello` shows its log.\n"


@pytest.mark.parametrize("command", ["invoke", "delete", "logs"])
@pytest.mark.parametrize(("name", "path"), [("hello", f"{CURRENT}/hello"), ("shop/x", f"{CLASSIC}/shop/functions/x")])
def test_a_name_without_its_beginning_is_put_right(
    server: FakeServer, command: str, name: str, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes[f"GET {path}"] = (200, {}, FUNCTION)

    assert run([command, name]) == 1
    told = f"There is no function {name}, but one of Function Compute: fc/{name}."
    assert capsys.readouterr().err == f"torpor: {told}\n"


def test_a_missing_version_is_told_apart_from_a_missing_function(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes |= {f"GET {CURRENT}/hello": (200, {}, FUNCTION), f"GET {FUNCTIONS}/hello": (200, {}, CONFIGURATION)}

    for name in ("fc/hello", "hello"):
        assert run(["invoke", f"{name}:9"]) == 1
        assert capsys.readouterr().err == f"torpor: {name} has no version or alias 9.\n"


def test_delete_takes_the_function(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes[f"DELETE {CURRENT}/hello"] = (204, {}, b"")

    assert run(["delete", "fc/hello"]) == 0
    assert capsys.readouterr().out == "Deleted fc/hello.\n"
    assert run(["delete", "fc/"]) == 2
    assert "write fc/NAME, or fc/SERVICE/NAME" in capsys.readouterr().err


def test_requests_bear_a_signature_of_that_cloud(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORPOR_ACCESS_KEYS", "key:secret")
    server.routes[f"POST {CURRENT}/a%20b/invocations"] = (200, {}, 1)

    assert run(["invoke", "fc/a b:prod", "-p", "{}"]) == 0

    target, fields, body = server.requests[0]
    path, _, query = target.removeprefix("POST ").partition("?")
    request = ApiRequest(method="POST", path=path, query=query, headers=Fields(fields), body=body)
    assert verify(request, {"key": "secret"}, parsedate_to_datetime(fields["date"]).timestamp()) == "key"

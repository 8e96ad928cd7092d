"""`torpor deploy --web` and services in the other commands, against a small server of the test's own."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_cli_commands import CONFIGURATION, FUNCTIONS, FakeServer, server

from torpor.cli import run

__all__ = ["server"]
SERVICES = "/_torpor/services"
SERVICE = {
    "name": "shop", "kind": "serverless", "build": "", "start": "uvicorn main:app", "guessed": ["build", "start"],
    "port": 8080, "memory": 512, "timeout": 900.0, "concurrency": 80, "environment": {"KEPT": "1"},
    "min_instances": 0, "max_instances": None, "idle_timeout": 1800.0, "code_bytes": 1234, "revision": "r",
    "modified": 1_767_323_045.0, "log_group": "/web/shop", "record": "web/shop",
}  # fmt: skip
ENDED = {"deployment": 1, "stage": "succeeded", "output": "", "after": 0, "message": "", "exit_status": None}


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "My_Shop"
    folder.mkdir()
    (folder / "main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    return folder


def phase(environment: str, name: str, status: str = "success") -> dict[str, str]:
    return {"environment": environment, "phase": name, "status": status}


def accepting(server: FakeServer, name: str = "shop", **service: Any) -> None:
    """The server knows no such service until it is sent one, whose deployment succeeds."""
    shown = SERVICE | {"name": name} | service
    answers = iter([(404, {}, {"message": "There is no service."})])
    server.routes |= {
        f"GET {SERVICES}/{name}": lambda query: next(answers, (200, {}, shown)),
        f"PUT {SERVICES}/{name}": (202, {}, {"name": name, "deployment": 1, "stage": "waiting"}),
        f"GET {SERVICES}/{name}/deployment": (200, {}, ENDED),
    }


def put(server: FakeServer, name: str = "shop") -> tuple[dict[str, Any], list[str]]:
    """The settings and the files that were sent."""
    ((headers, body),) = [(h, b) for target, h, b in server.requests if target == f"PUT {SERVICES}/{name}"]
    return json.loads(headers["x-torpor-settings"]), zipfile.ZipFile(io.BytesIO(body)).namelist()


def test_a_new_service_is_created_and_what_was_guessed_is_said(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accepting(server, "my-shop")

    assert run(["deploy", "--web", str(code), "--memory", "256", "--env", "A=b=c"]) == 0

    settings, files = put(server, "my-shop")
    assert settings == {
        "memory": 256, "environment": {"A": "b=c"}, "build": "", "guessed": ["build", "start"],
        "start": "uvicorn main:app --host 0.0.0.0 --port $PORT",
    }  # fmt: skip
    assert files == ["main.py"]
    captured = capsys.readouterr()
    assert "FastAPI, because main.py makes `app = FastAPI(...)`; start command `uvicorn main:app" in captured.err
    assert "No build command, because" in captured.err
    lines = captured.out.splitlines()
    assert lines[0].startswith("Created my-shop: serverless, port 8080, 512 MB, 900 s, 1 kB of code")
    port = server.url.rpartition(":")[2]
    assert lines[1:] == [f"http://my-shop.localhost:{port}/", f"{server.url}/services/my-shop/"]


def test_what_was_said_before_is_not_guessed_again(server: FakeServer, code: Path) -> None:
    accepting(server)
    server.routes[f"GET {SERVICES}/shop"] = (200, {}, SERVICE | {"guessed": ["build"], "start": "./mine"})

    assert run(["deploy", "--web", str(code), "--name", "shop", "--env", "NEW=2", "--persistent"]) == 0

    assert put(server)[0] == {
        "build": "", "guessed": ["build"], "environment": {"KEPT": "1", "NEW": "2"}, "persistent": True,
    }  # fmt: skip


def test_commands_that_are_given_are_not_guessed(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "notes.txt").write_text("x")
    accepting(server, "site")

    given = ["--start", "./run", "--build", "make", "--port", "5000", "--concurrency", "3", "--timeout", "5"]
    assert run(["deploy", "--web", str(tmp_path / "site"), *given, "--serverless"]) == 0

    assert put(server, "site")[0] == {
        "start": "./run", "build": "make", "port": 5000, "concurrency": 3, "timeout": 5, "persistent": False,
        "guessed": [],
    }  # fmt: skip


def test_packages_that_the_build_installs_are_not_sent(server: FakeServer, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    (folder / "node_modules" / "express").mkdir(parents=True)
    (folder / "node_modules" / "express" / "index.js").write_text("x")
    (folder / "package.json").write_text(json.dumps({"main": "s.js", "dependencies": {"express": "4"}}))
    (folder / "s.js").write_text("x")
    accepting(server, "node")

    assert run(["deploy", "--web", str(folder)]) == 0
    assert put(server, "node")[1] == ["package.json", "s.js"]

    server.requests.clear()
    assert run(["deploy", "--web", str(folder), "--build", ""]) == 0
    assert "node_modules/express/index.js" in put(server, "node")[1]


def test_a_failed_build_shows_its_output_and_ends_with_the_reason(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accepting(server)
    pages = iter([
        ENDED | {"stage": "building", "output": "Collecting nothing\n", "after": 19},
        ENDED | {"stage": "failed", "output": "no such package\n", "after": 35, "exit_status": 3,
                 "message": "The build command `make` ended with exit status 3."},
    ])  # fmt: skip
    queries: list[dict[str, str]] = []

    def news(query: dict[str, str]) -> Any:
        queries.append(query)
        return 200, {}, next(pages)

    server.routes[f"GET {SERVICES}/shop/deployment"] = news

    assert run(["deploy", "--web", str(code), "--name", "shop", "--build", "make"]) == 1

    error = capsys.readouterr().err
    assert "Collecting nothing\nno such package\n" in error
    assert error.endswith("torpor: The build command `make` ended with exit status 3. Nothing was changed.\n")
    assert (queries[1]["after"], queries[1]["stage"]) == ("19", "building")


def test_json_output_is_the_service_and_nothing_else(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accepting(server)

    assert run(["deploy", "--web", str(code), "--name", "shop", "--json"]) == 0

    captured = capsys.readouterr()
    assert json.loads(captured.out)["urls"][1] == f"{server.url}/services/shop/"
    assert captured.err == ""


def test_a_timeout_without_effect_is_said(server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accepting(server, kind="persistent", timeout=None)
    server.routes["GET /_torpor/phases"] = (200, {}, {"phases": [phase("new", "init")]})

    assert run(["deploy", "--web", str(code), "--name", "shop", "--persistent", "--timeout", "5"]) == 0

    captured = capsys.readouterr()
    assert "no request limit: --timeout counts once it is serverless" in captured.err
    assert "no request limit" in captured.out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--web", "--runtime", "python3.12"], "--runtime cannot be used with --web"),
        (["--start", "x"], "--start is for web services: add --web"),
        (["--persistent"], "--persistent is for web services"),
        (["--web", "--name", "No"], "a-z, 0-9 and -"),
        (["--web", "--env", "A"], "KEY=VALUE"),
    ],
)
def test_options_that_do_not_go_together_are_misuse(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    assert run(["deploy", str(code), *options]) == 2
    assert text in capsys.readouterr().err


def test_list_shows_services_with_their_kind(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.routes |= {
        f"GET {FUNCTIONS}/": (200, {}, {"Functions": [CONFIGURATION]}),
        f"GET {SERVICES}": (200, {}, {"services": [SERVICE, SERVICE | {"name": "b", "kind": "persistent",
                                                                       "timeout": None}]}),
    }  # fmt: skip

    assert run(["list"]) == 0

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][0] == "hello"
    assert lines[3][:2] == ["SERVICE", "KIND"]
    assert lines[4][:6] == ["shop", "serverless", "8080", "512", "MB", "900"]
    assert lines[5][:2] == ["b", "persistent"]
    assert run(["list", "--json"]) == 0
    assert [service["name"] for service in json.loads(capsys.readouterr().out)["services"]] == ["shop", "b"]


def test_delete_takes_the_service_where_there_is_no_function(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes[f"DELETE {SERVICES}/shop"] = (200, {}, {"deleted": "shop"})

    assert run(["delete", "shop"]) == 0
    assert capsys.readouterr().out == "Deleted shop.\n"
    assert run(["delete", "other"]) == 1


def test_logs_are_those_of_the_service_where_there_is_no_function(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes[f"GET {SERVICES}/shop"] = (200, {}, SERVICE)
    events = [{"time": 0, "stream": "s", "message": "hello\n"}]

    def logs(query: dict[str, str]) -> Any:
        if query["function"] != "web/shop":
            return 404, {}, {"message": "There is no function."}
        return 200, {}, {"events": [] if query.get("after") else events, "cursor": "1"}

    server.routes["GET /_torpor/logs"] = logs

    assert run(["logs", "shop"]) == 0
    assert capsys.readouterr().out.endswith("  hello\n")


def test_a_service_cannot_be_invoked_and_the_message_gives_its_address(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes[f"GET {SERVICES}/shop"] = (200, {}, SERVICE)

    assert run(["invoke", "shop"]) == 1
    assert capsys.readouterr().err == f"torpor: shop is a web service: curl {server.url}/services/shop/\n"


def test_deploy_of_a_server_as_a_function_points_to_the_option(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.routes["GET /_torpor/health"] = (200, {}, {"runtimes": ["python3.12"]})

    assert run(["deploy", str(code)]) == 2
    assert "`torpor deploy --web` deploys one" in capsys.readouterr().err


def test_deploy_of_a_persistent_service_ends_once_it_is_up(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    accepting(server, "my-shop", kind="persistent", record="web/my-shop")
    news = iter([[], [phase("new", "start")], [phase("new", "start"), phase("new", "init")]])
    server.routes["GET /_torpor/phases"] = lambda query: (200, {}, {"phases": next(news)})

    assert run(["deploy", "--web", str(code), "--persistent"]) == 0
    assert capsys.readouterr().out.startswith("Created my-shop")
    assert list(news) == []


@pytest.mark.parametrize("living", ["old", "another"])
def test_deploy_of_a_persistent_service_that_does_not_start_shows_why_and_fails(
    server: FakeServer, code: Path, capsys: pytest.CaptureFixture[str], living: str
) -> None:
    shown = SERVICE | {"name": "my-shop", "kind": "persistent"}
    accepting(server, "my-shop")
    server.routes |= {
        f"GET {SERVICES}/my-shop": (200, {}, shown),
        "GET /_torpor/logs": (200, {}, {"events": [{"message": f"line {n}\n"} for n in range(12)], "cursor": "12"}),
        "GET /_torpor/environments": (200, {}, {"environments": [{"id": living}]}),
    }
    before = [phase("old", "init")]
    answers = iter([before, [*before, phase("new", "init", "error")]])
    server.routes["GET /_torpor/phases"] = lambda query: (200, {}, {"phases": next(answers)})

    assert run(["deploy", "--web", str(code), "--persistent"]) == 1

    told = capsys.readouterr().err.splitlines()
    assert told[-11:-1] == [f"line {n}" for n in range(2, 12)]
    assert told[-1].startswith("torpor: my-shop is deployed but does not start")
    assert ("the deployment before it goes on serving" in told[-1]) == (living == "old")


def test_deploy_of_a_persistent_service_for_which_nothing_starts_asks_for_memory(
    server: FakeServer, code: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accepting(server, "my-shop", kind="persistent")
    monkeypatch.setattr("torpor.cli.web_starting._BEGUN_WITHIN", 0.05)

    assert run(["deploy", "--web", str(code), "--persistent"]) == 0
    assert "is there memory for it?" in capsys.readouterr().err

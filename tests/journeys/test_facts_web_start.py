"""How web services are started, found to be listening, and told to be broken."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.server import TorporServer
from tests.support.web_services import Service, asked, service, write_source

Serve = Callable[..., Service]


@pytest.fixture
def serve(server: TorporServer, tmp_path: Path) -> Iterator[Serve]:
    """Deploys services that are deleted after the test."""
    with ExitStack() as stack:

        def serve(files: dict[str, str], *options: str, on: TorporServer | None = None) -> Service:
            return stack.enter_context(service(on or server, tmp_path, files, *options))

        yield serve


@pytest.mark.fact("W-001")
def test_start_command_is_run_by_bash(serve: Serve) -> None:
    found = serve(
        {"server.py": asked()["server.py"].replace('os.environ["PORT"]', "sys.argv[2]")},
        "--start",
        "export X=$((1+1)) && [[ -n $PORT ]] && python server.py --port $PORT",
    )

    assert found.ask("import os; result = os.environ['X']") == "2"


@pytest.mark.fact("W-002")
def test_a_start_command_that_fails_points_to_the_build(serve: Serve) -> None:
    found = serve(asked(), "--start", "echo about to start; gunicorn-that-is-not-there app:app")

    answer = found.request()

    assert answer.status == 502
    for text in (answer.text, found.logged("exit status 127")):
        assert "exit status 127" in text
        assert "about to start" in text
        assert "gunicorn-that-is-not-there: command not found" in text
        assert "build command" in text


SLOW = "time.sleep(5)"


@pytest.mark.fact("W-003", "W-004")
def test_outside_requests_wait_until_a_health_question_was_answered(serve: Serve) -> None:
    found = serve(asked(SLOW), "--start", "python server.py")
    began = time.monotonic()

    assert found.request("GET", "/first").status == 404

    assert time.monotonic() - began > 5
    requests: list[Any] = found.ask("result = STATE['requests']")
    paths = [path for path, _, _ in requests]
    assert paths[0] == "/kaithhealth"
    assert requests[0][1].startswith("torpor-probe/")
    assert paths.index("/first") > paths.index("/kaithhealth")


@pytest.mark.fact("W-003")
def test_any_complete_answer_says_that_the_port_is_listened_to(serve: Serve) -> None:
    sick = asked()["server.py"].replace('self.answer(404, b"")', 'self.answer(500, b"sick")')

    assert serve({"server.py": sick}, "--start", "python server.py").request().text == "up"


@pytest.mark.fact("W-003")
def test_a_server_on_loopback_alone_is_reached(serve: Serve) -> None:
    local = asked()["server.py"].replace("0.0.0.0", "127.0.0.1")

    assert serve({"server.py": local}, "--start", "python server.py").request().text == "up"


@pytest.mark.fact("W-025", "W-026")
def test_a_server_on_another_port_is_told_with_the_configured_one(
    make_server: MakeServer, serve: Serve, tmp_path: Path
) -> None:
    impatient = make_server(web_start_limit=3)
    elsewhere = {"server.py": asked()["server.py"].replace('os.environ["PORT"]', '"5000"')}
    found = serve(elsewhere, "--start", "python server.py", "--port", "8080", on=impatient)
    text = "Port Some(8080) is not being listened to by the service"

    answer = found.request()

    assert answer.status == 502
    assert answer.text.splitlines()[0] == text
    assert text in found.logged(text)
    folder = write_source(tmp_path / "again", elsewhere)
    assert found.deploy(folder, "--port", "5000").code == 0
    assert found.request().text == "up"
    assert found.deploy(write_source(tmp_path / "mended", asked()), "--port", "8080").code == 0
    assert found.request().text == "up"


@pytest.mark.fact("W-018")
def test_a_cold_start_adds_little_to_the_servers_own_start(serve: Serve) -> None:
    found = serve(asked("time.sleep(0.3)"), "--start", "exec python server.py")
    sent = time.monotonic()

    assert found.request().text == "up"

    elapsed = time.monotonic() - sent
    told = re.search(r"answers after (\d+) ms", found.logged("answers after"))
    assert told is not None
    own = int(told[1]) / 1000
    assert 0.3 < own < elapsed
    assert elapsed - own < 1.0, f"{elapsed:.2f} s in all, {own:.2f} s of the server's own"

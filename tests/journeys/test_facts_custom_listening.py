"""Custom runtimes of Function Compute: where and when the server has to listen, and what follows if it does not."""

import re
import time

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.fc import SERVED, SERVER, Result, default_of, deployed, deployed_classic, fc_warnings, visit
from tests.support.server import TorporServer

pytestmark = [fc_warnings]

LIMIT = 2.0
FILES = {"server.py": SERVER}
PORT_8080 = SERVED["customRuntimeConfig"] | {"port": 8080}
EVERYWHERE = """
import http.server, socket

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"from everywhere")

Server(("", 9000), Handler).serve_forever()
"""
CLASSIC_TEXT = re.compile(
    r"The CA's http server cannot be started:ContainerStartDuration:(?P<nanoseconds>\d+)\. "
    r"Ping CA failed due to: dial tcp (?P<address>[\d.]+):(?P<port>\d+): getsockopt: connection refused "
    r"Logs : (?P<log>.*)",
    re.DOTALL,
)


@pytest.fixture(scope="module")
def hasty(make_server: MakeServer) -> TorporServer:
    """A server that waits two seconds, not two minutes, for a function to listen."""
    return make_server(fc_start_limit=LIMIT)


@pytest.fixture(scope="module")
def unreachable(hasty: TorporServer) -> Result:
    """A call of a function of the classic generation whose server listens on the loopback address."""
    with deployed_classic(
        hasty, FILES, **SERVED, memorySize=256, timeout=20, environmentVariables={"SERVE_AT": "127.0.0.1"}
    ) as function:
        return function.post()


@pytest.mark.fact("C-012")
def test_port_9000_is_asked_where_none_is_set(server: TorporServer) -> None:
    with deployed(server, FILES, **SERVED) as function:
        assert function.invoke(b"hello").value["body"] == "hello"


@pytest.mark.fact("C-013")
def test_another_port_is_asked_where_it_is_set(server: TorporServer) -> None:
    given = SERVED | {"customRuntimeConfig": PORT_8080}
    with deployed(server, FILES, **given, environmentVariables={"SERVE_ON": "8080"}) as function:
        assert function.invoke(b"hello").value["body"] == "hello"


@pytest.mark.fact("C-013")
def test_port_of_the_classic_generation_is_the_ca_port(server: TorporServer) -> None:
    given = {"memorySize": 256, "environmentVariables": {"SERVE_ON": "8080"}}
    with deployed_classic(server, FILES, **SERVED, caPort=8080, **given) as function:
        answer = function.classic.invoke_function(function.service, function.name, b"hello")
        assert b'"body": "hello"' in answer.data


@pytest.mark.fact("C-014")
@pytest.mark.privileged
@pytest.mark.parametrize(("port", "served"), [(9000, 8080), (8080, 9000)])
def test_server_on_another_port_than_the_functions_is_not_started(hasty: TorporServer, port: int, served: int) -> None:
    config = SERVED["customRuntimeConfig"] | {"port": port}
    given = SERVED | {"customRuntimeConfig": config, "environmentVariables": {"SERVE_ON": str(served)}}
    with deployed(hasty, FILES, **given) as function:
        result = function.post()

    assert result.status == 412
    assert result.value["Code"] == "FunctionNotStarted"
    assert f"failed on port {port} in {LIMIT:g} seconds" in result.value["Message"]
    assert f"Listening on port {served}" in result.value["Message"]


@pytest.mark.fact("C-015")
@pytest.mark.parametrize("source", [SERVER, EVERYWHERE], ids=["0.0.0.0", "all addresses"])
def test_server_on_all_addresses_is_reached(server: TorporServer, source: str) -> None:
    with deployed(server, {"server.py": source}, **SERVED) as function:
        result = function.invoke(b"hello")

    assert result.status == 200
    assert b"hello" in result.body or result.body == b"from everywhere"


@pytest.mark.fact("C-016")
@pytest.mark.privileged
def test_server_on_the_loopback_address_is_never_reached(hasty: TorporServer) -> None:
    with deployed(hasty, FILES, **SERVED, environmentVariables={"SERVE_AT": "127.0.0.1"}) as function:
        results = [function.post(), function.post()]

    for result in results:
        assert (result.status, result.value["Code"]) == (412, "FunctionNotStarted")
        assert f"failed on port 9000 in {LIMIT:g} seconds" in result.value["Message"]
        assert LIMIT <= result.elapsed < LIMIT + 1.5


@pytest.mark.fact("C-016")
@pytest.mark.privileged
def test_caller_by_http_of_a_server_that_is_never_reached_gets_a_bad_gateway(hasty: TorporServer) -> None:
    with (
        deployed(hasty, FILES, **SERVED, environmentVariables={"SERVE_AT": "127.0.0.1"}) as function,
        function.triggered("http", authType="anonymous", methods=["GET"]) as url,
    ):
        result = visit(hasty, url, "/")

    assert (result.status, result.value["Code"]) == (502, "FunctionNotStarted")


@pytest.mark.fact("C-017")
@pytest.mark.privileged
def test_start_error_of_the_classic_generation_is_json(unreachable: Result) -> None:
    assert unreachable.value["ErrorCode"] == "FunctionNotStarted"
    assert unreachable.value["ErrorMessage"]


@pytest.mark.fact("C-018")
@pytest.mark.privileged
def test_start_error_tells_how_long_was_waited_and_where_nobody_answered(unreachable: Result) -> None:
    found = CLASSIC_TEXT.fullmatch(unreachable.value["ErrorMessage"])

    assert found is not None
    assert LIMIT * 1e9 <= int(found["nanoseconds"]) < (LIMIT + 1) * 1e9
    assert found["port"] == "9000"
    assert not found["address"].startswith("127.")


@pytest.mark.fact("C-019")
@pytest.mark.privileged
def test_start_error_ends_with_the_output_line_by_line_with_its_times(unreachable: Result) -> None:
    found = CLASSIC_TEXT.fullmatch(unreachable.value["ErrorMessage"])

    assert found is not None
    lines = found["log"].splitlines()
    stamped = [re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\.\d{9}Z (.*)", line) for line in lines]
    assert [line[2] for line in stamped if line is not None][-1] == "Listening on port 9000"
    assert None not in stamped
    assert {line[1][:13] for line in stamped if line is not None} <= {
        time.strftime("%Y-%m-%dT%H", time.gmtime(moment)) for moment in (unreachable.sent, unreachable.received)
    }


@pytest.mark.fact("C-023")
@pytest.mark.privileged
def test_server_may_take_nearly_the_start_limit_and_no_longer(hasty: TorporServer) -> None:
    with (
        deployed(hasty, FILES, **SERVED, environmentVariables={"SERVE_AFTER": str(LIMIT - 1)}) as late,
        deployed(hasty, FILES, **SERVED, environmentVariables={"SERVE_AFTER": str(LIMIT + 1)}) as too_late,
    ):
        answered, failed = late.start(b"hello"), too_late.start(b"hello")

        assert answered.result().value["body"] == "hello"
        assert failed.result().value["Code"] == "FunctionNotStarted"
        assert LIMIT <= failed.result().elapsed < LIMIT + 1


@pytest.mark.fact("C-023")
def test_start_limit_is_120_seconds_by_default() -> None:
    assert default_of("fc_start_limit") == 120


@pytest.mark.fact("C-023")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_server_may_take_100_seconds_and_not_130(server: TorporServer) -> None:
    with (
        deployed(server, FILES, **SERVED, environmentVariables={"SERVE_AFTER": "100"}) as late,
        deployed(server, FILES, **SERVED, environmentVariables={"SERVE_AFTER": "130"}) as too_late,
    ):
        answered, failed = late.start(b"hello"), too_late.start(b"hello")

        assert answered.result().value["body"] == "hello"
        assert "in 120 seconds" in failed.result().value["Message"]
        assert 120 <= failed.result().elapsed < 122

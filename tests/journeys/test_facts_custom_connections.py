"""Custom runtimes of Function Compute: the connections between platform and server, kept for as long as it takes."""

import time

import pytest
from alibabacloud_tea_openapi.exceptions import ClientException
from tests.support.fc import SERVED, SERVER, ComputeFunction, deployed, fc_warnings
from tests.support.npm import node_modules, packed
from tests.support.server import TorporServer

pytestmark = [fc_warnings]

FILES = {"server.py": SERVER}
DAY = 24 * 3600
EXPRESS = """
const express = require("express");
const app = express();
let connections = 0;
app.post("/invoke", (request, response) => {
  response.send({ connections, port: request.socket.remotePort, connection: request.headers.connection || "" });
});
const server = app.listen(9000, "0.0.0.0");
server.on("connection", () => (connections += 1));
server.timeout = 0;
server.keepAliveTimeout = 0;
"""
NODES_KEEP_ALIVE = 5.0


@pytest.mark.fact("C-020")
def test_connections_are_kept_alive_and_used_again(server: TorporServer) -> None:
    with deployed(server, FILES, **SERVED) as function:
        for _ in range(99):
            assert function.post(b"again").status == 200
        told = function.post(b"last").value

    assert told["connections"] <= 2
    assert told["closing"] == 0
    assert "close" not in told["headers"].get("connection", "")


@pytest.mark.fact("C-021")
def test_timeout_of_24_hours_is_taken_and_a_longer_one_refused(server: TorporServer) -> None:
    with deployed(server, FILES, **SERVED | {"timeout": DAY}) as function:
        assert function.configuration()["timeout"] == DAY

    with pytest.raises(ClientException) as refused, deployed(server, FILES, **SERVED | {"timeout": DAY + 1}):
        pass
    assert refused.value.code == "InvalidArgument"


def _takes(server: TorporServer, seconds: float) -> None:
    with deployed(server, FILES, **SERVED | {"timeout": DAY}) as function:
        result = function.post(f"sleep {seconds}".encode())

    assert result.status == 200
    assert result.value["body"] == f"sleep {seconds}"
    assert seconds <= result.elapsed < seconds + 3


@pytest.mark.fact("C-021")
def test_long_request_is_not_cut_by_the_platform(server: TorporServer) -> None:
    _takes(server, 16.0)


@pytest.mark.fact("C-021")
@pytest.mark.slow
@pytest.mark.timeout(700)
def test_request_of_ten_minutes_is_not_cut_by_the_platform(server: TorporServer) -> None:
    _takes(server, 600.0)


def _rests(function: ComputeFunction, seconds: float) -> None:
    before = function.invoke().value
    time.sleep(seconds)
    after = function.invoke().value

    assert before["connection"] in ("", "keep-alive")
    assert after == before


@pytest.mark.fact("C-022")
def test_node_server_that_never_times_out_is_asked_over_its_old_connection(
    server: TorporServer, request: pytest.FixtureRequest
) -> None:
    modules = node_modules(request.config.cache, "express@4.21.2")
    config = {"command": ["node"], "args": ["server.js"]}
    given = SERVED | {"customRuntimeConfig": config, "idleTimeout": 600}
    with deployed(server, {"server.js": EXPRESS, **packed(modules)}, **given) as function:
        _rests(function, 2 * NODES_KEEP_ALIVE)


@pytest.mark.fact("C-022")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_node_server_that_never_times_out_is_asked_over_its_old_connection_after_two_minutes(
    server: TorporServer, request: pytest.FixtureRequest
) -> None:
    modules = node_modules(request.config.cache, "express@4.21.2")
    config = {"command": ["node"], "args": ["server.js"]}
    given = SERVED | {"customRuntimeConfig": config, "idleTimeout": 600}
    with deployed(server, {"server.js": EXPRESS, **packed(modules)}, **given) as function:
        _rests(function, 120.0)

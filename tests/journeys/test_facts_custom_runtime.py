"""Custom runtimes of Function Compute: any HTTP server, started by the command that is configured."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from alibabacloud_fc20230330.models import GetFunctionRequest
from tests.support.fc import SERVED, SERVER, Deploy, deployed, fc_warnings, visit
from tests.support.server import TorporServer

pytestmark = [fc_warnings]

JAVA = """
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;

public class Demo {
    public static void main(String[] arguments) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress("0.0.0.0", 9000), 0);
        server.createContext("/", exchange -> {
            byte[] event = exchange.getRequestBody().readAllBytes();
            byte[] answer = ("java " + new String(event)).getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
    }
}
"""
NODE = """
const http = require("http");
const server = http.createServer((request, response) => {
  let event = "";
  request.on("data", (piece) => (event += piece));
  request.on("end", () => response.end(`node ${event}`));
});
server.timeout = 0;
server.keepAliveTimeout = 0;
server.listen(9000, "0.0.0.0");
"""
PHP = """<?php
$server = stream_socket_server("tcp://0.0.0.0:9000");
while ($client = stream_socket_accept($server, -1)) {
    $length = 0;
    while (($line = trim(fgets($client))) !== "") {
        if (stripos($line, "content-length:") === 0) $length = (int) substr($line, 15);
    }
    $answer = "php " . ($length ? fread($client, $length) : "");
    $head = "HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: " . strlen($answer);
    fwrite($client, "$head\\r\\n\\r\\n$answer");
    fclose($client);
}
"""


@pytest.fixture
def deploy(server: TorporServer) -> Iterator[Deploy]:
    """Deploys servers that are deleted after the test."""
    with ExitStack() as stack:
        yield lambda files, **given: stack.enter_context(deployed(server, files, **(SERVED | given)))


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small HTTP server as `demo.jar`."""
    compiler, packer = shutil.which("javac"), shutil.which("jar")
    if compiler is None or packer is None:
        pytest.skip("this host has no JDK to build the jar with")
    folder = tmp_path_factory.mktemp("java")
    (folder / "Demo.java").write_text(JAVA)
    subprocess.run([compiler, "--release", "11", "Demo.java"], cwd=folder, check=True)
    classes = [path.name for path in Path(folder).glob("*.class")]
    subprocess.run([packer, "--create", "--file=demo.jar", "--main-class=Demo", *classes], cwd=folder, check=True)
    return (folder / "demo.jar").read_bytes()


@pytest.mark.fact("C-001", "C-002")
def test_package_is_nothing_but_an_http_server_and_its_command_all_that_is_configured(deploy: Deploy) -> None:
    function = deploy({"server.py": SERVER})

    result = function.invoke(b"hello")

    assert result.status == 200
    assert (result.value["method"], result.value["path"], result.value["body"]) == ("POST", "/invoke", "hello")


@pytest.mark.fact("C-003")
def test_cold_start_runs_the_configured_command_once(deploy: Deploy) -> None:
    function = deploy({"server.py": SERVER})
    assert function.lines() == []

    boots = [function.invoke().value["boot"] for _ in range(3)]
    function.recycle()
    boots += [function.invoke().value["boot"] for _ in range(2)]

    starts = [json.loads(line.removeprefix("started with ")) for line in function.printed("started with")]
    assert [argv[1:] for argv in starts] == [["-u", "server.py"]] * 2
    assert len(set(boots[:3])) == len(set(boots[3:])) == 1
    assert boots[0] != boots[-1]


@pytest.mark.fact("C-004")
def test_server_gets_all_requests_whatever_their_way_method_and_path(deploy: Deploy, server: TorporServer) -> None:
    function = deploy({"server.py": SERVER})
    asked = [("GET", "/"), ("GET", "/a/b?c=d"), ("POST", "/form"), ("PUT", "/a%20b"), ("DELETE", "/x"), ("PATCH", "/")]

    with function.triggered("http", authType="anonymous", methods=["GET", "POST", "PUT", "DELETE", "PATCH"]) as url:
        seen = [visit(server, url, path, method=method).value for method, path in asked]
    by_api = function.invoke(b"{}").value

    assert [(told["method"], told["path"]) for told in seen] == asked
    assert {told["headers"]["x-fc-control-path"] for told in seen} == {"/http-invoke"}
    assert (by_api["path"], by_api["headers"]["x-fc-control-path"]) == ("/invoke", "/invoke")
    assert {told["boot"] for told in seen} == {by_api["boot"]}


@pytest.mark.fact("C-005")
def test_start_command_is_read_back_as_it_was_set(deploy: Deploy) -> None:
    command, args = ["python", "-u"], ["server.py", "--x", "a b", "server.py"]
    function = deploy({"server.py": SERVER}, customRuntimeConfig={"command": command, "args": args, "port": 9000})

    config = function.current.get_function(function.name, GetFunctionRequest()).body.custom_runtime_config

    assert (config.command, config.args, config.port) == (command, args, 9000)


@pytest.mark.fact("C-006")
def test_command_and_arguments_are_joined_in_order_with_blanks_kept(deploy: Deploy) -> None:
    config = {"command": ["python", "-u"], "args": ["server.py", "--x", "a b"]}
    function = deploy({"server.py": SERVER}, customRuntimeConfig=config)

    argv = function.invoke().value["argv"]

    assert Path(argv[0]).name.startswith("python")
    assert argv[1:] == ["-u", "server.py", "--x", "a b"]


@pytest.mark.fact("C-007")
@pytest.mark.privileged
def test_bootstrap_of_the_package_is_started_where_no_command_is_set(deploy: Deploy) -> None:
    bootstrap = '#!/bin/bash\necho "this is $0"\nexec python -u server.py from-bootstrap\n'
    function = deploy({"bootstrap": bootstrap, "server.py": SERVER}, customRuntimeConfig=None)

    argv = function.invoke().value["argv"]

    assert argv[1:] == ["-u", "server.py", "from-bootstrap"]
    assert function.printed("this is ") == ["this is /code/bootstrap"]


@pytest.mark.fact("C-008")
def test_java_server_is_started_from_its_jar(deploy: Deploy, jar: bytes) -> None:
    if shutil.which("java") is None:
        pytest.skip("this host has no Java")
    config = {"command": ["java"], "args": ["-jar", "demo.jar"]}
    function = deploy({"demo.jar": jar}, customRuntimeConfig=config, memorySize=512)

    assert function.invoke(b"hello").body == b"java hello"


@pytest.mark.fact("C-009")
def test_python_server_is_found_by_its_relative_path_in_the_code_folder(deploy: Deploy) -> None:
    config = {"command": ["python"], "args": ["server.py"]}
    function = deploy({"server.py": SERVER}, customRuntimeConfig=config)

    told = function.invoke(b"hello").value

    assert told["body"] == "hello"
    assert told["folder"] == told["code"]


@pytest.mark.fact("C-010")
def test_node_server_is_found_by_its_relative_path(deploy: Deploy) -> None:
    if shutil.which("node") is None:
        pytest.skip("this host has no Node.js")
    function = deploy({"server.js": NODE}, customRuntimeConfig={"command": ["node"], "args": ["server.js"]})

    assert function.invoke(b"hello").body == b"node hello"


@pytest.mark.fact("C-011")
def test_php_server_is_found_by_its_relative_path(deploy: Deploy) -> None:
    if shutil.which("php") is None:
        pytest.skip("this host has no PHP")
    function = deploy({"server.php": PHP}, customRuntimeConfig={"command": ["php"], "args": ["server.php"]})

    assert function.invoke(b"hello").body == b"php hello"

"""Without isolation: servers that share one network, paths that exist nowhere, and builds that are not root."""

import os
import pwd
from ast import literal_eval
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.fc import deployed, fc_warnings
from tests.support.server import TorporServer, eventually
from tests.support.services import write_wheel
from tests.support.web_services import PORT, Service, asked, service, write_source

pytestmark = fc_warnings
VARIABLES = "import os; result = dict(os.environ)"
FC_SERVER = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(repr((sys.argv[1:], os.environ["PYTHONPATH"], os.environ["FC_SERVER_PORT"])).encode())

http.server.HTTPServer(("0.0.0.0", int(os.environ["FC_SERVER_PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def plain(make_server: MakeServer) -> TorporServer:
    return make_server(isolation="process")


@pytest.fixture
def two(plain: TorporServer, tmp_path: Path) -> Iterator[list[Service]]:
    """Two services that want the same port, both running."""
    with ExitStack() as stack:
        made = [stack.enter_context(service(plain, tmp_path, asked())) for _ in range(2)]
        assert [one.request().text for one in made] == ["up", "up"]
        yield made


@contextmanager
def deployed_from(server: TorporServer, folder: Path, *options: str) -> Iterator[Service]:
    made = Service(server, "from-a-folder")
    told = made.deploy(folder, *options)
    assert told.code == 0, told.errors
    try:
        yield made
    finally:
        server.command("delete", made.name)


def test_servers_that_want_the_same_port_get_ports_of_their_own_and_the_log_names_them(two: list[Service]) -> None:
    ports = [one.ask(VARIABLES)["PORT"] for one in two]

    assert ports[0] != ports[1]
    for one, port in zip(two, ports, strict=True):
        log = one.logged(f"Port {port} answers after")
        assert f"with PORT={port}\n" in log


def test_service_that_is_ended_and_started_again_is_reached_again(two: list[Service], tmp_path: Path) -> None:
    for one in two:
        one.end_instances(tmp_path / one.name)
        assert one.request().text == "up"


def test_command_and_search_paths_may_name_the_fixed_folders(plain: TorporServer, tmp_path: Path) -> None:
    start = ("--start", "cd /app/inner && exec python /app/server.py", "--env", "PYTHONPATH=/app/modules")
    files = asked("import beside") | {"modules/beside.py": "", "inner/kept": ""}
    with service(plain, tmp_path, files, *start) as found:
        assert found.ask("import os; result = os.listdir()") == ["kept"]
        variables = found.ask(VARIABLES)

    assert Path(variables["HOME"]) == Path(variables["TMPDIR"])
    assert str(plain.data) in variables["HOME"]


def test_what_a_build_installs_lies_beside_the_application_and_the_host_stays_as_it_is(
    plain: TorporServer, tmp_path: Path
) -> None:
    source = write_source(tmp_path / "source", asked("import demo"))
    write_wheel(source / "demo-1.0-py3-none-any.whl")
    build = "pip install --no-index /app/demo-1.0-py3-none-any.whl && echo built | tee $HOME/trace > /app/out"
    with deployed_from(plain, source, "--build", build) as found:
        code = "import shutil; result = [demo.__file__, shutil.which('demo-tool'), open('out').read()]"
        module, command, out = found.ask("import demo\n" + code)

    assert all(path.startswith(str(plain.data)) for path in (module, command))
    assert out == "built\n"
    home = Path(pwd.getpwuid(os.geteuid()).pw_dir)
    assert not os.path.exists(home / "trace")


def test_build_that_fails_is_told_with_its_output(plain: TorporServer, tmp_path: Path) -> None:
    made = Service(plain, "broken")
    (tmp_path / "server.py").write_text(asked()["server.py"])
    told = made.deploy(tmp_path, "--build", "echo looking; exit 3")

    assert told.code != 0
    assert "looking" in told.output + told.errors
    assert "exit status 3" in told.errors


def test_persistent_service_changes_a_copy_of_its_own(plain: TorporServer, tmp_path: Path) -> None:
    with service(plain, tmp_path, asked(), "--persistent") as found:
        assert found.ask("open('data.db', 'w').write('kept'); result = open('data.db').read()") == "kept"
        assert found.deploy(tmp_path / found.name, "--persistent").code == 0
        listing = "import os; result = os.listdir()"
        eventually(lambda: "data.db" not in found.ask(listing), what="the new instance taking over")


def test_custom_runtime_is_started_by_paths_below_code(plain: TorporServer) -> None:
    command = {"command": ["python3", "/code/inner/server.py"], "args": ["--root=/code", "/opt"], "port": PORT}
    given = {"runtime": "custom", "handler": "unused", "customRuntimeConfig": command}
    variables = {"PYTHONPATH": "/code/lib:/mnt/lib"}
    with ExitStack() as stack:
        both = [
            stack.enter_context(
                deployed(plain, {"inner/server.py": FC_SERVER}, **given, environmentVariables=variables)
            )
            for _ in range(2)
        ]
        told = [literal_eval(function.invoke(b"hello").body.decode()) for function in both]

    assert told[0][2] != told[1][2]
    (code, layers), search, _ = told[0]
    assert code.startswith(f"--root={plain.data}") and layers.startswith(str(plain.data))
    assert search == code.partition("=")[2] + "/lib:/mnt/lib"

"""Sources that are none and builds that misbehave: told clearly, what is in force stays, nothing is left."""

import io
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.lives import lives
from tests.support.raw_service import SOURCE, START
from tests.support.remains import memory_of
from tests.support.server import TorporServer, eventually
from tests.support.web_services import Service, service, write_source

MIB = 1 << 20
SETTINGS = '{"start": "exec python server.py", "build": "true"}'
pytestmark = pytest.mark.privileged


@pytest.fixture
def made(server: TorporServer, tmp_path: Path) -> Iterator[Service]:
    with service(server, tmp_path, {"server.py": SOURCE}, *START) as found:
        yield found


def put(server: TorporServer, name: str, archive: bytes, settings: str = SETTINGS) -> tuple[int, str]:
    """Status and text of a deployment's first answer."""
    fields = {"Content-Type": "application/zip", "X-Torpor-Settings": settings}
    request = urllib.request.Request(f"{server.url}/_torpor/services/{name}", archive, fields, method="PUT")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def symlink(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info, target.encode()


SOURCES = {
    "nothing": (b"", "empty"),
    "no archive": (b"this is no archive", "not a readable zip archive"),
    "cut off": (zipped(("server.py", os.urandom(5000)))[:3000], "not a readable zip archive"),
    "the platform's name": (zipped((".torpor-system/x", b"")), "belongs to the platform"),
}
LATER = {
    "above its folder": (zipped(("../evil.py", b"")), ".."),
    "from the root": (zipped(("/etc/evil", b"")), "/etc/evil"),
    "a link out of it": (zipped(symlink("out", "../../../etc/passwd")), "out"),
    "too large once unpacked": (zipped(("zeros", bytes(530 * MIB))), "536870912"),
}


@pytest.mark.parametrize("case", SOURCES)
def test_a_source_that_is_none_is_refused_at_once(server: TorporServer, case: str) -> None:
    archive, text = SOURCES[case]
    name = f"none-{uuid.uuid4().hex[:8]}"

    status, told = put(server, name, archive)

    assert status == 400
    assert text in told
    assert name not in server.command("list")


@pytest.mark.parametrize("build", ["true", ""])
@pytest.mark.parametrize("case", LATER)
def test_a_source_that_reaches_out_is_refused_and_what_is_in_force_stays(
    server: TorporServer, made: Service, case: str, build: str
) -> None:
    archive, text = LATER[case]
    if "unpacked" in case and not build:
        pytest.skip("a source that is not built may be as large as what a build makes")

    status, told = put(server, made.name, archive, SETTINGS.replace('"true"', f'"{build}"'))

    if status == 202:
        told = outcome(made)
        assert '"failed"' in told
    else:
        assert status in (400, 413)
    assert text in told
    assert made.request().text == "up"


def outcome(found: Service) -> str:
    """How its last deployment ended."""
    route = f"{found.server.url}/_torpor/services/{found.name}/deployment"

    def told() -> str:
        with urllib.request.urlopen(route, timeout=30) as answer:
            text: str = answer.read().decode()
        return text if '"failed"' in text or '"succeeded"' in text else ""

    return eventually(told, within=60, what="the end of the deployment")


def test_a_source_over_the_limit_is_refused_before_it_is_sent(made: Service) -> None:
    with made.connect() as peer:
        head = f"PUT /_torpor/services/{made.name} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {300 * MIB}\r\n\r\n"
        peer.sendall(head.encode())
        answer = peer.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    assert made.request().text == "up"


def test_an_upload_of_a_source_that_breaks_off_deploys_nothing(server: TorporServer, made: Service) -> None:
    with made.connect() as peer:
        head = f"PUT /_torpor/services/half HTTP/1.1\r\nHost: localhost\r\nContent-Length: {9 * MIB}\r\n\r\n"
        peer.sendall(head.encode() + bytes(MIB))
    time.sleep(0.2)
    assert "half" not in server.command("list")


SETTINGS_TEXTS = {
    "no JSON": ("{", "settings"),
    "unknown name": ('{"strat": "x"}', "strat"),
    "wrong type": ('{"port": "x"}', "port"),
    "port of root": ('{"start": "x", "port": 80}', "port is 80"),
    "memory": ('{"start": "x", "memory": 1}', "memory is 1"),
    "no start": ("{}", "start command"),
    "reserved variable": ('{"start": "x", "environment": {"PORT": "1"}}', "PORT"),
    "more instances at least than at most": ('{"start": "x", "min_instances": 2, "max_instances": 1}', "min_instances"),
}


@pytest.mark.parametrize("case", SETTINGS_TEXTS)
def test_settings_that_cannot_be_are_told(server: TorporServer, case: str) -> None:
    settings, text = SETTINGS_TEXTS[case]

    status, told = put(server, "never", zipped(("a", b"")), settings)

    assert status == 400
    assert text in told


@pytest.mark.parametrize("name", ["UPPER", "under_score", "-x", "x-", "a.b", "x" * 41, "%2e%2e", "a%00"])
def test_names_that_are_no_host_names_are_refused(server: TorporServer, name: str) -> None:
    status, told = put(server, name, zipped(("a", b"")))

    assert status in (400, 404)
    assert told


BUILDS = {
    "fails": ("echo trying; exit 3", "exit status 3"),
    "unknown program": ("make-that-is-not-there", "exit status 127"),
    "syntax error": ("if then", "exit status 2"),
    "kills itself": ("kill -KILL $$", "SIGKILL"),
    "fills its disk": ("fallocate -l 3G full || { echo; exit 5; }", "exit status 5"),
    "nests folders without end": ("for i in $(seq 300); do mkdir -p d && cd d; done", "nested"),
}


@pytest.mark.parametrize("case", BUILDS)
def test_a_build_that_fails_is_told_and_what_is_in_force_stays(
    server: TorporServer, made: Service, tmp_path: Path, case: str
) -> None:
    command, text = BUILDS[case]

    deployed = made.deploy(tmp_path / made.name, "--build", command)

    assert deployed.code == 1
    assert text in deployed.errors + deployed.output
    assert "Traceback" not in deployed.errors
    assert made.request().text == "up"
    assert not list((server.data / "code" / "builds").iterdir())


def test_a_build_without_end_is_ended(make_server: MakeServer, tmp_path: Path) -> None:
    server = make_server(web_build_limit=2)
    folder = write_source(tmp_path / "source", {"server.py": SOURCE})
    found = Service(server, "endless")
    began = time.monotonic()

    deployed = found.deploy(folder, *START, "--build", "trap '' TERM; sleep 600 & sleep 600; sleep 600")

    assert deployed.code == 1
    assert "was ended after 2 s, the longest that a build may take" in deployed.errors
    assert time.monotonic() - began < 8
    assert not list((server.data / "code" / "builds").iterdir())
    assert "endless" not in server.command("list")


def test_what_a_build_leaves_running_is_ended_and_writes_no_more(made: Service, tmp_path: Path) -> None:
    forks = "(while true; do date >> a; sleep 0.01; done) & setsid sh -c 'while true; do date >> b; done' & sleep 0.3"

    assert made.deploy(tmp_path / made.name, "--build", forks).code == 0

    assert made.request().text == "up"


def test_a_build_that_writes_without_end_leaves_the_server_small(
    server: TorporServer, made: Service, tmp_path: Path
) -> None:
    before = largest = memory_of(server.process.pid)
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(made.deploy, tmp_path / made.name, "--build", "yes | head -c 100000000")
        while not running.done():
            began = time.monotonic()
            assert made.request().text == "up"
            assert time.monotonic() - began < 2
            largest = max(largest, memory_of(server.process.pid))
        deployed = running.result()

    assert deployed.code == 0, deployed.errors
    assert largest - before < 48 * MIB


STRANGE = """
ln -s / root; ln -s /etc/shadow shadow; ln -s nowhere dangling; mkfifo pipe
chmod 6755 server.py; mkdir -m 0 locked; install -m 0 server.py closed
mknod null c 1 3; mkdir -p a/b/c; ln server.py a/b/c/hard; truncate -s 100G sparse; printf x > $'odd\\nname'
"""


def test_strange_things_that_a_build_leaves_harm_nobody(made: Service, tmp_path: Path) -> None:
    deployed = made.deploy(tmp_path / made.name, "--build", STRANGE.replace("\n", " ; ").strip(" ;"))

    if deployed.code:
        assert "Traceback" not in deployed.errors
        assert deployed.errors.strip()
    assert made.request().text == "up"


def test_one_service_is_deployed_once_at_a_time(server: TorporServer, made: Service, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(made.deploy, tmp_path / made.name, "--build", "sleep 3")
        eventually(lambda: _stage(made) == "building", what="the build beginning")
        status, told = put(server, made.name, zipped(("server.py", SOURCE.encode())))
        assert (status, "being deployed already" in told) == (409, True)
        delete = urllib.request.Request(f"{server.url}/_torpor/services/{made.name}", method="DELETE")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(delete, timeout=30)
        with refused.value as error:
            assert error.code == 409
        assert made.request().text == "up"
        assert running.result().code == 0


def _stage(found: Service) -> Any:
    with suppress(urllib.error.HTTPError):
        with urllib.request.urlopen(f"{found.server.url}/_torpor/services/{found.name}/deployment") as answer:
            text = answer.read().decode()
        return next(
            stage for stage in ("building", "waiting", "storing", "succeeded", "failed") if f'"{stage}"' in text
        )


def test_a_deployment_goes_on_without_the_one_who_asked_for_it(
    server: TorporServer, made: Service, tmp_path: Path
) -> None:
    (tmp_path / made.name / "server.py").write_text(SOURCE.replace('b"up"', 'b"new"'))
    command = [sys.executable, "-m", "torpor", "deploy", "--web", str(tmp_path / made.name), "--name", made.name,
               "--build", "sleep 2", "--endpoint", server.url]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asking:
        eventually(lambda: _stage(made) == "building", what="the build beginning")
        asking.kill()

    assert '"succeeded"' in outcome(made)
    assert made.request().text == "new"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_server_that_ends_within_a_build_leaves_nothing_of_it(tmp_path: Path, how: str) -> None:
    folder = write_source(tmp_path / "source", {"server.py": SOURCE})
    with lives(tmp_path / "server") as life:
        server = life.start()
        found = Service(server, "unfinished")
        with ThreadPoolExecutor(1) as threads:
            running = threads.submit(found.deploy, folder, *START, "--build", "sleep 600 & sleep 600")
            eventually(lambda: _stage(found) == "building", what="the build beginning")
            time.sleep(0.5)
            began = time.monotonic()
            life.kill(server) if how == "killed" else life.terminate(server)
            assert time.monotonic() - began < 10
            deployed = running.result()
        assert deployed.code == 1
        assert "Traceback" not in deployed.errors and deployed.errors.strip()

        server = life.start()
        assert not list((server.data / "code" / "builds").iterdir())
        found = Service(server, "unfinished")
        assert "unfinished" not in server.command("list")
        assert found.deploy(folder, *START).code == 0
        assert found.request().text == "up"

"""What web services may write, see and share: the machine that each instance is."""

import platform
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.server import TorporServer, eventually
from tests.support.web_services import Service, asked, service, write_source

pytestmark = pytest.mark.privileged
START = ("--start", "exec python server.py")


@pytest.fixture(scope="module")
def shared(server: TorporServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A serverless service that tests of this module share; a file of its build belongs to root alone."""
    base = tmp_path_factory.mktemp("web")
    build = ("--build", "mkdir data && echo private > secret && chmod 600 secret")
    with service(server, base, asked(), *START, *build) as made:
        yield made


@pytest.mark.fact("W-005")
def test_a_service_sees_a_machine_of_its_own(shared: Service, server: TorporServer, tmp_path: Path) -> None:
    with service(server, tmp_path, asked(), *START, "--port", "8123") as other:
        assert other.request().text == "up"
        names = shared.ask(
            "import os; result = [open(f'/proc/{p}/comm').read().strip() for p in os.listdir('/proc') if p.isdigit()]"
        )
        error = shared.error("import socket; socket.create_connection(('127.0.0.1', 8123), 2)")

    assert len(names) < 10 and any(name.startswith("python") for name in names)
    assert shared.ask("import socket; result = socket.gethostname()") != platform.node()
    mounts = shared.ask("result = [line.split()[1] for line in open('/proc/mounts')]")
    assert not any(str(server.base) in mount for mount in mounts)
    assert "refused" in error


@pytest.mark.fact("W-006", "W-019")
def test_tmp_can_be_written(shared: Service) -> None:
    assert shared.ask("open('/tmp/a', 'w').write('1'); result = open('/tmp/a').read()") == "1"


WRITE_EVERYWHERE = """
import os
written = []
for folder, folders, files in os.walk("/"):
    folders[:] = [n for n in folders if (folder, n) not in (("/", "proc"), ("/", "sys"), ("/", "dev"), ("/", "tmp"))]
    try:
        open(os.path.join(folder, "written-by-the-service"), "w").close()
        written.append(folder)
    except OSError:
        pass
for folder in (os.getcwd(), os.path.expanduser("~root"), "/dev", "/dev/shm"):
    try:
        open(os.path.join(folder, "written-by-the-service"), "w").close()
        written.append(folder)
    except OSError:
        pass
result = written
"""


@pytest.mark.fact("W-007")
def test_no_other_folder_can_be_written(shared: Service) -> None:
    assert shared.ask(WRITE_EVERYWHERE) == []


@pytest.mark.fact("W-016")
def test_writing_to_the_working_folder_is_a_read_only_file_system(shared: Service) -> None:
    assert "Read-only file system" in shared.error("open('data.db', 'w')")
    assert "only /tmp can be written" in shared.logged("only /tmp can be written")


@pytest.mark.fact("W-017")
def test_reading_what_the_build_kept_for_root_is_denied(server: TorporServer, shared: Service) -> None:
    assert "Permission denied" in shared.error("open('/dev/shm/a', 'w')")
    if server.isolation != "sandbox":
        pytest.skip(ONE_ACCOUNT)
    assert "Permission denied" in shared.error("open('secret')")


@pytest.mark.fact("W-020")
def test_shared_memory_is_denied_with_a_hint_that_names_it(shared: Service) -> None:
    assert "Permission denied" in shared.error("open('/dev/shm/block', 'w')")
    assert "Permission denied" in shared.error(
        "from multiprocessing.shared_memory import SharedMemory; SharedMemory(create=True, size=10)"
    )
    assert "pipes or sockets" in shared.logged("Shared Memory: /dev/shm Permission Denied")


@pytest.mark.fact("W-019")
def test_a_service_that_keeps_its_files_in_tmp_works_unchanged(server: TorporServer, tmp_path: Path) -> None:
    keep = "import os, pathlib; folder = pathlib.Path(os.environ['DATA']); folder.mkdir(exist_ok=True);"
    keep += "(folder / 'a').write_text('kept'); result = (folder / 'a').read_text()"
    with service(server, tmp_path, asked(), *START, "--env", "DATA=data") as found:
        assert "Read-only file system" in found.error(keep)
        assert found.deploy(tmp_path / found.name, "--env", "DATA=/tmp/data").code == 0
        assert found.ask(keep) == "kept"


@pytest.mark.fact("W-021")
def test_a_pipe_carries_a_megabyte_between_processes(shared: Service) -> None:
    code = """
import subprocess, sys
sent = bytes(range(256)) * 4096
child = subprocess.run([sys.executable, "-c", "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])"],
                       input=sent, stdout=subprocess.PIPE)
result = child.stdout[::-1] == sent and len(sent)
"""
    assert shared.ask(code) == 1024 * 1024


@pytest.mark.fact("W-022")
@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_a_socket_carries_a_megabyte_between_processes(shared: Service, kind: str) -> None:
    place = "(socket.AF_UNIX, '/tmp/socket')" if kind == "unix" else "(socket.AF_INET, ('127.0.0.1', 9099))"
    code = f"""
import os, socket, subprocess, sys
family, address = {place}
if family == socket.AF_UNIX and os.path.exists(address):
    os.unlink(address)
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(address)
listener.listen()
child = subprocess.Popen([sys.executable, "-c",
    f"import socket; s = socket.socket({{int(family)}}); s.connect({{address!r}});"
    "s.sendall(bytes(range(256)) * 4096)"])
peer, _ = listener.accept()
got = b""
while piece := peer.recv(65536):
    got += piece
child.wait()
listener.close()
result = got == bytes(range(256)) * 4096 and len(got)
"""
    assert shared.ask(code) == 1024 * 1024


@pytest.mark.fact("W-008")
def test_another_instance_has_none_of_the_earlier_data(server: TorporServer, tmp_path: Path) -> None:
    with service(server, tmp_path, asked(), *START, "--concurrency", "1") as found:
        found.ask("open('/tmp/a', 'w').write('1'); result = 1")
        assert found.ask("import os; result = os.path.exists('/tmp/a')")
        found.end_instances(tmp_path / found.name)
        assert not found.ask("import os; result = os.path.exists('/tmp/a')")

        seen = _together(found, "import os, time; open('/tmp/' + str(time.time()), 'w'); time.sleep(2); "
                                "result = len(os.listdir('/tmp'))")  # fmt: skip
        assert sorted(seen) == [1, 1]
        assert len(found.environments()) == 2


def _together(found: Service, code: str) -> list[int]:
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(found.ask(code))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return seen


@pytest.mark.fact("W-009")
def test_a_persistent_service_may_write_to_its_own_folder(server: TorporServer, tmp_path: Path) -> None:
    with service(server, tmp_path, asked(), *START, "--persistent") as found:
        found.ask("open('data.db', 'w').write('kept'); result = 1")
        assert found.ask("result = open('data.db').read()") == "kept"
        assert found.ask("open('/usr/local/mine', 'w').write('1'); result = open('/usr/local/mine').read()") == "1"


BUILD = (
    "id -u > who && echo made > /usr/local/share/made && pip install ./tiny-1.0-py3-none-any.whl"
    ' && python -c "import socket; socket.socket().bind((str(), 80))"'
)
CHANGES_OWNERS = " && chown 1:1 who"
ONE_ACCOUNT = "an ordinary account has no ids to give away: root of its builds is itself, as are its services"
WHEEL = {
    "tiny.py": "VALUE = 1\n",
    "tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
    "tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "tiny-1.0.dist-info/RECORD": "tiny.py,,\ntiny-1.0.dist-info/METADATA,,\ntiny-1.0.dist-info/WHEEL,,\n"
    "tiny-1.0.dist-info/RECORD,,\n",
}


@pytest.mark.fact("W-027", "W-028", "W-029")
def test_the_build_is_root_and_the_service_is_not(server: TorporServer, tmp_path: Path) -> None:
    from tests.support.functions import archive

    source = write_source(tmp_path / "source", asked())
    (source / "tiny-1.0-py3-none-any.whl").write_bytes(archive(WHEEL))
    with service(server, tmp_path, asked(), *START) as found:
        deployed = found.deploy(source, "--build", BUILD + CHANGES_OWNERS * (server.isolation == "sandbox"))
        assert deployed.code == 0, deployed.errors

        assert found.ask("result = open('who').read().strip()") == "0"
        assert found.ask("result = open('/usr/local/share/made').read().strip()") == "made"
        assert found.ask("import tiny; result = tiny.VALUE") == 1
        assert found.ask("import os; result = os.getuid()") != 0
        assert "Permission denied" in found.error("import socket; socket.socket().bind(('', 80))")
        refused = "Operation not permitted" if server.isolation == "sandbox" else "Invalid argument"
        assert refused in found.error("import os; os.chown('/tmp', 0, 0)")
        installing = "import subprocess, sys; done = subprocess.run([sys.executable, '-m', 'pip', 'install', "
        installing += "'--target', '/usr/local/lib/mine', '--no-index', './tiny-1.0-py3-none-any.whl'], "
        installing += "capture_output=True, text=True); result = [done.returncode, done.stderr]"
        code, errors = found.ask(installing)
        assert code != 0
        assert any(text in errors for text in ("Permission denied", "Operation not permitted", "Read-only file system"))


@pytest.mark.fact("W-027")
def test_a_failed_build_shows_its_output_and_keeps_the_service(server: TorporServer, tmp_path: Path) -> None:
    with service(server, tmp_path, asked(), *START) as found:
        deployed = found.deploy(tmp_path / found.name, "--build", "echo looking; ls /nowhere; exit 3")

        assert deployed.code == 1
        assert "looking" in deployed.errors and "/nowhere" in deployed.errors
        assert "exit status 3" in deployed.errors
        assert found.request().text == "up"


def test_nothing_of_a_build_is_left_on_the_host(server: TorporServer, shared: Service) -> None:
    builds = server.data / "code" / "builds"

    assert builds.is_dir()
    eventually(lambda: not list(builds.iterdir()), what="builds being removed")

"""What arbitrary servers find in a real sandbox: the host's languages, several versions at once."""

import os
import re
import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.support.linux_sandbox import Linux, images, open_linux

from torpor.sandbox.port import ProcessExit, ProcessSpec

pytestmark = pytest.mark.privileged
JAVA = """public class Main { public static void main(String[] a) throws Exception {
  var server = com.sun.net.httpserver.HttpServer.create(new java.net.InetSocketAddress(8080), 0);
  System.out.println("up " + java.util.TimeZone.getDefault().getID());
  javax.net.ssl.SSLContext.getDefault();
  java.security.SecureRandom.getInstanceStrong();
  System.exit(0);
} }"""


@pytest_asyncio.fixture(params=[False, True], ids=["root", "rootless"])
async def linux(request: pytest.FixtureRequest) -> AsyncIterator[Linux]:
    async with open_linux(rootless=request.param) as opened:
        yield opened


async def run(linux: Linux, script: str, files: dict[str, str] | None = None) -> str:
    """What a script printed in a server's sandbox; it must end well."""
    image = images().resolve("server")
    sandbox, listener = await linux.make("server", code=linux.code("server", files or {}), memory_mb=512)
    sandbox.start(ProcessSpec(name="run", argv=("/bin/bash", "-c", script), environment=image.environment))
    exit = await listener.wait_exit("run", 60.0)
    assert exit == ProcessExit(name="run", code=0), listener.text
    return listener.text


async def test_every_python_runs_under_its_own_name_and_the_newest_as_python(linux: Linux) -> None:
    names = [name for name in images().resolve("server").languages if name.startswith("python")]
    if not names:
        pytest.skip("no Python was found on this host")
    show = "import ssl, sqlite3, ctypes, sys; print('%d.%d' % sys.version_info[:2], sys.prefix)"
    text = await run(linux, "".join(f'{name} -c "{show}"; ' for name in [*names, "python", "python3"]))
    lines = [line.split() for line in text.splitlines()]
    assert [f"python{version}" for version, _ in lines] == [*names, names[-1], names[-1]]
    assert all(prefix in ("/usr", f"/var/lang/python{version}") for version, prefix in lines)


async def test_package_managers_of_the_newest_are_on_path(linux: Linux) -> None:
    commands = images().resolve("server").commands
    tools = [name for name in ("pip", "pip3", "npm") if name in commands]
    if not tools:
        pytest.skip("no package manager was found on this host")
    text = await run(linux, "HOME=/tmp; " + "; ".join(f"{tool} --version" for tool in tools))
    assert len(re.findall(r"^(pip )?\d+\.\d+", text, re.MULTILINE)) == len(tools)


@pytest.mark.skipif(shutil.which("java") is None, reason="no java on this host")
async def test_java_starts_with_its_configuration(linux: Linux) -> None:
    assert await run(linux, "java -Xmx64m Main.java", {"Main.java": JAVA}) == "up UTC\n"


@pytest.mark.skipif(not os.access("/usr/bin/php", os.X_OK), reason="no php on this host")
async def test_php_starts(linux: Linux) -> None:
    assert await run(linux, "php -r 'echo 6*7;'") == "42"


@pytest.mark.skipif(not os.access("/usr/bin/perl", os.X_OK), reason="no perl on this host")
async def test_perl_finds_its_modules(linux: Linux) -> None:
    assert await run(linux, "perl -MJSON::PP -e 'print 6*7'") == "42"


async def test_folder_of_the_interpreters_is_read_only(linux: Linux) -> None:
    text = await run(linux, "touch /var/lang/x /var/lang/bin/x 2>&1; echo; exit 0")
    assert text.count("Read-only file system") == 2


async def test_configuration_that_only_root_may_read_is_not_there(linux: Linux) -> None:
    assert await run(linux, "ls -A /etc/ssl/private /etc/shadow /etc/ssh 2>/dev/null; exit 0") == ""
    assert await run(linux, "cd /etc; find -L alternatives ssl -prune -type d 2>/dev/null | wc -l") in ("1\n", "2\n")


@pytest.mark.parametrize("runtime", [name for name in images().served() if name.startswith("event-")])
async def test_event_runtimes_find_their_interpreter(linux: Linux, runtime: str) -> None:
    image = images().resolve(runtime)
    if not os.path.isdir(image.runtime_dir or ""):
        pytest.skip("its client is not part of this version")
    sandbox, listener = await linux.make(runtime)
    assert image.executable is not None
    program = (image.executable, "--version")
    sandbox.start(ProcessSpec(name="version", argv=program, environment=image.environment))
    assert await listener.wait_exit("version") == ProcessExit(name="version", code=0)
    assert image.version in listener.text

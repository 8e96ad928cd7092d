"""Programs that do not start, end at once or take all they can get: a clear error, and the host stays as it was."""

import io
import json
import os
import re
import time
import zipfile
from collections.abc import Iterator

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import PROVIDED, PYTHON, Package, archive, python, shell
from tests.support.remains import Footprint, footprint, memory_of, wait_until_gone
from tests.support.server import Function, Reply, TorporServer, eventually, needs_root

MIB = 1 << 20
PROCESSES_MAX = 1_024
TAIL_MAX = 4 * 1024
MISSING = "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"
CALM = 3.0

pytestmark = pytest.mark.privileged


@pytest.fixture
def noted() -> Iterator[list[Footprint]]:
    """What a test puts here must be gone once its functions are deleted: ask for it before `deploy`."""
    kept: list[Footprint] = []
    yield kept
    wait_until_gone(kept)


@pytest.fixture
def bystander(server: TorporServer) -> Iterator[Function]:
    """A function that should notice nothing; it must still be the same environment after the test."""
    with server.deployed(python("def handler(event, context): return BOOT")) as function:
        boot = function.invoke().payload
        yield function
        assert function.invoke().payload == boot


def _raw(name: str, content: str | bytes, mode: int) -> Package:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as package:
        entry = zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0))
        entry.external_attr = mode << 16
        package.writestr(entry, content)
    return Package(archive=buffer.getvalue(), runtime=PROVIDED, handler="unused")


def _failed(reply: Reply, kind: str, text: str) -> bool:
    message = f"RequestId: {reply.request_id} Error: {text}"
    assert (reply.error, reply.payload) == ("Unhandled", {"errorType": kind, "errorMessage": message})
    return True


@pytest.mark.parametrize(
    ("package", "text"),
    [
        (_raw("other", "x", 0o755), MISSING),
        (_raw("bootstrap", "#!/bin/sh\n", 0o644), "fork/exec /var/task/bootstrap: permission denied"),
        (_raw("bootstrap", "no program", 0o755), "fork/exec /var/task/bootstrap: exec format error"),
        (_raw("bootstrap", b"\x7fELF" + bytes(200), 0o755), "fork/exec /var/task/bootstrap: exec format error"),
        (_raw("bootstrap", "", 0o755), "fork/exec /var/task/bootstrap: exec format error"),
        (
            _raw("bootstrap", "#!/no/such/program\n", 0o755),
            "fork/exec /var/task/bootstrap: no such file or directory",
        ),
        (_raw("bootstrap/inner", "x", 0o755), "fork/exec /var/task/bootstrap: permission denied"),
    ],
    ids=["missing", "not executable", "text", "broken program", "empty", "interpreter missing", "folder"],
)
def test_bootstrap_that_cannot_be_started_is_told_to_the_caller(deploy: Deploy, package: Package, text: str) -> None:
    function = deploy(package)

    for _ in range(2):
        _failed(function.invoke(), "Runtime.InvalidEntrypoint", text)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("exit 0", "Runtime exited without providing a reason"),
        ("exit 1", "Runtime exited with error: exit status 1"),
        ("exit 255", "Runtime exited with error: exit status 255"),
        ("kill -KILL $$", "Runtime exited with error: signal: killed"),
        ("kill -SEGV $$", "Runtime exited with error: signal: segmentation fault"),
        ("kill -TERM $$", "Runtime exited with error: signal: terminated"),
    ],
)
def test_bootstrap_that_ends_is_told_to_the_caller_during_init_and_during_an_invocation(
    deploy: Deploy, source: str, text: str
) -> None:
    at_once, asked = deploy(shell(source)), deploy(shell(f"next\n{source}"))

    for function in (at_once, asked):
        for _ in range(2):
            _failed(function.invoke(), "Runtime.ExitError", text)


BOMB = """
def bomb():
    while True:
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            time.sleep(0.01)

def handler(event, context):
    if event.get("bomb"):
        bomb()
    return BOOT
"""


@needs_root
def test_forks_without_end_stop_at_the_limit_and_nobody_else_notices(
    noted: list[Footprint], server: TorporServer, bystander: Function, deploy: Deploy
) -> None:
    function = deploy(python(BOMB), Timeout=6, MemorySize=3008)
    function.invoke()
    running = function.start({"bomb": True})
    eventually(lambda: len(function.environments()[0]["pids"]) > PROCESSES_MAX // 4, within=6.0)
    noted.append(footprint(function))

    while not running.done():
        assert len(function.environments()[0]["pids"]) <= PROCESSES_MAX
        assert bystander.invoke().elapsed < CALM
        time.sleep(0.2)

    _failed(running.result(), "Sandbox.Timedout", "Task timed out after 6.00 seconds")
    eventually(lambda: not noted[0].processes_left() and not function.environments()[0]["pids"])
    assert function.invoke().error == ""
    noted.append(footprint(function))


FILLER = """
while next; do
  [ "$event" = "{}" ] && respond 1 && continue
  x=$(printf %1000000s)
  while true; do x="$x$x"; done
done
"""


def test_memory_without_end_is_an_exit_and_nobody_else_notices(
    noted: list[Footprint], bystander: Function, deploy: Deploy
) -> None:
    function = deploy(shell(FILLER), MemorySize=128)
    function.invoke()
    noted.append(footprint(function))

    reply = function.invoke({"fill": True})

    _failed(reply, "Runtime.ExitError", "Runtime exited with error: signal: killed")
    assert "\tMemory Size: 128 MB\tMax Memory Used: 128 MB\t" in reply.report
    eventually(lambda: not noted[0].processes_left())
    assert function.invoke().payload == 1
    assert bystander.invoke().elapsed < CALM


TAKER = """
import errno, sys, subprocess

def boot():
    return BOOT

def fill():
    try:
        with open("/tmp/all", "wb") as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError as error:
        return error.strerror

def files():
    opened = []
    try:
        while True:
            opened.append(open("/dev/null"))
    except OSError as error:
        return [error.strerror, len(opened)]

def entries():
    made = 0
    try:
        while True:
            os.mkdir(f"/tmp/d{made}")
            made += 1
    except OSError as error:
        return error.strerror

def handler(event, context):
    if "do" in event:
        return globals()[event["do"]]()
    if os.path.exists("/tmp/all"):
        os.remove("/tmp/all")
    with open("/tmp/some", "w") as file:
        file.write("x" * 100_000)
    return [BOOT, subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout]
"""


def test_disk_and_descriptors_end_at_their_limit_and_the_environment_goes_on(
    noted: list[Footprint], deploy: Deploy
) -> None:
    function = deploy(python(TAKER), MemorySize=512, Timeout=60)
    usual = function.invoke().payload
    noted.append(footprint(function))

    assert function.invoke({"do": "fill"}).payload == "No space left on device"
    assert function.invoke().payload == usual
    error, count = function.invoke({"do": "files"}).payload
    assert error == "Too many open files"
    assert 900 < count < 1_024
    assert function.invoke().payload == usual == [usual[0], "1\n"]
    assert len(function.environments()) == 1


@pytest.mark.slow
def test_entries_of_tmp_without_end_stop_and_the_environment_goes_on(deploy: Deploy) -> None:
    function = deploy(python(TAKER), MemorySize=1769, Timeout=60)
    boot = function.invoke({"do": "boot"}).payload

    assert function.invoke({"do": "entries"}).payload == "No space left on device"

    refused = function.invoke()
    assert (refused.error, refused.payload["errorType"]) == ("Unhandled", "OSError")
    assert function.invoke({"do": "boot"}).payload == boot
    assert len(function.environments()) == 1


DAEMONS = """
import signal

def stay():
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)

def leave_behind():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 3)
            stay()
        os._exit(0)
    os.wait()

def handler(event, context):
    for _ in range(event.get("daemons", 0)):
        leave_behind()
    if "exit" in event:
        os._exit(event["exit"])
    if event.get("stay"):
        stay()
    return [BOOT, len([name for name in os.listdir("/proc") if name.isdigit()])]
"""


def _with_daemons(function: Function) -> Footprint:
    """Three daemons are left behind in the function's environment."""
    alone = function.invoke().payload[1]
    assert function.invoke({"daemons": 3}).payload[1] == alone + 3
    found = footprint(function)
    assert len(found.processes) >= 4
    return found


def test_daemons_that_ignore_signals_are_gone_after_a_reset(noted: list[Footprint], deploy: Deploy) -> None:
    function = deploy(python(DAEMONS), Timeout=2)
    alone = function.invoke().payload[1]

    for event, kind in (({"exit": 0}, "Runtime.ExitError"), ({"stay": True}, "Sandbox.Timedout")):
        before = _with_daemons(function)
        reply = function.invoke(event)

        assert reply.payload["errorType"] == kind
        eventually(lambda before=before: not before.processes_left(), within=3.0)
        assert function.invoke().payload[1] == alone
        noted.append(before)


def test_daemons_that_ignore_signals_are_gone_after_deletion(
    noted: list[Footprint], server: TorporServer, deploy: Deploy
) -> None:
    with server.deployed(python(DAEMONS)) as function:
        noted.append(_with_daemons(function))
    wait_until_gone(noted, within=5.0)

    with server.deployed(python(DAEMONS), Timeout=3) as function:
        noted.append(_with_daemons(function))
        running = function.start({"stay": True})
        eventually(lambda: function.environments()[0]["phase"] == "serving")
    _failed(running.result(), "Sandbox.Timedout", "Task timed out after 3.00 seconds")
    wait_until_gone(noted, within=5.0)


NOISE = """
import sys

def handler(event, context):
    kind = event.get("kind")
    write = sys.stdout.buffer.write if event.get("stdout") else lambda data: os.write(2, data)
    block = {"lines": b"x" * 1023 + b"\\n", "line": b"x" * 1024, "binary": bytes(range(256)) * 4}.get(kind, b"")
    for _ in range(event.get("mb", 0) << 10):
        write(block)
    sys.stdout.flush()
    return BOOT
"""


@pytest.mark.parametrize("kind", ["lines", "line", "binary"])
def test_output_without_end_leaves_the_servers_memory_bounded(
    server: TorporServer, bystander: Function, deploy: Deploy, kind: str
) -> None:
    function = deploy(python(NOISE), MemorySize=512, Timeout=60)
    boot = function.invoke().payload
    before = memory_of(server.process.pid)
    running = function.start({"kind": kind, "mb": 150})
    slowest, largest = 0.0, before
    while not running.done():
        slowest = max(slowest, bystander.invoke().elapsed)
        largest = max(largest, memory_of(server.process.pid))
        time.sleep(0.05)

    reply = running.result()

    assert reply.payload == boot
    assert re.match("REPORT ", reply.tail[-1])
    assert sum(len(line.encode()) + 1 for line in reply.tail) <= TAIL_MAX
    assert slowest < CALM
    assert largest - before < 64 * MIB
    function.invoke()
    assert sum(path.stat().st_size for path in (server.data / "logs").rglob("*") if function.name in str(path)) < (
        64 * MIB
    )


def test_package_of_programs_only_is_no_function_and_says_so(server: TorporServer, deploy: Deploy) -> None:
    function = deploy(Package(archive=archive({"other.py": "x = 1"}), runtime=PYTHON, handler="app.handler"))

    reply = function.invoke()

    assert reply.error == "Unhandled"
    assert reply.payload["errorType"] == "Runtime.ImportModuleError"
    assert "app" in json.dumps(reply.payload)


LITTER = """
def handler(event, context):
    for _ in range(event.get("forks", 0)):
        try:
            os.fork()
        except OSError:
            pass
    if "forks" in event:
        time.sleep(60)
    return sum(name.isdigit() for name in os.listdir("/proc"))
"""


FORKS = 10**9 if os.geteuid() == 0 else 6
"""How often every process forks. Without control groups nobody holds endless ones to a share of the CPUs."""


def test_reset_leaves_the_next_invocation_no_process_of_the_last(deploy: Deploy) -> None:
    function = deploy(python(LITTER), Timeout=1, MemorySize=2048)
    alone = function.invoke().payload

    for _ in range(2):
        assert function.invoke({"forks": FORKS}).payload["errorType"] == "Sandbox.Timedout"
        assert function.invoke().payload == alone

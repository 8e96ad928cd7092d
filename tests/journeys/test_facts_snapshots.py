"""Snapshots of versions: made when they are published, what they keep, what each environment has of its own."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from tests.journeys.conftest import Deploy, MakeServer, require_sandbox
from tests.support.extensions import SUBSCRIBES, extended
from tests.support.functions import Package, python
from tests.support.lives import Lives, lives
from tests.support.server import ROLE, Function, TorporServer, eventually
from tests.support.snapshots import NEEDED, ON, Version, publish, saved

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(not NEEDED, reason="this host has no Python that can be saved: 3.12 or later"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="processes are saved on x86_64 only"),
]

TOKEN = """
import os, random, ssl, uuid
token, table = os.urandom(16).hex(), bytearray(os.urandom(1024)) * 50_000
print("loaded", flush=True)
def handler(event, context):
    return {
        "token": token, "size": len(table), "boot": BOOT, "now": time.time(), "pid": os.getpid(),
        "random": random.random(), "tls": ssl.RAND_bytes(8).hex(), "uuid": str(uuid.uuid4()),
        "type": os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"],
    }
"""


@pytest.fixture
def once(make_server: MakeServer) -> Iterator[TorporServer]:
    """A server that uses every environment for one invocation, so that each invocation restores one."""
    server = make_server(single_use=True)
    require_sandbox(server)
    yield server


class Own:
    """Lives of a server of the test's own, with one function."""

    def __init__(self, lives: Lives) -> None:
        self.lives = lives
        self.data = lives.data
        self.server = lives.start()

    def restart(self, *, kill: bool = False, between: Callable[[], object] = tuple) -> None:
        """End it, well or not, do something, and start it anew."""
        (self.lives.kill if kill else self.lives.terminate)(self.server)
        between()
        self.server = self.lives.start()

    def publish(self, package: Package) -> Version:
        require_sandbox(self.server)
        self.server.client.create_function(
            FunctionName="kept",
            Role=ROLE,
            Runtime=package.runtime,
            Handler=package.handler,
            Code={"ZipFile": package.archive},
            SnapStart=ON,
        )
        return publish(Function(self.server, "kept"))

    @property
    def version(self) -> Version:
        """The one that was published, on the server as it is now."""
        return Version(Function(self.server, "kept"), "1")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    with lives(tmp_path) as several:
        yield Own(several)


def _code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.fact("S-001", "S-009", "S-010")
def test_init_takes_place_when_a_version_is_published(deploy: Deploy) -> None:
    function = deploy(saved("time.sleep(1)\n" + TOKEN), SnapStart=ON)
    version = publish(function, settle=False)
    assert version.state()["State"] == "Pending"
    with pytest.raises(ClientError) as early:
        version.invoke()
    assert _code_of(early) == ("SnapStartNotReadyException", 409)

    shown = version.settled()
    assert shown["State"] == "Active"
    assert shown["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    assert version.lines().count("loaded") == 1
    (report,) = [line for line in version.lines() if line.startswith("INIT_REPORT")]
    assert re.fullmatch(r"INIT_REPORT Init Duration: 1\d\d\d\.\d\d ms", report.rstrip())

    reply = version.invoke()
    assert reply.payload["type"] == "snap-start"
    assert reply.elapsed < 1
    assert version.lines().count("loaded") == 1
    assert sum(line.startswith("RESTORE_REPORT") for line in version.lines()) == 1
    assert "Init Duration" not in reply.report


@pytest.mark.fact("S-002", "S-011")
def test_every_environment_has_the_memory_of_the_snapshot_and_randomness_of_its_own(deploy: Deploy) -> None:
    function = deploy(
        saved(TOKEN.replace("    return {", "    time.sleep(1)\n    return {")), SnapStart=ON, MemorySize=512
    )
    version = publish(function)
    replies = [call.result() for call in [version.start() for _ in range(10)]]

    assert {reply.payload["token"] for reply in replies} == {replies[0].payload["token"]}
    assert {reply.payload["size"] for reply in replies} == {50_000 * 1024}
    assert version.lines().count("loaded") == 1
    restored = sum(line.startswith("RESTORE_REPORT") for line in version.lines())
    assert restored == len({entry.stream for entry in version.logs() if entry.message.startswith("START")})
    firsts = [reply for reply in replies if "Restore Duration" in reply.report]
    assert len(firsts) == restored
    for each in ("random", "tls", "uuid"):
        assert len({reply.payload[each] for reply in firsts}) == len(firsts), each
    assert all(reply.sent < reply.payload["now"] < reply.received for reply in replies)


@pytest.mark.fact("S-003")
def test_every_environment_has_a_copy_of_the_snapshots_files_to_itself(deploy: Deploy, once: TorporServer) -> None:
    code = """
    os.makedirs("/tmp/folder", exist_ok=True)
    open("/tmp/folder/x", "w").write("at the snapshot")
    os.symlink("folder/x", "/tmp/link")
    os.chmod("/tmp/folder/x", 0o640)
    def handler(event, context):
        with open("/tmp/link") as file:
            found = file.read()
        with open("/tmp/folder/x", "w") as file:
            file.write("changed")
        return [found, oct(os.stat("/tmp/folder/x").st_mode & 0o777), os.stat("/tmp/folder/x").st_uid == os.getuid()]
    """
    version = publish(deploy(python(code), on=once, SnapStart=ON))

    assert [version.invoke().payload for _ in range(3)] == [["at the snapshot", "0o640", True]] * 3


def test_memory_used_includes_what_the_snapshot_holds(deploy: Deploy) -> None:
    code = "table = bytearray(b'x' * 60 * 1024 * 1024)\ndef handler(event, context): return len(table)"
    reply = publish(deploy(python(code), SnapStart=ON)).invoke()

    used = re.search(r"\tMax Memory Used: (\d+) MB\t", reply.report)
    assert used is not None and 60 < int(used[1]) < 120


@pytest.mark.fact("S-004")
def test_the_snapshot_is_stored_encrypted_and_worth_nothing_without_its_key(own: Own) -> None:
    marker = "7d1f0a6e5b3c4d2980716253a4b5c6d7"
    code = f"""
    print("initialized", flush=True)
    secret = bytes.fromhex("{marker}") * 2
    open("/tmp/secret", "wb").write(secret)
    def handler(event, context): return secret.hex()
    """
    version = own.publish(python(code))
    assert version.invoke().payload == marker * 2
    files = [path for path in own.data.rglob("*") if path.is_file()]
    assert any("snapshots" in path.parts for path in files)
    assert not [path for path in files if bytes.fromhex(marker) in path.read_bytes()]

    own.restart(between=lambda: (own.data / "snapshot.key").write_bytes(bytes(32)))
    eventually(lambda: own.version.lines().count("initialized") == 2, what="the snapshot that is made anew")
    assert own.version.settled()["State"] == "Active"
    assert own.version.invoke().payload == marker * 2


@pytest.mark.fact("S-012", "S-005")
def test_the_snapshot_outlives_the_server(own: Own) -> None:
    version = own.publish(
        python("time.sleep(3)\nprint('loaded', flush=True)\ndef handler(event, context): return BOOT")
    )
    first = version.invoke()

    own.restart()
    after = own.version.invoke()
    assert after.payload == first.payload
    assert after.elapsed < 2
    assert own.version.lines().count("loaded") == 1


@pytest.mark.fact("S-012")
def test_the_snapshot_outlives_a_server_that_was_killed(own: Own) -> None:
    first = own.publish(python("def handler(event, context): return BOOT")).invoke()

    own.restart(kill=True)
    assert own.version.invoke().payload == first.payload


@pytest.mark.fact("S-005")
def test_each_restoration_is_as_quick_as_the_first(deploy: Deploy, once: TorporServer) -> None:
    code = "time.sleep(5)\ntable = list(range(500_000))\ndef handler(event, context): return len(table)"
    version = publish(deploy(python(code), on=once, SnapStart=ON, MemorySize=512))

    replies = []
    for _ in range(30):
        replies.append(version.invoke())
        version.recycle()
    assert all("Restore Duration" in reply.report for reply in replies)
    assert max(reply.elapsed for reply in replies) < 1.0


def test_what_was_not_published_and_what_is_gone_has_no_snapshot(own: Own) -> None:
    version = own.publish(python("def handler(event, context): return 1"))
    assert len(list((own.data / "snapshots").iterdir())) == 1
    latest = version.function.invoke()
    assert "Restore Duration" not in latest.report and "Init Duration" in latest.report

    own.server.client.delete_function(FunctionName=version.function.name)
    eventually(lambda: not list((own.data / "snapshots").iterdir()), what="the snapshot going")


def test_what_is_kept_from_a_former_life_and_belongs_to_nothing_is_removed(own: Own) -> None:
    own.publish(python("def handler(event, context): return 1"))
    stray = own.data / "snapshots" / ("0" * 64 + ".snapshot")
    own.restart(between=lambda: stray.write_bytes(b"of a version that was deleted"))

    assert not stray.exists()
    assert own.version.invoke().payload == 1


WATCHES = (
    SUBSCRIBES
    + """
register("INVOKE", "SHUTDOWN")
listen(4243)
say("subscribed", *subscribe(4243, ["platform"]))
while (event := next_event())["eventType"] == "INVOKE":
    wait_for("platform.runtimeDone", event["requestId"])
"""
)


@pytest.mark.fact("S-016")
def test_after_the_restoration_the_handler_is_called_and_extensions_are_told(server: TorporServer) -> None:
    """Extensions start anew beside each restored runtime."""
    with extended(
        server, python("def handler(event, context): return 1"), {"watch": WATCHES}, SnapStart=ON
    ) as function:
        version = publish(function)
        assert version.invoke().payload == 1
        assert version.invoke().payload == 1
        eventually(lambda: _kinds(version).count("platform.report") >= 1, what="the first report")
        found = _kinds(version)

    steps = [kind for kind in found if kind not in ("platform.extension", "platform.telemetrySubscription")]
    assert steps[:6] == [
        "platform.restoreStart",
        "platform.restoreRuntimeDone",
        "platform.restoreReport",
        "platform.start",
        "platform.runtimeDone",
        "platform.report",
    ]


def _kinds(version: Version) -> list[str]:
    """The types of the events that the extension beside the restored runtime has printed, in order."""
    streams = {entry.stream for entry in version.logs() if entry.message.startswith("START")}
    lines = [entry.message.partition(" got ")[2] for entry in version.logs() if entry.stream in streams]
    return [json.loads(line)["type"] for line in lines if line]

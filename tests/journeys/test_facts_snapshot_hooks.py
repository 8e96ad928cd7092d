"""What a function does about being saved and restored: its hooks, their time, their failures, their limits."""

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import botocore
import dateutil
import jmespath
import pytest
import six
import urllib3
from botocore.exceptions import ClientError
from tests.journeys.conftest import Deploy, MakeServer, require_sandbox
from tests.support.functions import PYTHON, Package, archive, python
from tests.support.server import TorporServer
from tests.support.snapshots import NEEDED, ON, publish, saved

from torpor.settings import Settings

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.skipif(not NEEDED, reason="this host has no Python that can be saved: 3.12 or later"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="processes are saved on x86_64 only"),
]

SCALE = 5
"""The fast tests run limits of ten seconds at a fifth."""
LIMIT = 10.0 / SCALE
RESTORE_TIMEOUT = re.compile(r"^RESTORE_REPORT Restore Duration: (\d+\.\d\d) ms\s+Status: timeout\s*$")
RESTORE_ERROR = re.compile(
    r"^RESTORE_REPORT Restore Duration: \d+\.\d\d ms\s+Status: error\s+Error Type: Runtime\.ExitError\s*$"
)
REPORT = re.compile(r"Duration: ([\d.]+) ms\tBilled Duration: (\d+) ms.*?Billed Restore Duration: (\d+) ms")
LOGGED = """
@register_before_snapshot
def before(): print("before the snapshot", flush=True)
@register_after_restore
def after(): print("after the restoration", flush=True)
print("loaded", flush=True)
def handler(event, context): print("handled", flush=True)
"""


@pytest.fixture
def scaled(make_server: MakeServer) -> Iterator[TorporServer]:
    """A server on which the limits of ten seconds are a fifth of that."""
    server = make_server(init_limit=LIMIT, restore_limit=LIMIT)
    require_sandbox(server)
    yield server


def _code_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, int]:
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.fact("S-006", "S-013")
def test_hooks_run_at_the_end_of_init_and_at_the_end_of_each_restoration(deploy: Deploy) -> None:
    version = publish(deploy(saved(LOGGED), SnapStart=ON))
    assert [line for line in version.lines() if not line.startswith("INIT")] == ["loaded", "before the snapshot"]

    version.invoke()
    version.invoke()
    (stream,) = {entry.stream for entry in version.logs() if entry.message.startswith("START")}
    lines = [entry.message.split()[0] for entry in version.logs() if entry.stream == stream]
    assert lines[:5] == ["RESTORE_START", "after", "RESTORE_REPORT", "START", "handled"]
    assert lines.count("after") == 1


@pytest.mark.fact("S-007")
def test_without_snapshots_no_hook_runs(deploy: Deploy) -> None:
    function = deploy(saved(LOGGED))
    version = publish(function)
    version.invoke()

    assert "loaded" in version.lines()
    assert not [line for line in version.lines() if "snapshot" in line or "restoration" in line]


@pytest.mark.fact("S-008")
def test_init_that_is_saved_may_take_longer_than_others(deploy: Deploy, scaled: TorporServer) -> None:
    assert Settings().init_limit == 10.0
    code = f"time.sleep({LIMIT * 1.2})\ndef handler(event, context): return 1"
    version = publish(deploy(python(code), on=scaled, SnapStart=ON, Timeout=3))

    assert version.invoke().payload == 1


@pytest.mark.slow
@pytest.mark.fact("S-008")
def test_limit_of_init_at_full_length(deploy: Deploy) -> None:
    def publishing(seconds: float, timeout: int) -> "object":
        code = f"time.sleep({seconds})\ndef handler(event, context): return 1"
        return publish(deploy(python(code), SnapStart=ON, Timeout=timeout), settle=False)

    short, failing, longer = publishing(12, 3), publishing(140, 3), publishing(140, 200)
    states = [version.settled(within=200.0) for version in (short, failing, longer)]  # type: ignore[attr-defined]
    assert [state["State"] for state in states] == ["Active", "Failed", "Active"]
    assert states[1]["StateReasonCode"] == "FunctionError.InitTimeout"
    assert states[1]["StateReason"]


@pytest.mark.fact("S-014")
def test_the_time_of_hooks_is_billed_once(deploy: Deploy) -> None:
    code = """
    @register_after_restore
    def after(): time.sleep(0.5)
    def handler(event, context): pass
    """
    version = publish(deploy(saved(code), SnapStart=ON))
    first, second = version.invoke(), version.invoke()

    found = REPORT.search(first.report)
    assert found, first.report
    assert int(found[3]) >= 500
    assert int(found[2]) >= float(found[1]) + 500
    assert "Restore" not in second.report


@pytest.mark.fact("S-015", "S-017")
def test_a_restoration_over_its_limit_fails_the_call(deploy: Deploy, scaled: TorporServer) -> None:
    assert Settings().restore_limit == 10.0
    code = """
    @register_after_restore
    def after(): time.sleep(float(os.environ["HOOK"]))
    def handler(event, context): return 1
    """
    deployed = [
        deploy(saved(code), on=scaled, SnapStart=ON, Environment={"Variables": {"HOOK": str(LIMIT * part)}})
        for part in (0.8, 1.2)
    ]
    good, bad = (publish(function) for function in deployed)
    assert good.invoke().payload == 1

    began = time.monotonic()
    with pytest.raises(ClientError) as failed:
        bad.invoke()
    assert LIMIT <= time.monotonic() - began < LIMIT + 1
    assert _code_of(failed) == ("SnapStartTimeoutException", 408)
    (found,) = [match for line in bad.lines() if (match := RESTORE_TIMEOUT.match(line))]
    assert LIMIT * 1000 <= float(found[1]) < LIMIT * 1000 + 500


@pytest.mark.slow
@pytest.mark.fact("S-015")
def test_limit_of_a_restoration_at_full_length(deploy: Deploy) -> None:
    code = """
    @register_after_restore
    def after(): time.sleep(float(os.environ["HOOK"]))
    def handler(event, context): return 1
    """
    good, bad = (
        publish(deploy(saved(code), SnapStart=ON, Environment={"Variables": {"HOOK": seconds}}))
        for seconds in ("8", "12")
    )
    assert good.invoke().payload == 1
    with pytest.raises(ClientError) as failed:
        bad.invoke()
    assert _code_of(failed) == ("SnapStartTimeoutException", 408)


@pytest.mark.fact("S-018")
def test_a_hook_that_ends_the_process_fails_the_restoration(deploy: Deploy) -> None:
    code = """
    @register_after_restore
    def after(): os._exit(3)
    def handler(event, context): return 1
    """
    version = publish(deploy(saved(code), SnapStart=ON))
    with pytest.raises(ClientError) as failed:
        version.invoke()

    assert _code_of(failed) == ("SnapStartException", 400)
    assert [line for line in version.lines() if RESTORE_ERROR.match(line)]


def test_a_hook_that_throws_after_the_restoration_is_told(deploy: Deploy) -> None:
    code = """
    @register_after_restore
    def after(): raise ValueError("cannot go on")
    def handler(event, context): return 1
    """
    version = publish(deploy(saved(code), SnapStart=ON))
    client, name = version.server.client, version.function.name
    for call in (version.invoke, lambda: client.invoke_with_response_stream(FunctionName=name, Qualifier="1")):
        with pytest.raises(ClientError, match="cannot go on") as failed:
            call()
        assert _code_of(failed) == ("SnapStartException", 400)


@pytest.mark.parametrize(
    ("hook", "code", "said"),
    [
        ("raise ValueError('not now')", "FunctionError.RuntimeInitError", "not now"),
        ("os._exit(9)", "FunctionError.RuntimeInitError", "exit status 9"),
        ("subprocess.Popen(['sleep', '600'])", "FunctionError", "child process"),
    ],
    ids=["throws", "exits", "forks"],
)
def test_a_bad_hook_before_the_snapshot_fails_the_version(deploy: Deploy, hook: str, code: str, said: str) -> None:
    source = f"""
    import subprocess
    @register_before_snapshot
    def before(): {hook}
    def handler(event, context): return 1
    """
    function = deploy(saved(source), SnapStart=ON)
    found = publish(function, settle=False).settled()

    assert (found["State"], found["StateReasonCode"]) == ("Failed", code)
    assert said in found["StateReason"] and not found["StateReason"].startswith("{")
    assert function.invoke().payload == 1  # what is not published is as it was
    with pytest.raises(ClientError):
        function.server.client.invoke(FunctionName=function.name, Qualifier=found["Version"])


def test_a_hook_that_starts_a_thread_and_a_connection_goes_on_in_each_environment(deploy: Deploy) -> None:
    code = """
    import socket, threading
    ticks, pair = [0], socket.socketpair()
    def tick():
        while True:
            time.sleep(0.01)
            ticks[0] += 1
    @register_before_snapshot
    def before(): threading.Thread(target=tick, daemon=True).start()
    def handler(event, context):
        before = ticks[0]
        time.sleep(0.2)
        return [ticks[0] > before, pair[0].recv(1).decode()]
    """
    version = publish(deploy(saved(code), SnapStart=ON))

    assert version.invoke().payload == [True, ""]


def test_a_crash_ends_a_restored_environment_and_the_next_is_restored(deploy: Deploy) -> None:
    code = """
    print("loaded", flush=True)
    def handler(event, context):
        if event.get("exit"): os._exit(1)
        return BOOT
    """
    version = publish(deploy(python(code), SnapStart=ON))
    first, crashed, third = version.invoke(), version.invoke({"exit": True}), version.invoke()

    assert crashed.error == "Unhandled" and crashed.payload["errorType"] == "Runtime.ExitError"
    assert third.payload == first.payload
    assert "Restore Duration" in third.report
    assert version.lines().count("loaded") == 1


def test_credentials_are_asked_for_and_are_each_environments_own(deploy: Deploy) -> None:
    code = """
    import json, urllib.error, urllib.request
    address = os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    def ask(token):
        request = urllib.request.Request(address, headers={"Authorization": token})
        try:
            with urllib.request.urlopen(request) as answer: return answer.status, json.load(answer)
        except urllib.error.HTTPError as error: return error.code, error.read().decode()
    early = ask(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"])[0]
    def handler(event, context):
        time.sleep(0.5)
        keys = [name for name in os.environ if name in ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN")]
        good, bad = ask(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"]), ask("another")
        return {"early": early, "keys": keys, "good": good, "bad": bad}
    """
    version = publish(deploy(python(code), SnapStart=ON))
    one, other = (call.result().payload for call in [version.start(), version.start()])

    assert (one["early"], one["keys"]) == (200, [])
    assert one["bad"] == [404, "cannot get credentials for the provided token"]
    status, found = one["good"]
    assert status == 200
    assert set(found) == {"AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["Expiration"])
    assert found["Token"] != other["good"][1]["Token"]


@pytest.mark.parametrize(
    ("runtime", "settings", "said"),
    [
        ("provided.al2023", {}, "provided.al2023 is not supported for SnapStart"),
        ("nodejs20.x", {}, "nodejs20.x is not supported for SnapStart"),
        ("python3.11", {}, "python3.11 is not supported for SnapStart"),
        ("", {"EphemeralStorage": {"Size": 513}}, "at most 512 MB of ephemeral storage"),
    ],
)
def test_who_cannot_have_snapshots_is_told(
    server: TorporServer, runtime: str, settings: dict[str, object], said: str
) -> None:
    package = python("def handler(event, context): pass")
    with pytest.raises(ClientError, match=said):
        server.client.create_function(
            FunctionName="refused",
            Role="arn:aws:iam::000000000000:role/app",
            Runtime=runtime or package.runtime,
            Handler=package.handler,
            Code={"ZipFile": package.archive},
            SnapStart=ON,
            **settings,
        )


def _sdk_parts() -> dict[str, bytes]:
    """The part of the real SDK that looks for credentials, without its service models."""
    found = {"six.py": Path(six.__file__).read_bytes()}
    for package in (botocore, dateutil, jmespath, urllib3):
        root = Path(package.__file__).parent
        for path in (path for path in root.rglob("*") if path.suffix in (".py", ".json")):
            place = path.relative_to(root.parent)
            if place.parts[1] != "data" or len(place.parts) == 3:
                found[str(place)] = path.read_bytes()
    return found


def test_the_sdk_finds_credentials_by_itself_before_and_after_the_snapshot(deploy: Deploy) -> None:
    code = """
    import os
    import botocore.session
    session = botocore.session.Session()
    early = session.get_credentials().get_frozen_credentials()
    def handler(event, context):
        late = botocore.session.Session().get_credentials()
        frozen = late.get_frozen_credentials()
        return [late.method, early.access_key == frozen.access_key, early.token != frozen.token]
    """
    package = Package(
        archive=archive(_sdk_parts() | {"app.py": dedent(code).encode()}), runtime=PYTHON, handler="app.handler"
    )
    version = publish(deploy(package, SnapStart=ON))

    assert version.invoke().payload == ["container-role", True, True]

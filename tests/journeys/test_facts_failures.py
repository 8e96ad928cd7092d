"""Crash and time-out: the environment is reset, `/tmp` stays, and the next invocation initialises again."""

import re
from pathlib import Path

import pytest
from tests.journeys.conftest import Deploy
from tests.support.functions import python
from tests.support.server import Function, Reply, eventually, needs_root

FAILING = """
import pathlib
found = sorted(os.listdir("/tmp"))
content = pathlib.Path("/tmp/a").read_text() if "a" in found else ""
time.sleep(float(os.environ.get("LOADING", "0")))

def handler(event, context):
    if event.get("write"):
        pathlib.Path("/tmp/a").write_text(event["write"])
    time.sleep(event.get("sleep", 0))
    if "exit" in event:
        os._exit(event["exit"])
    return {"boot": BOOT, "found": found, "content": content}
"""


def _duration(reply: Reply) -> float:
    return float(reply.report.partition("Duration: ")[2].split()[0])


def _log_of(function: Function, reply: Reply) -> list[str]:
    """Lines logged after the invocation before `reply` had ended."""
    lines = function.lines()
    first = lines.index(next(line for line in lines if line.startswith(f"START RequestId: {reply.request_id}")))
    earlier = [number for number in range(first) if lines[number].startswith("REPORT ")]
    return lines[earlier[-1] + 1 :]


@pytest.mark.fact("L-041")
def test_crash_makes_the_next_invocation_start_anew(deploy: Deploy) -> None:
    function = deploy(python(FAILING))

    good, crash, next_good = function.invoke(), function.invoke({"exit": 1}), function.invoke()

    assert crash.error == "Unhandled"
    assert crash.payload["errorType"] == "Runtime.ExitError"
    assert next_good.error == ""
    assert next_good.payload["boot"] != good.payload["boot"]


@needs_root
@pytest.mark.fact("L-042")
def test_timeout_ends_the_process_and_the_next_invocation_starts_anew(deploy: Deploy) -> None:
    function = deploy(python(FAILING), Timeout=3)
    good = function.invoke()
    running = function.start({"sleep": 10})
    eventually(lambda: function.environments()[0]["phase"] == "serving")
    processes = function.environments()[0]["pids"]
    assert processes
    assert all(Path(f"/proc/{pid}").exists() for pid in processes)

    late = running.result()

    assert late.error == "Unhandled"
    assert 3.0 <= late.elapsed < 4.5
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), within=2.0)
    assert function.invoke().payload["boot"] != good.payload["boot"]


@pytest.mark.fact("L-047")
@pytest.mark.privileged
def test_reset_keeps_what_is_in_tmp(deploy: Deploy) -> None:
    function = deploy(python(FAILING))
    first = function.invoke()

    function.invoke({"write": "kept", "exit": 1})
    after = function.invoke()

    assert (first.payload["found"], first.payload["content"]) == ([], "")
    assert (after.payload["found"], after.payload["content"]) == (["a"], "kept")
    assert after.payload["boot"] != first.payload["boot"]


@pytest.mark.fact("L-063", "L-064")
def test_init_after_a_failure_is_part_of_the_next_invocations_duration_only(deploy: Deploy) -> None:
    function = deploy(python(FAILING), Environment={"Variables": {"LOADING": "1"}})
    function.invoke()
    function.invoke({"exit": 1})

    third = function.invoke({"sleep": 0.2})

    assert third.error == ""
    assert 1_200 <= _duration(third) < 2_200
    assert "Init Duration" not in third.report
    assert not any(re.search("INIT_START|INIT_REPORT|Init Duration", line) for line in _log_of(function, third))


@pytest.mark.fact("L-065")
def test_start_is_stamped_after_the_init_inside_an_invocation(deploy: Deploy) -> None:
    function = deploy(python(FAILING), Environment={"Variables": {"LOADING": "0.5"}})
    function.invoke()
    function.invoke({"exit": 1})

    third = function.invoke({"sleep": 2.5})

    stamps = {
        word: event.time
        for event in function.logs()
        if third.request_id in event.message and (word := event.message.split()[0]) in ("START", "REPORT")
    }
    between = stamps["REPORT"] - stamps["START"]
    assert 2.49 <= between < 2.9
    assert 2_990 <= _duration(third) < 3_600
    assert _duration(third) / 1000 - between >= 0.45

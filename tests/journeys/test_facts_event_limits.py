"""Event functions of Function Compute: how long a run may take, and how many instances run at once."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.journeys.conftest import MakeServer
from tests.support.fc import (
    PYTHON,
    ComputeFunction,
    default_of,
    deployed,
    deployed_classic,
    fc_warnings,
    python,
    statistics,
)
from tests.support.server import TorporServer, eventually

pytestmark = [
    fc_warnings,
    pytest.mark.skipif(not PYTHON, reason="this host has no Python that event functions can use"),
]

SLEEPER = python("""
def handler(event, context):
    given = json.loads(event or b"{}")
    print("begin", context.request_id, flush=True)
    while given.get("loop"):
        pass
    time.sleep(given.get("payload") and float(given["payload"]) or given.get("sleep", 0))
    print("end", context.request_id, flush=True)
    return json.dumps({"timeout": context.function.timeout, "boot": BOOT})
""")
CONFIGURATION = {"runtime": PYTHON, "handler": "index.handler"}
CLASSIC = {**CONFIGURATION, "memorySize": 128}
INSTANCES = 3


@pytest.fixture(scope="module")
def capped(make_server: MakeServer) -> TorporServer:
    """A server of its own with three instances at most."""
    return make_server(fc_instances=INSTANCES)


def _ended_late(function: ComputeFunction, seconds: float) -> dict[str, Any]:
    """Its one run, once it has been ended for taking longer than this."""
    (run,) = eventually(function.runs, within=seconds + 10, what="the end of the run")
    assert run["status"] == "timeout"
    assert seconds <= run["duration"] < seconds + 0.5
    return run


def _samples(read: Callable[[], int], seconds: float) -> list[int]:
    """What is read again and again for so long."""
    seen, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        seen.append(read())
        time.sleep(0.05)
    return seen


# -- how long ------------------------------------------------------------------------------------------------------


@pytest.mark.fact("F-014", "F-015")
def test_timeout_is_60_seconds_where_a_function_of_the_classic_generation_sets_none(server: TorporServer) -> None:
    with deployed_classic(server, SLEEPER, **CLASSIC) as function:
        shown = function.classic.get_function(function.service, function.name).data["timeout"]
        waited = function.post().value["timeout"]
        later = function.send()
        eventually(lambda: f"end {later.request_id}" in function.printed("end"))

    assert (shown, waited) == (60, 60)


@pytest.mark.fact("F-014")
def test_timeout_is_3_seconds_where_a_function_of_the_current_generation_sets_none(server: TorporServer) -> None:
    with deployed(server, SLEEPER, **CONFIGURATION, timeout=None) as function:
        assert (function.configuration()["timeout"], function.invoke().value["timeout"]) == (3, 3)


@pytest.mark.fact("F-014")
def test_run_that_its_caller_waits_for_is_ended_at_its_timeout(server: TorporServer) -> None:
    with deployed_classic(server, SLEEPER, **CLASSIC, timeout=2) as function:
        result = function.post({"sleep": 5})
        _ended_late(function, 2)

    assert (result.status, result.error) == (200, "UnhandledInvocationError")
    assert result.value["errorMessage"].startswith("Function timed out after 2 seconds")
    assert 2 <= result.elapsed < 3


@pytest.mark.fact("F-015")
def test_asynchronous_run_is_ended_at_its_timeout(server: TorporServer) -> None:
    with deployed_classic(server, SLEEPER, **CLASSIC, timeout=2) as function:
        later = function.send({"sleep": 5})
        _ended_late(function, 2)
        lines = eventually(lambda: function.printed("FC Invoke End RequestId: " + later.request_id))

    assert lines[0].split("Error: ")[1].startswith("Function timed out after 2 seconds")


@pytest.mark.fact("F-014", "F-015")
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_runs_of_70_seconds_are_ended_at_60_by_default(server: TorporServer) -> None:
    with (
        deployed_classic(server, SLEEPER, **CLASSIC) as waited,
        deployed_classic(server, SLEEPER, **CLASSIC) as left,
    ):
        left.send({"sleep": 70})
        result = waited.post({"sleep": 70})
        _ended_late(waited, 60)
        _ended_late(left, 60)

    assert result.value["errorMessage"].startswith("Function timed out after 60 seconds")
    assert 60 <= result.elapsed < 62


@pytest.mark.fact("F-016")
@pytest.mark.privileged
def test_endless_run_holds_nothing_after_its_timeout(capped: TorporServer) -> None:
    before = statistics(capped)["pool"]
    with deployed(capped, SLEEPER, **CONFIGURATION, timeout=2) as function:
        running = function.start({"loop": True})
        pids = eventually(lambda: [pid for entry in function.environments() for pid in entry["pids"]])
        while_running = statistics(capped)["pool"]["charged_mb"]
        result = running.result()

        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), what="the end of its processes")
        eventually(lambda: statistics(capped)["pool"] == before, what="its memory in the budget again")

    assert "timed out" in result.value["errorMessage"]
    assert while_running == before["charged_mb"] + 256


@pytest.mark.fact("F-017")
def test_raised_timeout_lets_the_same_run_complete(server: TorporServer) -> None:
    with deployed(server, SLEEPER, **CONFIGURATION, timeout=1) as function:
        ended = function.post({"sleep": 2})
        function.update(timeout=10)
        completed = function.post({"sleep": 2})

    assert "timed out after 1 seconds" in ended.value["errorMessage"]
    assert (completed.error, completed.value["timeout"]) == ("", 10)


@pytest.mark.fact("F-017")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_run_of_three_minutes_completes_within_a_timeout_of_ten(server: TorporServer) -> None:
    with deployed(server, SLEEPER, **CONFIGURATION, timeout=600) as function:
        result = function.post({"sleep": 180})

    assert (result.error, result.value["timeout"]) == ("", 600)


# -- how many ------------------------------------------------------------------------------------------------------


@pytest.mark.fact("F-018")
def test_instances_pile_up_where_runs_outlast_the_timers_interval(server: TorporServer) -> None:
    """A timer each two seconds and runs of just under three intervals."""
    with (
        deployed(server, SLEEPER, **CONFIGURATION) as function,
        function.triggered("timer", cronExpression="@every 2s", enable=True, payload="5.6"),
    ):
        rising = _samples(lambda: len(function.environments()), 7.0)
        staying = _samples(lambda: len(function.environments()), 7.0)

    assert sorted(set(rising)) == [0, 1, 2, 3]
    assert rising == sorted(rising)
    assert set(staying) == {3}


@pytest.mark.fact("F-019")
def test_there_are_never_more_instances_than_the_cap(capped: TorporServer) -> None:
    with deployed(capped, SLEEPER, **CONFIGURATION) as first, deployed(capped, SLEEPER, **CONFIGURATION) as second:
        sent = [
            (first, first.send({"sleep": 1})) if turn % 2 else (second, second.send({"sleep": 1})) for turn in range(7)
        ]
        counts = _samples(lambda: len(capped.environments()), 2.0)
        for function, result in sent:
            eventually(lambda f=function, r=result: f"end {r.request_id}" in f.printed("end"), within=20)

    assert max(counts) == INSTANCES


@pytest.mark.fact("F-019")
def test_cap_is_100_instances_by_default() -> None:
    assert default_of("fc_instances") == 100


@pytest.mark.fact("F-019")
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_130_events_of_20_seconds_never_run_in_more_than_100_instances(server: TorporServer) -> None:
    with deployed(server, SLEEPER, **CONFIGURATION, memorySize=128, timeout=60) as function:
        sent = [function.send({"sleep": 20}).request_id for _ in range(130)]
        counts = _samples(lambda: len(function.environments()), 40.0)
        eventually(lambda: len(function.printed("end")) == len(sent), within=60, what="the end of all runs")

        assert sorted(function.printed("end")) == sorted(f"end {request_id}" for request_id in sent)
    assert max(counts) == 100

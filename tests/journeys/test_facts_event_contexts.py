"""Event functions of Function Compute: environments are kept after a run, used again, and released."""

import os
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from alibabacloud_fc20230330.models import ListInstancesRequest
from tests.journeys.conftest import MakeServer
from tests.support.fc import PYTHON, ComputeFunction, default_of, deployed, fc_warnings, python
from tests.support.fc import statistics as counted
from tests.support.server import TorporServer, eventually

pytestmark = [
    fc_warnings,
    pytest.mark.skipif(not PYTHON, reason="this host has no Python that event functions can use"),
]

COUNTER = python("""
counter = 0
now = time.time()

def handler(event, context):
    global counter
    counter += 1
    time.sleep(float(event or 0))
    marker = os.environ.get("TMPDIR", "/tmp") + "/marker"
    marked = os.path.exists(marker)
    open(marker, "w").close()
    return {"boot": BOOT, "counter": counter, "marked": marked, "outside": now, "inside": time.time()}
""")
CONFIGURATION = {"runtime": PYTHON, "handler": "index.handler"}
STAGES = ["fetch", "start", "init", "invoke"]
KEPT = 2.0
HANDLER = 0.2
DEPLOYED = 100
WATCHED = 5.0


@pytest.fixture
def function(server: TorporServer) -> Iterator[ComputeFunction]:
    with deployed(server, COUNTER, **CONFIGURATION) as function:
        yield function


@pytest.fixture(scope="module")
def brief(make_server: MakeServer) -> TorporServer:
    """A server that keeps environments for two seconds."""
    return make_server(fc_idle_timeout=KEPT)


@pytest.fixture
def released(brief: TorporServer) -> Iterator[ComputeFunction]:
    """A function of that server."""
    with deployed(brief, COUNTER, **CONFIGURATION) as function:
        yield function


def _charged(server: TorporServer) -> int:
    return int(counted(server)["pool"]["charged_mb"])


@pytest.mark.fact("F-034")
def test_environment_is_kept_between_two_and_five_minutes_by_default(function: ComputeFunction) -> None:
    before = function.invoke().value
    time.sleep(5)
    after = function.invoke().value

    assert 120 <= default_of("fc_idle_timeout") <= 300
    assert after["boot"] == before["boot"]


@pytest.mark.fact("F-034")
def test_function_may_have_its_environments_kept_for_longer(brief: TorporServer) -> None:
    with (
        deployed(brief, COUNTER, **CONFIGURATION) as released,
        deployed(brief, COUNTER, **CONFIGURATION, idleTimeout=300) as kept,
    ):
        released.invoke()
        before = kept.invoke().value
        eventually(lambda: not released.environments(), within=KEPT + 3, what="the release of the other")
        time.sleep(1)

        assert kept.invoke().value["boot"] == before["boot"]


@pytest.mark.fact("F-034")
@pytest.mark.slow
@pytest.mark.timeout(200)
def test_environment_is_still_there_after_90_seconds(function: ComputeFunction) -> None:
    before = function.invoke().value
    time.sleep(90)

    assert function.invoke().value["boot"] == before["boot"]


@pytest.mark.fact("F-035")
@pytest.mark.privileged
def test_next_run_uses_the_context_of_the_former(function: ComputeFunction) -> None:
    first, second = function.invoke().value, function.invoke().value

    assert second["boot"] == first["boot"]
    assert [first["counter"], second["counter"]] == [1, 2]
    assert [first["marked"], second["marked"]] == [False, True]


@pytest.mark.fact("F-036")
def test_warm_call_takes_as_long_as_the_handler(function: ComputeFunction) -> None:
    function.post(b"0")
    taken = [function.post(str(HANDLER).encode()).elapsed for _ in range(11)]

    assert min(taken) >= HANDLER
    assert statistics.median(taken) < HANDLER + 0.02
    assert [run["cold"] for run in function.runs()].count(True) == 1


@pytest.mark.fact("F-037")
@pytest.mark.privileged
def test_environment_without_requests_is_released(released: ComputeFunction) -> None:
    before = _charged(released.server)
    released.invoke()
    used = time.monotonic()
    (environment,) = released.environments()
    charged = _charged(released.server)
    eventually(lambda: not released.environments(), within=KEPT + 3, what="the release")

    assert time.monotonic() - used >= KEPT - 0.2
    assert charged == before + 256
    assert not any(Path(f"/proc/{pid}").exists() for pid in environment["pids"])
    eventually(lambda: _charged(released.server) == before, what="its memory in the budget again")
    instances = released.current.list_instances(released.name, ListInstancesRequest()).body.instances
    assert not instances


@pytest.mark.fact("F-038")
def test_run_after_the_release_begins_with_a_cold_start(released: ComputeFunction) -> None:
    before = released.invoke().value
    eventually(lambda: not released.environments(), within=KEPT + 3, what="the release")
    seen = len(released.phases())
    after = released.invoke().value

    assert after["boot"] != before["boot"]
    assert [phase["phase"] for phase in released.phases()[seen:] if phase["phase"] != "shutdown"] == STAGES


@pytest.mark.fact("F-039")
def test_of_three_requests_the_second_is_warm_and_the_third_cold_again(released: ComputeFunction) -> None:
    for pause in (0, KEPT / 2, KEPT + 3):
        time.sleep(pause)
        released.invoke()

    assert [run["cold"] for run in released.runs()] == [True, False, True]


@pytest.mark.fact("F-040")
@pytest.mark.timeout(180)
def test_functions_that_nobody_calls_use_no_hardware(make_server: MakeServer) -> None:
    server = make_server(fc_instances=1)
    with deployed(server, COUNTER, **CONFIGURATION) as function:
        function.invoke()  # what the first function ever makes the platform prepare is there from now on
    eventually(lambda: not server.environments())
    none = _usage(server)
    with ExitStack() as stack:
        for number in range(DEPLOYED):
            files = python(f"NUMBER = {number}\ndef handler(event, context):\n    return NUMBER\n")
            stack.enter_context(deployed(server, files, **CONFIGURATION))
        many = _usage(server)

        assert server.environments() == []
    assert many.keys() == none.keys()
    assert many["processes"] == none["processes"]
    assert many["memory_mb"] < none["memory_mb"] + 16
    assert many["cpu"] < none["cpu"] + 0.02


def _usage(server: TorporServer) -> dict[str, float]:
    """Processes of the platform, their own memory, and the CPUs that they use while nothing happens."""
    time.sleep(1)
    begin, family = _cpu_seconds(server.process.pid), _family(server.process.pid)
    time.sleep(WATCHED)
    cpu = (_cpu_seconds(server.process.pid) - begin) / WATCHED
    return {"processes": len(family), "memory_mb": sum(map(_own_mb, family)), "cpu": cpu}


def _family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def _own_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def _cpu_seconds(pid: int) -> float:
    """Of a process and all below it, their ended children included."""
    ticks = 0
    for member in _family(pid):
        fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


@pytest.mark.fact("F-041")
def test_function_that_a_timer_runs_often_is_warm_but_for_its_first_run(server: TorporServer) -> None:
    """Two seconds for an interval of a minute: both are well below the time for which environments are kept."""
    with (
        deployed(server, COUNTER, **CONFIGURATION) as function,
        function.triggered("timer", cronExpression="@every 2s", enable=True),
    ):
        runs = eventually(lambda: (found := function.runs())[5:] and found, within=30, what="six runs")

    assert [run["cold"] for run in runs[:6]] == [True] + [False] * 5


@pytest.mark.fact("F-042", "F-043")
def test_what_is_computed_outside_the_handler_stays_and_what_is_computed_inside_is_new(
    function: ComputeFunction,
) -> None:
    told = [function.invoke().value for _ in range(10)]

    assert len({run["outside"] for run in told}) == 1
    assert len({run["inside"] for run in told}) == 10

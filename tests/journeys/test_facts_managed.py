"""Managed instances: several invocations at once in environments that never rest and are replaced, not repaired."""

import itertools
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.journeys.conftest import MakeServer, require_sandbox
from tests.support.functions import Package, archive, python
from tests.support.managed import ManagedFunction, managed
from tests.support.server import TorporServer, eventually

MANAGED_PYTHON = "python3.13"
MANAGED_NODE = "nodejs22.x"
WORKER = python(
    """
    import signal, threading
    print("module", os.getpid(), flush=True)
    running = 0
    overlapped = False
    def tick():
        while True:
            with open(f"/tmp/ticks-{os.getpid()}", "a") as file:
                file.write(f"{time.time()}\\n")
            time.sleep(0.05)
    def handler(event, context):
        global running, overlapped
        running += 1
        overlapped = overlapped or running > 1
        try:
            if event.get("tick"):
                threading.Thread(target=tick, daemon=True).start()
            if event.get("die"):
                os.kill(os.getpid(), signal.SIGKILL)
            if event.get("kill_all"):
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(5)
            if event.get("mark"):
                open("/tmp/mark", "w").close()
            time.sleep(event.get("sleep", 0))
            ticks = []
            if event.get("ticks"):
                ticks = [float(line) for line in open(f"/tmp/ticks-{event['ticks']}").read().split()]
            return {"pid": os.getpid(), "parent": os.getppid(), "boot": BOOT, "overlapped": overlapped,
                    "stream": context.log_stream_name, "mark": os.path.exists("/tmp/mark"), "ticks": ticks}
        finally:
            running -= 1
    """,
    runtime=MANAGED_PYTHON,
)
SLOW_WORKERS = python(
    """
    import fcntl
    lock = open("/tmp/first", "w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(20)
    def handler(event, context):
        return os.getpid()
    """,
    runtime=MANAGED_PYTHON,
)
THREADS = Package(
    archive=archive(
        {
            "index.mjs": """
            import { threadId } from 'node:worker_threads';
            export const handler = async (event) => {
              await new Promise((done) => setTimeout(done, (event.sleep ?? 0) * 1000));
              return { pid: process.pid, thread: threadId };
            };
            """
        }
    ),
    runtime=MANAGED_NODE,
    handler="index.handler",
)
POLLERS = Package(
    archive=archive(
        {
            "bootstrap": r"""#!/usr/bin/env python3
import http.client, json, os, threading, time
API = os.environ["AWS_LAMBDA_RUNTIME_API"]
def work():
    connection = http.client.HTTPConnection(API)
    while True:
        connection.request("GET", "/2018-06-01/runtime/invocation/next")
        answer = connection.getresponse()
        event = json.loads(answer.read())
        time.sleep(event.get("sleep", 0))
        identity = answer.headers["Lambda-Runtime-Aws-Request-Id"]
        body = json.dumps({"thread": threading.get_ident(), "pid": os.getpid()})
        connection.request("POST", f"/2018-06-01/runtime/invocation/{identity}/response", body)
        connection.getresponse().read()
for _ in range(int(os.environ["AWS_LAMBDA_MAX_CONCURRENCY"]) - 1):
    threading.Thread(target=work, daemon=True).start()
work()
"""
        }
    ),
    runtime="provided.al2023",
    handler="unused",
)


@pytest.fixture(scope="module")
def four(server: TorporServer) -> Iterator[ManagedFunction]:
    """One environment with four Python workers, used by the tests that leave it as it was."""
    _require(server, MANAGED_PYTHON)
    with managed(server, WORKER, concurrency=4, Timeout=3) as function:
        eventually(lambda: len(_workers(function)) == 4, what="four workers having loaded their module")
        yield function


def _require(server: TorporServer, runtime: str) -> None:
    require_sandbox(server)
    if runtime not in server.runtimes:
        pytest.skip(f"this host has no interpreter for {runtime}")


def _all_answered(function: ManagedFunction, number: int, seconds: float) -> list[Any]:
    """What so many calls at once answer, once every worker is up: an environment is ready with its first."""

    def answers() -> list[Any] | None:
        calls = function.together(*[{"sleep": seconds}] * number)
        return None if any(call.error for call in calls) else [call.payload for call in calls]

    found: list[Any] = eventually(answers, within=20.0, what=f"{number} workers of {function.name}")
    return found


def _workers(function: ManagedFunction) -> set[str]:
    return {line.split()[1] for line in function.lines() if line.startswith("module ")}


@pytest.mark.fact("M-001", "M-017", "M-018")
def test_a_provider_stands_for_this_host_and_full_environments_refuse_until_a_worker_is_free(
    four: ManagedFunction,
) -> None:
    listed = four.server.client.list_function_versions_by_capacity_provider(CapacityProviderName="host")
    assert any(f":{four.name}:{four.version}" in entry["FunctionArn"] for entry in listed["FunctionVersions"])
    long = [four.begin({"sleep": 1.0}) for _ in range(4)]
    time.sleep(0.3)
    refused = four.call()
    assert refused.error == "TooManyRequestsException" and refused.elapsed < 0.5
    assert {running.result().error for running in long} == {""}
    assert four.call().error == ""
    assert len(four.environments()) == 1 and len(_workers(four)) == 4


@pytest.mark.fact("M-002", "M-010")
def test_it_works_on_between_invocations_where_a_standard_function_is_frozen(
    four: ManagedFunction, server: TorporServer
) -> None:
    began = four.call({"tick": True}).payload
    time.sleep(3.0)
    busy = [four.begin({"sleep": 0.3, "ticks": began["pid"]}) for _ in range(4)]
    ticks = busy[0].result().payload["ticks"]
    assert all(running.result().error == "" for running in busy)
    assert len(ticks) >= 40, "about sixty ticks of fifty milliseconds in three seconds"
    with server.deployed(WORKER) as standard:
        pid = standard.invoke({"tick": True, "sleep": 0.3}).payload["pid"]
        standard.wait_until_frozen()
        time.sleep(1.5)
        ticks = standard.invoke({"ticks": pid, "sleep": 0.3}).payload["ticks"]
        gaps = [later - earlier for earlier, later in itertools.pairwise(ticks)]
        assert max(gaps) > 1.0, "nothing ran between the calls"


@pytest.mark.fact("M-004", "M-006", "M-011", "M-012")
def test_as_many_workers_as_configured_each_load_the_module_and_run_one_invocation_at_a_time(
    four: ManagedFunction, server: TorporServer
) -> None:
    calls = four.together(*[{"sleep": 1.0}] * 4)
    assert max(call.elapsed for call in calls) < 1.8
    answers = [call.payload for call in calls]
    assert len({answer["pid"] for answer in answers}) == 4 and len({answer["parent"] for answer in answers}) == 1
    assert len({answer["boot"] for answer in answers}) == 4 and not any(answer["overlapped"] for answer in answers)
    first = next(event for event in four.logs() if "platform.start" in event.message)
    assert min(event.time for event in four.logs() if event.message.startswith("module")) <= first.time
    with managed(server, WORKER, concurrency=7) as seven:
        eventually(lambda: len(_workers(seven)) == 7, what="seven workers")


@pytest.mark.fact("M-005")
def test_workers_are_processes_threads_or_parallel_requests_by_runtime(
    four: ManagedFunction, server: TorporServer, make_server: MakeServer
) -> None:
    processes = four.together(*[{"sleep": 0.5}] * 4)
    assert len({call.payload["pid"] for call in processes}) == 4
    with managed(server, POLLERS, concurrency=4) as pollers:
        answers = _all_answered(pollers, 4, 0.5)
        assert len({answer["thread"] for answer in answers}) == 4 and len({answer["pid"] for answer in answers}) == 1
    other = make_server(any_node=True)
    _require(other, MANAGED_NODE)
    with managed(other, THREADS, concurrency=4) as threads:

        def of_several_threads() -> bool:  # those that are up later than the first get no share of the first calls
            answers = _all_answered(threads, 4, 0.5)
            assert len({answer["pid"] for answer in answers}) == 1
            return len({answer["thread"] for answer in answers}) > 1

        eventually(of_several_threads, what="several threads answering")


@pytest.mark.fact("M-007")
def test_the_first_ready_worker_is_enough(server: TorporServer) -> None:
    _require(server, MANAGED_PYTHON)
    began = time.time()
    with managed(server, SLOW_WORKERS, concurrency=4) as function:
        assert function.call().error == ""
        assert time.time() - began < 10.0


@pytest.mark.fact("M-008")
def test_an_extension_that_is_not_ready_holds_up_workers_that_are(server: TorporServer) -> None:
    _require(server, MANAGED_PYTHON)
    layer = server.client.publish_layer_version(
        LayerName="late", Content={"ZipFile": archive({"extensions/late": _LATE})}
    )
    began = time.time()
    with managed(server, WORKER, Layers=[layer["LayerVersionArn"]], wait=False) as function:
        time.sleep(1.5)
        assert function.state() == "Pending"
        eventually(lambda: function.state() == "Active", within=20.0, what="the late extension")
        assert time.time() - began >= 3.0
        assert function.call().error == ""


_LATE = r"""#!/usr/bin/env python3
import http.client, json, os, time
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
body = json.dumps({"events": ["SHUTDOWN"]})
api.request("POST", "/2020-01-01/extension/register", body, {"Lambda-Extension-Name": "late"})
answer = api.getresponse()
answer.read()
time.sleep(3)
identity = {"Lambda-Extension-Identifier": answer.headers["Lambda-Extension-Identifier"]}
api.request("GET", "/2020-01-01/extension/event/next", headers=identity)
api.getresponse().read()
"""


@pytest.mark.fact("M-013", "M-014", "M-015", "M-016")
def test_each_invocation_has_a_time_out_of_its_own_that_harms_no_other(four: ManagedFunction) -> None:
    before = four.environments()[0]["id"]
    slow = []
    for _ in range(2):
        slow.append((time.time(), four.begin({"sleep": 6.0})))
        time.sleep(0.5)
    good = [four.begin({"sleep": 2.5}) for _ in range(2)]
    for _, running in slow:
        call = running.result()
        assert call.error == "Unhandled" and call.payload["errorType"] == "Sandbox.Timedout"
        assert 2.9 <= call.elapsed <= 3.6
    assert {running.result().error for running in good} == {""}
    eventually(lambda: four.call().error == "", what="a worker being free again")
    assert four.environments()[0]["id"] == before
    reports = [json.loads(line)["record"] for line in four.lines() if "platform.report" in line]
    assert [report["status"] for report in reports].count("timeout") >= 2
    eventually(lambda: {call.error for call in four.together(*[{"sleep": 0.2}] * 4)} == {""}, within=15.0)


@pytest.mark.fact("M-019")
def test_a_worker_that_crashes_only_shrinks_its_environment(server: TorporServer) -> None:
    _require(server, MANAGED_PYTHON)
    with managed(server, WORKER, concurrency=3) as function:
        eventually(lambda: len(_workers(function)) == 3)
        before = {call.payload["boot"] for call in function.together(*[{"sleep": 0.4}] * 3)}
        others = [function.begin({"sleep": 1.0}) for _ in range(2)]
        time.sleep(0.3)
        lost = function.call({"die": True})
        assert lost.error == "Unhandled" and lost.elapsed < 1.0
        answers = [running.result() for running in others]
        assert {answer.error for answer in answers} == {""}
        assert {answer.payload["boot"] for answer in answers} < before
        assert len(function.environments()) == 1
        calls = function.together(*[{"sleep": 0.5}] * 3)
        assert sorted(call.error for call in calls) == ["", "", "TooManyRequestsException"]


@pytest.mark.fact("M-022", "M-023")
def test_a_dead_runtime_is_replaced_and_never_initialised_again(server: TorporServer) -> None:
    _require(server, MANAGED_PYTHON)
    with managed(server, WORKER, concurrency=2) as function:
        marked = function.call({"mark": True}).payload
        assert function.call({"kill_all": True}).error == "Unhandled"
        eventually(
            lambda: [entry["log_stream"] for entry in function.environments()] not in ([], [marked["stream"]]),
            what="a new environment without a request",
        )
        answer = eventually(lambda: function.call().payload, what="the new environment answering")
        assert answer["stream"] != marked["stream"] and not answer["mark"]
        starts = [event for event in function.logs() if "initStart" in event.message]
        assert len([event for event in starts if event.stream == marked["stream"]]) == 1


@pytest.mark.fact("M-009")
def test_init_may_take_longer_than_a_standard_one_up_to_its_own_limit(server: TorporServer) -> None:
    _require(server, MANAGED_PYTHON)
    slow = python("import time\ntime.sleep(12)\ndef handler(event, context):\n    return 1\n", runtime=MANAGED_PYTHON)
    with managed(server, slow, concurrency=1, Timeout=3) as function:
        assert function.call().payload == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("timeout", "load", "becomes"), [(3, 100, "Active"), (3, 140, "Failed"), (200, 140, "Active")])
@pytest.mark.fact("M-009")
def test_init_limit_at_full_length(make_server: MakeServer, timeout: int, load: int, becomes: str) -> None:
    server = make_server()
    _require(server, MANAGED_PYTHON)
    slow = python(
        f"import time\ntime.sleep({load})\ndef handler(event, context):\n    return 1\n", runtime=MANAGED_PYTHON
    )
    with managed(server, slow, concurrency=1, Timeout=timeout, wait=False) as function:
        if becomes == "Active":
            eventually(lambda: function.state() == "Active", within=load + 60.0)
            return
        eventually(lambda: any('"status":"timeout"' in line for line in function.lines()), within=load + 60.0)
        assert function.state() != "Active"


def test_versions_are_active_once_three_environments_are_up(server: TorporServer) -> None:
    _require(server, MANAGED_PYTHON)
    with managed(server, WORKER, minimum=3, maximum=3) as function:
        assert len(function.environments()) == 3
        assert {entry["phase"] for entry in function.environments()} == {"idle"}


def test_what_is_not_published_cannot_be_invoked(server: TorporServer) -> None:
    _require(server, MANAGED_PYTHON)
    with managed(server, WORKER) as function:
        function.version = "$LATEST"
        assert function.call().error == "NoPublishedVersionException"


def test_the_platform_logs_in_json_and_lines_of_workers_do_not_mix(four: ManagedFunction) -> None:
    own = [json.loads(line) for line in four.lines() if line.startswith("{")]
    assert {"platform.initStart", "platform.start", "platform.report"} <= {entry.get("type") for entry in own}
    assert all(len(line.split()) == 2 for line in four.lines() if line.startswith("module "))


def test_a_node_environment_never_runs_more_than_its_maximum(make_server: MakeServer) -> None:
    server = make_server(any_node=True)
    _require(server, MANAGED_NODE)
    with managed(server, THREADS, concurrency=2) as function:
        _all_answered(function, 2, 0.2)
        calls = function.together(*[{"sleep": 0.5}] * 5)
        assert sorted(call.error for call in calls) == ["", "", *["TooManyRequestsException"] * 3]

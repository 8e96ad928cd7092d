"""The Python runtime serving several invocations at a time, with processes: booted, and cloned from a warm one."""

import json
import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from tests.support.runtime_api import HANG_UP, Runtime
from tests.support.workers import invoke_all, log_provider, wait_until
from tests.system.test_guest_python import NEWEST, WAYS, serve

pytestmark = [
    pytest.mark.skipif(NEWEST < "python3.13", reason="no Python 3.13 client installed"),
    pytest.mark.parametrize("way", WAYS),
]

WHO = """
import logging, os, random, time
drawn = random.random()
def handler(event, context):
    logging.getLogger().warning("seen")
    time.sleep(event or 0)
    return [os.getpid(), drawn, context.aws_request_id, os.environ.get("_X_AMZN_TRACE_ID")]
"""


def serve_many(task: Path, code: str, way: str, workers: int, **environment: str) -> AbstractContextManager[Runtime]:
    settings = {
        "AWS_LAMBDA_MAX_CONCURRENCY": str(workers),
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{NEWEST}",
        **environment,
    }
    return serve(task, {"index.py": code}, way=way, **settings)


@pytest.mark.parametrize("workers", [1, 3])
def test_each_worker_waits_over_a_connection_of_its_own(tmp_path: Path, way: str, workers: int) -> None:
    with serve_many(tmp_path, WHO, way, workers) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == workers)
        waiting = set(runtime.api.waiting)
        posted = invoke_all(runtime, [0.2] * workers, Lambda_Runtime_Trace_Id="Root=1-2-3")
        connections = runtime.api.connections
    assert len({each.json[0] for each in posted.values()}) == workers
    assert len({each.json[1] for each in posted.values()}) == workers
    assert all(each.json[2:] == [request_id, "Root=1-2-3"] for request_id, each in posted.items())
    # A worker waits and answers over one connection, and only its death closes it.
    assert {each.port for each in posted.values()} == waiting
    assert connections == workers


def test_worker_that_is_killed_closes_its_connection_and_others_go_on(tmp_path: Path, way: str) -> None:
    with serve_many(tmp_path, WHO, way, 2) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == 2)
        first = runtime.api.invoke(0)
        wait_until(lambda: len(runtime.api.waiting) == 2)
        os.kill(first.json[0], signal.SIGKILL)
        wait_until(lambda: len(runtime.api.waiting) == 1)
        assert first.port not in runtime.api.waiting
        others = [runtime.api.invoke(0).json[0] for _ in range(5)]
        assert set(others) == {others[0]} != {first.json[0]}
        os.kill(others[0], signal.SIGKILL)
        assert runtime.ended()[0] == 0


def test_failing_handler_and_refused_answer_end_no_worker(tmp_path: Path, way: str) -> None:
    code = "def handler(event, context):\n    if event: raise ValueError('bad')\n    return 'good'"
    with serve_many(tmp_path, code, way, 1) as runtime:
        failed = runtime.api.invoke(1)
        runtime.api.refusals.put(410)
        assert [runtime.api.invoke(0).json for _ in range(3)] == ["good"] * 3
        told, refused, warned = filter(None, runtime.stopped().splitlines())
    assert (failed.kind, failed.json["errorType"]) == ("error", "ValueError")
    assert json.loads(told)["requestId"] == failed.request_id
    assert "410" in refused  # printed by the client's compiled half, never as JSON
    assert json.loads(warned)["level"] == "WARNING"


# Any error status instead would crash the client's compiled half.
def test_lost_wait_for_events_is_taken_up_again(tmp_path: Path, way: str) -> None:
    with serve_many(tmp_path, WHO, way, 1) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == 1)
        runtime.api.events.put(HANG_UP)
        assert runtime.api.invoke(0).kind == "response"


def test_failed_init_is_posted_by_every_worker_and_ends_the_process(tmp_path: Path, way: str) -> None:
    with serve_many(tmp_path, "1 / 0", way, 3) as runtime:
        for status in (202, 403, 403):
            runtime.api.refusals.put(status)
        posted = [runtime.api.receive() for _ in range(3)]
        status, _ = runtime.ended()
    assert [(each.kind, each.json["errorType"]) for each in posted] == [("init/error", "ZeroDivisionError")] * 3
    assert status == 0


def test_each_worker_has_two_log_connections_of_its_own(tmp_path: Path, way: str) -> None:
    code = """
import logging, os, sys
def handler(event, context):
    print("printed", os.getpid())
    print("complained", os.getpid(), file=sys.stderr)
    logging.getLogger().warning("logged")
    return os.getpid()
"""
    provider = tmp_path / "log"
    settings = {"_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET": str(provider)}
    with log_provider(provider) as streams, serve_many(tmp_path / "task", code, way, 2, **settings) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == len(streams) / 2 == 2)
        posted = runtime.api.invoke(0)
        wait_until(lambda: sum(bytes(stream).count(b"\n") for stream in streams) == 3)
        assert runtime.stopped() == ""
    out, err = sorted((bytes(stream) for stream in streams if stream), key=len, reverse=True)
    printed, logged = out.decode().splitlines()
    assert printed == f"printed {posted.json}"
    assert (json.loads(logged)["message"], json.loads(logged)["requestId"]) == ("logged", posted.request_id)
    assert err.decode() == f"complained {posted.json}\n"


def test_any_value_of_the_variable_means_workers(tmp_path: Path, way: str) -> None:
    with serve_many(tmp_path, WHO, way, 1) as runtime:
        assert runtime.api.invoke(0).json[0] != runtime.process.pid

"""The Node.js runtime serving several invocations at a time, with threads, against a real Runtime API."""

import json
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from tests.support.runtime_api import HANG_UP, Runtime, running
from tests.support.workers import invoke_all, log_provider, wait_until

import torpor.sandbox.images as images
from torpor.sandbox.interpreters import Language, choose, discover

GUEST = Path(images.__file__).parent / "guest" / "nodejs"
NODE = choose(discover(), Language.NODE)

pytestmark = pytest.mark.skipif(NODE is None, reason="no Node.js on this host")


def serve(
    task: Path, code: str, *, workers: int = 1, most: int = 64, file: str = "index.mjs", **more: Any
) -> AbstractContextManager[Runtime]:
    task.mkdir(exist_ok=True)
    (task / file).write_text(code)
    assert NODE is not None
    settings = {
        "AWS_LAMBDA_MAX_CONCURRENCY": str(most),
        "AWS_LAMBDA_NODEJS_WORKER_COUNT": str(workers),
        "AWS_LAMBDA_LOG_FORMAT": "JSON",
    }
    return running([NODE.executable, str(GUEST / "index.mjs")], task, "index.handler", **{**settings, **more})


MEET = """
let here = 0, meet;
const met = new Promise((resolve) => { meet = resolve });
export const handler = async (event) => {
  if (++here === event.count) meet();
  await met;
  return here;
}"""


def test_one_thread_runs_several_invocations_at_a_time(tmp_path: Path) -> None:
    with serve(tmp_path, MEET) as runtime:
        posted = invoke_all(runtime, [{"count": 5}] * 5)
    assert [(each.kind, each.json) for each in posted.values()] == [("response", 5)] * 5


def test_next_event_is_asked_for_before_the_handler_runs(tmp_path: Path) -> None:
    code = "export const handler = async (e) => { const end = Date.now() + 500; while (Date.now() < end); return e.n }"
    with serve(tmp_path, code) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == 1)
        first = runtime.api.send({"n": 1})
        wait_until(lambda: runtime.api.events.empty() and len(runtime.api.waiting) == 1)
        assert runtime.api.posted.empty()
        assert runtime.api.receive().request_id == first


@pytest.mark.parametrize(
    ("most", "variable", "expected"), [(64, "3", 3), (2, "3", 2), (1, "8", 1), (3, "", 3), (3, "none", 3)]
)
def test_each_thread_waits_for_one_event(tmp_path: Path, most: int, variable: str, expected: int) -> None:
    code = "export const handler = async () => null"
    with serve(tmp_path, code, most=most, AWS_LAMBDA_NODEJS_WORKER_COUNT=variable) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == expected)
        time.sleep(0.3)
        assert len(runtime.api.waiting) == runtime.api.connections == expected


@pytest.mark.parametrize(
    ("quota", "count"),
    [("max 100000\n", 32), ("200000 100000\n", 16), ("150000 100000\n", 16), ("56000 100000", 8), ("", 8), ("odd", 8)],
)
def test_thread_count_follows_the_cpu_quota(quota: str, count: int) -> None:
    assert NODE is not None
    program = f"""import {{ workerCount }} from '{GUEST}/worker-count.mjs';
    console.log(workerCount({{ AWS_LAMBDA_MAX_CONCURRENCY: '64' }}, {json.dumps(quota)}, 4));"""
    argv = [NODE.executable, "--input-type=module", "--eval", program]
    assert int(subprocess.run(argv, capture_output=True, check=True).stdout) == count


def test_threads_load_the_handler_each_for_itself(tmp_path: Path) -> None:
    code = """import { threadId } from 'node:worker_threads';
    let mine = 0;
    export const handler = async () => {
      const end = Date.now() + 300;
      while (Date.now() < end);
      return [threadId, ++mine];
    }"""
    with serve(tmp_path, code, workers=2) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == 2)
        first, second = (posted.json for posted in invoke_all(runtime, [{}, {}]).values())
    assert sorted([first[1], second[1]]) in ([1, 1], [1, 2])
    assert first[0] != second[0] or {first[1], second[1]} == {1, 2}


def test_log_lines_and_store_belong_to_the_invocation_whose_code_runs(tmp_path: Path) -> None:
    code = """
    export const handler = async (event, context) => {
      for (let step = 0; step < 3; step++) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        console.log({step, mine: context.awsRequestId});
      }
      const store = globalThis.awslambda.InvokeStore;
      return [store.getRequestId(), store.getXRayTraceId(), store.getTenantId(), process.env._X_AMZN_TRACE_ID ?? null];
    }"""
    told = {"Lambda_Runtime_Trace_Id": "Root=1-2-3", "Lambda_Runtime_Aws_Tenant_Id": "blue"}
    with serve(tmp_path, code) as runtime:
        posted = invoke_all(runtime, [{}] * 4, **told)
        lines = [json.loads(line) for line in runtime.stopped().splitlines()]
    for request_id, each in posted.items():
        assert each.json == [request_id, "Root=1-2-3", "blue", None]
    assert len(lines) == 12
    assert all(line["requestId"] == line["message"]["mine"] and line["tenantId"] == "blue" for line in lines)


def test_failing_invocation_is_told_and_others_go_on(tmp_path: Path) -> None:
    code = """export const handler = async (event) => {
      if (event.fail) throw new TypeError('bad');
      if (event.big) return 10n;
      await new Promise((resolve) => setTimeout(resolve, 50));
      return 'good';
    }"""
    with serve(tmp_path, code) as runtime:
        posted = list(invoke_all(runtime, [{}, {"fail": True}, {"big": True}]).values())
        lines = [json.loads(line) for line in runtime.stopped().splitlines()]
    assert [each.kind for each in posted] == ["response", "error", "error"]
    assert [posted[0].json, posted[1].json["errorMessage"], posted[2].json["errorMessage"]] == [
        "good",
        "bad",
        "Unable to stringify response body",
    ]
    assert {line["requestId"] for line in lines} == {posted[1].request_id, posted[2].request_id}


def test_attempts_are_echoed_with_the_invocation_they_belong_to(tmp_path: Path) -> None:
    code = "export const handler = (e) => new Promise((resolve) => setTimeout(resolve, e.ms, e.ms))"
    with serve(tmp_path, code) as runtime:
        slow = runtime.api.send({"ms": 200}, Lambda_Runtime_Invocation_Id="slow")
        quick = runtime.api.send({"ms": 1}, Lambda_Runtime_Invocation_Id="quick")
        posted = [runtime.api.receive() for _ in range(2)]
    assert [each.request_id for each in posted] == [quick, slow]
    assert [each.headers["Lambda-Runtime-Invocation-Id"] for each in posted] == ["quick", "slow"]


def test_handler_with_a_callback_is_refused(tmp_path: Path) -> None:
    code = "export const handler = (event, context, callback) => callback(null, 1)"
    with serve(tmp_path, code, workers=2) as runtime:
        posted = [runtime.api.receive() for _ in range(2)]
        status, _ = runtime.ended()
    assert {each.kind for each in posted} == {"init/error"}
    assert {each.json["errorType"] for each in posted} == {"Runtime.CallbackHandlerDeprecated"}
    assert status == 1


def test_failed_init_is_posted_by_every_thread_and_ends_the_process(tmp_path: Path) -> None:
    with serve(tmp_path, "throw new RangeError('top')", workers=3) as runtime:
        for status in (202, 403, 403):
            runtime.api.refusals.put(status)
        posted = [runtime.api.receive() for _ in range(3)]
        status, output = runtime.ended()
    assert [(each.kind, each.json["errorType"]) for each in posted] == [("init/error", "RangeError")] * 3
    assert status == 1
    assert "403" not in output


def test_stray_error_ends_one_thread_with_all_it_runs_and_no_other(tmp_path: Path) -> None:
    code = """import { threadId } from 'node:worker_threads';
    export const handler = async (event) => {
      if (event.stray) setTimeout(() => { throw new TypeError('stray') }, 100);
      if (event.stray || event.stay) await new Promise(() => setInterval(() => {}, 1000));
      return threadId;
    }"""
    with serve(tmp_path, code, workers=2) as runtime:
        wait_until(lambda: len(runtime.api.waiting) == 2)
        posted = invoke_all(runtime, [{"stray": True}])
        assert [(each.kind, each.json["errorType"]) for each in posted.values()] == [("error", "TypeError")]
        wait_until(lambda: len(runtime.api.waiting) == 1)
        threads = {runtime.api.invoke({}).json for _ in range(5)}
        both = invoke_all(runtime, [{"stay": True}, {"stray": True}])
        status, _ = runtime.ended()
    assert len(threads) == 1
    assert [(each.kind, each.json["errorMessage"]) for each in both.values()] == [("error", "stray")] * 2
    assert status == 1


@pytest.mark.parametrize("status", [400, 410, 500])
def test_answer_that_is_not_taken_is_only_logged(tmp_path: Path, status: int) -> None:
    with serve(tmp_path, "export const handler = async (e) => e") as runtime:
        runtime.api.refusals.put(status)
        refused = runtime.api.invoke(1)
        assert runtime.api.invoke(2).json == 2
        line = json.loads(runtime.stopped().splitlines()[0])
    assert (line["level"], line["requestId"]) == ("WARN", refused.request_id)
    assert str(status) in line["message"]


@pytest.mark.parametrize("loss", [None, HANG_UP], ids=["refused", "hung up"])
def test_lost_wait_for_events_is_taken_up_again(tmp_path: Path, loss: Any) -> None:
    with serve(tmp_path, "export const handler = async (e) => e") as runtime:
        wait_until(lambda: len(runtime.api.waiting) == 1)
        runtime.api.events.put(loss)
        assert runtime.api.invoke("again").json == "again"
        assert "attempt 1 of 20" in runtime.stopped()


def test_each_thread_logs_over_a_connection_of_its_own(tmp_path: Path) -> None:
    code = """import { threadId } from 'node:worker_threads';
    console.log('loaded');
    export const handler = async (event) => { console.log('x'.repeat(event.size)); return threadId }"""
    provider = tmp_path / "log"
    with (
        log_provider(provider) as streams,
        serve(tmp_path / "task", code, workers=2, _LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET=str(provider)) as runtime,
    ):
        wait_until(lambda: len(runtime.api.waiting) == 2)
        posted = runtime.api.invoke({"size": 500_000})
        wait_until(lambda: sum(map(len, streams)) > 500_000 and all(each.endswith(b"\n") for each in streams))
        assert runtime.stopped() == ""
    logs = [[json.loads(line) for line in each.splitlines()] for each in streams]
    assert [log[0]["message"] for log in logs] == ["loaded"] * 2
    (line,) = (line for log in logs for line in log[1:])
    assert line["requestId"] == posted.request_id and len(line["message"]) == 500_000


def test_log_without_a_provider_goes_to_standard_output(tmp_path: Path) -> None:
    code = "console.log('loaded'); export const handler = async () => null"
    missing = {"_LAMBDA_TELEMETRY_LOG_FD_PROVIDER_SOCKET": str(tmp_path / "missing")}
    with serve(tmp_path, code, **missing) as runtime:
        assert runtime.api.invoke({}).kind == "response"
        assert json.loads(runtime.stopped())["message"] == "loaded"


def test_streamed_responses_overlap(tmp_path: Path) -> None:
    code = """
    let here = 0, meet;
    const met = new Promise((resolve) => { meet = resolve });
    export const handler = awslambda.streamifyResponse(async (event, stream, context) => {
      stream.write(`${event.name} `);
      if (++here === 2) meet();
      await met;
      stream.end(context.awsRequestId);
    })"""
    with serve(tmp_path, code) as runtime:
        posted = invoke_all(runtime, [{"name": "one"}, {"name": "two"}])
    assert [each.body.decode() for each in posted.values()] == [
        f"{name} {request_id}" for name, request_id in zip(("one", "two"), posted, strict=True)
    ]


def test_results_travel_over_connections_that_are_used_again(tmp_path: Path) -> None:
    with serve(tmp_path, "export const handler = async (e) => e") as runtime:
        ports = {runtime.api.invoke(number).port for number in range(30)}
        # A further one is made only when a result is there before the one before it was acknowledged.
        assert len(ports) <= 5
        assert runtime.api.connections <= 6

"""Messages of a real server of queues reach their function in batches, and are deleted once they are through."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.aws_support import archive, resources
from tests.contracts.queue_support import ERROR, QUICK, SUCCESS, Run, Scene, eventually, numbered, queues, reply, scene

HOUR = 3600


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with queues() as address:
        yield address


@pytest.fixture
def bench(tmp_path: Path, endpoint: str) -> Iterator[Scene]:
    with scene(tmp_path, endpoint) as running:
        yield running


def later(_run: Run) -> None:
    """The test answers."""


def test_ten_messages_come_as_one_event_and_are_deleted(bench: Scene) -> None:
    queue = bench.queue()
    queue.send_all(numbered(10))
    uuid = bench.map(queue)
    (run,) = bench.runs(1)
    assert sorted(run.bodies) == numbered(10)
    assert {record["eventSourceARN"] for record in run.records} == {queue.arn}
    assert {record["attributes"]["ApproximateReceiveCount"] for record in run.records} == {"1"}
    assert run.invocation.is_kept
    bench.says(uuid, "OK")
    eventually(lambda: queue.is_empty)
    assert len(bench.function.runs) == 1


def test_messages_are_gathered_until_the_window_has_passed(bench: Scene) -> None:
    queue = bench.queue()
    bench.map(queue, BatchSize=100, MaximumBatchingWindowInSeconds=1)
    begun = time.monotonic()
    for part in ("a", "b", "c"):
        queue.send_all(numbered(5, part))
    (run,) = bench.runs(1)
    assert len(run.bodies) == 15
    assert run.at - begun >= 1.0


def test_a_batch_that_is_complete_does_not_wait_for_its_window(bench: Scene) -> None:
    queue = bench.queue()
    queue.send_all(numbered(14))
    bench.map(queue, BatchSize=12, MaximumBatchingWindowInSeconds=300)
    (run,) = bench.runs(1)
    assert len(run.bodies) == 12
    eventually(lambda: queue.counts() == (0, 2))


def test_messages_of_more_than_an_event_holds_come_in_several(bench: Scene) -> None:
    queue = bench.queue(MaximumMessageSize=str(1024 * 1024))
    for number in range(8):
        queue.send(f"{number}" * 1_000_000)
    bench.map(queue, BatchSize=100, MaximumBatchingWindowInSeconds=1)
    runs = bench.runs(2)
    assert sorted(len(run.records) for run in runs) == [2, 6]


def test_messages_that_the_function_reports_come_again_and_the_others_are_deleted(bench: Scene) -> None:
    def report(run: Run) -> Any:
        failed = [each["messageId"] for each in run.records if each["body"] in ("body 01", "body 03")]
        first = len(bench.function.runs) == 1
        return reply({"batchItemFailures": [{"itemIdentifier": identity} for identity in failed if first]})

    bench.function.answer = report
    queue = bench.queue(1)
    queue.send_all(numbered(4))
    uuid = bench.map(queue, FunctionResponseTypes=["ReportBatchItemFailures"])
    eventually(lambda: queue.is_empty)
    first, *others = bench.function.runs
    assert sorted(first.bodies) == numbered(4)
    assert sorted(body for run in others for body in run.bodies) == ["body 01", "body 03"]
    assert bench.says(uuid, "OK") == "OK"


def test_a_reply_that_makes_no_sense_fails_the_whole_batch(bench: Scene) -> None:
    bench.function.answer = lambda run: reply({"batchItemFailures": [{"itemIdentifier": "nobody"}]})
    queue = bench.queue()
    queue.send_all(numbered(3))
    uuid = bench.map(queue, FunctionResponseTypes=["ReportBatchItemFailures"])
    bench.says(uuid, "PROBLEM: Function call failed")
    assert queue.counts() == (0, 3)


def test_messages_of_a_failed_call_come_again_after_the_queues_own_time(bench: Scene) -> None:
    bench.function.answer = lambda run: ERROR if len(bench.function.runs) == 1 else SUCCESS
    queue = bench.queue(1)
    queue.send("once more")
    uuid = bench.map(queue)
    bench.says(uuid, "PROBLEM: Function call failed")
    first, second = bench.runs(2)
    assert second.at - first.at > 0.9
    assert [run.records[0]["attributes"]["ApproximateReceiveCount"] for run in (first, second)] == ["1", "2"]
    bench.says(uuid, "OK")
    eventually(lambda: queue.is_empty)


def test_what_no_filter_keeps_is_deleted_unseen(bench: Scene) -> None:
    queue = bench.queue()
    queue.send('{"kind":"order"}', '{"kind":"other"}', "plain", '{"kind":"order","n":2}')
    bench.map(queue, FilterCriteria={"Filters": [{"Pattern": '{"body":{"kind":["order"]}}'}]})
    eventually(lambda: queue.is_empty)
    assert sorted(bench.function.bodies) == sorted(['{"kind":"order"}', '{"kind":"order","n":2}'])


def test_no_more_batches_run_at_once_than_the_mapping_allows(bench: Scene) -> None:
    bench.function.answer = later
    queue = bench.queue()
    queue.send_all(numbered(12))
    bench.map(queue, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    for number in range(12):
        bench.runs(min(number + 2, 12))
        time.sleep(0.05)
        assert len(bench.function.runs) == min(number + 2, 12)
        bench.function.runs[number].end(SUCCESS)
    eventually(lambda: queue.is_empty)
    assert bench.function.most == 2
    assert sorted(bench.function.bodies) == numbered(12)


def test_a_change_of_a_mapping_lets_no_more_batches_run_at_once(bench: Scene) -> None:
    bench.function.answer = later
    queue = bench.queue()
    queue.send_all(numbered(8))
    uuid = bench.map(queue, BatchSize=1, ScalingConfig={"MaximumConcurrency": 2})
    bench.runs(2)
    bench.client.update_event_source_mapping(UUID=uuid, BatchSize=2)
    bench.settled(uuid)
    time.sleep(0.1)
    assert len(bench.function.runs) == 2
    bench.function.answer = lambda run: SUCCESS
    for run in list(bench.function.runs):
        run.end(SUCCESS)
    eventually(lambda: queue.is_empty)
    assert bench.function.most == 2
    assert sorted(bench.function.bodies) == numbered(8)


def test_a_full_queue_has_several_batches_at_once(bench: Scene) -> None:
    bench.function.answer = later
    queue = bench.queue()
    queue.send_all(numbered(50))
    bench.map(queue)
    for run in bench.runs(5):
        run.end(SUCCESS)
    eventually(lambda: queue.is_empty)
    assert sorted(bench.function.bodies) == numbered(50)


def test_messages_stay_hidden_while_a_call_outlasts_the_queues_time(bench: Scene) -> None:
    bench.function.answer = later
    queue = bench.queue(1)
    queue.send("slow")
    uuid = bench.map(queue)
    (run,) = bench.runs(1)
    until = time.monotonic() + 2.2
    while time.monotonic() < until:
        assert queue.counts() == (0, 1)
        time.sleep(0.05)
    run.end(SUCCESS)
    bench.says(uuid, "OK")
    eventually(lambda: queue.is_empty)
    assert len(bench.function.runs) == 1


def test_messages_stay_hidden_while_a_batch_is_gathered(bench: Scene) -> None:
    queue = bench.queue(1)
    bench.map(queue, BatchSize=100, MaximumBatchingWindowInSeconds=2)
    queue.send("early")
    (run,) = bench.runs(1)
    assert run.records[0]["attributes"]["ApproximateReceiveCount"] == "1"
    eventually(lambda: queue.is_empty)


def test_a_mapping_that_is_disabled_takes_nothing_until_it_is_enabled(bench: Scene) -> None:
    queue = bench.queue()
    queue.send("first")
    uuid = bench.map(queue, Enabled=False)
    assert bench.shown(uuid)["State"] == "Disabled"
    assert bench.cloud.calls == [] and queue.counts() == (1, 0)

    assert bench.client.update_event_source_mapping(UUID=uuid, Enabled=True)["State"] == "Enabling"
    assert bench.settled(uuid) == "Enabled"
    eventually(lambda: queue.is_empty)

    assert bench.client.update_event_source_mapping(UUID=uuid, Enabled=False)["State"] == "Disabling"
    assert bench.settled(uuid) == "Disabled"
    calls = len(bench.cloud.calls)
    queue.send("second")
    time.sleep(0.3)
    assert queue.counts() == (1, 0)
    assert len(bench.cloud.calls) == calls and bench.function.bodies == ["first"]


def test_what_was_received_and_has_not_begun_is_given_back_when_the_mapping_is_disabled(bench: Scene) -> None:
    queue = bench.queue(HOUR)
    queue.send_all(numbered(3))
    uuid = bench.map(queue, BatchSize=100, MaximumBatchingWindowInSeconds=300)
    eventually(lambda: queue.counts() == (0, 3))
    bench.client.update_event_source_mapping(UUID=uuid, Enabled=False)
    eventually(lambda: queue.counts() == (3, 0))
    assert bench.settled(uuid) == "Disabled"
    assert bench.function.runs == []


def test_a_batch_that_runs_ends_although_its_mapping_is_deleted(bench: Scene) -> None:
    bench.function.answer = later
    queue = bench.queue(HOUR)
    queue.send("last")
    uuid = bench.map(queue)
    (run,) = bench.runs(1)
    assert bench.client.delete_event_source_mapping(UUID=uuid)["State"] == "Deleting"
    run.end(SUCCESS)
    eventually(lambda: queue.is_empty)
    queue.send("too late")
    eventually(lambda: queue.counts() == (1, 0))
    assert len(bench.function.runs) == 1


def test_the_servers_end_waits_for_batches_and_gives_back_the_rest(bench: Scene) -> None:
    bench.function.answer = later
    busy, gathered = bench.queue(HOUR), bench.queue(HOUR)
    busy.send("runs")
    gathered.send("waits")
    bench.map(busy)
    bench.map(gathered, BatchSize=100, MaximumBatchingWindowInSeconds=300)
    (run,) = bench.runs(1)
    eventually(lambda: gathered.counts() == (0, 1))
    bench.loop.call_soon_threadsafe(lambda: bench.loop.call_later(0.3, run.end, SUCCESS))
    bench.there(bench.pollers.close(10.0))
    assert busy.is_empty and gathered.counts() == (1, 0)


def test_a_server_that_starts_reads_the_queues_it_knew(tmp_path: Path, endpoint: str) -> None:
    documents = resources()
    with scene(tmp_path / "one", endpoint, kept=documents) as before:
        queue = before.queue()
        uuid = before.map(queue)
        before.there(before.pollers.close(5.0))
    time.sleep(QUICK.wait + 0.3)  # whoever asked last may still be answered, and nobody hears that
    queue.send("meanwhile")
    with scene(tmp_path / "two", endpoint, kept=documents) as after:
        assert after.runs(1)[0].bodies == ["meanwhile"]
        assert after.says(uuid, "OK")


def test_the_function_is_found_anew_for_every_batch(bench: Scene) -> None:
    bench.client.publish_version(FunctionName="greet")
    bench.client.create_alias(FunctionName="greet", Name="live", FunctionVersion="1")
    bench.client.put_function_concurrency(FunctionName="greet", ReservedConcurrentExecutions=7)
    queue = bench.queue()
    bench.map(queue, "greet:live")
    queue.send("one")
    bench.runs(1)
    bench.client.update_function_code(FunctionName="greet", ZipFile=archive({"app.py": "x = 2\n"}))
    bench.client.publish_version(FunctionName="greet")
    bench.client.update_alias(FunctionName="greet", Name="live", FunctionVersion="2")
    queue.send("two")
    bench.runs(2)
    seen = bench.server.dispatcher.seen
    assert [version.version for version, _, _ in seen] == ["1", "2"]
    assert {(invocation.qualifier, reserved) for _, invocation, reserved in seen} == {("live", 7)}


def test_a_changed_mapping_is_followed_at_once(bench: Scene) -> None:
    queue = bench.queue(HOUR)
    queue.send_all(numbered(4))
    uuid = bench.map(queue, BatchSize=100, MaximumBatchingWindowInSeconds=300)
    eventually(lambda: queue.counts() == (0, 4))
    changed = bench.client.update_event_source_mapping(UUID=uuid, BatchSize=2, MaximumBatchingWindowInSeconds=0)
    assert changed["State"] == "Updating"
    assert bench.settled(uuid) == "Enabled"
    eventually(lambda: queue.is_empty)
    assert {len(run.bodies) for run in bench.function.runs} <= {1, 2}
    assert sorted(bench.function.bodies) == numbered(4)

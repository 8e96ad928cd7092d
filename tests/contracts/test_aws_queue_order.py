"""The order of messages in a FIFO queue, and messages that go in a circle."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from moto.sqs.models import Queue as SqsQueue
from tests.contracts.queue_support import SUCCESS, Queue, Run, Scene, eventually, numbered, queues, reply, scene

ROOT = "1-5759e988-bd862e3fe1be46a994272793"
HOUR = 3600


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with queues() as address:
        yield address


@pytest.fixture
def bench(tmp_path: Path, endpoint: str) -> Iterator[Scene]:
    with scene(tmp_path, endpoint) as running:
        yield running


def send_groups(queue: Queue, groups: str, count: int) -> None:
    for body in numbered(count, ""):
        for group in groups:
            queue.send(group + body, MessageGroupId=group)


def test_a_fifo_queue_s_groups_are_read_in_order_one_batch_at_a_time(bench: Scene) -> None:
    queue = bench.fifo()
    send_groups(queue, "ab", 12)
    bench.map(queue, BatchSize=5)
    eventually(lambda: queue.is_empty)
    for group in "ab":
        assert [body for body in bench.function.bodies if body.startswith(group)] == numbered(12, group)


def test_groups_of_a_fifo_queue_are_handled_side_by_side_each_in_its_order(bench: Scene) -> None:
    bench.function.answer = lambda run: None
    queue = bench.fifo()
    for group in "abc":
        queue.send_all(numbered(4, group), MessageGroupId=group)
    bench.map(queue, BatchSize=2)
    first = bench.runs(3)
    assert sorted(run.bodies for run in first) == [numbered(2, group) for group in "abc"]

    (slow, *others) = first
    for run in others:
        run.end(SUCCESS)
    assert slow.bodies[0][0] not in {run.bodies[0][0] for run in bench.runs(5)[3:]}
    for run in (slow, *bench.runs(5)[3:]):
        run.end(SUCCESS)
    bench.runs(6)[5].end(SUCCESS)
    eventually(lambda: queue.is_empty)
    assert len(bench.function.runs) == 6


def test_a_queue_that_mixes_up_its_groups_does_not_mix_up_the_function(bench: Scene) -> None:
    """It gives messages of a group that is being handled."""
    bench.function.answer = lambda run: None
    queue = bench.fifo()
    queue.send_all(numbered(4, "a"), MessageGroupId="a")
    with patch.object(SqsQueue, "pending_message_groups", property(lambda _: set())):
        bench.map(queue, BatchSize=2)
        (run,) = bench.runs(1)
        eventually(lambda: queue.counts() == (0, 4))
        assert len(bench.function.runs) == 1
        run.end(SUCCESS)
        (_, run) = bench.runs(2)
        run.end(SUCCESS)
        eventually(lambda: queue.is_empty)
    assert bench.function.bodies == numbered(4, "a")


def test_what_follows_a_failed_message_in_its_group_is_not_deleted_either(bench: Scene) -> None:
    def report(run: Run) -> Any:
        failed = [each["messageId"] for each in run.records if each["body"] == "a 02"]
        return reply({"batchItemFailures": [{"itemIdentifier": identity} for identity in failed]})

    bench.function.answer = report
    queue = bench.fifo(HOUR)
    send_groups(queue, "ab", 4)
    bench.map(queue, FunctionResponseTypes=["ReportBatchItemFailures"])
    (run,) = bench.runs(1)
    eventually(lambda: queue.counts() == (0, 2))
    left = bench.left(queue)
    assert {record["body"] for record in run.records if record["messageId"] in left} == {"a 02", "a 03"}


def traced(resource_count: int, mark: str) -> dict[str, Any]:
    header = f"Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=0;Lineage=1:{mark}:{resource_count}"
    return {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}}


def test_the_trace_of_the_most_often_called_message_is_handed_on_and_counted(bench: Scene) -> None:
    queue = bench.queue()
    queue.send("unrelated", **traced(9, "00000000"))
    bench.map(queue)
    (run,) = bench.runs(1)
    assert run.invocation.trace.startswith(f"Root={ROOT};")
    mark = run.invocation.trace.split("|")[-1].split(":")[0]
    assert f"Lineage=1:00000000:9|{mark}:1" in run.invocation.trace

    eventually(lambda: queue.is_empty)
    queue.send_all(["plain"])
    (_, run) = bench.runs(2)
    assert "Lineage" not in run.invocation.trace
    many = bench.queue()
    for count in (3, 5, 4):
        many.send(f"called {count}", **traced(count, mark))
    bench.map(many)
    (_, _, run) = bench.runs(3)
    assert f"Lineage=1:{mark}:6" in run.invocation.trace


def test_messages_that_go_in_a_circle_are_left_to_the_queue_unless_that_is_allowed(bench: Scene) -> None:
    probe, queue = bench.queue(), bench.queue(1)
    probe.send("probe", **traced(1, "00000000"))
    bench.map(probe)
    (run,) = bench.runs(1)
    mark = run.invocation.trace.split("|")[-1].split(":")[0]
    queue.send("round", **traced(16, mark))
    queue.send("straight")
    uuid = bench.map(queue)
    bench.says(uuid, "PROBLEM: The function was invoked recursively too often")
    eventually(lambda: bench.function.bodies == ["probe", "straight"])
    eventually(lambda: sum(queue.counts()) == 1)
    bench.client.put_function_recursion_config(FunctionName="greet", RecursiveLoop="Allow")
    eventually(lambda: queue.is_empty)
    assert bench.function.bodies == ["probe", "straight", "round"]

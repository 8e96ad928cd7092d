"""Queues that answer with nonsense or not at all, functions that cannot run: no reading ends, and nothing spins."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.aws_support import new_function
from tests.contracts.broken_endpoint import Answer, Endpoint, broken_endpoint, document, page
from tests.contracts.queue_support import QUICK, SUCCESS, Run, Scene, eventually, queues, scene

from torpor.model.errors import PlatformError, ShuttingDown, Throttled
from torpor.model.invocation import Outcome, OutcomeStatus

HOUR = 3600
TIMING = replace(QUICK, patience=0.5)
GOOD = {"MessageId": "one", "ReceiptHandle": "handle", "Body": "text"}
NONSENSE: dict[str, Callable[[bytes], Answer | None]] = {
    "a page": lambda body: page(),
    "an error page": lambda body: page(500),
    "a refusal": lambda body: page(403),
    "too many requests": lambda body: (429, "text/plain", b"slow down"),
    "half a document": lambda body: (200, "application/x-amz-json-1.0", b'{"Messages":[{"MessageId":"x"'),
    "no answer": lambda body: None,
    "an array": lambda body: document([1, 2]),
    "messages that are none": lambda body: document({"Messages": 5}),
    "a message that is none": lambda body: document({"Messages": ["text", None, 7]}),
    "a message without a handle": lambda body: document({"Messages": [{**GOOD, "ReceiptHandle": ""}]}),
    "a message without a body": lambda body: document({"Messages": [{"MessageId": "one", "ReceiptHandle": "h"}]}),
    "a message with a number for an id": lambda body: document({"Messages": [{**GOOD, "MessageId": 1}]}),
    "attributes that are none": lambda body: document({"Messages": [{**GOOD, "MessageAttributes": {"a": {}}}]}),
    "a message that is too large": lambda body: document({"Messages": [{**GOOD, "Body": "x" * 7_000_000}]}),
}


@pytest.fixture(scope="module")
def real() -> Iterator[str]:
    with queues() as address:
        yield address


@pytest.fixture
def endpoint(real: str) -> Iterator[Endpoint]:
    with broken_endpoint(real) as broken:
        yield broken


@pytest.fixture
def bench(tmp_path: Path, endpoint: Endpoint) -> Iterator[Scene]:
    with scene(tmp_path, endpoint.address, TIMING) as running:
        running.use_queues_at(endpoint.real)
        yield running


def left_over(bench: Scene) -> list[str]:
    """Tasks of pollers that are still there."""

    async def found() -> list[str]:
        tasks = [repr(task.get_coro()) for task in asyncio.all_tasks()]
        return [task for task in tasks if any(part in task for part in ("Queue", "Batch", "CloudServices"))]

    return bench.there(found())


def still_works(bench: Scene, uuid: str, queue: Any) -> None:
    before = len(bench.function.runs)
    queue.send("afterwards")
    eventually(lambda: "afterwards" in bench.function.bodies[before:])
    bench.says(uuid, "OK")
    eventually(lambda: queue.is_empty)


@pytest.mark.parametrize("kind", NONSENSE)
def test_nonsense_in_place_of_messages_is_told_and_survived(bench: Scene, endpoint: Endpoint, kind: str) -> None:
    endpoint.answers["ReceiveMessage"] = NONSENSE[kind]
    queue = bench.queue(1)
    uuid = bench.map(queue)
    said = bench.says(uuid, "PROBLEM: The queue does not work as it should: ")
    assert len(said) < 300 and "\n" not in said
    before = endpoint.count("ReceiveMessage")
    time.sleep(0.3)
    assert endpoint.count("ReceiveMessage") - before <= 3
    endpoint.mend()
    still_works(bench, uuid, queue)
    bench.there(bench.pollers.close(0.0))
    assert left_over(bench) == []


def test_a_queue_that_hangs_is_told_and_what_it_gives_too_late_goes_back(bench: Scene, endpoint: Endpoint) -> None:
    messages, given_back = [{**GOOD, "Body": "late"}], list[bytes]()

    def late(_body: bytes) -> Answer | None:
        mine = [messages.pop()] if messages else None
        endpoint.released.wait(10)
        return document({"Messages": mine}) if mine else None

    queue = bench.queue(HOUR)
    uuid = bench.map(queue)
    endpoint.answers["ReceiveMessage"] = late
    endpoint.answers["ChangeMessageVisibilityBatch"] = lambda body: given_back.append(body) or document({})
    bench.says(uuid, "PROBLEM: The queue does not work as it should: It does not answer.")
    endpoint.released.set()
    eventually(lambda: any(b'"handle"' in body and b'"VisibilityTimeout": 0' in body for body in given_back))
    endpoint.mend()
    still_works(bench, uuid, queue)
    assert "late" not in bench.function.bodies


@pytest.mark.parametrize("kind", ["a page", "no answer", "hangs", "no number"])
def test_a_mapping_settles_although_its_queue_cannot_be_read(bench: Scene, endpoint: Endpoint, kind: str) -> None:
    others = {"hangs": endpoint.hang, "no number": lambda body: document({"Attributes": {"VisibilityTimeout": "long"}})}
    endpoint.all((NONSENSE | others)[kind])
    queue = bench.queue(1)
    uuid = bench.map(queue, settled=False)
    assert bench.settled(uuid) == "Enabled"
    bench.says(uuid, "PROBLEM: The queue does not work as it should: ")
    bench.client.update_event_source_mapping(UUID=uuid, Enabled=False)
    assert bench.settled(uuid) == "Disabled"
    bench.client.update_event_source_mapping(UUID=uuid, Enabled=True)
    assert bench.settled(uuid) == "Enabled"
    endpoint.mend()
    still_works(bench, uuid, queue)
    bench.client.delete_event_source_mapping(UUID=uuid)


def test_a_queue_that_does_not_exist_is_told_and_read_once_it_does(bench: Scene) -> None:
    uuid = bench.map("arn:aws:sqs:us-east-1:000000000000:not-yet")
    bench.says(uuid, "does not exist")
    bench.sqs.create_queue(QueueName="not-yet")
    bench.says(uuid, "No records processed")


def test_a_queue_that_answers_at_once_without_messages_is_asked_slowly(bench: Scene, endpoint: Endpoint) -> None:
    endpoint.answers["ReceiveMessage"] = lambda body: document({})
    bench.map(bench.queue())
    time.sleep(0.5)
    assert endpoint.count("ReceiveMessage") <= 2


def test_messages_whose_receipts_are_refused_are_told_and_do_not_spin(bench: Scene, endpoint: Endpoint) -> None:
    endpoint.answers["ReceiveMessage"] = lambda body: document({"Messages": [GOOD]})
    queue = bench.queue()
    uuid = bench.map(queue)
    bench.says(uuid, "PROBLEM: The queue does not work as it should: Messages could not be deleted")
    before = len(bench.function.runs)
    time.sleep(0.5)
    assert len(bench.function.runs) - before <= 5
    endpoint.mend()
    still_works(bench, uuid, queue)


def test_what_is_not_deleted_at_first_is_tried_again(bench: Scene, endpoint: Endpoint) -> None:
    def unsure(body: bytes) -> Answer | None:
        times = endpoint.count("DeleteMessageBatch")
        if times == 1:
            return page(503)
        if times == 2:
            return document({"Failed": [{"Id": "0", "SenderFault": False, "Code": "InternalError"}], "Successful": []})
        endpoint.answers.pop("DeleteMessageBatch")
        return page(500)

    endpoint.answers["DeleteMessageBatch"] = unsure
    queue = bench.queue(HOUR)
    queue.send("only once")
    bench.map(queue)
    eventually(lambda: queue.is_empty)
    assert bench.function.bodies == ["only once"] and endpoint.count("DeleteMessageBatch") == 4


def test_a_call_goes_on_although_its_messages_cannot_be_kept_hidden(bench: Scene, endpoint: Endpoint) -> None:
    bench.function.answer = lambda run: None
    endpoint.answers["ChangeMessageVisibilityBatch"] = lambda body: page()
    queue = bench.queue(2)
    queue.send("slow")
    uuid = bench.map(queue)
    (run,) = bench.runs(1)
    eventually(lambda: endpoint.count("ChangeMessageVisibilityBatch") >= 2)
    run.end(SUCCESS)
    bench.says(uuid, "OK")
    eventually(lambda: queue.is_empty)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Throttled("No room.", reason="ConcurrentInvocationLimitExceeded"), "PROBLEM: Function call was throttled"),
        (ShuttingDown("The server ends."), "PROBLEM: Function call failed"),
        (PlatformError("No sandbox."), "PROBLEM: Function call failed"),
    ],
)
def test_messages_of_a_call_that_did_not_run_go_back_at_once(bench: Scene, error: Any, said: str) -> None:
    bench.function.answer = lambda run: error
    queue = bench.queue(HOUR)
    queue.send("wait for me")
    uuid = bench.map(queue)
    bench.says(uuid, said)
    first, second = bench.runs(2)[:2]
    assert second.at - first.at >= 0.1
    bench.function.answer = lambda run: SUCCESS
    bench.says(uuid, "OK")
    eventually(lambda: queue.is_empty)


def test_a_function_without_room_takes_what_it_can_and_few_messages_are_received_twice(bench: Scene) -> None:
    def one_at_a_time(run: Run) -> Any:
        if bench.function.running > 1:
            return Throttled("No room.", reason="ReservedFunctionConcurrentInvocationLimitExceeded")
        bench.loop.call_later(0.02, run.end, SUCCESS)
        return None

    bench.function.answer = one_at_a_time
    queue = bench.queue(HOUR)
    queue.send_all([f"{number:02}" for number in range(40)])
    bench.map(queue, BatchSize=2)
    eventually(lambda: queue.is_empty)
    counts = [int(each["attributes"]["ApproximateReceiveCount"]) for run in bench.function.runs for each in run.records]
    assert max(counts) <= 3 and sum(count > 1 for count in counts) <= 10


def test_a_platform_that_fails_leaves_messages_to_the_queues_own_time(bench: Scene) -> None:
    bench.function.answer = lambda run: Outcome(status=OutcomeStatus.FAILURE, payload=b"")
    queue = bench.queue(HOUR)
    queue.send("lost sandbox")
    uuid = bench.map(queue)
    bench.says(uuid, "PROBLEM: Function call failed")
    assert queue.counts() == (0, 1)


def test_nothing_is_received_for_a_function_that_is_gone_or_stopped(bench: Scene, endpoint: Endpoint) -> None:
    queue = bench.queue()
    uuid = bench.map(queue)
    bench.client.delete_function(FunctionName="greet")
    bench.says(uuid, "PROBLEM: Function not found")
    queue.send("patient")
    asked = endpoint.count("ReceiveMessage")
    assert queue.counts() == (1, 0)
    new_function(bench.client, "greet")
    bench.client.put_function_concurrency(FunctionName="greet", ReservedConcurrentExecutions=0)
    bench.says(uuid, "PROBLEM: The function's reserved concurrency is 0")
    assert queue.counts() == (1, 0) and endpoint.count("ReceiveMessage") <= asked + 1
    bench.client.delete_function_concurrency(FunctionName="greet")
    eventually(lambda: queue.is_empty)
    assert bench.function.bodies == ["patient"]

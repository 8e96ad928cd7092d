"""One queue's calls: in parts, again where that helps, and never more of them without an answer than a few."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from torpor.api.aws.queue_client import QueueClient, QueueFacts, Timing
from torpor.model.errors import TargetDown, TargetRefused
from torpor.model.parcel import ToService

ARN = "arn:aws:sqs:eu-west-1:000000000000:jobs"
QUICK = Timing(wait=0, patience=0.02, settle=0.1, scale=0.001)


class Cloud:
    """Answers as a test says."""

    def __init__(self, answer: Callable[[ToService], Awaitable[Any]]) -> None:
        self.calls: list[ToService] = []
        self._answer = answer

    async def call(self, parcel: ToService, /) -> Mapping[str, Any]:
        self.calls.append(parcel)
        found: Mapping[str, Any] = await self._answer(parcel)
        return found


async def never(_parcel: ToService) -> Any:
    await asyncio.Event().wait()


async def all_taken(parcel: ToService) -> Any:
    return {"Successful": [{"Id": entry["Id"]} for entry in parcel.values["Entries"]]}


def answering(value: Any) -> Callable[[ToService], Awaitable[Any]]:
    async def answer(_parcel: ToService) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return answer


def client(cloud: Cloud, timing: Timing = QUICK) -> QueueClient:
    return QueueClient(cloud, ARN, timing, lambda: None)


async def test_a_queue_is_called_by_its_address_in_its_region() -> None:
    cloud = Cloud(answering({"Messages": [1, 2]}))

    assert await client(cloud, replace(QUICK, wait=20)).receive(7, 30) == [1, 2]
    assert (cloud.calls[0].service, cloud.calls[0].region) == ("sqs", "eu-west-1")
    assert cloud.calls[0].values == {
        "QueueUrl": "https://sqs.eu-west-1.amazonaws.com/000000000000/jobs",
        "MaxNumberOfMessages": 7,
        "WaitTimeSeconds": 20,
        "VisibilityTimeout": 30,
        "AttributeNames": ["All"],
        "MessageAttributeNames": ["All"],
    }


async def test_messages_are_deleted_in_tens_and_each_once() -> None:
    cloud = Cloud(all_taken)
    receipts = [f"handle {number}" for number in range(25)]

    await client(cloud).delete([*receipts, receipts[0]])

    entries = [call.values["Entries"] for call in cloud.calls]
    assert sorted(map(len, entries)) == [5, 10, 10]
    assert sorted(entry["ReceiptHandle"] for part in entries for entry in part) == sorted(receipts)
    assert all(len({entry["Id"] for entry in part}) == len(part) for part in entries)


async def test_only_what_was_not_deleted_is_tried_again() -> None:
    async def one_less(parcel: ToService) -> Any:
        return {"Successful": [{"Id": entry["Id"]} for entry in parcel.values["Entries"][1:]]}

    cloud = Cloud(one_less)
    with pytest.raises(TargetRefused, match="could not be deleted: Its answer does not tell"):
        await client(cloud).delete(["a", "b", "c"])

    handles = [[entry["ReceiptHandle"] for entry in call.values["Entries"]] for call in cloud.calls]
    assert handles == [["a", "b", "c"], ["a"], ["a"], ["a"]]


async def test_what_is_refused_for_good_is_not_tried_again() -> None:
    failed = {"Failed": [{"Id": "0", "SenderFault": True, "Code": "ReceiptHandleIsInvalid", "Message": "no"}]}
    cloud = Cloud(answering(failed))
    with pytest.raises(TargetRefused, match="ReceiptHandleIsInvalid: no"):
        await client(cloud).delete(["a"])

    assert len(cloud.calls) == 1


async def test_a_queue_that_is_down_is_tried_again_and_then_told() -> None:
    cloud = Cloud(answering(TargetDown("Nobody there.")))
    with pytest.raises(TargetRefused, match=r"Nobody there\."):
        await client(cloud).delete(["a"])

    assert len(cloud.calls) == 4


async def test_hiding_never_fails() -> None:
    for answer in (answering(TargetDown("no")), answering(TargetRefused("no")), answering({}), answering(7), never):
        cloud = Cloud(answer)
        calls = client(cloud)
        await calls.hide(["a"], 5)
        assert cloud.calls[0].values["Entries"] == [{"Id": "0", "ReceiptHandle": "a", "VisibilityTimeout": 5}]
        await calls.close()


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"VisibilityTimeout": "30", "ApproximateNumberOfMessages": "7"}, QueueFacts(30, 7)),
        ({"VisibilityTimeout": "0"}, QueueFacts(1, 0)),
        ({"VisibilityTimeout": "99999999"}, QueueFacts(43_200, 0)),
    ],
)
async def test_a_queue_tells_its_facts(attributes: dict[str, str], expected: QueueFacts) -> None:
    assert await client(Cloud(answering({"Attributes": attributes}))).facts() == expected


@pytest.mark.parametrize(
    "answer", [{}, {"Attributes": None}, {"Attributes": []}, {"Attributes": {"VisibilityTimeout": "x"}}, None, "text"]
)
async def test_facts_that_make_no_sense_are_an_error(answer: Any) -> None:
    with pytest.raises(TargetDown):
        await client(Cloud(answering(answer))).facts()


@pytest.mark.parametrize("messages", [5, "text", {"a": 1}])
async def test_messages_that_are_no_list_are_an_error(messages: Any) -> None:
    with pytest.raises(TargetDown):
        await client(Cloud(answering({"Messages": messages}))).receive(1, 30)


@pytest.mark.parametrize(
    ("headers", "is_read"),
    [
        ({"content-type": "application/x-amz-json-1.0", "content-length": "2"}, True),
        ({"content-type": "application/x-amz-json-1.0"}, True),
        ({"content-type": "text/html; charset=utf-8", "content-length": "2"}, False),
        ({"content-type": "application/x-amz-json-1.0", "content-length": "4000"}, False),
    ],
)
async def test_a_body_of_which_nothing_could_be_read_is_an_error(headers: dict[str, str], is_read: bool) -> None:
    calls = client(Cloud(answering({"ResponseMetadata": {"HTTPHeaders": headers}})))
    if is_read:
        assert not await calls.receive(1, 30)
    else:
        with pytest.raises(TargetDown, match="cannot be read"):
            await calls.receive(1, 30)


async def test_an_unexpected_error_is_told_as_one_of_the_queue() -> None:
    with pytest.raises(TargetDown, match="KeyError: 'x'"):
        await client(Cloud(answering(KeyError("x")))).receive(1, 30)


async def test_no_more_than_a_few_calls_hang_at_once() -> None:
    cloud = Cloud(never)
    calls = client(cloud, replace(QUICK, patience=0.0))
    for _ in range(40):
        with pytest.raises(TargetDown, match="does not answer"):
            await calls.facts()

    assert len(cloud.calls) == 16 and calls.is_called
    await calls.close()
    assert not calls.is_called and len(asyncio.all_tasks()) == 1


async def test_messages_that_come_when_nobody_waits_any_more_are_given_back() -> None:
    arrive, over = asyncio.Event(), asyncio.Event()

    async def slow(parcel: ToService) -> Any:
        if parcel.operation == "receive_message":
            await arrive.wait()
            return {"Messages": [{"ReceiptHandle": "late"}, {"ReceiptHandle": 7}, None]}
        return await all_taken(parcel)

    cloud = Cloud(slow)
    calls = QueueClient(cloud, ARN, QUICK, lambda: None if calls.is_called else over.set())
    with pytest.raises(TargetDown):
        await calls.receive(1, 30)
    cancelled = asyncio.ensure_future(calls.receive(1, 30))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)

    arrive.set()
    await asyncio.wait_for(over.wait(), 5)
    given_back = [call.values["Entries"] for call in cloud.calls if call.operation != "receive_message"]
    assert given_back == [[{"Id": "0", "ReceiptHandle": "late", "VisibilityTimeout": 0}]] * 2

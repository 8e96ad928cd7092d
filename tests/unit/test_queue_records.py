"""Messages of a queue as records, and what a function answers about them."""

import base64
import json
from typing import Any

import pytest
from botocore.parsers import create_parser
from botocore.session import Session
from hypothesis import given
from hypothesis import strategies as st

from torpor.contracts.lambda_.queue_records import event_of, failed_in_order, failed_items, record_of

ARN = "arn:aws:sqs:eu-west-1:123456789012:jobs"
MESSAGE = {
    "MessageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
    "ReceiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
    "MD5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
    "Body": "Test message.",
    "Attributes": {
        "ApproximateReceiveCount": "1",
        "SentTimestamp": "1545082649183",
        "SenderId": "AIDAIENQZJOLO23YVJ4VO",
        "ApproximateFirstReceiveTimestamp": "1545082649185",
    },
}


def test_a_message_is_the_contracts_record() -> None:
    assert record_of(MESSAGE, ARN) == {
        "messageId": "059f36b4-87a3-44ab-83d2-661975830a7d",
        "receiptHandle": "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a",
        "body": "Test message.",
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": "1545082649183",
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": "1545082649185",
        },
        "messageAttributes": {},
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "eu-west-1",
    }


def test_attributes_are_text_or_base64() -> None:
    attributes = {
        "color": {"StringValue": "red", "DataType": "String"},
        "size": {"StringValue": "12.5", "DataType": "Number.float"},
        "raw": {"BinaryValue": b"\x00\xff", "DataType": "Binary"},
        "none": {"StringValue": "", "DataType": "String"},
    }
    record = record_of({**MESSAGE, "MessageAttributes": attributes, "MD5OfMessageAttributes": "abc"}, ARN)
    empty: dict[str, Any] = {"stringListValues": [], "binaryListValues": []}
    assert record["messageAttributes"] == {
        "color": {"stringValue": "red", "dataType": "String"} | empty,
        "size": {"stringValue": "12.5", "dataType": "Number.float"} | empty,
        "raw": {"binaryValue": base64.b64encode(b"\x00\xff").decode(), "dataType": "Binary"} | empty,
        "none": {"stringValue": "", "dataType": "String"} | empty,
    }
    assert record["md5OfMessageAttributes"] == "abc"


def test_what_the_official_client_reads_becomes_a_record() -> None:
    operation = Session().get_service_model("sqs").operation_model("ReceiveMessage")
    sent = {
        "MessageId": "m-1",
        "ReceiptHandle": "handle",
        "MD5OfBody": "abc",
        "Body": '{"größe": 1}',
        "Attributes": {"MessageGroupId": "g", "ApproximateReceiveCount": "1"},
        "MD5OfMessageAttributes": "def",
        "MessageAttributes": {"raw": {"BinaryValue": "AQ==", "DataType": "Binary"}},
    }
    answer = {"status_code": 200, "headers": {}, "body": json.dumps({"Messages": [sent]}).encode()}
    received = create_parser("json").parse(answer, operation.output_shape)
    record = record_of(received["Messages"][0], ARN)
    assert json.loads(event_of([record])) == {"Records": [record]}
    assert (record["body"], record["attributes"]) == (sent["Body"], sent["Attributes"])
    assert record["messageAttributes"]["raw"]["binaryValue"] == "AQ=="
    assert (record["md5OfBody"], record["md5OfMessageAttributes"]) == ("abc", "def")


def test_an_event_is_plain_json_and_no_text_spoils_it() -> None:
    assert event_of([]) == b'{"Records":[]}'
    assert event_of([{"body": "größe"}]) == '{"Records":[{"body":"größe"}]}'.encode()
    assert event_of([{"body": 'a"\\\n\x00'}]) == b'{"Records":[{"body":"a\\"\\\\\\n\\u0000"}]}'
    assert json.loads(event_of([{"body": "\ud83d half"}])) == {"Records": [{"body": "\ud83d half"}]}


IDS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("reply", "failed"),
    [
        (b"", set()),
        (b" \n", set()),
        (b"null", set()),
        (b"{}", set()),
        (b'{"other": 1}', set()),
        (b'{"batchItemFailures": null}', set()),
        (b'{"batchItemFailures": []}', set()),
        (b'{"batchItemFailures": [{"itemIdentifier": "b"}]}', {"b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "b", "why": 1}, {"itemIdentifier": "b"}], "x": 1}', {"b"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "c"}, {"itemIdentifier": "a"}]}', {"a", "c"}),
        (b'{"batchItemFailures": [{"itemIdentifier": "d"}]}', None),
        (b'{"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "d"}]}', None),
        (b'{"batchItemFailures": [{"itemIdentifier": ""}]}', None),
        (b'{"batchItemFailures": [{"itemIdentifier": null}]}', None),
        (b'{"batchItemFailures": [{"itemIdentifier": 1}]}', None),
        (b'{"batchItemFailures": [{"itemIdentifier": ["a"]}]}', None),
        (b'{"batchItemFailures": [{"ItemIdentifier": "a"}]}', None),
        (b'{"batchItemFailures": [{"itemIdentifier": "a"}, {}]}', None),
        (b'{"batchItemFailures": ["a"]}', None),
        (b'{"batchItemFailures": [null]}', None),
        (b'{"batchItemFailures": {"itemIdentifier": "a"}}', None),
        (b'{"batchItemFailures": "a"}', None),
        (b'{"batchItemFailures": ""}', None),
        (b'{"batchItemFailures": false}', None),
        (b'{"batchItemFailures": [}', None),
        (b'{"batchItemFailures": NaN}', None),
        (b"done", None),
        (b'"done"', None),
        (b"[]", None),
        (b"0", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
    ],
)
def test_a_reply_says_which_messages_have_failed(reply: bytes, failed: set[str] | None) -> None:
    assert failed_items(reply, IDS) == failed


@given(st.binary(max_size=50))
def test_any_reply_is_understood_or_fails_the_batch(reply: bytes) -> None:
    assert failed_items(reply, IDS) in (None, frozenset())


def records(*items: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"messageId": identity, "attributes": {"MessageGroupId": group} if group else {}} for identity, group in items
    ]


@pytest.mark.parametrize(
    ("failed", "expected"),
    [
        (set(), set()),
        ({"a1"}, {"a1", "a2", "a3"}),
        ({"a2"}, {"a2", "a3"}),
        ({"a3"}, {"a3"}),
        ({"b1"}, {"b1", "b2"}),
        ({"a3", "b1"}, {"a3", "b1", "b2"}),
        ({"n1"}, {"n1"}),
        ({"unknown"}, set()),
    ],
)
def test_what_follows_a_failed_message_in_its_group_fails_too(failed: set[str], expected: set[str]) -> None:
    batch = records(("a1", "a"), ("b1", "b"), ("n1", ""), ("a2", "a"), ("n2", ""), ("b2", "b"), ("a3", "a"))
    assert failed_in_order(batch, failed) == expected


@given(st.lists(st.sampled_from("abc"), max_size=10), st.sets(st.integers(0, 9)))
def test_in_each_group_the_failed_ones_are_the_last(groups: list[str], failed: set[int]) -> None:
    batch = records(*((str(number), group) for number, group in enumerate(groups)))
    found = failed_in_order(batch, {str(number) for number in failed})
    for group in "abc":
        own = [str(number) in found for number, each in enumerate(groups) if each == group]
        assert own == sorted(own)
        first = next((number for number, each in enumerate(groups) if each == group and number in failed), None)
        assert any(own) is (first is not None)

"""Where results of asynchronous invocations go beside functions and files: queues, topics, buses and buckets.

Dead-letter targets get the event itself.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer
from tests.contracts.async_support import (
    ARN,
    FAILED,
    EventBench,
    event_bench,
    eventually,
    step_words,
    to_file,
)
from tests.contracts.aws_support import refusal
from tests.support.emulator import free_port
from tests.support.objects import PLAIN, object_store

from torpor.model.event import EventState
from torpor.model.invocation import Outcome, OutcomeStatus

MIB = 1024 * 1024
GOOD = Outcome(status=OutcomeStatus.SUCCESS, payload=b'{"sum":3}', version="$LATEST")
ODD = '{"a" :  1,\t"ü": "\\u00fc"}'.encode()
"""An event that would look otherwise if anybody wrote it anew."""
QUEUES = "arn:aws:sqs:us-east-1:000000000000:"


class Cloud:
    """The services behind one endpoint, as a test uses them."""

    def __init__(self, endpoint: str) -> None:
        self.sqs, self.sns, self.events, self.s3 = (
            boto3.client(service, endpoint_url=endpoint, **PLAIN) for service in ("sqs", "sns", "events", "s3")
        )

    def queue(self, name: str) -> str:
        """A new queue's ARN."""
        url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn: str = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        return arn

    def topic(self, name: str) -> tuple[str, str]:
        """A new topic, and the queue that gets its messages, by their ARNs."""
        topic, queue = self.sns.create_topic(Name=name)["TopicArn"], self.queue(name)
        self.sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue)
        return topic, queue

    def bus(self, name: str) -> tuple[str, str]:
        """A new bus, and the queue that gets functions' results from it, by their ARNs."""
        bus, queue = self.events.create_event_bus(Name=name)["EventBusArn"], self.queue(name)
        pattern = json.dumps({"source": ["lambda"]})
        self.events.put_rule(Name=name, EventBusName=name, EventPattern=pattern)
        self.events.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "1", "Arn": queue}])
        return bus, queue

    def messages(self, queue: str, number: int = 1) -> list[Any]:
        """What a queue has got, once there is so much."""
        url = self.sqs.get_queue_url(QueueName=queue.rpartition(":")[2])["QueueUrl"]
        found: list[Any] = []

        def received() -> list[Any] | None:
            reply = self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"])
            for message in reply.get("Messages", ()):
                found.append(message)
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            return found if len(found) >= number else None

        return eventually(received, lambda: found, within=20)

    def records(self, queue: str, number: int = 1) -> list[Any]:
        """The records in a queue's messages."""
        return [json.loads(message["Body"]) for message in self.messages(queue, number)]

    def close(self) -> None:
        for client in (self.sqs, self.sns, self.events, self.s3):
            client.close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture(scope="module")
def cloud(endpoint: str) -> Iterator[Cloud]:
    made = Cloud(endpoint)
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Iterator[EventBench]:
    with event_bench(tmp_path_factory.mktemp("events"), endpoint=endpoint) as bench:
        yield bench


@pytest.fixture
def bench(running: EventBench) -> Iterator[EventBench]:
    """Every event of the test is through at its end."""
    running.clear()
    yield running
    running.rests()


def to(success: str = "", failure: str = "", **settings: Any) -> dict[str, Any]:
    """Event settings with these destinations."""
    given = {"OnSuccess": success, "OnFailure": failure}
    return {"DestinationConfig": {which: {"Destination": arn} for which, arn in given.items() if arn}, **settings}


def check_record(record: dict[str, Any], name: str, identity: str, condition: str = "Success") -> None:
    assert record["version"] == "1.0"
    assert record["requestContext"]["requestId"] == identity
    assert record["requestContext"]["functionArn"] == f"{ARN}{name}:$LATEST"
    assert record["requestContext"]["condition"] == condition
    assert record["requestPayload"] == json.loads(ODD)


# -- each kind of destination -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", [GOOD, FAILED])
def test_a_queue_gets_the_record(bench: EventBench, cloud: Cloud, outcome: Outcome) -> None:
    queue = cloud.queue(f"records-{outcome.status}")
    name = bench.function(outcome, settings=to(queue, queue))
    identity = bench.send(name, ODD)
    (message,) = cloud.messages(queue)

    record = json.loads(message["Body"])
    check_record(record, name, identity, "Success" if outcome is GOOD else "RetriesExhausted")
    assert record["responsePayload"] == json.loads(outcome.payload)
    assert "MessageAttributes" not in message
    row = bench.ended(identity)
    assert row.state is (EventState.SUCCEEDED if outcome is GOOD else EventState.FAILED)
    assert row.progress.steps[-1].what == "delivered"
    assert row.progress.steps[-1].detail == f"destination {queue}"


@pytest.mark.parametrize("outcome", [GOOD, FAILED])
def test_a_topic_gets_the_record(bench: EventBench, cloud: Cloud, outcome: Outcome) -> None:
    topic, queue = cloud.topic(f"topic-{outcome.status}")
    name = bench.function(outcome, settings=to(topic, topic))
    identity = bench.send(name, ODD)
    (told,) = cloud.records(queue)

    assert told["TopicArn"] == topic
    check_record(json.loads(told["Message"]), name, identity, "Success" if outcome is GOOD else "RetriesExhausted")


@pytest.mark.parametrize(("outcome", "kind"), [(GOOD, "Success"), (FAILED, "Failure")])
def test_a_bus_gets_the_record_as_the_detail_of_an_event(
    bench: EventBench, cloud: Cloud, outcome: Outcome, kind: str
) -> None:
    bus, queue = cloud.bus(f"bus-{outcome.status}")
    name = bench.function(outcome, settings=to(bus, bus))
    identity = bench.send(name, ODD)
    (event,) = cloud.records(queue)

    assert (event["source"], event["detail-type"]) == ("lambda", f"Lambda Function Invocation Result - {kind}")
    assert event["resources"] == [bus, f"{ARN}{name}:$LATEST"]
    check_record(event["detail"], name, identity, "Success" if outcome is GOOD else "RetriesExhausted")


def test_a_bucket_gets_the_record_of_a_failure(bench: EventBench, cloud: Cloud) -> None:
    cloud.s3.create_bucket(Bucket="failures")
    name = bench.function(FAILED, settings=to(failure="arn:aws:s3:::failures"))
    identity = bench.send(name, ODD)
    assert bench.ended(identity).state is EventState.FAILED

    (listed,) = cloud.s3.list_objects_v2(Bucket="failures")["Contents"]
    stamp = r"(\d{4}/\d\d/\d\d)/(\d{4}-\d\d-\d\d)T\d\d\.\d\d\.\d\d"
    found = re.fullmatch(rf"aws/lambda/async/{name}/{stamp}-[0-9a-f-]{{36}}", listed["Key"])
    assert found is not None and found[1].replace("/", "-") == found[2]
    record = json.loads(cloud.s3.get_object(Bucket="failures", Key=listed["Key"])["Body"].read())
    check_record(record, name, identity, "RetriesExhausted")


def test_a_bucket_gets_no_successes(bench: EventBench) -> None:
    name = bench.function()
    with pytest.raises(ClientError) as error:
        bench.client.put_function_event_invoke_config(FunctionName=name, **to("arn:aws:s3:::failures"))
    assert refusal(error.value)[0] == "InvalidParameterValueException"


def test_a_bucket_takes_a_record_that_no_queue_takes(bench: EventBench, cloud: Cloud) -> None:
    cloud.s3.create_bucket(Bucket="large")
    name = bench.function(FAILED, settings=to(failure="arn:aws:s3:::large"))
    identity = bench.send(name, b'"' + b"x" * (MIB - 2) + b'"')
    assert bench.ended(identity).state is EventState.FAILED
    (listed,) = cloud.s3.list_objects_v2(Bucket="large")["Contents"]
    assert listed["Size"] > MIB


def test_results_of_many_events_all_arrive_once(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("many")
    name = bench.function(settings=to(queue))
    sent = [bench.send(name) for _ in range(60)]
    assert sorted(each["requestContext"]["requestId"] for each in cloud.records(queue, 60)) == sorted(sent)


# -- dead-letter targets ----------------------------------------------------------------------------------------------


def attributes_of(identity: str, message: str, code: str = "200") -> dict[str, tuple[str, str]]:
    return {
        "RequestID": ("String", identity),
        "ErrorCode": ("Number", code),
        "ErrorMessage": ("String", message),
    }


def sent_attributes(message: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {
        name: (value["DataType"], value["StringValue"]) for name, value in message.get("MessageAttributes", {}).items()
    }


def test_a_dead_letter_queue_gets_the_event_verbatim_with_its_three_attributes(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("letters")
    name = bench.function(FAILED, DeadLetterConfig={"TargetArn": queue})
    identity = bench.send(name, ODD)
    (message,) = cloud.messages(queue)

    assert message["Body"] == ODD.decode()
    assert sent_attributes(message) == attributes_of(identity, "no")
    row = bench.ended(identity)
    assert row.state is EventState.FAILED
    assert row.progress.steps[-1].detail == f"dead letter {queue}"


def test_a_dead_letter_topic_gets_the_event_verbatim_with_its_three_attributes(bench: EventBench, cloud: Cloud) -> None:
    topic, queue = cloud.topic("letters-topic")
    name = bench.function(FAILED, DeadLetterConfig={"TargetArn": topic})
    identity = bench.send(name, ODD)
    (told,) = cloud.records(queue)

    assert told["Message"] == ODD.decode()
    found = {key: (value["Type"], str(value["Value"])) for key, value in told["MessageAttributes"].items()}
    assert found == attributes_of(identity, "no")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (json.dumps({"errorMessage": "x" * 5000, "errorType": "E"}).encode(), "x" * 1024),
        (json.dumps({"errorMessage": "ü" * 1000, "errorType": "E"}).encode(), "ü" * 512),
        (b'{"errorType":"E"}', "Unknown"),
    ],
)
def test_a_dead_letter_tells_the_first_kilobyte_of_the_error(
    bench: EventBench, cloud: Cloud, payload: bytes, message: str
) -> None:
    queue = cloud.queue(f"kilobyte-{hashlib.sha256(payload).hexdigest()[:8]}")
    failed = Outcome(status=OutcomeStatus.ERROR, payload=payload, error_type="E", version="$LATEST")
    name = bench.function(failed, DeadLetterConfig={"TargetArn": queue}, settings={"MaximumRetryAttempts": 0})
    identity = bench.send(name)
    (letter,) = cloud.messages(queue)
    assert sent_attributes(letter) == attributes_of(identity, message)


def test_an_error_s_text_is_told_without_what_no_message_may_hold(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("odd-text")
    payload = b'{"errorMessage":"zero\\u0000 bell\\u0007 none\\uffff tab\\t line\\n"}'
    failed = Outcome(status=OutcomeStatus.ERROR, payload=payload, error_type="E", version="$LATEST")
    name = bench.function(failed, DeadLetterConfig={"TargetArn": queue}, settings={"MaximumRetryAttempts": 0})
    bench.send(name)
    (letter,) = cloud.messages(queue)
    _, text = sent_attributes(letter)["ErrorMessage"]
    assert re.fullmatch(r"[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+", text), text
    assert text.startswith("zero") and text.endswith("tab\t line\n")


def test_a_dead_letter_of_an_event_that_never_ran_says_why(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("never-ran")
    name = bench.function(GOOD, DeadLetterConfig={"TargetArn": queue})
    bench.client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    identity = bench.send(name, ODD)
    (letter,) = cloud.messages(queue)
    assert letter["Body"] == ODD.decode()
    assert sent_attributes(letter) == attributes_of(identity, "ZeroReservedConcurrency", code="429")


def test_a_success_is_no_dead_letter(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("no-letters")
    name = bench.function(GOOD, DeadLetterConfig={"TargetArn": queue})
    assert step_words(bench.ended(bench.send(name))) == ["run", "ended"]


def test_a_destination_and_a_dead_letter_queue_both_hear_of_a_failure(bench: EventBench, cloud: Cloud) -> None:
    records, letters = cloud.queue("both-records"), cloud.queue("both-letters")
    name = bench.function(FAILED, DeadLetterConfig={"TargetArn": letters}, settings=to(failure=records))
    identity = bench.send(name, ODD)
    check_record(cloud.records(records)[0], name, identity, "RetriesExhausted")
    assert cloud.messages(letters)[0]["Body"] == ODD.decode()
    assert step_words(bench.ended(identity))[-3:] == ["ended", "delivered", "delivered"]


def test_a_version_has_the_dead_letter_target_that_it_was_published_with(bench: EventBench, cloud: Cloud) -> None:
    old, new = cloud.queue("old-letters"), cloud.queue("new-letters")
    name = bench.function(FAILED, Publish=True, DeadLetterConfig={"TargetArn": old})
    bench.client.update_function_configuration(FunctionName=name, DeadLetterConfig={"TargetArn": new})
    published, latest = bench.send(name, b"1", Qualifier="1"), bench.send(name, b"2")
    assert [sent_attributes(letter)["RequestID"][1] for letter in cloud.messages(old)] == [published]
    assert [sent_attributes(letter)["RequestID"][1] for letter in cloud.messages(new)] == [latest]


# -- targets that do not take it --------------------------------------------------------------------------------------


def undelivered(row: Any) -> str:
    """What the history of a dead event says at its end."""
    assert (row.state, row.progress.steps[-1].what) == (EventState.DEAD, "undelivered")
    detail: str = row.progress.steps[-1].detail
    return detail


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (QUEUES + "nobody", "NonExistentQueue: The specified queue does not exist"),
        ("arn:aws:sns:us-east-1:123456789012:nobody", "NotFound: "),
        ("arn:aws:s3:::nobody", "NoSuchBucket: The specified bucket does not exist"),
    ],
)
def test_a_target_that_does_not_exist_leaves_a_dead_event_that_says_so(
    bench: EventBench, cloud: Cloud, target: str, reason: str
) -> None:
    name = bench.function(FAILED, settings=to(failure=target, MaximumRetryAttempts=0))
    row = bench.ended(bench.send(name))
    assert undelivered(row).startswith(f"destination {target}: ")
    assert reason in undelivered(row)
    assert (row.progress.condition, bench.attempts(row.event.request_id)) == ("exhausted", 1)


def test_a_dead_letter_queue_that_does_not_exist_leaves_a_dead_event_that_says_so(bench: EventBench) -> None:
    name = bench.function(FAILED, DeadLetterConfig={"TargetArn": QUEUES + "nobody"})
    row = bench.ended(bench.send(name))
    assert undelivered(row).startswith(f"dead letter {QUEUES}nobody: ")
    assert "The specified queue does not exist" in undelivered(row)


def test_one_target_that_does_not_exist_keeps_nothing_from_the_other(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("other")
    name = bench.function(FAILED, DeadLetterConfig={"TargetArn": queue}, settings=to(failure=QUEUES + "nobody"))
    identity = bench.send(name, ODD)
    (letter,) = cloud.messages(queue)
    assert letter["Body"] == ODD.decode()
    row = bench.ended(identity)
    assert row.state is EventState.DEAD
    assert sorted(step_words(row)[-2:]) == ["delivered", "undelivered"]


def test_a_record_that_a_target_is_too_small_for_leaves_a_dead_event_that_says_so(
    bench: EventBench, cloud: Cloud
) -> None:
    topic, queue = cloud.topic("small-topic")
    bus, _ = cloud.bus("small-bus")
    for target in (queue, topic, bus):
        name = bench.function(settings=to(target))
        row = bench.ended(bench.send(name, b'"' + b"x" * (MIB - 100) + b'"'))
        assert re.search(r": The record has \d{7} bytes, more than the 1048576 ", undelivered(row))
        assert bench.attempts(row.event.request_id) == 1


def test_a_record_within_the_limit_of_a_queue_arrives(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("large-enough")
    name = bench.function(settings=to(queue))
    bench.send(name, b'"' + b"x" * (MIB - 1000) + b'"')
    (message,) = cloud.messages(queue)
    assert MIB - 1000 < len(message["Body"]) <= MIB


def test_an_event_with_the_largest_payload_fits_into_a_dead_letter_queue(bench: EventBench, cloud: Cloud) -> None:
    queue = cloud.queue("largest-letter")
    name = bench.function(FAILED, DeadLetterConfig={"TargetArn": queue}, settings={"MaximumRetryAttempts": 0})
    row = bench.ended(bench.send(name, b'"' + b"x" * (MIB - 2 - 512) + b'"'))
    assert row.state is EventState.FAILED, row.progress.steps


@pytest.mark.parametrize(
    "target",
    [
        QUEUES + "letters.fifo",
        "arn:aws:s3:::letters",
        ARN + "letters",
        "arn:aws:events:us-east-1:123456789012:event-bus/letters",
        "file:letters",
        "http://127.0.0.1/letters",
    ],
)
def test_what_takes_no_single_messages_is_no_dead_letter_target(bench: EventBench, target: str) -> None:
    with pytest.raises(ClientError) as error:
        bench.function(DeadLetterConfig={"TargetArn": target})
    assert refusal(error.value)[0] in ("InvalidParameterValueException", "ValidationException")


# -- services that are down -------------------------------------------------------------------------------------------


def owed_attempts(bench: EventBench, identity: str) -> int:
    """How often a result has been sent in vain."""
    row = bench.row(identity)
    return max((owed.attempts for owed in row.progress.owed), default=0) if row is not None else 0


def test_results_for_services_that_are_down_arrive_once_they_are_up(tmp_path: Path, cloud: Cloud) -> None:
    letters, records, port = cloud.queue("late-letters"), cloud.queue("late-records"), free_port()
    with event_bench(tmp_path, endpoint=f"http://127.0.0.1:{port}") as bench:
        name = bench.function(FAILED, DeadLetterConfig={"TargetArn": letters}, settings=to(failure=records))
        sent = [bench.send(name) for _ in range(5)]
        eventually(lambda: max(owed_attempts(bench, identity) for identity in sent), lambda: bench.store.numbers())
        assert {row.state.is_ended for row in bench.events_of(name)} == {False}

        service = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)  # it knows what the other knows
        service.start()
        try:
            found = [sent_attributes(letter)["RequestID"][1] for letter in cloud.messages(letters, 5)]
            assert sorted(found) == sorted(sent)
            assert sorted(each["requestContext"]["requestId"] for each in cloud.records(records, 5)) == sorted(sent)
            assert {bench.ended(identity).state for identity in sent} == {EventState.FAILED}
        finally:
            service.stop()


def test_services_that_are_down_hold_up_no_function_and_no_other_destination(tmp_path: Path) -> None:
    with event_bench(tmp_path, endpoint=f"http://127.0.0.1:{free_port()}") as bench:
        stuck = bench.function(settings=to(QUEUES + "queue"))
        fine = bench.function(settings=to_file("fine"))
        for _ in range(100):
            bench.send(stuck)
        for _ in range(20):
            bench.send(fine)
        assert len(bench.records("fine", 20)) == 20
        eventually(lambda: len(bench.runs) == 120, lambda: bench.store.numbers())

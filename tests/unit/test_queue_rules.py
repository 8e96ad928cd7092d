"""What a queue answers, sorted; and what becomes of messages after their function was called."""

from collections.abc import Mapping
from typing import Any

import pytest

from torpor.contracts.lambda_ import limits, queue_rules
from torpor.contracts.lambda_.event_filter import Filters
from torpor.contracts.lambda_.lineage import counted, stepped
from torpor.contracts.lambda_.queue_records import event_of, measured, record_of, trace_of
from torpor.contracts.lambda_.queue_rules import Verdicts, judged
from torpor.contracts.lambda_.queue_sorting import receipts_of, sort
from torpor.model.errors import PlatformError, ShuttingDown, Throttled, TorporError
from torpor.model.invocation import Outcome, OutcomeStatus

ARN = "arn:aws:sqs:us-east-1:000000000000:jobs"
FIFO = ARN + ".fifo"
EVERYTHING, ORDERS = Filters({}), Filters({"Filters": [{"Pattern": '{"body":["order"]}'}]})
TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
RESOURCE = "arn:aws:lambda:us-east-1:000000000000:function:greet"


def message(name: str, body: str = "text", group: str = "", **values: Any) -> dict[str, Any]:
    attributes = {"MessageGroupId": group} if group else {}
    return {"MessageId": name, "ReceiptHandle": f"to {name}", "Body": body, "Attributes": attributes, **values}


def document(arn: str = ARN, **values: Any) -> dict[str, Any]:
    usual = {"EventSourceArn": arn, "BatchSize": 10, "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": []}
    return usual | values


def kept(messages: list[Any], arn: str = ARN, filters: Filters = EVERYTHING) -> list[str]:
    return [record["messageId"] for record, _ in sort(messages, arn, filters).kept]


def test_a_message_is_measured_by_its_bytes_in_an_event() -> None:
    found = measured(message("a", "ü"), ARN)

    assert found == (record := record_of(message("a", "ü"), ARN), len(event_of([record])))


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "text",
        {},
        {"MessageId": "a", "ReceiptHandle": "h"},
        message("a", ReceiptHandle=""),
        message("a", Body=None),
        message("a", MessageId=7),
        message("a", Attributes=[1]),
        message("a", Attributes={"SentTimestamp": 7}),
        message("a", MessageAttributes={"b": {"StringValue": "c"}}),
        message("a", MessageAttributes={"b": {"BinaryValue": "c", "DataType": "Binary"}}),
        message("a", MessageAttributes={"b": {"StringValue": b"c", "DataType": "String"}}),
        message("a", MessageAttributes="b"),
    ],
)
def test_what_is_no_message_is_found_out(broken: Any) -> None:
    assert measured(broken, ARN) is None
    assert sort([broken], ARN, EVERYTHING).has_broken


def test_messages_are_sorted_by_filters_and_broken_ones_are_left() -> None:
    found = sort([message("a", "order"), message("b", "other"), None, message("c", "order")], ARN, ORDERS)

    assert [record["messageId"] for record, _ in found.kept] == ["a", "c"]
    assert (found.dropped, found.spare, found.has_broken) == (["to b"], [], True)


def test_a_message_that_fits_into_no_event_is_left() -> None:
    found = sort([message("a", "x" * limits.QUEUE_BATCH_SIZE), message("b")], ARN, EVERYTHING)

    assert [record["messageId"] for record, _ in found.kept] == ["b"]
    assert found.has_broken


def test_nothing_of_a_fifo_queue_is_handled_after_what_is_broken() -> None:
    found = sort([message("a", group="g"), None, message("b", group="g")], FIFO, EVERYTHING)

    assert [record["messageId"] for record, _ in found.kept] == ["a"]
    assert (found.spare, found.has_broken) == (["to b"], True)


def test_a_fifo_queues_answer_becomes_one_event_and_the_rest_goes_back() -> None:
    half = "x" * (limits.QUEUE_BATCH_SIZE // 2)
    messages = [message("a", half), message("b", half), message("c", "small")]

    assert sort(messages, FIFO, EVERYTHING).spare == ["to b", "to c"]
    assert kept(messages, ARN) == ["a", "b", "c"]


def test_receipts_are_found_wherever_there_are_any() -> None:
    assert receipts_of([None, "x", {}, {"ReceiptHandle": 7}, message("a"), {"ReceiptHandle": "h"}]) == ["to a", "h"]


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (TRACE, TRACE),
        ("", ""),
        ("nonsense", ""),
        (TRACE + "\r\nX-Evil: 1", ""),
        (TRACE + ";é", ""),
        (TRACE + ";a=" + "x" * limits.TRACE_MAX, ""),
    ],
)
def test_only_a_trace_header_is_handed_on(trace: str, expected: str) -> None:
    record = record_of(message("a", Attributes={"AWSTraceHeader": trace}), ARN)

    assert trace_of(record) == expected
    assert trace_of(record_of(message("a"), ARN)) == ""


def test_calls_of_a_function_in_a_chain_are_counted() -> None:
    once = stepped(TRACE, RESOURCE)

    assert [counted(trace, RESOURCE) for trace in (TRACE, once, stepped(once, RESOURCE))] == [0, 1, 2]
    assert counted(once, RESOURCE + "2") == 0


def test_pollers_are_bounded_by_the_mapping_and_the_server() -> None:
    def most(**values: Any) -> int:
        return queue_rules.poller_rules(document(**values)).most

    assert most() == most(ScalingConfig={"MaximumConcurrency": 1000}) == limits.POLLERS_MAX
    assert most(ScalingConfig={"MaximumConcurrency": 2}) == 2
    assert most(arn=FIFO, ScalingConfig={"MaximumConcurrency": 9}) == 9


RECORDS = [record_of(message(name, group="g"), ARN) for name in ("a", "b", "c")]
REPORTING: Mapping[str, Any] = {"FunctionResponseTypes": ["ReportBatchItemFailures"]}
ONE_FAILED = b'{"batchItemFailures":[{"itemIdentifier":"b"}]}'


def outcome(payload: bytes = b"null", status: OutcomeStatus = OutcomeStatus.SUCCESS, error: str = "") -> Outcome:
    return Outcome(status=status, payload=payload, error_type=error)


@pytest.mark.parametrize(
    ("given", "payload", "through"),
    [
        (document(), ONE_FAILED, "abc"),
        (document(**REPORTING), b"null", "abc"),
        (document(**REPORTING), ONE_FAILED, "ac"),
        (document(FIFO, **REPORTING), ONE_FAILED, "a"),
    ],
)
def test_what_has_not_failed_is_through(given: dict[str, Any], payload: bytes, through: str) -> None:
    assert judged(given, RECORDS, outcome(payload)) == Verdicts(result="OK", through=frozenset(through))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (outcome(b"{}", OutcomeStatus.ERROR, "E"), Verdicts(result="PROBLEM: Function call failed")),
        (outcome(b"{}", OutcomeStatus.TIMEOUT, "Sandbox.Timedout"), Verdicts(result="PROBLEM: Function call failed")),
        (outcome(b"", OutcomeStatus.FAILURE), Verdicts(result="PROBLEM: Function call failed")),
        (
            Throttled("no", reason="x"),
            Verdicts(result="PROBLEM: Function call was throttled", is_refused=True),
        ),
        (ShuttingDown("no"), Verdicts(result="PROBLEM: Function call failed", is_refused=True)),
        (PlatformError("no"), Verdicts(result="PROBLEM: Function call failed", is_refused=True)),
    ],
)
def test_nothing_is_through_after_a_failure(result: Outcome | TorporError, expected: Verdicts) -> None:
    assert judged(document(), RECORDS, result) == expected


def test_a_reply_that_names_others_fails_all() -> None:
    reply = outcome(b'{"batchItemFailures":[{"itemIdentifier":"z"}]}')

    assert judged(document(**REPORTING), RECORDS, reply) == Verdicts(result="PROBLEM: Function call failed")


def test_a_problem_is_one_short_line() -> None:
    said = queue_rules.queue_problem(ValueError("<html>\n" + "  much\n" * 500))

    assert said.startswith("PROBLEM: The queue does not work as it should: <html> much much")
    assert len(said) < 300 and "\n" not in said

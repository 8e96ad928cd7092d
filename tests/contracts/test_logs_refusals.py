"""Requests of the CloudWatch Logs API that are not in order: each gets an error in the API's form, none an accident."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contracts.aws_support import refusal
from tests.contracts.logs_support import ARN, GROUP, STREAM, Server, serving

from torpor.contracts.cloudwatch_logs import limits
from torpor.contracts.cloudwatch_logs.requests import model
from torpor.telemetry import LogGroups

PREFIX = "Logs_20140328."
OPERATIONS = sorted(model().operations)
BUILT = {
    "CreateLogGroup", "CreateLogStream", "DeleteLogGroup", "DeleteLogStream", "DeleteRetentionPolicy",
    "DescribeLogGroups", "DescribeLogStreams", "FilterLogEvents", "GetLogEvents", "ListTagsForResource",
    "PutLogEvents", "PutRetentionPolicy", "StartLiveTail", "TagResource", "UntagResource",
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("logs")) as running:
        running.log("one", group="kept")
        yield running


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in BUILT])
def test_an_operation_that_is_not_built_says_so_by_name(server: Server, name: str) -> None:
    status, _, body = server.post(PREFIX + name, b"{}")
    assert (status, body["__type"]) == (501, "NotImplementedException")
    assert body["message"] == f"{name} is not available in this version of Torpor."


@pytest.mark.parametrize("name", sorted(BUILT))
@pytest.mark.parametrize("body", [b"{broken", b"[]", b'"x"', b"\xff\xfe", b"[" * 50_000, b'{"logGroupName": {}}'])
def test_a_body_that_is_no_json_object_is_refused(server: Server, name: str, body: bytes) -> None:
    if b"logGroupName" in body and "logGroupName" not in _members(name):
        pytest.skip("has no such member")
    status, headers, answer = server.post(PREFIX + name, body)
    assert (status, answer["__type"]) == (400, "SerializationException")
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    assert len(headers["x-amzn-RequestId"]) == 36


def _members(name: str) -> Any:
    return model().shapes[model().operations[name].input_shape]["members"]


@pytest.mark.parametrize("target", ["", "DescribeLogGroups", "Logs_20140328.", "Logs_20140328.None", "SQS.SendMessage"])
def test_an_unknown_target_is_refused(server: Server, target: str) -> None:
    status, _, body = server.post(target, b"{}")
    assert (status, body["__type"]) == (400, "UnknownOperationException")


@pytest.mark.parametrize(
    ("operation", "values", "said"),
    [
        ("DescribeLogGroups", {"limit": 51}, "'limit' failed to satisfy constraint: Member must have value less than"),
        ("DescribeLogGroups", {"limit": 0}, "greater than or equal to 1"),
        ("DescribeLogStreams", {"logGroupName": "kept", "orderBy": "Size"}, "LogStreamName, LastEventTime"),
        ("FilterLogEvents", {"logGroupName": "kept", "limit": 10_001}, "less than or equal to 10000"),
        ("FilterLogEvents", {"logGroupName": "kept", "filterPattern": "a" * 1025}, "less than or equal to 1024"),
        ("FilterLogEvents", {"logGroupName": "kept", "startTime": -1}, "greater than or equal to 0"),
        ("GetLogEvents", {"logGroupName": "kept"}, "Value null at 'logStreamName'"),
        ("CreateLogGroup", {"logGroupName": "x" * 513}, "less than or equal to 512"),
        ("CreateLogGroup", {"logGroupName": "../a b"}, "regular expression pattern"),
        ("CreateLogGroup", {"logGroupName": "traces:f"}, "regular expression pattern"),
        ("CreateLogGroup", {"logGroupName": "aws/mine"}, "reserved"),
        ("CreateLogStream", {"logGroupName": "kept", "logStreamName": "a:b"}, "regular expression pattern"),
        ("PutLogEvents", {"logGroupName": "kept", "logStreamName": "s", "logEvents": []}, "greater than or equal to 1"),
    ],
)
def test_values_out_of_bounds_are_refused_in_the_services_words(
    server: Server, operation: str, values: dict[str, Any], said: str
) -> None:
    status, _, body = server.post(PREFIX + operation, json.dumps(values).encode())
    assert (status, body["__type"]) == (400, "InvalidParameterException")
    assert said in body["message"]


def test_parts_of_an_operation_that_are_not_built_are_refused_by_name(server: Server) -> None:
    for values in ({"kmsKeyId": "k"}, {"logGroupClass": "INFREQUENT_ACCESS"}, {"deletionProtectionEnabled": True}):
        status, _, body = server.post(PREFIX + "CreateLogGroup", json.dumps({"logGroupName": "a", **values}).encode())
        assert (status, body["__type"]) == (501, "NotImplementedException")
        assert next(iter(values)) in body["message"]
    assert server.client().describe_log_groups(logGroupNamePrefix="a")["logGroups"] == []


def test_a_request_that_is_too_large_is_refused(server: Server) -> None:
    status, _, body = server.post(PREFIX + "PutLogEvents", b" " * (limits.REQUEST_MAX + 1))
    assert (status, body["__type"]) == (413, "RequestEntityTooLargeException")


def test_unsigned_and_wrongly_signed_requests_are_refused(server: Server) -> None:
    for values, code in (
        ({"secret_key": "wrong"}, "InvalidSignatureException"),
        ({"access_key": "nobody"}, "UnrecognizedClientException"),
    ):
        with pytest.raises(ClientError) as error:
            server.client(**values).describe_log_groups()
        assert refusal(error.value)[0] == code
    status, _, body = server.post(PREFIX + "DescribeLogGroups", b"{}", {"X-Amz-Content-Sha256": "0" * 64})
    assert (status, body["__type"]) == (400, "InvalidSignatureException")


def test_an_error_that_nobody_expected_is_logged_and_told_without_detail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path) as server, caplog.at_level(logging.ERROR):
        monkeypatch.setattr(LogGroups, "all", lambda self: {}["secret"])
        status, headers, body = server.post(PREFIX + "DescribeLogGroups", b"{}")
    assert (status, body["__type"]) == (500, "InternalFailure")
    assert "secret" not in body["message"]
    assert headers["x-amzn-RequestId"] in caplog.text


texts = st.sampled_from([GROUP, ARN, "kept", STREAM, "s", "", "x" * 600, "\0", "é", "b/" + "9" * 40, "{ $.a = 1 }"])
values = st.recursive(
    texts | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_sent_gets_an_answer_in_the_apis_form(server: Server, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(BUILT - {"StartLiveTail"})))
    members = st.fixed_dictionaries({}, optional=dict.fromkeys(_members(name), values | texts | st.integers(0, 9)))
    status, _, body = server.post(PREFIX + name, json.dumps(data.draw(members)).encode())
    assert status == 200 or (status in (400, 501) and set(body) == {"__type", "message"}), body

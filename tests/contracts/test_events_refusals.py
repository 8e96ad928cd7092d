"""Requests of EventBridge's API that are not in order: each gets an error in the API's form, none an accident."""

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contracts.events_support import FUNCTION_ARN, PREFIX, RULE_ARN, Server, new_rule, refused, serving

from torpor.api.eventbridge.registry import Rules
from torpor.contracts.eventbridge import limits
from torpor.contracts.eventbridge.requests import model

BUILT = {
    "DeleteRule", "DescribeRule", "DisableRule", "EnableRule", "ListRuleNamesByTarget", "ListRules",
    "ListTagsForResource", "ListTargetsByRule", "PutRule", "PutTargets", "RemoveTargets", "TagResource",
    "UntagResource",
}  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        new_rule(running.client(), "kept")
        yield running


@pytest.mark.parametrize("name", [name for name in sorted(model().operations) if name not in BUILT])
def test_an_operation_that_is_not_built_says_so_by_name(server: Server, name: str) -> None:
    status, _, body = server.post(PREFIX + name, b"{}")
    assert (status, body["__type"]) == (501, "NotImplementedException")
    assert body["message"] == f"{name} is not available in this version of Torpor."


@pytest.mark.parametrize("name", sorted(BUILT))
@pytest.mark.parametrize("body", [b"{broken", b"[]", b'"x"', b"\xff\xfe", b"[" * 50_000])
def test_a_body_that_is_no_json_object_is_refused(server: Server, name: str, body: bytes) -> None:
    status, headers, answer = server.post(PREFIX + name, body)
    assert (status, answer["__type"]) == (400, "SerializationException")
    assert headers["Content-Type"] == "application/x-amz-json-1.1"
    assert len(headers["x-amzn-RequestId"]) == 36


@pytest.mark.parametrize(
    ("operation", "values", "said"),
    [
        ("PutRule", {}, "Value null at 'name'"),
        ("PutRule", {"Name": "x" * 65}, "less than or equal to 64"),
        ("PutRule", {"Name": "a b"}, "regular expression pattern"),
        ("PutRule", {"Name": "a", "State": "ON"}, "[ENABLED, DISABLED"),
        ("PutRule", {"Name": "a", "ScheduleExpression": "x" * 257}, "less than or equal to 256"),
        ("ListRules", {"Limit": 0}, "greater than or equal to 1"),
        ("ListRules", {"Limit": 101}, "less than or equal to 100"),
        ("PutTargets", {"Rule": "kept", "Targets": []}, "greater than or equal to 1"),
        ("PutTargets", {"Rule": "kept", "Targets": [{"Id": "a"}]}, "Value null at 'targets.1.member.arn'"),
        ("TagResource", {"ResourceARN": RULE_ARN + "kept", "Tags": [{"Key": "a"}]}, "'tags.1.member.value'"),
    ],
)
def test_values_out_of_bounds_are_refused_in_the_services_words(
    server: Server, operation: str, values: dict[str, Any], said: str
) -> None:
    status, _, body = server.post(PREFIX + operation, json.dumps(values).encode())
    assert (status, body["__type"]) == (400, "ValidationException")
    assert said in body["message"]


def test_requests_for_others_are_not_claimed_and_unknown_operations_are_refused(server: Server) -> None:
    for name in ("", "None", "putRule"):
        assert server.post(PREFIX + name, b"{}")[2]["__type"] == "UnknownOperationException"
    for name in ("", "Logs_20140328.DescribeLogGroups", "AWSEvents"):
        assert server.post(name, b"{}")[0] == 404


def test_a_request_that_is_too_large_is_refused(server: Server) -> None:
    status, _, body = server.post(PREFIX + "ListRules", b" " * (limits.REQUEST_MAX + 1))
    assert (status, body["__type"]) == (413, "RequestEntityTooLargeException")


def test_unsigned_and_wrongly_signed_requests_are_refused(server: Server) -> None:
    wrong = server.client(secret_key="wrong")
    assert refused(wrong.list_rules)[0] == "InvalidSignatureException"
    nobody = server.client(access_key="nobody")
    assert refused(nobody.list_rules)[0] == "UnrecognizedClientException"
    status, _, body = server.post(PREFIX + "ListRules", b"{}", {"X-Amz-Content-Sha256": "0" * 64})
    assert (status, body["__type"]) == (400, "InvalidSignatureException")


def test_an_error_that_nobody_expected_is_logged_and_told_without_detail(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rules, "all", lambda self: {}["secret"])
    with caplog.at_level(logging.ERROR):
        status, headers, body = server.post(PREFIX + "ListRules", b"{}")
    assert (status, body["__type"]) == (500, "InternalException")
    assert "secret" not in body["message"]
    assert headers["x-amzn-RequestId"] in caplog.text


texts = st.sampled_from(["kept", RULE_ARN + "kept", FUNCTION_ARN + "f", "rate(1 day)", "", "x" * 600, "\0", "é", "a3"])
values = st.recursive(
    texts | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.booleans() | st.none(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(texts, inside, max_size=3),
    max_leaves=5,
)
inputs = st.fixed_dictionaries(
    {"Id": texts, "Arn": texts},
    optional={
        "Input": texts | st.just("{}"),
        "InputPath": texts | st.just("$.time"),
        "InputTransformer": st.fixed_dictionaries({"InputTemplate": texts | st.sampled_from(['"<a>"', "<a>", "{"])}),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_sent_gets_an_answer_in_the_apis_form(server: Server, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(BUILT)))
    drawn = {"Targets": st.lists(inputs, max_size=3), "Rule": texts | st.just("kept"), "Name": texts | st.just("kept")}
    members = model().shapes[model().operations[name].input_shape]["members"]
    optional = {member: drawn.get(member, values | texts | st.integers(0, 9)) for member in members}
    sent = data.draw(st.fixed_dictionaries({}, optional=optional))
    status, _, body = server.post(PREFIX + name, json.dumps(sent).encode())
    assert status == 200 or (status in (400, 501) and set(body) == {"__type", "message"}), body

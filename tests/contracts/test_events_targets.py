"""Targets of rules through the official client, and what they are told when a rule goes off."""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import UUID

import pytest
from tests.contracts.events_support import FUNCTION_ARN, RULE_ARN, Server, new_rule, refused, serving, target

from torpor.contracts.eventbridge import limits
from torpor.contracts.eventbridge.events import scheduled_event, target_payload

PLANNED = 1_714_521_600.0
ARN = RULE_ARN + "tick"
EVENT = scheduled_event(PLANNED, ARN, "000000000000", "us-east-1", "11111111-1111-4111-8111-111111111111")
WHOLE = {
    "version": "0",
    "id": "11111111-1111-4111-8111-111111111111",
    "detail-type": "Scheduled Event",
    "source": "aws.events",
    "account": "000000000000",
    "time": "2024-05-01T00:00:00Z",
    "region": "us-east-1",
    "resources": [ARN],
    "detail": {},
}


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def client(server: Server) -> Any:
    """With one rule, which has no targets."""
    client = server.client()
    new_rule(client)
    return client


def put(client: Any, *targets: Mapping[str, Any], rule: str = "tick") -> list[dict[str, str]]:
    """Put targets; the entries that failed."""
    answer = client.put_targets(Rule=rule, Targets=targets)
    assert answer["FailedEntryCount"] == len(answer["FailedEntries"])
    entries: list[dict[str, str]] = answer["FailedEntries"]
    return entries


def test_targets_are_put_listed_by_id_in_pages_replaced_and_removed(client: Any) -> None:
    assert put(client, target("b"), target("a", "g:live"), target("c", Input='{"x":1}')) == []

    def listed(**values: Any) -> Any:
        return client.list_targets_by_rule(Rule="tick", **values)

    assert listed()["Targets"] == [target("a", "g:live"), target("b"), target("c", Input='{"x":1}')]
    first = listed(Limit=2)
    assert [each["Id"] for each in first["Targets"]] == ["a", "b"]
    assert [each["Id"] for each in listed(NextToken=first["NextToken"])["Targets"]] == ["c"]
    assert put(client, target("c", "h")) == []
    assert listed()["Targets"][2] == target("c", "h")
    gone = client.remove_targets(Rule="tick", Ids=["a", "c"])
    assert (gone["FailedEntryCount"], gone["FailedEntries"]) == (0, [])
    assert listed()["Targets"] == [target("b")]


def test_a_target_that_is_removed_but_not_there_is_told(client: Any) -> None:
    put(client, target("a"))
    answer = client.remove_targets(Rule="tick", Ids=["a", "none"])
    assert answer["FailedEntryCount"] == 1
    assert (answer["FailedEntries"][0]["TargetId"], answer["FailedEntries"][0]["ErrorCode"]) == (
        "none",
        "ResourceNotFoundException",
    )
    assert client.list_targets_by_rule(Rule="tick")["Targets"] == []


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:sqs:us-east-1:000000000000:queue",
        "arn:aws:lambda:us-east-1:000000000000:layer:f:1",
        "arn:aws:lambda:us-east-1:000000000000:function:",
        FUNCTION_ARN + "a b",
        FUNCTION_ARN + "f:live:more",
        FUNCTION_ARN + "f:",
        FUNCTION_ARN.replace("us-east-1", "eu-west-1") + "f",
        FUNCTION_ARN.replace("0" * 12, "1" * 12) + "f",
        FUNCTION_ARN.replace("arn:aws:", "arn:aws-cn:") + "f",
        "f",
    ],
)
def test_a_target_that_is_no_function_of_this_server_fails_and_the_others_are_kept(client: Any, arn: str) -> None:
    (entry,) = put(client, {"Id": "bad", "Arn": arn}, target("good"))
    assert (entry["TargetId"], entry["ErrorCode"]) == ("bad", "ValidationException")
    assert entry["ErrorMessage"].startswith(f"Target {arn} cannot be reached")
    assert client.list_targets_by_rule(Rule="tick")["Targets"] == [target("good")]


def test_a_rule_has_only_so_many_targets(client: Any) -> None:
    many = [target(str(number)) for number in range(limits.TARGETS_MAX)]
    assert put(client, *many) == []
    assert put(client, target("0", "g")) == []
    too_many = ("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
    assert refused(client.put_targets, Rule="tick", Targets=[target("new")]) == too_many
    assert put(client, {"Id": "new", "Arn": "f"})[0]["TargetId"] == "new"


def test_rules_are_found_by_their_target(client: Any) -> None:
    for name in ("c", "a", "b"):
        new_rule(client, name)
        put(client, target("one", "f:live" if name == "b" else "f"), target("two", "f"), rule=name)

    def having(function: str, **values: Any) -> Any:
        return client.list_rule_names_by_target(TargetArn=FUNCTION_ARN + function, **values)

    assert having("f")["RuleNames"] == ["a", "b", "c"]
    assert having("f:live")["RuleNames"] == ["b"]
    assert having("none")["RuleNames"] == []
    first = having("f", Limit=2)
    assert first["RuleNames"] == ["a", "b"]
    assert having("f", NextToken=first["NextToken"])["RuleNames"] == ["c"]


def test_what_becomes_of_failed_events_is_kept_and_shown(server: Server, client: Any) -> None:
    careful = target(
        RetryPolicy={"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60},
        DeadLetterConfig={"Arn": "arn:aws:sqs:us-east-1:000000000000:dead"},
        RoleArn="arn:aws:iam::000000000000:role/r",
    )
    assert put(client, careful) == []
    assert client.list_targets_by_rule(Rule="tick")["Targets"] == [careful]
    for policy in (
        {"MaximumRetryAttempts": 186},
        {"MaximumRetryAttempts": -1},
        {"MaximumEventAgeInSeconds": 59},
        {"MaximumEventAgeInSeconds": 86_401},
    ):
        unchecked = server.client(parameter_validation=False)
        code, _ = refused(unchecked.put_targets, Rule="tick", Targets=[target(RetryPolicy=policy)])
        assert code == "ValidationException"


def transformer(template: str, **paths: str) -> dict[str, Any]:
    return {"InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"Input": "{}", "InputPath": "$"}, "Only one of Input, InputPath, or InputTransformer must be provided"),
        ({"InputPath": "$", **transformer('"x"')}, "must be provided for target one."),
        ({"Input": "{'a': 1}"}, "JSON syntax error in input for target one."),
        ({"Input": ""}, "JSON syntax error"),
        ({"Input": "NaN"}, "JSON syntax error"),
        ({"Input": "[" * 8000}, "JSON syntax error"),
        ({"InputPath": "detail"}, "InputPath for target one is invalid."),
        ({"InputPath": "$.detail['a']"}, "InputPath for target one is invalid."),
        ({"InputPath": "$.a[-1]"}, "InputPath for target one is invalid."),
        ({"InputPath": ""}, "InputPath for target one is invalid."),
        (transformer('"<a>"', a="time"), "InputPath for target one is invalid."),
        (transformer('"<b>"', a="$.time"), "contains invalid placeholder b."),
        (transformer('"<aws.events.event.json>"'), "valid only for JSON template."),
        (transformer("[<aws.events.event>]"), "valid only for JSON template."),
        (transformer("at <a>", a="$.time"), "Invalid InputTemplate for target one"),
        (transformer("{<a>: 1}", a="$.time"), "Invalid InputTemplate"),
        (transformer('{"a": <a><a>}', a="$.time"), "Invalid InputTemplate"),
        (transformer('"<a>', a="$.time"), "Invalid InputTemplate"),
        ({"EcsParameters": {"TaskDefinitionArn": "t"}}, "EcsParameters not supported for target: one."),
    ],
)
def test_what_a_target_cannot_be_handed_is_refused_as_a_whole(client: Any, values: dict[str, Any], said: str) -> None:
    code, message = refused(client.put_targets, Rule="tick", Targets=[target("good"), target(**values)])
    assert code == "ValidationException"
    assert said in message
    assert client.list_targets_by_rule(Rule="tick")["Targets"] == []


def test_a_rule_that_goes_off_tells_each_target_the_same_event(server: Server, client: Any) -> None:
    put(client, target("a", "f:live"), target("b", "g"), target("c", "h:$LATEST", Input='{"own": 1}'))
    first, second, third = server.go_off("tick", PLANNED)
    assert (first.function, first.qualifier, first.source, first.planned) == ("f", "live", "rule:tick:a", PLANNED)
    assert (second.function, second.qualifier, second.source) == ("g", "", "rule:tick:b")
    assert (third.function, third.qualifier, third.payload) == ("h", "$LATEST", b'{"own": 1}')
    event = json.loads(first.payload)
    assert event == {**WHOLE, "id": event["id"]}
    assert UUID(event["id"]).version == 4
    assert second.payload == first.payload
    later = json.loads(server.go_off("tick", PLANNED + 300)[0].payload)
    assert later["time"] == "2024-05-01T00:05:00Z"
    assert later["id"] != event["id"]


def test_a_rule_goes_off_to_the_targets_that_it_has_then(server: Server, client: Any) -> None:
    assert server.go_off("tick") == []
    put(client, target("a"))
    assert [fire.source for fire in server.go_off("tick")] == ["rule:tick:a"]
    put(client, target("a", "g"), target("b"))
    assert [fire.function for fire in server.go_off("tick")] == ["g", "f"]
    client.remove_targets(Rule="tick", Ids=["a"])
    assert [fire.source for fire in server.go_off("tick")] == ["rule:tick:b"]


def test_a_timer_that_goes_off_when_its_rule_is_gone_tells_nobody(server: Server, client: Any) -> None:
    put(client, target("a"))
    late = server.timers.timers["rule:tick"]
    client.remove_targets(Rule="tick", Ids=["a"])
    client.delete_rule(Name="tick")
    server.run(lambda: late.fire(PLANNED))
    assert server.sink.fired == []


def test_a_rule_of_another_region_says_so_in_its_events() -> None:
    with serving() as server:
        client = server.client(region="cn-north-1")
        arn = new_rule(client)
        function = "arn:aws-cn:lambda:cn-north-1:000000000000:function:f"
        assert put(client, {"Id": "a", "Arn": function}) == []
        event = json.loads(server.go_off("tick")[0].payload)
    assert arn == "arn:aws-cn:events:cn-north-1:000000000000:rule/tick"
    assert (event["region"], event["resources"]) == ("cn-north-1", [arn])


def handed(**values: Any) -> str:
    return target_payload(target(**values), EVENT).decode()


def test_without_an_input_the_event_itself_is_handed_over() -> None:
    assert target_payload(target(), EVENT) is EVENT
    assert json.loads(EVENT) == WHOLE


def test_a_constant_input_is_handed_over_as_it_was_written() -> None:
    assert handed(Input=' {"a" :  "é"} ') == ' {"a" :  "é"} '


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$", WHOLE),
        ("$.detail", {}),
        ("$.detail-type", "Scheduled Event"),
        ("$.resources[0]", ARN),
        ("$.resources", [ARN]),
        ("$.resources[1]", None),
        ("$.detail.none.more", None),
        ("$.time.none", None),
        ("$[0]", None),
    ],
)
def test_a_path_hands_over_what_stands_there(path: str, expected: Any) -> None:
    assert json.loads(handed(InputPath=path)) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (transformer('"at <when>"', when="$.time"), "at 2024-05-01T00:00:00Z"),
        (transformer('"\\"<when>\\" <when>"', when="$.time"), '"2024-05-01T00:00:00Z" 2024-05-01T00:00:00Z'),
        (transformer('{"t": <when>, "s": "<when>"}', when="$.time"), {"t": WHOLE["time"], "s": WHOLE["time"]}),
        (transformer("[9, <d>, true, <r>]", d="$.detail", r="$.resources"), [9, {}, True, [ARN]]),
        (transformer('{"gone": <x>, "text": "a<x>b"}', x="$.none"), {"gone": "", "text": "ab"}),
        (transformer('{"text": "<r>"}', r="$.resources"), {"text": f'["{ARN}"]'}),
        (transformer('"<aws.events.rule-name> of <aws.events.rule-arn>"'), f"tick of {ARN}"),
        (transformer('"<aws.events.event.ingestion-time>"'), "2024-05-01T00:00:00Z"),
        (transformer('{"a": "1 < 2 > 0"}'), {"a": "1 < 2 > 0"}),
        (transformer("<when>", when="$.time"), "2024-05-01T00:00:00Z"),
        ({"InputTransformer": {"InputTemplate": "[1, 2]"}}, [1, 2]),
    ],
)
def test_a_template_is_filled_with_parts_of_the_event(values: dict[str, Any], expected: Any) -> None:
    assert json.loads(handed(**values)) == expected


def test_a_template_keeps_its_own_spaces() -> None:
    assert handed(**transformer('{ "a" : <d> }', d="$.detail")) == '{ "a" : {} }'


def test_a_template_of_an_object_may_hold_the_whole_event() -> None:
    template = '{"e": <aws.events.event.json>, "most": <aws.events.event>}'
    most = {name: value for name, value in WHOLE.items() if name != "detail"}
    assert json.loads(handed(**transformer(template))) == {"e": WHOLE, "most": most}

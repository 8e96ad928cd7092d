"""Rules with schedules through the official client: which there are, and when their timers run."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.contracts.events_support import (
    BUS_ARN,
    FUNCTION_ARN,
    RULE_ARN,
    Server,
    new_rule,
    refused,
    serving,
    target,
)

from torpor.api.eventbridge.registry import Rules
from torpor.contracts.eventbridge import limits
from torpor.model.errors import StoreUnavailable
from torpor.service.resources import Resources

NO_RULE = ("ResourceNotFoundException", "Rule none does not exist on EventBus default.")
NOT_VALID = ("ValidationException", "Parameter ScheduleExpression is not valid.")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def client(server: Server) -> Any:
    return server.client()


def shown(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


def test_a_rule_is_put_described_listed_and_deleted(server: Server, client: Any) -> None:
    arn = new_rule(client, Description="each five minutes", RoleArn="arn:aws:iam::000000000000:role/r")
    assert arn == RULE_ARN + "tick"
    rule = {
        "Name": "tick",
        "Arn": arn,
        "State": "ENABLED",
        "Description": "each five minutes",
        "ScheduleExpression": "rate(5 minutes)",
        "RoleArn": "arn:aws:iam::000000000000:role/r",
        "EventBusName": "default",
    }
    assert shown(client.describe_rule(Name="tick")) == {**rule, "CreatedBy": "000000000000"}
    assert shown(client.list_rules()) == {"Rules": [rule]}
    assert list(server.timers.timers) == ["rule:tick"]
    client.delete_rule(Name="tick")
    assert client.list_rules()["Rules"] == []
    assert server.timers.timers == {}


def test_what_is_not_there_is_told_except_to_who_deletes_it(client: Any) -> None:
    for call in (client.describe_rule, client.enable_rule, client.disable_rule):
        assert refused(call, Name="none") == NO_RULE
    for call in (client.list_targets_by_rule,):
        assert refused(call, Rule="none") == NO_RULE
    assert refused(client.put_targets, Rule="none", Targets=[target()]) == NO_RULE
    assert refused(client.remove_targets, Rule="none", Ids=["one"]) == NO_RULE
    client.delete_rule(Name="none")


def test_a_rule_that_is_put_again_is_replaced_as_a_whole_but_keeps_targets_and_tags(client: Any) -> None:
    arn = new_rule(client, Description="old", Tags=[{"Key": "team", "Value": "a"}], State="DISABLED")
    client.put_targets(Rule="tick", Targets=[target()])
    new_rule(client, ScheduleExpression="cron(0 12 * * ? *)", Tags=[{"Key": "team", "Value": "b"}])
    rule = client.describe_rule(Name="tick")
    assert (rule["ScheduleExpression"], rule["State"]) == ("cron(0 12 * * ? *)", "ENABLED")
    assert "Description" not in rule
    assert [each["Id"] for each in client.list_targets_by_rule(Rule="tick")["Targets"]] == ["one"]
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == [{"Key": "team", "Value": "a"}]


def test_a_rule_with_targets_is_not_deleted(server: Server, client: Any) -> None:
    new_rule(client)
    client.put_targets(Rule="tick", Targets=[target()])
    why = ("ValidationException", "Rule can't be deleted since it has targets.")
    assert refused(client.delete_rule, Name="tick") == why
    assert refused(client.delete_rule, Name="tick", Force=True) == why
    assert "rule:tick" in server.timers.timers
    client.remove_targets(Rule="tick", Ids=["one"])
    client.delete_rule(Name="tick")
    assert refused(client.describe_rule, Name="tick")[0] == "ResourceNotFoundException"


def test_rules_are_listed_by_name_in_pages_and_chosen_by_prefix(client: Any) -> None:
    names = ["a-one", "a-two", "b", "c"]
    for name in reversed(names):
        new_rule(client, name)

    def listed(**values: Any) -> list[str]:
        return [rule["Name"] for page in _pages(client, **values) for rule in page["Rules"]]

    assert listed() == names
    assert listed(Limit=1) == names
    assert listed(Limit=3) == names
    assert listed(NamePrefix="a-", Limit=1) == names[:2]
    assert listed(NamePrefix="none") == []
    assert "NextToken" not in client.list_rules(Limit=4)
    for token in ("?", "w6", "//"):
        assert refused(client.list_rules, NextToken=token)[0] == "ValidationException"


def _pages(client: Any, **values: Any) -> Iterator[Any]:
    page = client.list_rules(**values)
    yield page
    while "NextToken" in page:
        page = client.list_rules(NextToken=page["NextToken"], **values)
        yield page


def test_a_page_goes_on_behind_a_rule_that_is_gone(client: Any) -> None:
    for name in ("a", "b", "c"):
        new_rule(client, name)
    token = client.list_rules(Limit=2)["NextToken"]
    client.delete_rule(Name="b")
    assert [rule["Name"] for rule in client.list_rules(NextToken=token)["Rules"]] == ["c"]


def test_the_default_event_bus_is_the_only_one(client: Any) -> None:
    new_rule(client, EventBusName="default")
    assert client.describe_rule(Name="tick", EventBusName=BUS_ARN)["EventBusName"] == "default"
    calls: tuple[tuple[Any, dict[str, Any]], ...] = (
        (client.put_rule, {"Name": "x", "ScheduleExpression": "rate(1 day)"}),
        (client.describe_rule, {"Name": "tick"}),
        (client.delete_rule, {"Name": "tick"}),
        (client.enable_rule, {"Name": "tick"}),
        (client.list_rules, {}),
        (client.put_targets, {"Rule": "tick", "Targets": [target()]}),
        (client.list_targets_by_rule, {"Rule": "tick"}),
        (client.list_rule_names_by_target, {"TargetArn": FUNCTION_ARN + "f"}),
    )
    for bus in ("mine", BUS_ARN.replace("us-east-1", "eu-west-1"), BUS_ARN.replace("default", "mine")):
        for call, values in calls:
            why = ("ResourceNotFoundException", f"Event bus {bus} does not exist.")
            assert refused(call, EventBusName=bus, **values) == why


def test_tags_are_added_replaced_and_removed(client: Any) -> None:
    arn = new_rule(client, Tags=[{"Key": "team", "Value": "a"}])
    client.tag_resource(ResourceARN=arn, Tags=[{"Key": "stage", "Value": ""}, {"Key": "team", "Value": "b"}])
    tags = [{"Key": "stage", "Value": ""}, {"Key": "team", "Value": "b"}]
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == tags
    client.untag_resource(ResourceARN=arn, TagKeys=["team", "none"])
    assert client.list_tags_for_resource(ResourceARN=arn)["Tags"] == tags[:1]
    many = [{"Key": str(number), "Value": "x"} for number in range(limits.TAGS_MAX)]
    assert refused(client.tag_resource, ResourceARN=arn, Tags=many)[0] == "ValidationException"
    assert refused(new_rule, client=client, name="other", Tags=[*many, *tags])[0] == "ValidationException"
    assert client.list_tags_for_resource(ResourceARN=arn.replace("rule/", "rule/default/"))["Tags"] == tags[:1]


@pytest.mark.parametrize(
    ("arn", "code"),
    [
        (RULE_ARN + "none", "ResourceNotFoundException"),
        (RULE_ARN + "mine/tick", "ResourceNotFoundException"),
        (RULE_ARN.replace("us-east-1", "eu-west-1") + "tick", "ResourceNotFoundException"),
        (RULE_ARN.replace("0" * 12, "1" * 12) + "tick", "ResourceNotFoundException"),
        ("tick", "ValidationException"),
        (FUNCTION_ARN + "f", "ValidationException"),
        (BUS_ARN, "NotImplementedException"),
    ],
)
def test_only_rules_of_this_place_have_tags(client: Any, arn: str, code: str) -> None:
    new_rule(client)
    assert refused(client.list_tags_for_resource, ResourceARN=arn)[0] == code
    assert refused(client.tag_resource, ResourceARN=arn, Tags=[])[0] == code
    assert refused(client.untag_resource, ResourceARN=arn, TagKeys=[])[0] == code


def test_a_timer_is_started_again_only_if_the_schedule_or_the_state_has_changed(server: Server, client: Any) -> None:
    arn, started = new_rule(client), server.timers.put_names
    new_rule(client, Description="another")
    client.enable_rule(Name="tick")
    client.put_targets(Rule="tick", Targets=[target()])
    client.tag_resource(ResourceARN=arn, Tags=[{"Key": "a", "Value": "b"}])
    assert started == ["rule:tick"]
    new_rule(client, ScheduleExpression="rate(10 minutes)")
    assert started == ["rule:tick"] * 2
    client.disable_rule(Name="tick")
    assert client.describe_rule(Name="tick")["State"] == "DISABLED"
    assert server.timers.timers == {}
    new_rule(client, ScheduleExpression="rate(10 minutes)", State="DISABLED")
    assert started == ["rule:tick"] * 2
    client.enable_rule(Name="tick")
    assert started == ["rule:tick"] * 3
    assert "rule:tick" in server.timers.timers


def test_a_disabled_rule_has_no_timer(server: Server, client: Any) -> None:
    new_rule(client, State="DISABLED")
    assert client.describe_rule(Name="tick")["State"] == "DISABLED"
    assert server.timers.put_names == []


def test_a_rate_counts_from_the_making_of_the_rule_over_restarts() -> None:
    with serving(keys={}) as server:
        server.clock.now = 1000.5
        new_rule(server.client())
        new_rule(server.client(), "off", State="DISABLED")
        server.clock.now = 1100.0
        new_rule(server.client(), Description="the same schedule")
        assert server.timers.timers["rule:tick"].following(1100.0) == 1300.5
    with serving(keys={}, kept=server.resources) as again:
        assert list(again.timers.timers) == ["rule:tick"]
        assert again.timers.timers["rule:tick"].following(1400.0) == 1600.5
        again.clock.now = 2000.0
        again.client().enable_rule(Name="off")
        assert again.timers.timers["rule:off"].following(2000.0) == 2300.0


def test_an_expression_that_is_none_or_never_comes_true_again_is_refused(server: Server, client: Any) -> None:
    for expression in ("rate(1 minutes)", "cron(0 12 * * * *)", "cron(0 0 30 2 ? *)", "cron(0 0 1 1 ? 2020)"):
        assert refused(new_rule, client=client, ScheduleExpression=expression) == NOT_VALID
    assert client.list_rules()["Rules"] == [] and server.timers.timers == {}


def test_a_rule_needs_a_schedule_and_matches_no_events(client: Any) -> None:
    missing = ("ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified.")
    assert refused(client.put_rule, Name="tick") == missing
    for values in ({}, {"ScheduleExpression": "rate(1 day)"}):
        code, message = refused(client.put_rule, Name="tick", EventPattern='{"source":["a"]}', **values)
        assert code == "NotImplementedException" and message.startswith("EventPattern of PutRule is not available")
    state = "ENABLED_WITH_ALL_CLOUDTRAIL_MANAGEMENT_EVENTS"
    assert refused(new_rule, client=client, State=state)[0] == "NotImplementedException"


def test_there_are_only_so_many_rules(server: Server, client: Any) -> None:
    document = {"ScheduleExpression": "rate(1 day)", "State": "DISABLED", "Tags": {}, "Targets": {}, "Since": 0.0}

    def fill() -> None:
        for number in range(limits.RULES_MAX):
            Rules(server.resources).put(f"rule{number}", {**document, "Region": "us-east-1"})

    server.run(fill)
    too_many = ("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
    assert refused(new_rule, client=client) == too_many
    assert new_rule(client, "rule7") == RULE_ARN + "rule7"


def test_a_change_that_could_not_be_kept_leaves_the_timers_as_they_are(
    server: Server, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_rule(client)

    def full(self: Resources, kind: str, name: str, document: Any) -> None:
        raise StoreUnavailable("The disk is full.")

    monkeypatch.setattr(Resources, "put", full)
    full_disk = ("ServiceUnavailableException", "The disk is full.")
    assert refused(client.disable_rule, Name="tick") == full_disk
    assert refused(new_rule, client=client, name="other") == full_disk
    assert list(server.timers.timers) == ["rule:tick"]
    assert client.describe_rule(Name="tick")["State"] == "ENABLED"

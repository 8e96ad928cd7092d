"""Log groups and streams through the official client."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import KEYS, refusal
from tests.contracts.logs_support import ARN, GROUP, STREAM, Server, serving
from tests.support.aws_tool import logs_tool

from torpor.contracts.cloudwatch_logs import limits

NO_GROUP = ("ResourceNotFoundException", "The specified log group does not exist.")
TOOL_KEYS = {"access_key": "AKIATEST", "secret_key": KEYS["AKIATEST"]}
NO_STREAM = ("ResourceNotFoundException", "The specified log stream does not exist.")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Any:
    return server.client()


def refused(call: Callable[..., Any], **values: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**values)
    return refusal(error.value)


def test_a_function_that_logs_has_a_group_and_a_stream(server: Server, client: Any) -> None:
    server.log("one", at=1000.5)
    server.log("two", at=1002.25)
    server.run(server.journal.flush)
    (group,) = client.describe_log_groups()["logGroups"]
    assert group["storedBytes"] > 0
    assert group | {"storedBytes": 0} == {
        "logGroupName": GROUP,
        "creationTime": 1_000_500,
        "metricFilterCount": 0,
        "arn": ARN + ":*",
        "logGroupArn": ARN,
        "logGroupClass": "STANDARD",
        "storedBytes": 0,
    }
    assert client.describe_log_streams(logGroupName=GROUP)["logStreams"] == [
        {
            "logStreamName": STREAM,
            "creationTime": 1_002_250,
            "firstEventTimestamp": 1_000_500,
            "lastEventTimestamp": 1_002_250,
            "lastIngestionTime": 1_002_250,
            "arn": f"{ARN}:log-stream:{STREAM}",
            "storedBytes": 0,
        }
    ]


def test_groups_are_listed_by_name_in_pages_and_chosen_by_prefix_and_pattern(client: Any) -> None:
    names = ["/aws/lambda/a", "/aws/lambda/b", "other/Lambda", "z"]
    for name in reversed(names):
        client.create_log_group(logGroupName=name)

    def listed(**values: Any) -> list[str]:
        pages = client.get_paginator("describe_log_groups").paginate(**values)
        return [group["logGroupName"] for page in pages for group in page["logGroups"]]

    assert listed() == names
    assert listed(PaginationConfig={"PageSize": 1}) == names
    assert listed(logGroupNamePrefix="/aws/", PaginationConfig={"PageSize": 1}) == names[:2]
    assert listed(logGroupNamePattern="ambda") == names[:3]
    assert listed(logGroupNamePattern="lambda") == names[:2]
    assert listed(logGroupNamePrefix="none") == []
    both = refused(client.describe_log_groups, logGroupNamePrefix="a", logGroupNamePattern="b")
    assert both[0] == "InvalidParameterException"


def test_the_servers_own_records_are_no_log_group(server: Server, client: Any) -> None:
    server.log("segment", group="traces:f")
    server.log("line", group="FCLogs:service/f")
    assert client.describe_log_groups()["logGroups"] == []
    status, _, body = server.post("Logs_20140328.GetLogEvents", b'{"logGroupName":"traces:f","logStreamName":"s"}')
    assert (status, body["__type"]) == (400, "InvalidParameterException")
    arn = ARN.replace(GROUP, "traces:f")
    assert refused(client.filter_log_events, logGroupIdentifier=arn)[0] == "InvalidParameterException"


def test_a_group_is_made_once_described_and_deleted(server: Server, client: Any) -> None:
    client.create_log_group(logGroupName="mine", tags={"team": "a"})
    again = refused(client.create_log_group, logGroupName="mine")
    assert again == ("ResourceAlreadyExistsException", "The specified log group already exists")
    arn = client.describe_log_groups()["logGroups"][0]["logGroupArn"]
    client.tag_resource(resourceArn=arn, tags={"stage": "test"})
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "a", "stage": "test"}
    client.untag_resource(resourceArn=arn, tagKeys=["team", "none"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == {"stage": "test"}
    many = {str(number): "x" for number in range(50)}
    assert refused(client.tag_resource, resourceArn=arn, tags=many)[0] == "TooManyTagsException"
    client.delete_log_group(logGroupName="mine")
    assert refused(client.delete_log_group, logGroupName="mine") == NO_GROUP
    assert refused(client.list_tags_for_resource, resourceArn=arn) == NO_GROUP


def test_a_deleted_group_and_a_deleted_stream_come_back_with_their_next_event(server: Server, client: Any) -> None:
    server.log("one")
    client.delete_log_stream(logGroupName=GROUP, logStreamName=STREAM)
    assert client.describe_log_streams(logGroupName=GROUP)["logStreams"] == []
    assert refused(client.delete_log_stream, logGroupName=GROUP, logStreamName=STREAM) == NO_STREAM
    server.log("two")
    assert [event["message"] for event in client.filter_log_events(logGroupName=GROUP)["events"]] == ["two"]
    client.delete_log_group(logGroupName=GROUP)
    assert refused(client.describe_log_streams, logGroupName=GROUP) == NO_GROUP
    server.log("three")
    assert [event["message"] for event in client.filter_log_events(logGroupName=GROUP)["events"]] == ["three"]


def test_retention_is_shown_and_takes_the_services_values_only(tmp_path: Path, server: Server, client: Any) -> None:
    server.log("one")

    def shown() -> Any:
        return client.describe_log_groups()["logGroups"][0].get("retentionInDays")

    assert shown() is None
    for days in limits.RETENTION_DAYS:
        client.put_retention_policy(logGroupName=GROUP, retentionInDays=days)
        assert shown() == days
    for days in (0, 2, -1, 10_000):
        code, message = refused(client.put_retention_policy, logGroupName=GROUP, retentionInDays=days)
        assert code == "InvalidParameterException" and "1, 3, 5" in message
    assert shown() == 3653
    client.delete_retention_policy(logGroupName=GROUP)
    assert shown() is None
    assert refused(client.put_retention_policy, logGroupName="none", retentionInDays=1) == NO_GROUP


def test_streams_are_ordered_by_name_or_last_event_in_either_direction_and_in_pages(
    server: Server, client: Any
) -> None:
    for stream, at in (("b", 3.0), ("a", 2.0), ("c", 1.0)):
        server.log("x", stream=stream, at=at)
    client.create_log_stream(logGroupName=GROUP, logStreamName="empty")

    def listed(**values: Any) -> str:
        pages = client.get_paginator("describe_log_streams").paginate(logGroupName=GROUP, **values)
        return " ".join(stream["logStreamName"] for page in pages for stream in page["logStreams"])

    for size in (1, 2, 50):
        page = {"PaginationConfig": {"PageSize": size}}
        assert listed(**page) == "a b c empty"
        assert listed(descending=True, **page) == "empty c b a"
        assert listed(orderBy="LastEventTime", **page) == "empty c a b"
        assert listed(orderBy="LastEventTime", descending=True, **page) == "b a c empty"
    assert listed(logStreamNamePrefix="e") == "empty"
    mixed = refused(client.describe_log_streams, logGroupName=GROUP, orderBy="LastEventTime", logStreamNamePrefix="a")
    assert mixed[0] == "InvalidParameterException"
    taken = refused(client.create_log_stream, logGroupName=GROUP, logStreamName="a")
    assert taken == ("ResourceAlreadyExistsException", "The specified log stream already exists")
    (empty,) = client.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix="empty")["logStreams"]
    assert "lastEventTimestamp" not in empty and empty["creationTime"] > 0


def test_a_group_may_be_named_by_its_arn_of_this_place_only(server: Server, client: Any) -> None:
    server.log("one")
    for identifier in (GROUP, ARN):
        assert client.describe_log_streams(logGroupIdentifier=identifier)["logStreams"]
    for elsewhere in (ARN.replace("us-east-1", "eu-west-1"), ARN.replace("0" * 12, "1" * 12)):
        assert refused(client.describe_log_streams, logGroupIdentifier=elsewhere) == NO_GROUP
    for values in (
        {},
        {"logGroupName": GROUP, "logGroupIdentifier": ARN},
        {"logGroupIdentifier": ARN + ":*"},
        {"logGroupIdentifier": "arn:aws:s3:::b"},
    ):
        assert refused(client.describe_log_streams, **values)[0] == "InvalidParameterException"


def test_the_command_line_tool_lists_groups(server: Server) -> None:
    server.log("one")
    asked = ("describe-log-groups", "--query", "logGroups[].logGroupName", "--output", "text")
    listing = logs_tool(server.url, *asked, **TOOL_KEYS)
    assert listing.communicate(timeout=30) == (GROUP + "\n", "")

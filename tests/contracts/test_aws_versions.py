"""Published versions and aliases through the official client."""

import http.client
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.contracts.aws_support import Server, archive, new_function, refusal, serving, unchecked

from torpor.api.aws import AwsSettings

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture
def name(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    made = request.node.name[:60].replace("[", "-").replace("]", "").replace("$", "")
    new_function(client, made, Description="first")
    yield made
    client.delete_function(FunctionName=made)


def code(text: str) -> bytes:
    return archive({"app.py": text})


def test_published_version_is_shown_with_its_number(client: Any, name: str) -> None:
    reply = client.publish_version(FunctionName=name, Description="one")
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (reply["Version"], reply["FunctionArn"], reply["Description"]) == ("1", f"{ARN}{name}:1", "one")
    assert (reply["State"], reply["LastUpdateStatus"]) == ("Active", "Successful")
    latest = client.get_function_configuration(FunctionName=name)
    assert (latest["Version"], latest["Description"]) == ("$LATEST", "first")
    assert latest["RevisionId"] != reply["RevisionId"]
    client.get_waiter("published_version_active").wait(FunctionName=name, Qualifier="1")


def test_nothing_changed_gives_the_last_version_again(client: Any, name: str) -> None:
    first = client.publish_version(FunctionName=name)
    again = client.publish_version(FunctionName=name, Description="other")
    assert (again["Version"], again["RevisionId"]) == ("1", first["RevisionId"])
    client.update_function_configuration(FunctionName=name, Timeout=9)
    assert client.publish_version(FunctionName=name)["Version"] == "2"


def test_publishing_checks_hash_and_revision(client: Any, name: str) -> None:
    latest = client.get_function_configuration(FunctionName=name)
    with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
        client.publish_version(FunctionName=name, CodeSha256="other")
    assert refusal(error.value)[1] == (
        f"CodeSHA256 (other) is different from current CodeSHA256 in $LATEST ({latest['CodeSha256']}). "
        "Please try again with the CodeSHA256 in $LATEST."
    )
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.publish_version(FunctionName=name, RevisionId="other")
    given = {"CodeSha256": latest["CodeSha256"], "RevisionId": latest["RevisionId"]}
    assert client.publish_version(FunctionName=name, **given)["Version"] == "1"


def test_create_and_update_publish_on_the_way(client: Any) -> None:
    made = new_function(client, "published-at-once", Publish=True)
    assert (made["Version"], made["FunctionArn"]) == ("1", ARN + "published-at-once:1")
    updated = client.update_function_code(FunctionName="published-at-once", ZipFile=code("x = 2"), Publish=True)
    assert (updated["Version"], updated["State"]) == ("2", "Active")
    same = client.update_function_code(FunctionName="published-at-once", ZipFile=code("x = 2"), Publish=True)
    assert same["Version"] == "2"
    client.delete_function(FunctionName="published-at-once")


def test_versions_are_read_and_fetched_by_number(client: Any, name: str) -> None:
    client.update_function_code(FunctionName=name, ZipFile=code("x = 1"))
    client.publish_version(FunctionName=name)
    client.update_function_code(FunctionName=name, ZipFile=code("x = 2"))
    shown = client.get_function(FunctionName=f"{name}:1")
    assert shown["Configuration"]["FunctionArn"] == f"{ARN}{name}:1"
    with urllib.request.urlopen(shown["Code"]["Location"], timeout=10) as reply:
        assert reply.read() == code("x = 1")
    for qualifier in ("2", "live", "$LATEST.PUBLISHED"):
        with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
            client.get_function_configuration(FunctionName=name, Qualifier=qualifier)
        assert refusal(error.value)[1] == f"Function not found: {ARN}{name}:{qualifier}"


def test_versions_are_listed_in_order_over_pages(client: Any, name: str) -> None:
    for number in range(11):
        client.update_function_configuration(FunctionName=name, Timeout=number + 1)
        client.publish_version(FunctionName=name)
    pages = client.get_paginator("list_versions_by_function").paginate(
        FunctionName=name, PaginationConfig={"PageSize": 5}
    )
    found = [item for page in pages for item in page["Versions"]]
    numbers = ["$LATEST", *(str(number) for number in range(1, 12))]
    assert [item["Version"] for item in found] == numbers
    assert [item["FunctionArn"] for item in found] == [f"{ARN}{name}:{number}" for number in numbers]
    listed = client.get_paginator("list_functions").paginate(FunctionVersion="ALL", PaginationConfig={"PageSize": 4})
    every = [item["FunctionArn"] for page in listed for item in page["Functions"]]
    assert [arn for arn in every if name in arn] == [f"{ARN}{name}:{number}" for number in numbers]
    plain = client.list_functions()["Functions"]
    assert [item["FunctionArn"] for item in plain if item["FunctionName"] == name] == [ARN + name]


@pytest.mark.parametrize("qualifier", ["1", "live"])
def test_versions_and_aliases_are_invoked(client: Any, server: Server, name: str, qualifier: str) -> None:
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    server.dispatcher.seen.clear()
    reply = client.invoke(FunctionName=name, Qualifier=qualifier, Payload=b"{}")
    assert reply["ExecutedVersion"] == "1"
    version, invocation, _ = server.dispatcher.seen[0]
    assert (version.version, invocation.resource) == ("1", f"{ARN}{name}:{qualifier}")
    client.delete_alias(FunctionName=name, Name="live")


def test_one_version_is_deleted_and_the_rest_stays(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    with pytest.raises(client.exceptions.ResourceConflictException, match="live"):
        client.delete_function(FunctionName=name, Qualifier="1")
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="DeleteAlias"):
        client.delete_function(FunctionName=name, Qualifier="live")
    client.delete_alias(FunctionName=name, Name="live")
    assert client.delete_function(FunctionName=name, Qualifier="1")["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName=name, Qualifier="1")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.delete_function(FunctionName=name, Qualifier="1")
    assert client.get_function_configuration(FunctionName=name)["Version"] == "$LATEST"


def test_alias_is_made_read_changed_and_deleted(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    made = client.create_alias(FunctionName=name, Name="live", FunctionVersion="1", Description="d")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (made["AliasArn"], made["FunctionVersion"]) == (f"{ARN}{name}:live", "1")
    client.update_function_configuration(FunctionName=name, Timeout=9)
    client.publish_version(FunctionName=name)
    weights = {"AdditionalVersionWeights": {"2": 0.25}}
    changed = client.update_alias(FunctionName=name, Name="live", RoutingConfig=weights)
    assert (changed["RoutingConfig"], changed["Description"]) == (weights, "d")
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.update_alias(FunctionName=name, Name="live", Description="x", RevisionId=made["RevisionId"])
    client.update_alias(FunctionName=name, Name="live", RoutingConfig={}, RevisionId=changed["RevisionId"])
    shown = client.get_alias(FunctionName=name, Name="live")
    assert shown["FunctionVersion"] == "1" and "RoutingConfig" not in shown
    configuration = client.get_function_configuration(FunctionName=name, Qualifier="live")
    assert (configuration["Version"], configuration["FunctionArn"]) == ("1", f"{ARN}{name}:live")
    client.create_alias(FunctionName=name, Name="also", FunctionVersion="2")
    assert [alias["Name"] for alias in client.list_aliases(FunctionName=name)["Aliases"]] == ["also", "live"]
    of_two = client.list_aliases(FunctionName=name, FunctionVersion="2")["Aliases"]
    assert [alias["Name"] for alias in of_two] == ["also"]
    for _ in range(2):
        client.delete_alias(FunctionName=name, Name="live")
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_alias(FunctionName=name, Name="live")
    assert refusal(error.value)[1] == f"Cannot find alias arn: {ARN}{name}:live"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"2": 0.1, "3": 0.1}}},
            "Number of items in AdditionalVersionWeights cannot be greater than 1",
        ),
        (
            {"FunctionVersion": "1", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.1}}},
            "Invalid function version 1. Function version 1 is already included in routing configuration.",
        ),
        (
            {"FunctionVersion": "$LATEST", "RoutingConfig": {"AdditionalVersionWeights": {"1": 0.1}}},
            "$LATEST is not supported for an alias pointing to more than 1 version",
        ),
    ],
)
def test_weights_that_cannot_be_are_refused(client: Any, values: dict[str, Any], message: str) -> None:
    new_function(client, "weighted", Publish=True)
    try:
        with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
            client.create_alias(FunctionName="weighted", Name="live", **values)
        assert refusal(error.value)[1] == message
    finally:
        client.delete_function(FunctionName="weighted")


def test_alias_that_exists_and_alias_of_no_version_are_refused(client: Any, name: str) -> None:
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="$LATEST")
    with pytest.raises(client.exceptions.ResourceConflictException) as error:
        client.create_alias(FunctionName=name, Name="live", FunctionVersion="$LATEST")
    assert refusal(error.value)[1] == f"Alias already exists: {ARN}{name}:live"
    with pytest.raises(client.exceptions.ResourceNotFoundException) as missing:
        client.create_alias(FunctionName=name, Name="other", FunctionVersion="7")
    assert refusal(missing.value)[1] == f"Function not found: {ARN}{name}:7"


def test_alias_divides_a_thousand_invocations_by_its_weights(tmp_path: Path) -> None:
    with serving(tmp_path, AwsSettings()) as unsigned:
        client = unsigned.client()
        new_function(client, "divided", Publish=True)
        client.update_function_configuration(FunctionName="divided", Timeout=9)
        client.publish_version(FunctionName="divided")
        alias = {"FunctionName": "divided", "Name": "live"}
        weights = {"AdditionalVersionWeights": {"2": 0.3}}
        client.create_alias(**alias, FunctionVersion="1", RoutingConfig=weights)
        executed = versions_executed(unsigned, 1_000)
        assert set(executed) == {"1", "2"}
        # Six standard deviations of a thousand draws: it fails once in some hundred million runs.
        assert abs(executed.count("2") - 300) < 90
        client.update_alias(**alias, RoutingConfig={"AdditionalVersionWeights": {"2": 1.0}})
        assert set(versions_executed(unsigned, 20)) == {"2"}


def versions_executed(server: Server, count: int) -> list[str | None]:
    """The versions that as many invocations through the alias say they went to."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=20)
    found = []
    with closing(connection):
        for _ in range(count):
            connection.request("POST", "/2015-03-31/functions/divided/invocations?Qualifier=live", body=b"{}")
            reply = connection.getresponse()
            reply.read()
            found.append(reply.getheader("X-Amz-Executed-Version"))
    return found


@pytest.mark.parametrize("weight", [-1.0, 2.0], ids=["negative", "two"])
def test_weight_is_a_part_of_one(client: Any, server: Server, name: str, weight: float) -> None:
    client.publish_version(FunctionName=name)
    with pytest.raises(client.exceptions.ClientError) as error:
        server.client(**unchecked()).create_alias(
            FunctionName=name,
            Name="live",
            FunctionVersion="1",
            RoutingConfig={"AdditionalVersionWeights": {"2": weight}},
        )
    code, message = refusal(error.value)
    assert code == "ValidationException" and "additionalVersionWeights" in message


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"Role": "arn:aws:iam::000000000000:role/other"}, "execution role"),
        ({"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:q"}}, "dead-letter configuration"),
    ],
)
def test_versions_that_share_an_alias_have_one_role_and_one_dead_letter_queue(
    client: Any, name: str, change: dict[str, Any], what: str
) -> None:
    client.publish_version(FunctionName=name)
    client.update_function_configuration(FunctionName=name, **change)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    with pytest.raises(client.exceptions.InvalidParameterValueException, match=what):
        client.update_alias(FunctionName=name, Name="live", RoutingConfig={"AdditionalVersionWeights": {"2": 0.5}})
    client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")


def test_numbers_of_deleted_versions_are_not_given_again(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    client.delete_function(FunctionName=name, Qualifier="1")
    assert client.publish_version(FunctionName=name)["Version"] == "2"

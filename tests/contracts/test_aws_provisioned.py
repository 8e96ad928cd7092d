"""Provisioned concurrency through the official client: settings, how they are shown, and every refusal."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import KEYS, ROLE, Server, new_function, refusal, serving, unchecked

from torpor.api.aws import AwsSettings
from torpor.contracts.lambda_ import limits
from torpor.model.function import FunctionVersion
from torpor.model.provision import Standing

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
INVALID, CONFLICT, MISSING = "InvalidParameterValueException", "ResourceConflictException", "ResourceNotFoundException"
NONE = ("ProvisionedConcurrencyConfigNotFoundException", "No Provisioned Concurrency Config found for this function")
NOT_A_TARGET = (INVALID, "The function resource provided must be an alias or a published version.")
UNPUBLISHED = (INVALID, "Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
TAKEN = (CONFLICT, "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version")
POINTED_AT = (CONFLICT, "Version is pointed by a Provisioned Concurrency alias")


@dataclass
class FakeStanding:
    """Says of every version what a test sets."""

    told: Standing = field(default_factory=Standing)
    asked: list[FunctionVersion] = field(default_factory=list)

    def __call__(self, version: FunctionVersion) -> Standing:
        self.asked.append(version)
        return self.told


@pytest.fixture(scope="module")
def fake() -> FakeStanding:
    return FakeStanding()


@pytest.fixture
def standing(fake: FakeStanding) -> Iterator[FakeStanding]:
    fake.asked.clear()
    yield fake
    fake.told = Standing()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fake: FakeStanding) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS), standing=fake) as running:
        yield running


@pytest.fixture
def name(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    """A function with versions 1 and 2, and the alias `live` on the first."""
    made = re.sub(r"[^a-z0-9_-]", "", request.node.name)[:60]
    new_function(client, made)
    client.publish_version(FunctionName=made)
    client.update_function_configuration(FunctionName=made, Timeout=9)
    client.publish_version(FunctionName=made)
    client.create_alias(FunctionName=made, Name="live", FunctionVersion="1")
    yield made
    client.delete_function(FunctionName=made)


def put(client: Any, name: str, qualifier: str, number: int = 1) -> Any:
    return client.put_provisioned_concurrency_config(
        FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=number
    )


def get(client: Any, name: str, qualifier: str) -> Any:
    return client.get_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)


def end(client: Any, name: str, qualifier: str) -> Any:
    return client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)


def listed(client: Any, name: str, **values: Any) -> list[str]:
    reply = client.list_provisioned_concurrency_configs(FunctionName=name, **values)
    return [each["FunctionArn"].removeprefix(f"{ARN}{name}:") for each in reply["ProvisionedConcurrencyConfigs"]]


def minimum(client: Any, server: Server, name: str, qualifier: str) -> int:
    """What the engine is told to keep of a version."""
    client.invoke(FunctionName=name, Qualifier=qualifier)
    return server.dispatcher.seen[-1][0].minimum


@pytest.mark.parametrize("qualifier", ["1", "live"])
def test_setting_is_made_read_changed_and_deleted(
    client: Any, server: Server, name: str, standing: FakeStanding, qualifier: str
) -> None:
    made = put(client, name, qualifier, 3)
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    shown = {key: value for key, value in made.items() if key != "ResponseMetadata"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000", shown.pop("LastModified"))
    assert shown == {
        "RequestedProvisionedConcurrentExecutions": 3,
        "AvailableProvisionedConcurrentExecutions": 0,
        "AllocatedProvisionedConcurrentExecutions": 0,
        "Status": "IN_PROGRESS",
    }
    assert minimum(client, server, name, "1") == 3
    standing.told = Standing(up=3)
    ready = get(client, f"{ARN}{name}:{qualifier}", qualifier)
    assert (ready["Status"], ready["AllocatedProvisionedConcurrentExecutions"]) == ("READY", 3)
    assert (standing.asked[-1].version, standing.asked[-1].minimum) == ("1", 3)
    assert put(client, name, qualifier, 2)["RequestedProvisionedConcurrentExecutions"] == 2
    assert get(client, name, qualifier)["AvailableProvisionedConcurrentExecutions"] == 2
    assert end(client, name, qualifier)["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert minimum(client, server, name, "1") == 0
    with pytest.raises(client.exceptions.ProvisionedConcurrencyConfigNotFoundException) as error:
        get(client, name, qualifier)
    assert refusal(error.value) == NONE
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    end(client, name, qualifier)


@pytest.mark.parametrize(
    ("told", "status", "reason", "allocated"),
    [
        (Standing(up=1), "IN_PROGRESS", None, 1),
        (Standing(up=2), "READY", None, 2),
        (Standing(up=3), "READY", None, 2),
        (Standing(failed=True), "FAILED", "FUNCTION_ERROR_INIT_FAILURE", 0),
        (Standing(up=1, reason="No memory."), "IN_PROGRESS", "No memory.", 1),
        (Standing(up=1, failed=True, reason="No memory."), "FAILED", "No memory.", 1),
    ],
)
def test_status_tells_how_far_it_is_and_why_not_further(
    client: Any, name: str, standing: FakeStanding, told: Standing, status: str, reason: str | None, allocated: int
) -> None:
    put(client, name, "1", 2)
    standing.told = told
    shown = get(client, name, "1")
    assert (shown["Status"], shown.get("StatusReason")) == (status, reason)
    assert shown["AllocatedProvisionedConcurrentExecutions"] == allocated


def test_settings_are_listed_over_pages(client: Any, name: str) -> None:
    assert listed(client, name) == []
    put(client, name, "2")
    put(client, name, "live")
    assert listed(client, name) == ["2", "live"]
    first = client.list_provisioned_concurrency_configs(FunctionName=name, MaxItems=1)
    assert listed(client, name, Marker=first["NextMarker"]) == ["live"]
    assert first["ProvisionedConcurrencyConfigs"][0]["Status"] == "IN_PROGRESS"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        listed(client, "nothing")


@pytest.mark.parametrize(
    ("operation", "qualifier", "expected"),
    [
        (put, "$LATEST", UNPUBLISHED),
        (get, "$LATEST", NOT_A_TARGET),
        (end, "$LATEST", NOT_A_TARGET),
        (put, "9", (MISSING, "Function not found: {arn}:9")),
        (get, "9", (MISSING, "Function not found: {arn}:9")),
        (end, "9", (MISSING, "Function not found: {arn}:9")),
        (put, "blue", (MISSING, "Alias not found: {arn}:blue")),
        (get, "blue", (MISSING, "Alias not found: {arn}:blue")),
        (end, "blue", (MISSING, "Alias not found: {arn}:blue")),
        (get, "1", NONE),
        (get, "live", NONE),
    ],
)
def test_what_cannot_have_or_has_no_setting_is_refused(
    client: Any, name: str, operation: Any, qualifier: str, expected: tuple[str, str]
) -> None:
    with pytest.raises(ClientError) as error:
        operation(client, name, qualifier)
    code, text = expected
    assert refusal(error.value) == (code, text.format(arn=ARN + name))


@pytest.mark.parametrize("operation", [put, get, end])
def test_function_that_does_not_exist_is_not_found(client: Any, operation: Any) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        operation(client, "nothing", "1")


@pytest.mark.parametrize("number", [0, -1])
def test_number_below_one_is_refused(server: Server, name: str, number: int) -> None:
    with pytest.raises(ClientError) as error:
        put(server.client(**unchecked()), name, "1", number)
    assert "provisionedConcurrentExecutions" in refusal(error.value)[1]


def test_version_is_provisioned_by_itself_or_by_one_alias(client: Any, name: str) -> None:
    client.create_alias(FunctionName=name, Name="other", FunctionVersion="1")
    put(client, name, "1")
    put(client, name, "1", 2)
    with pytest.raises(ClientError) as error:
        put(client, name, "live")
    assert refusal(error.value) == TAKEN
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    end(client, name, "1")
    put(client, name, "live")
    put(client, name, "live", 2)
    for qualifier, expected in (("1", POINTED_AT), ("other", TAKEN)):
        with pytest.raises(ClientError) as error:
            put(client, name, qualifier)
        assert refusal(error.value) == expected


def test_alias_takes_its_setting_along(client: Any, server: Server, name: str) -> None:
    put(client, name, "live", 4)
    client.update_alias(FunctionName=name, Name="live", Description="only the text")
    client.update_alias(FunctionName=name, Name="live", FunctionVersion="2")
    assert (minimum(client, server, name, "1"), minimum(client, server, name, "2")) == (0, 4)
    weights = {"AdditionalVersionWeights": {"1": 0.9}}
    client.update_alias(FunctionName=name, Name="live", RoutingConfig=weights)
    assert (minimum(client, server, name, "1"), minimum(client, server, name, "2")) == (0, 4), "the first version's"
    client.delete_alias(FunctionName=name, Name="live")
    assert (minimum(client, server, name, "2"), listed(client, name)) == (0, [])


def test_alias_cannot_take_its_setting_to_a_provisioned_or_unpublished_version(client: Any, name: str) -> None:
    put(client, name, "live")
    put(client, name, "2")
    for version, expected in (("2", TAKEN), ("$LATEST", UNPUBLISHED)):
        with pytest.raises(ClientError) as error:
            client.update_alias(FunctionName=name, Name="live", FunctionVersion=version)
        assert refusal(error.value) == expected
    assert client.get_alias(FunctionName=name, Name="live")["FunctionVersion"] == "1"
    client.create_alias(FunctionName=name, Name="newest", FunctionVersion="$LATEST")
    with pytest.raises(ClientError) as error:
        put(client, name, "newest")
    assert refusal(error.value) == UNPUBLISHED


def test_setting_goes_with_its_version(client: Any, name: str) -> None:
    put(client, name, "2")
    client.delete_function(FunctionName=name, Qualifier="2")
    assert listed(client, name) == []


def test_provisioned_concurrency_counts_within_the_reservation(client: Any, name: str) -> None:
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=3)
    put(client, name, "1", 2)
    with pytest.raises(ClientError) as error:
        put(client, name, "2", 2)
    text = "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    assert refusal(error.value) == (INVALID, text)
    put(client, name, "2", 1)
    end(client, name, "2")
    with pytest.raises(ClientError) as error:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
    text = " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."
    assert refusal(error.value) == (INVALID, text)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)
    client.delete_function_concurrency(FunctionName=name)


def test_provisioned_concurrency_takes_from_what_the_account_has_unreserved(client: Any, name: str) -> None:
    account, least = limits.ACCOUNT_CONCURRENCY, limits.UNRESERVED_MINIMUM
    start = "Specified ConcurrentExecutions for function "
    for number, text in (
        (account + 1, f"{start}is greater than account's unreserved concurrency [{account}]."),
        (
            account - least + 1,
            f"{start}decreases account's UnreservedConcurrentExecution below its minimum value of [{least}].",
        ),
    ):
        with pytest.raises(ClientError) as error:
            put(client, name, "1", number)
        assert refusal(error.value) == (INVALID, text)
    put(client, name, "1", account - least)
    shown = client.get_account_settings()["AccountLimit"]
    assert shown["UnreservedConcurrentExecutions"] == least
    with pytest.raises(ClientError):
        put(client, name, "2", 1)
    put(client, name, "1", 1)
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=5)
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == account - 5
    client.delete_function_concurrency(FunctionName=name)
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == account - 1


def test_managed_and_snapshot_versions_are_refused(client: Any) -> None:
    provider = client.create_capacity_provider(
        CapacityProviderName="here",
        VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
        PermissionsConfig={"CapacityProviderOperatorRoleArn": ROLE},
    )["CapacityProvider"]["CapacityProviderArn"]
    config = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": provider}}
    new_function(client, "managed", Runtime="python3.13", MemorySize=4096, CapacityProviderConfig=config)
    new_function(client, "snapshots", SnapStart={"ApplyOn": "PublishedVersions"})
    for made, text in (("managed", "scaling configuration"), ("snapshots", "SnapStart")):
        client.publish_version(FunctionName=made)
        with pytest.raises(client.exceptions.InvalidParameterValueException, match=text):
            put(client, made, "1")
        client.delete_function(FunctionName=made)


def test_command_line_tool_sets_and_reads_it(server: Server, name: str, standing: FakeStanding) -> None:
    standing.told = Standing(up=1)
    where = ("--function-name", name, "--qualifier", "live")
    done = server.command(
        "put-provisioned-concurrency-config", *where, "--provisioned-concurrent-executions", "1", "--output", "text"
    )
    assert done.returncode == 0 and "IN_PROGRESS" in done.stdout, done.stderr
    done = server.command("get-provisioned-concurrency-config", *where, "--query", "Status", "--output", "text")
    assert done.stdout.strip() == "READY", done.stderr

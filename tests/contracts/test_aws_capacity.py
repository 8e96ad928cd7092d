"""Capacity providers and functions that run on one, through the official client."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import KEYS, ROLE, Server, new_function, refusal, serving

from torpor.api.aws import AwsSettings
from torpor.model.function import FunctionVersion

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
PROVIDER_ARN = "arn:aws:lambda:us-east-1:000000000000:capacity-provider:here"
PLACED = {
    "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]},
    "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
}


@dataclass
class FakeStates:
    """Says of every version what a test sets."""

    told: tuple[str, str, str] = ("Active", "", "")
    asked: list[FunctionVersion] = field(default_factory=list)

    def __call__(self, version: FunctionVersion, /) -> tuple[str, str, str]:
        self.asked.append(version)
        return self.told


@pytest.fixture(scope="module")
def fake_states() -> FakeStates:
    return FakeStates()


@pytest.fixture
def states(fake_states: FakeStates) -> Iterator[FakeStates]:
    yield fake_states
    fake_states.told = ("Active", "", "")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, fake_states: FakeStates) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS), fake_states) as running:
        running.client().create_capacity_provider(CapacityProviderName="here", **PLACED)
        yield running


@pytest.fixture
def name(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    made = request.node.name[:60].replace("[", "-").replace("]", "").replace("$", "").replace(".", "")
    managed(client, made)
    yield made
    client.delete_function(FunctionName=made)


def managed(client: Any, name: str, config: dict[str, Any] | None = None, **values: Any) -> Any:
    instances = {"CapacityProviderArn": PROVIDER_ARN, **(config or {})}
    given = {"Runtime": "python3.13", "MemorySize": 4096, **values}
    return new_function(
        client,
        name,
        CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": instances},
        **given,
    )


def instances_of(shown: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = shown["CapacityProviderConfig"]["LambdaManagedInstancesCapacityProviderConfig"]
    return config


def test_provider_is_made_read_changed_listed_and_deleted(client: Any) -> None:
    made = client.create_capacity_provider(CapacityProviderName="other", Tags={"team": "a"}, **PLACED)
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    provider = made["CapacityProvider"]
    assert provider["CapacityProviderArn"] == PROVIDER_ARN.replace("here", "other")
    assert provider["State"] == "Pending"
    assert {name: provider[name] for name in PLACED} == PLACED
    scaling = {
        "MaxVCpuCount": 8,
        "ScalingMode": "Manual",
        "ScalingPolicies": [
            {"PredefinedMetricType": "LambdaCapacityProviderAverageCPUUtilization", "TargetValue": 60.0}
        ],
    }
    changed = client.update_capacity_provider(CapacityProviderName="other", CapacityProviderScalingConfig=scaling)
    assert changed["CapacityProvider"]["CapacityProviderScalingConfig"] == scaling
    for text in ("other", PROVIDER_ARN.replace("here", "other")):
        shown = client.get_capacity_provider(CapacityProviderName=text)["CapacityProvider"]
        assert (shown["State"], shown["CapacityProviderScalingConfig"]) == ("Active", scaling)
    arns = [each["CapacityProviderArn"] for each in client.list_capacity_providers()["CapacityProviders"]]
    assert arns == [PROVIDER_ARN, PROVIDER_ARN.replace("here", "other")]
    page = client.list_capacity_providers(MaxItems=1)
    rest = client.list_capacity_providers(MaxItems=1, Marker=page["NextMarker"])
    assert rest["CapacityProviders"][0]["CapacityProviderArn"] == arns[1] and "NextMarker" not in rest
    assert client.list_capacity_providers(State="Failed")["CapacityProviders"] == []
    gone = client.delete_capacity_provider(CapacityProviderName="other")
    assert gone["CapacityProvider"]["State"] == "Deleting"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_capacity_provider(CapacityProviderName="other")


def test_provider_has_defaults_and_one_name_once(client: Any) -> None:
    shown = client.get_capacity_provider(CapacityProviderName="here")["CapacityProvider"]
    assert shown["CapacityProviderScalingConfig"] == {"MaxVCpuCount": 400, "ScalingMode": "Auto"}
    assert shown["InstanceRequirements"] == {"Architectures": ["x86_64"]}
    with pytest.raises(client.exceptions.ResourceConflictException):
        client.create_capacity_provider(CapacityProviderName="here", **PLACED)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"InstanceRequirements": {"AllowedInstanceTypes": ["a"], "ExcludedInstanceTypes": ["b"]}}, "together"),
        ({"CapacityProviderScalingConfig": {"ScalingMode": "Manual"}}, "needs ScalingPolicies"),
    ],
)
def test_provider_that_contradicts_itself_is_refused(client: Any, values: dict[str, Any], text: str) -> None:
    with pytest.raises(client.exceptions.InvalidParameterValueException, match=text):
        client.create_capacity_provider(CapacityProviderName="never", **PLACED, **values)


def test_provider_is_tagged(client: Any) -> None:
    client.tag_resource(Resource=PROVIDER_ARN, Tags={"a": "1", "b": "2"})
    client.untag_resource(Resource=PROVIDER_ARN, TagKeys=["a", "x"])
    assert client.list_tags(Resource=PROVIDER_ARN)["Tags"] == {"b": "2"}
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.list_tags(Resource=PROVIDER_ARN + "2")


def test_managed_function_shows_what_is_in_force(client: Any, server: Server) -> None:
    shown = managed(client, "shown", {"ExecutionEnvironmentMemoryGiBPerVCpu": 4.0}, MemorySize=8192)
    assert instances_of(shown) == {
        "CapacityProviderArn": PROVIDER_ARN,
        "PerExecutionEnvironmentMaxConcurrency": 32,
        "ExecutionEnvironmentMemoryGiBPerVCpu": 4.0,
    }
    assert (shown["LoggingConfig"]["LogFormat"], shown["State"]) == ("JSON", "Pending")
    client.get_waiter("function_active_v2").wait(FunctionName="shown")
    client.publish_version(FunctionName="shown")
    server.dispatcher.seen.clear()
    client.invoke(FunctionName="shown:1")
    version = server.dispatcher.seen[0][0]
    assert (version.contract, version.concurrency, version.cpu) == ("lambda_managed", 32, 2.0)
    assert (version.minimum, version.maximum, version.log_format) == (3, None, "JSON")
    client.delete_function(FunctionName="shown")


@pytest.mark.parametrize(
    ("runtime", "concurrency"),
    [("python3.13", 16), ("nodejs22.x", 64), ("java21", 32), ("dotnet8", 32), ("provided.al2023", 8)],
)
def test_usual_concurrency_is_by_runtime_and_vcpu(client: Any, runtime: str, concurrency: int) -> None:
    shown = managed(client, "usual", Runtime=runtime, MemorySize=2048)
    assert instances_of(shown)["PerExecutionEnvironmentMaxConcurrency"] == concurrency
    client.delete_function(FunctionName="usual")


@pytest.mark.parametrize(
    ("config", "values", "text"),
    [
        ({}, {"MemorySize": 2047}, "2048 to 32768 MB"),
        ({}, {"MemorySize": 128}, "2048 to 32768 MB"),
        ({"ExecutionEnvironmentMemoryGiBPerVCpu": 3.0}, {}, "must be one of 2, 4, 8"),
        ({"ExecutionEnvironmentMemoryGiBPerVCpu": 8.0}, {}, "less than one vCPU"),
        ({}, {"Runtime": "python3.12"}, "python3.12 does not run on a capacity provider"),
        ({}, {"Runtime": "nodejs20.x"}, "nodejs20.x does not run on a capacity provider"),
        ({}, {"Runtime": "ruby3.4"}, "ruby3.4 does not run on a capacity provider"),
        ({}, {"LoggingConfig": {"LogFormat": "Text"}}, "log in JSON only"),
        ({"CapacityProviderArn": PROVIDER_ARN + "2"}, {}, "does not exist"),
    ],
)
def test_function_that_cannot_run_on_a_provider_is_refused(
    client: Any, config: dict[str, Any], values: dict[str, Any], text: str
) -> None:
    with pytest.raises(client.exceptions.InvalidParameterValueException, match=text):
        managed(client, "never", config, **values)


def test_memory_of_managed_functions_may_be_larger_and_is_at_least_two_gigabytes(client: Any) -> None:
    assert managed(client, "large", MemorySize=32768)["MemorySize"] == 32768
    client.delete_function(FunctionName="large")
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        new_function(client, "never", MemorySize=10241)


def test_change_of_size_keeps_the_rules_and_moves_the_usual_concurrency(client: Any, name: str) -> None:
    assert (
        instances_of(client.get_function_configuration(FunctionName=name))["PerExecutionEnvironmentMaxConcurrency"]
        == 32
    )
    shown = client.update_function_configuration(FunctionName=name, MemorySize=8192)
    assert instances_of(shown)["PerExecutionEnvironmentMaxConcurrency"] == 64
    for values in ({"MemorySize": 1024}, {"Runtime": "python3.10"}, {"LoggingConfig": {"LogFormat": "Text"}}):
        with pytest.raises(client.exceptions.InvalidParameterValueException):
            client.update_function_configuration(FunctionName=name, **values)
    config = {"CapacityProviderArn": PROVIDER_ARN, "PerExecutionEnvironmentMaxConcurrency": 7}
    shown = client.update_function_configuration(
        FunctionName=name, CapacityProviderConfig={"LambdaManagedInstancesCapacityProviderConfig": config}
    )
    assert instances_of(shown)["PerExecutionEnvironmentMaxConcurrency"] == 7


def test_standard_function_is_not_moved_to_a_provider(client: Any) -> None:
    new_function(client, "standard")
    config = {"LambdaManagedInstancesCapacityProviderConfig": {"CapacityProviderArn": PROVIDER_ARN}}
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="cannot be moved"):
        client.update_function_configuration(FunctionName="standard", CapacityProviderConfig=config)
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="PublishTo"):
        client.publish_version(FunctionName="standard", PublishTo="LATEST_PUBLISHED")
    client.delete_function(FunctionName="standard")


@pytest.mark.parametrize("qualifier", ["", "$LATEST"])
def test_unpublished_managed_function_is_not_invocable(client: Any, name: str, qualifier: str) -> None:
    given = {"Qualifier": qualifier} if qualifier else {}
    with pytest.raises(client.exceptions.NoPublishedVersionException) as error:
        client.invoke(FunctionName=name, **given)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert refusal(error.value)[1] == "The function has no published versions available."


def test_published_managed_function_is_invoked_by_number(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    assert client.invoke(FunctionName=name, Qualifier="1")["ExecutedVersion"] == "1"
    with pytest.raises(client.exceptions.NoPublishedVersionException, match="number of a version"):
        client.invoke(FunctionName=name)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke(FunctionName=name, Qualifier="9")


def test_version_that_is_published_again_and_again_is_invoked_without_a_name(
    client: Any, server: Server, name: str
) -> None:
    first = client.publish_version(FunctionName=name, PublishTo="LATEST_PUBLISHED")
    assert (first["Version"], first["FunctionArn"]) == ("$LATEST.PUBLISHED", f"{ARN}{name}:$LATEST.PUBLISHED")
    client.update_function_configuration(FunctionName=name, Timeout=9)
    second = client.publish_version(FunctionName=name, PublishTo="LATEST_PUBLISHED")
    assert second["RevisionId"] != first["RevisionId"]
    for qualifier in ({}, {"Qualifier": "$LATEST.PUBLISHED"}):
        server.dispatcher.seen.clear()
        assert client.invoke(FunctionName=name, **qualifier)["ExecutedVersion"] == "$LATEST.PUBLISHED"
        assert server.dispatcher.seen[0][0].timeout_s == 9.0
    assert [item["Version"] for item in client.list_versions_by_function(FunctionName=name)["Versions"]] == [
        "$LATEST",
        "$LATEST.PUBLISHED",
    ]


def test_version_is_pending_until_its_environments_are_up(client: Any, states: FakeStates, name: str) -> None:
    states.told = ("Pending", "The function is being created.", "Creating")
    published = client.publish_version(FunctionName=name)
    assert (published["State"], published["StateReasonCode"]) == ("Pending", "Creating")
    assert "LastUpdateStatus" not in published
    assert states.asked[-1].version == "1"
    with pytest.raises(client.exceptions.ResourceConflictException) as error:
        client.invoke(FunctionName=name, Qualifier="1")
    assert refusal(error.value)[1] == (
        "The operation cannot be performed at this time. The function is currently in the following state: Pending"
    )
    states.told = ("Failed", "Init failed.", "FunctionError.RuntimeInitError")
    shown = client.get_function(FunctionName=name, Qualifier="1")["Configuration"]
    assert (shown["State"], shown["StateReason"]) == ("Failed", "Init failed.")
    assert shown["StateReasonCode"] == "FunctionError.RuntimeInitError"
    states.told = ("Active", "", "")
    assert client.invoke(FunctionName=name, Qualifier="1")["StatusCode"] == 200
    assert client.get_function_configuration(FunctionName=name)["State"] == "Active"


def test_versions_are_scaled_between_bounds(client: Any, server: Server, name: str) -> None:
    client.publish_version(FunctionName=name)
    shown = client.get_function_scaling_config(FunctionName=name, Qualifier="1")
    assert shown["FunctionArn"] == f"{ARN}{name}:1"
    assert shown["AppliedFunctionScalingConfig"] == {"MinExecutionEnvironments": 3}
    bounds = {"MinExecutionEnvironments": 1, "MaxExecutionEnvironments": 2}
    before = client.get_function_configuration(FunctionName=name, Qualifier="1")["RevisionId"]
    reply = client.put_function_scaling_config(FunctionName=name, Qualifier="1", FunctionScalingConfig=bounds)
    assert (reply["ResponseMetadata"]["HTTPStatusCode"], reply["FunctionState"]) == (202, "Active")
    shown = client.get_function_scaling_config(FunctionName=name, Qualifier="1")
    assert shown["AppliedFunctionScalingConfig"] == shown["RequestedFunctionScalingConfig"] == bounds
    assert client.get_function_configuration(FunctionName=name, Qualifier="1")["RevisionId"] == before
    server.dispatcher.seen.clear()
    client.invoke(FunctionName=name, Qualifier="1")
    version = server.dispatcher.seen[0][0]
    assert (version.minimum, version.maximum) == (1, 2)
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.put_function_scaling_config(
            FunctionName=name,
            Qualifier="1",
            FunctionScalingConfig={"MinExecutionEnvironments": 3, "MaxExecutionEnvironments": 2},
        )
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.put_function_scaling_config(FunctionName=name, Qualifier="9", FunctionScalingConfig={})


def test_standard_version_has_no_scaling_configuration(client: Any) -> None:
    new_function(client, "unscaled", Publish=True)
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.get_function_scaling_config(FunctionName="unscaled", Qualifier="1")
    client.delete_function(FunctionName="unscaled")


def test_provider_lists_the_versions_that_run_on_it_and_stays_while_it_is_used(client: Any, name: str) -> None:
    for seconds in (1, 2, 3):
        client.update_function_configuration(FunctionName=name, Timeout=seconds)
        client.publish_version(FunctionName=name)
    page = client.list_function_versions_by_capacity_provider(CapacityProviderName="here", MaxItems=2)
    assert page["CapacityProviderArn"] == PROVIDER_ARN
    rest = client.list_function_versions_by_capacity_provider(CapacityProviderName="here", Marker=page["NextMarker"])
    found = [*page["FunctionVersions"], *rest["FunctionVersions"]]
    assert found == [{"FunctionArn": f"{ARN}{name}:{number}", "State": "Active"} for number in (1, 2, 3)]
    with pytest.raises(client.exceptions.ResourceConflictException, match=name):
        client.delete_capacity_provider(CapacityProviderName="here")


def test_provider_of_another_region_is_not_found(client: Any) -> None:
    with pytest.raises(ClientError) as error:
        client.get_capacity_provider(CapacityProviderName=PROVIDER_ARN.replace("us-east-1", "eu-west-1"))
    assert refusal(error.value)[0] == "ResourceNotFoundException"

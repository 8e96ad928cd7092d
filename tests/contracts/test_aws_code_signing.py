"""Code signing configurations, and functions that have one, through the official client."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.contracts.aws_support import ROLE, Server, archive, new_function, refusal, unchecked

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
PROFILE = "arn:aws:signer:us-east-1:000000000000:/signing-profiles/p/v1"
PUBLISHERS = {"SigningProfileVersionArns": [PROFILE]}
ENFORCE = {"UntrustedArtifactOnDeployment": "Enforce"}
NOWHERE = "arn:aws:lambda:us-east-1:000000000000:code-signing-config:csc-0123456789abcdef0"


@pytest.fixture
def warning(client: Any) -> Iterator[str]:
    made = client.create_code_signing_config(AllowedPublishers=PUBLISHERS, Description="mine")
    yield made["CodeSigningConfig"]["CodeSigningConfigArn"]
    client.delete_code_signing_config(CodeSigningConfigArn=made["CodeSigningConfig"]["CodeSigningConfigArn"])


@pytest.fixture
def enforcing(client: Any) -> Iterator[str]:
    made = client.create_code_signing_config(AllowedPublishers=PUBLISHERS, CodeSigningPolicies=ENFORCE)
    yield made["CodeSigningConfig"]["CodeSigningConfigArn"]
    client.delete_code_signing_config(CodeSigningConfigArn=made["CodeSigningConfig"]["CodeSigningConfigArn"])


@pytest.fixture
def name(client: Any, warning: str, enforcing: str, request: pytest.FixtureRequest) -> Iterator[str]:
    made = request.node.name[:60]
    new_function(client, made)
    yield made
    client.delete_function(FunctionName=made)


def test_config_is_made_read_changed_listed_and_deleted(client: Any) -> None:
    reply = client.create_code_signing_config(AllowedPublishers=PUBLISHERS, Description="mine")
    made = reply["CodeSigningConfig"]
    arn = made["CodeSigningConfigArn"]
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert re.fullmatch("csc-[a-z0-9]{17}", made["CodeSigningConfigId"]) and arn.endswith(made["CodeSigningConfigId"])
    assert made["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Warn"}
    assert client.get_code_signing_config(CodeSigningConfigArn=arn)["CodeSigningConfig"] == made
    changed = client.update_code_signing_config(CodeSigningConfigArn=arn, CodeSigningPolicies=ENFORCE)
    assert changed["CodeSigningConfig"] | {"LastModified": ""} == made | {
        "CodeSigningPolicies": ENFORCE,
        "LastModified": "",
    }
    assert arn in [each["CodeSigningConfigArn"] for each in client.list_code_signing_configs()["CodeSigningConfigs"]]
    assert client.delete_code_signing_config(CodeSigningConfigArn=arn)["ResponseMetadata"]["HTTPStatusCode"] == 204
    for call in (client.get_code_signing_config, client.delete_code_signing_config):
        with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
            call(CodeSigningConfigArn=arn)
        assert refusal(error.value)[1] == f"The Lambda code signing configuration {arn} can not be found."


def test_configs_are_listed_over_pages(client: Any) -> None:
    made = {
        client.create_code_signing_config(AllowedPublishers=PUBLISHERS)["CodeSigningConfig"]["CodeSigningConfigArn"]
        for _ in range(3)
    }
    pages = client.get_paginator("list_code_signing_configs").paginate(PaginationConfig={"PageSize": 2})
    assert made <= {each["CodeSigningConfigArn"] for page in pages for each in page["CodeSigningConfigs"]}
    for arn in made:
        client.delete_code_signing_config(CodeSigningConfigArn=arn)


def test_config_is_tagged(client: Any, warning: str) -> None:
    client.tag_resource(Resource=warning, Tags={"team": "a", "stage": "b"})
    client.untag_resource(Resource=warning, TagKeys=["stage", "none"])
    assert client.list_tags(Resource=warning)["Tags"] == {"team": "a"}
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.list_tags(Resource=NOWHERE)


def test_function_has_one_config_until_it_is_taken_away(client: Any, name: str, warning: str) -> None:
    assert "CodeSigningConfigArn" not in client.get_function_code_signing_config(FunctionName=name)
    put = client.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=warning)
    assert (put["CodeSigningConfigArn"], put["FunctionName"]) == (warning, name)
    shown = client.get_function_code_signing_config(FunctionName=ARN + name)
    assert (shown["CodeSigningConfigArn"], shown["FunctionName"]) == (warning, name)
    using = client.list_functions_by_code_signing_config(CodeSigningConfigArn=warning)
    assert using["FunctionArns"] == [ARN + name]
    with pytest.raises(client.exceptions.ResourceConflictException, match=name):
        client.delete_code_signing_config(CodeSigningConfigArn=warning)
    for _ in range(2):
        client.delete_function_code_signing_config(FunctionName=name)
    assert client.list_functions_by_code_signing_config(CodeSigningConfigArn=warning)["FunctionArns"] == []


def test_unsigned_package_passes_where_that_only_warns(client: Any, warning: str) -> None:
    new_function(client, "warned", CodeSigningConfigArn=warning)
    shown = client.get_function_code_signing_config(FunctionName="warned")
    assert shown["CodeSigningConfigArn"] == warning
    client.update_function_code(FunctionName="warned", ZipFile=archive({"app.py": "x = 1"}))
    client.delete_function(FunctionName="warned")


def test_unsigned_package_is_refused_where_signatures_are_enforced(client: Any, name: str, enforcing: str) -> None:
    before = client.get_function_configuration(FunctionName=name)
    client.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=enforcing)
    layer = client.publish_layer_version(LayerName="unsigned", Content={"ZipFile": archive()})["LayerVersionArn"]
    for deploy in (
        lambda: client.update_function_code(FunctionName=name, ZipFile=archive({"app.py": "x = 1"})),
        lambda: client.update_function_code(FunctionName=name, ZipFile=archive({"app.py": "x = 1"}), DryRun=True),
        lambda: client.update_function_configuration(FunctionName=name, Layers=[layer]),
        lambda: new_function(client, "enforced", CodeSigningConfigArn=enforcing),
    ):
        with pytest.raises(client.exceptions.CodeVerificationFailedException, match="Check the provided signature"):
            deploy()
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function(FunctionName="enforced")
    after = client.get_function_configuration(FunctionName=name)
    assert (after["RevisionId"], after["CodeSha256"]) == (before["RevisionId"], before["CodeSha256"])
    client.update_function_configuration(FunctionName=name, Timeout=9)


def test_config_goes_with_its_function(client: Any, enforcing: str) -> None:
    new_function(client, "signed")
    client.put_function_code_signing_config(FunctionName="signed", CodeSigningConfigArn=enforcing)
    client.delete_function(FunctionName="signed")
    new_function(client, "signed")
    assert "CodeSigningConfigArn" not in client.get_function_code_signing_config(FunctionName="signed")
    client.delete_function(FunctionName="signed")


def test_config_that_is_not_there_and_functions_that_are_not_are_told(client: Any, name: str, warning: str) -> None:
    for attach in (
        lambda: client.put_function_code_signing_config(FunctionName=name, CodeSigningConfigArn=NOWHERE),
        lambda: new_function(client, "unmade", CodeSigningConfigArn=NOWHERE),
    ):
        with pytest.raises(client.exceptions.CodeSigningConfigNotFoundException) as error:
            attach()
        assert refusal(error.value)[1] == (
            "The code signing configuration cannot be found. Check that the provided configuration is not deleted: "
            f"{NOWHERE}."
        )
    with pytest.raises(client.exceptions.ResourceNotFoundException) as missing:
        client.put_function_code_signing_config(FunctionName="nowhere", CodeSigningConfigArn=warning)
    assert refusal(missing.value)[1] == f"Function not found: {ARN}nowhere"


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"AllowedPublishers": {"SigningProfileVersionArns": []}}, "length greater than or equal to 1"),
        ({"AllowedPublishers": {"SigningProfileVersionArns": [PROFILE] * 21}}, "length less than or equal to 20"),
        ({"AllowedPublishers": {"SigningProfileVersionArns": [ROLE + " "]}, "Description": "d" * 257}, "256"),
        (
            {"CodeSigningPolicies": {"UntrustedArtifactOnDeployment": "Ask"}},
            "Member must satisfy enum value set: [Warn, Enforce]",
        ),
    ],
)
def test_bad_config_is_refused(server: Server, client: Any, values: dict[str, Any], part: str) -> None:
    given = {"AllowedPublishers": PUBLISHERS} | values
    with pytest.raises(client.exceptions.ClientError) as error:
        server.client(**unchecked()).create_code_signing_config(**given)
    code, message = refusal(error.value)
    assert code == "ValidationException" and part in message

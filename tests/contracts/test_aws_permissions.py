"""Resource policies of functions, versions, aliases and layer versions through the official client."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.contracts.aws_support import Server, archive, new_function, refusal, unchecked

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
LAYER = "arn:aws:lambda:us-east-1:000000000000:layer:"
BUCKET = "arn:aws:s3:::uploads"
FITTING = {"StatementId": "s3", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}


@pytest.fixture
def name(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    made = re.sub(r"[^a-zA-Z0-9_-]", "-", request.node.name)[:60]
    new_function(client, made)
    yield made
    client.delete_function(FunctionName=made)


@pytest.fixture(scope="module")
def layer(client: Any) -> str:
    client.publish_layer_version(LayerName="shared", Content={"ZipFile": archive()})
    return "shared"


def policy(client: Any, name: str, **values: Any) -> Any:
    return json.loads(client.get_policy(FunctionName=name, **values)["Policy"])


def absent(client: Any, name: str, **values: Any) -> str:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_policy(FunctionName=name, **values)
    return refusal(error.value)[1]


def test_statement_is_rendered_as_the_service_does(client: Any, name: str) -> None:
    made = client.add_permission(
        FunctionName=name, **FITTING, SourceArn=BUCKET, SourceAccount="111122223333", PrincipalOrgID="o-1234567890"
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    wanted = {
        "Sid": "s3",
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "lambda:InvokeFunction",
        "Resource": ARN + name,
        "Condition": {
            "StringEquals": {"aws:PrincipalOrgID": "o-1234567890", "AWS:SourceAccount": "111122223333"},
            "ArnLike": {"AWS:SourceArn": BUCKET},
        },
    }
    assert json.loads(made["Statement"]) == wanted
    assert policy(client, name) == {"Version": "2012-10-17", "Id": "default", "Statement": [wanted]}


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("*", "*"),
        ("111122223333", {"AWS": "arn:aws:iam::111122223333:root"}),
        ("arn:aws:iam::111122223333:role/app", {"AWS": "arn:aws:iam::111122223333:role/app"}),
        ("alexa-appkit.amazon.com", {"Service": "alexa-appkit.amazon.com"}),
    ],
)
def test_principal_has_one_of_three_forms(client: Any, name: str, given: str, shown: Any) -> None:
    made = client.add_permission(FunctionName=name, **FITTING | {"Principal": given})
    assert json.loads(made["Statement"])["Principal"] == shown


def test_statements_for_a_url_carry_its_conditions(client: Any, name: str) -> None:
    url = {"Action": "lambda:InvokeFunctionUrl", "Principal": "*"}
    client.add_permission(FunctionName=name, StatementId="url", FunctionUrlAuthType="NONE", **url)
    client.add_permission(FunctionName=name, **FITTING | {"Principal": "*"}, InvokedViaFunctionUrl=True)
    client.add_permission(FunctionName=name, **FITTING | {"StatementId": "token"}, EventSourceToken="skill.1")
    assert [statement["Condition"] for statement in policy(client, name)["Statement"]] == [
        {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
        {"Bool": {"lambda:InvokedViaFunctionUrl": "true"}},
        {"StringEquals": {"lambda:EventSourceToken": "skill.1"}},
    ]


def test_function_version_and_alias_have_policies_of_their_own(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    for qualifier in ("1", "live"):
        client.add_permission(FunctionName=name, Qualifier=qualifier, **FITTING)
        assert policy(client, f"{name}:{qualifier}")["Statement"][0]["Resource"] == f"{ARN}{name}:{qualifier}"
    assert absent(client, name) == "No policy is associated with the given resource."
    client.add_permission(FunctionName=name, **FITTING)
    assert policy(client, name)["Statement"][0]["Resource"] == ARN + name
    client.delete_alias(FunctionName=name, Name="live")
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="$LATEST")
    assert absent(client, name, Qualifier="live") == "No policy is associated with the given resource."


def test_policy_goes_with_its_function_and_version(client: Any) -> None:
    new_function(client, "again", Publish=True)
    client.add_permission(FunctionName="again", **FITTING)
    client.add_permission(FunctionName="again", Qualifier="1", **FITTING)
    client.create_alias(FunctionName="again", Name="live", FunctionVersion="1")
    with pytest.raises(client.exceptions.ResourceConflictException):
        client.delete_function(FunctionName="again", Qualifier="1")
    assert policy(client, "again", Qualifier="1")["Statement"], "a refused deletion took the policy away"
    client.delete_function(FunctionName="again")
    new_function(client, "again", Publish=True)
    for values in ({}, {"Qualifier": "1"}):
        assert absent(client, "again", **values) == "No policy is associated with the given resource."
    client.delete_function(FunctionName="again")


def test_last_statement_takes_the_policy_with_it(client: Any, name: str) -> None:
    client.add_permission(FunctionName=name, **FITTING)
    client.add_permission(FunctionName=name, **FITTING | {"StatementId": "second"})
    client.remove_permission(FunctionName=name, StatementId="s3")
    assert [statement["Sid"] for statement in policy(client, name)["Statement"]] == ["second"]
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.remove_permission(FunctionName=name, StatementId="s3")
    assert refusal(error.value)[1] == "Statement s3 is not found in resource policy."
    client.remove_permission(FunctionName=name, StatementId="second")
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.remove_permission(FunctionName=name, StatementId="second")
    assert refusal(error.value)[1] == "No policy is associated with the given resource."


def test_revision_guards_a_policy_against_changes_in_between(client: Any, name: str) -> None:
    function = client.get_function_configuration(FunctionName=name)["RevisionId"]
    client.add_permission(FunctionName=name, **FITTING, RevisionId=function)
    first = client.get_policy(FunctionName=name)["RevisionId"]
    client.add_permission(FunctionName=name, **FITTING | {"StatementId": "b"}, RevisionId=first)
    for change in (
        lambda: client.add_permission(FunctionName=name, **FITTING | {"StatementId": "c"}, RevisionId=first),
        lambda: client.remove_permission(FunctionName=name, StatementId="b", RevisionId=first),
    ):
        with pytest.raises(client.exceptions.PreconditionFailedException) as error:
            change()
        assert refusal(error.value)[1] == (
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetPolicy API to retrieve the latest Revision Id"
        )
    assert client.get_function_configuration(FunctionName=name)["RevisionId"] == function


@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        (
            {"Qualifier": "$LATEST"},
            "InvalidParameterValueException",
            "We currently do not support adding policies for $LATEST.",
        ),
        (
            {"Principal": "nobody.example.com"},
            "InvalidParameterValueException",
            "The provided principal was invalid. Please check the principal and try again.",
        ),
        (
            {"FunctionUrlAuthType": "NONE"},
            "InvalidParameterValueException",
            "FunctionUrlAuthType is only supported for lambda:InvokeFunctionUrl action",
        ),
        ({"Qualifier": "7"}, "ResourceNotFoundException", "Function not found: {arn}:7"),
        ({"Qualifier": "none"}, "ResourceNotFoundException", "Cannot find alias arn: {arn}:none"),
        (
            {"StatementId": "a.b"},
            "ValidationException",
            "1 validation error detected: Value 'a.b' at 'statementId' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: ([a-zA-Z0-9-_]+)",
        ),
        (
            {"Action": "s3:GetObject"},
            "ValidationException",
            "1 validation error detected: Value 's3:GetObject' at 'action' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: (lambda:[*]|lambda:[a-zA-Z]+|[*])",
        ),
    ],
)
def test_bad_permission_is_refused(
    client: Any, server: Server, name: str, values: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(client.exceptions.ClientError) as error:
        server.client(**unchecked()).add_permission(FunctionName=name, **FITTING | values)
    assert refusal(error.value) == (code, message.format(arn=ARN + name))
    assert absent(client, name) == "No policy is associated with the given resource."


def test_statement_id_is_used_once_and_unknown_functions_are_told(client: Any, name: str) -> None:
    client.add_permission(FunctionName=name, **FITTING)
    with pytest.raises(client.exceptions.ResourceConflictException) as error:
        client.add_permission(FunctionName=name, **FITTING)
    assert refusal(error.value)[1] == (
        "The statement id (s3) provided already exists. Please provide a new statement id, "
        "or remove the existing statement."
    )
    assert absent(client, "nowhere") == f"Function not found: {ARN}nowhere"


def test_policy_is_at_most_twenty_kilobytes(client: Any, name: str) -> None:
    large = {"SourceArn": BUCKET + "/" + "x" * 4_800}
    for number in range(4):
        client.add_permission(FunctionName=name, **FITTING | {"StatementId": f"n{number}"}, **large)
    with pytest.raises(client.exceptions.PolicyLengthExceededException, match=r"bigger than the limit \(20480\)"):
        client.add_permission(FunctionName=name, **FITTING, **large)
    assert len(policy(client, name)["Statement"]) == 4


def test_layer_version_is_shared_and_taken_back(client: Any, layer: str) -> None:
    version = {"LayerName": layer, "VersionNumber": 1}
    shared = {"StatementId": "all", "Action": "lambda:GetLayerVersion", "Principal": "*"}
    made = client.add_layer_version_permission(**version, **shared, OrganizationId="o-1234567890")
    assert json.loads(made["Statement"]) == {
        "Sid": "all",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "lambda:GetLayerVersion",
        "Resource": f"{LAYER}{layer}:1",
        "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}},
    }
    account = {"StatementId": "one", "Action": "lambda:GetLayerVersion", "Principal": "111122223333"}
    again = client.add_layer_version_permission(**version, **account, RevisionId=made["RevisionId"])
    shown = client.get_layer_version_policy(**version)
    assert shown["RevisionId"] == again["RevisionId"]
    assert [each["Principal"] for each in json.loads(shown["Policy"])["Statement"]] == [
        "*",
        {"AWS": "arn:aws:iam::111122223333:root"},
    ]
    with pytest.raises(client.exceptions.PreconditionFailedException, match="GetLayerPolicy"):
        client.remove_layer_version_permission(**version, StatementId="one", RevisionId=made["RevisionId"])
    with pytest.raises(client.exceptions.ResourceConflictException, match="already exists"):
        client.add_layer_version_permission(**version, **account)
    for statement in ("all", "one"):
        client.remove_layer_version_permission(**version, StatementId=statement)
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_layer_version_policy(**version)
    assert refusal(error.value)[1] == "No policy is associated with the given resource."


def test_policy_of_no_layer_version_is_told(client: Any, layer: str) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_layer_version_policy(LayerName=layer, VersionNumber=7)
    assert refusal(error.value)[1] == f"Layer version {LAYER}{layer}:7 does not exist."
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="less than 1"):
        client.get_layer_version_policy(LayerName=layer, VersionNumber=0)


def test_policy_of_a_deleted_layer_version_goes_too(client: Any) -> None:
    client.publish_layer_version(LayerName="short", Content={"ZipFile": archive()})
    version = {"LayerName": "short", "VersionNumber": 1}
    shared = {"StatementId": "all", "Action": "lambda:GetLayerVersion", "Principal": "*"}
    client.add_layer_version_permission(**version, **shared)
    client.delete_layer_version(**version)
    with pytest.raises(client.exceptions.ResourceNotFoundException, match="does not exist"):
        client.get_layer_version_policy(**version)


def test_newest_version_has_the_policy_of_the_function(client: Any, name: str) -> None:
    client.add_permission(FunctionName=name, **FITTING)

    assert policy(client, name, Qualifier="$LATEST") == policy(client, name)
    client.remove_permission(FunctionName=name, Qualifier="$LATEST", StatementId="s3")
    absent(client, name)

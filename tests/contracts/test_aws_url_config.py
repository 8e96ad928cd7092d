"""Configurations of function URLs through the official client."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import KEYS, functions, new_function, refusal, resources
from tests.contracts.url_support import UrlServer, identity_of, open_url, serving_urls, url_of

from torpor.api.aws import AwsSettings

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
ABSENT = ("ResourceNotFoundException", "The resource you requested does not exist.")
NO_FUNCTION = ("ResourceNotFoundException", "Function does not exist")
DATE = r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}\+0000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UrlServer]:
    with serving_urls(tmp_path_factory.mktemp("code"), AwsSettings(keys=KEYS)) as running:
        yield running


@pytest.fixture
def name(client: Any, request: pytest.FixtureRequest) -> Iterator[str]:
    made = re.sub(r"\W", "-", request.node.name)[:60]
    new_function(client, made)
    yield made
    client.delete_function(FunctionName=made)


def test_a_url_is_made_read_changed_and_deleted(client: Any, server: UrlServer, name: str) -> None:
    made = client.create_function_url_config(FunctionName=name, AuthType="NONE")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    address = rf"http://[a-z0-9]{{32}}\.lambda-url\.us-east-1\.localhost:{server.port}/"
    assert re.fullmatch(address, made["FunctionUrl"])
    assert (made["FunctionArn"], made["AuthType"], made["InvokeMode"]) == (ARN + name, "NONE", "BUFFERED")
    assert re.fullmatch(DATE, made["CreationTime"])
    assert "LastModifiedTime" not in made and "Cors" not in made

    found = client.get_function_url_config(FunctionName=name)
    assert found["LastModifiedTime"] == found["CreationTime"] == made["CreationTime"]

    cors = {"AllowOrigins": ["https://a.example"], "MaxAge": 5, "AllowCredentials": False, "AllowMethods": []}
    changed = client.update_function_url_config(FunctionName=name, Cors=cors, InvokeMode="RESPONSE_STREAM")
    assert (changed["Cors"], changed["InvokeMode"], changed["AuthType"]) == (cors, "RESPONSE_STREAM", "NONE")
    assert (changed["FunctionUrl"], changed["CreationTime"]) == (made["FunctionUrl"], made["CreationTime"])
    assert changed["LastModifiedTime"] > made["CreationTime"]

    again = client.update_function_url_config(FunctionName=name, AuthType="AWS_IAM", Cors={})
    assert (again["AuthType"], again["InvokeMode"]) == ("AWS_IAM", "RESPONSE_STREAM")
    assert "Cors" not in again

    assert client.delete_function_url_config(FunctionName=name)["ResponseMetadata"]["HTTPStatusCode"] == 204
    for call in ("get_function_url_config", "update_function_url_config", "delete_function_url_config"):
        with pytest.raises(ClientError) as error:
            getattr(client, call)(FunctionName=name)
        assert refusal(error.value) == ABSENT


def test_a_function_has_one_url_and_each_alias_one_of_its_own(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    for alias in ("live", "beta"):
        client.create_alias(FunctionName=name, Name=alias, FunctionVersion="1")
    whole = client.create_function_url_config(FunctionName=name, AuthType="NONE")
    live = client.create_function_url_config(FunctionName=name, AuthType="NONE", Qualifier="live")
    beta = client.create_function_url_config(FunctionName=f"{ARN}{name}:beta", AuthType="AWS_IAM")
    assert len({each["FunctionUrl"] for each in (whole, live, beta)}) == 3
    assert (live["FunctionArn"], beta["FunctionArn"]) == (f"{ARN}{name}:live", f"{ARN}{name}:beta")

    for qualifier in ("", ":live"):
        with pytest.raises(client.exceptions.ResourceConflictException) as error:
            client.create_function_url_config(FunctionName=name + qualifier, AuthType="NONE")
        assert refusal(error.value)[1] == (
            f"Failed to create function url config for [functionArn = {ARN}{name}{qualifier}]. "
            "Error message:  FunctionUrlConfig exists for this Lambda function"
        )

    pages = list(
        client.get_paginator("list_function_url_configs").paginate(FunctionName=name, PaginationConfig={"PageSize": 2})
    )
    listed = [item["FunctionArn"] for page in pages for item in page["FunctionUrlConfigs"]]
    assert [len(page["FunctionUrlConfigs"]) for page in pages] == [2, 1]
    assert listed == [ARN + name, f"{ARN}{name}:beta", f"{ARN}{name}:live"]
    assert pages[0]["FunctionUrlConfigs"][0]["LastModifiedTime"]


@pytest.mark.parametrize("qualifier", ["", "nobody"])
def test_what_is_not_there_has_no_url(client: Any, name: str, qualifier: str) -> None:
    which = {"FunctionName": name if qualifier else "missing", **({"Qualifier": qualifier} if qualifier else {})}
    with pytest.raises(ClientError) as error:
        client.create_function_url_config(**which, AuthType="NONE")
    assert refusal(error.value) == NO_FUNCTION
    with pytest.raises(ClientError) as error:
        client.get_function_url_config(**which)
    assert refusal(error.value) == ABSENT


def test_a_list_of_a_function_that_is_not_there_is_refused(client: Any, name: str) -> None:
    with pytest.raises(ClientError) as error:
        client.list_function_url_configs(FunctionName="missing")
    assert refusal(error.value) == NO_FUNCTION
    assert client.list_function_url_configs(FunctionName=name)["FunctionUrlConfigs"] == []


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"AuthType": "OPEN"}, "authType"),
        ({"AuthType": "NONE", "InvokeMode": "SLOW"}, "invokeMode"),
        ({"AuthType": "NONE", "Qualifier": "1"}, "qualifier"),
        ({"AuthType": "NONE", "Qualifier": "$LATEST"}, "qualifier"),
        ({"AuthType": "NONE", "Cors": {"MaxAge": 86401}}, "cors.maxAge"),
        ({"AuthType": "NONE", "Cors": {"MaxAge": -1}}, "cors.maxAge"),
        ({"AuthType": "NONE", "Cors": {"AllowMethods": ["GET"] * 7}}, "cors.allowMethods"),
        ({"AuthType": "NONE", "Cors": {"AllowMethods": ["OPTIONS"]}}, "cors.allowMethods"),
        ({"AuthType": "NONE", "Cors": {"AllowOrigins": ["o"] * 101}}, "cors.allowOrigins"),
        ({"AuthType": "NONE", "Cors": {"AllowOrigins": ["o" * 254]}}, "cors.allowOrigins"),
        ({"AuthType": "NONE", "Cors": {"AllowHeaders": ["h"] * 101}}, "cors.allowHeaders"),
        ({"AuthType": "NONE", "Cors": {"ExposeHeaders": ["h" * 1025]}}, "cors.exposeHeaders"),
    ],
)
def test_values_are_checked_against_the_model(server: UrlServer, name: str, values: dict[str, Any], where: str) -> None:
    with pytest.raises(ClientError) as error:
        server.client(parameter_validation=False).create_function_url_config(FunctionName=name, **values)
    code, message = refusal(error.value)
    assert code == "ValidationException"
    assert f"at '{where}' failed to satisfy constraint" in message


@pytest.mark.parametrize("suffix", [":1", ":$LATEST"])
def test_a_version_has_no_url(client: Any, name: str, suffix: str) -> None:
    client.publish_version(FunctionName=name)
    with pytest.raises(ClientError) as error:
        client.create_function_url_config(FunctionName=name + suffix, AuthType="NONE")
    assert refusal(error.value)[0] == "ValidationException"


def test_a_url_goes_with_its_function(client: Any, server: UrlServer) -> None:
    identity = open_url(client, "goes")
    assert server.call(identity).status == 200
    client.delete_function(FunctionName="goes")
    assert server.call(identity).status == 403
    new_function(client, "goes")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function_url_config(FunctionName="goes")
    assert server.call(identity).status == 403
    other = url_of(client, "goes")
    assert other != identity
    assert (server.call(identity).status, server.call(other).status) == (403, 200)
    client.delete_function(FunctionName="goes")


def test_a_url_goes_with_its_alias(client: Any, server: UrlServer, name: str) -> None:
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    identity = url_of(client, name, "live")
    assert server.call(identity).status == 200
    client.delete_alias(FunctionName=name, Name="live")
    gone = server.call(identity)
    assert (gone.status, b"Forbidden. For troubleshooting" in gone.body) == (403, True)
    assert client.list_function_url_configs(FunctionName=name)["FunctionUrlConfigs"] == []
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    assert server.call(identity).status == 403
    assert url_of(client, name, "live") != identity
    assert server.call(identity).body == b'{"Message": null}'


def test_urls_outlive_the_server(tmp_path: Path) -> None:
    kept, service = resources(), functions(tmp_path)
    with serving_urls(tmp_path, AwsSettings(), kept=kept, service=service) as server:
        client = server.client()
        identity = open_url(client, "stays", Cors={"AllowOrigins": ["*"]})
        shown = client.get_function_url_config(FunctionName="stays")
    with serving_urls(tmp_path, AwsSettings(), kept=kept, service=service) as server:
        again = server.client().get_function_url_config(FunctionName="stays")
        assert identity_of(again["FunctionUrl"]) == identity
        assert (again["Cors"], again["CreationTime"]) == (shown["Cors"], shown["CreationTime"])
        assert server.call(identity).status == 200


def test_urls_have_names_below_the_servers_own_domain(tmp_path: Path) -> None:
    with serving_urls(tmp_path, AwsSettings(url_domain="https://example.com")) as server:
        client = server.client()
        new_function(client, "named")
        made = client.create_function_url_config(FunctionName="named", AuthType="NONE")
        assert re.fullmatch(r"https://[a-z0-9]{32}\.lambda-url\.us-east-1\.example\.com/", made["FunctionUrl"])

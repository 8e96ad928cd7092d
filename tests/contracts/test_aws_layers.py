"""Layers through the official client: publishing, reading, listing, deleting, and functions that use them."""

import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import AwsSettings, Server, archive, new_function, refusal, serving

ARN = "arn:aws:lambda:us-east-1:000000000000:layer"
FIRST = archive({"extensions/one": "1"})
SECOND = archive({"extensions/two": "2"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("code")
    with serving(folder, AwsSettings()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return server.client()


def _publish(client: Any, name: str, package: bytes = FIRST, **values: Any) -> Any:
    return client.publish_layer_version(LayerName=name, Content={"ZipFile": package}, **values)


def test_published_layer_is_shown_as_it_was_described_and_can_be_fetched(client: Any) -> None:
    made = _publish(
        client, "shown", Description="d", CompatibleRuntimes=["python3.12"], CompatibleArchitectures=["x86_64"]
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert made["LayerVersionArn"] == f"{ARN}:shown:1" and made["LayerArn"] == f"{ARN}:shown"
    assert made["Version"] == 1 and made["Content"]["CodeSize"] == len(FIRST)

    for read in (
        client.get_layer_version(LayerName="shown", VersionNumber=1),
        client.get_layer_version(LayerName=f"{ARN}:shown", VersionNumber=1),
        client.get_layer_version_by_arn(Arn=f"{ARN}:shown:1"),
    ):
        assert read["CreatedDate"] == made["CreatedDate"] and read["Description"] == "d"
        assert read["CompatibleRuntimes"] == ["python3.12"] and read["CompatibleArchitectures"] == ["x86_64"]
        assert read["Content"]["CodeSha256"] == made["Content"]["CodeSha256"]
        with urllib.request.urlopen(read["Content"]["Location"], timeout=10) as answer:
            assert answer.read() == FIRST


def test_version_numbers_are_never_given_twice(client: Any) -> None:
    _publish(client, "counted")
    assert _publish(client, "counted", SECOND)["Version"] == 2
    client.delete_layer_version(LayerName="counted", VersionNumber=2)
    client.delete_layer_version(LayerName="counted", VersionNumber=2)

    assert _publish(client, "counted")["Version"] == 3
    listed = client.list_layer_versions(LayerName="counted")["LayerVersions"]
    assert [item["Version"] for item in listed] == [3, 1]


def test_layers_are_listed_by_name_with_the_newest_version_that_fits(client: Any) -> None:
    _publish(client, "list-a", CompatibleRuntimes=["python3.12"])
    _publish(client, "list-a", SECOND, CompatibleRuntimes=["nodejs20.x"])
    _publish(client, "list-b")

    everything = client.list_layers()["Layers"]
    names = [item["LayerName"] for item in everything if item["LayerName"].startswith("list-")]
    assert names == ["list-a", "list-b"]
    fitting = client.list_layers(CompatibleRuntime="python3.12")["Layers"]
    newest = {item["LayerName"]: item["LatestMatchingVersion"]["Version"] for item in fitting}
    assert newest["list-a"] == 1 and "list-b" not in newest


def test_pages_of_versions_follow_each_other(client: Any) -> None:
    for _ in range(3):
        _publish(client, "paged")

    pages = client.get_paginator("list_layer_versions").paginate(LayerName="paged", PaginationConfig={"PageSize": 2})
    assert [[item["Version"] for item in page["LayerVersions"]] for page in pages] == [[3, 2], [1]]


def test_layer_that_is_not_there_is_refused_in_the_services_words(client: Any) -> None:
    text = f"Layer version {ARN}:none:1 does not exist."
    with pytest.raises(ClientError) as read:
        client.get_layer_version(LayerName="none", VersionNumber=1)
    assert refusal(read.value) == ("ResourceNotFoundException", text)
    with pytest.raises(ClientError) as used:
        new_function(client, "uses-none", Layers=[f"{ARN}:none:1"])
    assert refusal(used.value) == ("InvalidParameterValueException", text)


def test_function_shows_its_layers_and_replaces_them(client: Any) -> None:
    one = _publish(client, "used-one")["LayerVersionArn"]
    two = _publish(client, "used-two", SECOND)["LayerVersionArn"]
    made = new_function(client, "uses", Layers=[one, two])
    assert made["Layers"] == [{"Arn": one, "CodeSize": len(FIRST)}, {"Arn": two, "CodeSize": len(SECOND)}]

    changed = client.update_function_configuration(FunctionName="uses", Layers=[two])
    assert [layer["Arn"] for layer in changed["Layers"]] == [two]
    client.update_function_configuration(FunctionName="uses", Description="other")
    assert len(client.get_function_configuration(FunctionName="uses")["Layers"]) == 1
    client.update_function_configuration(FunctionName="uses", Layers=[])
    assert "Layers" not in client.get_function_configuration(FunctionName="uses")


def test_deleted_layer_version_stays_with_the_functions_that_use_it_and_is_refused_to_others(client: Any) -> None:
    arn = _publish(client, "gone")["LayerVersionArn"]
    new_function(client, "keeps", Layers=[arn])
    client.delete_layer_version(LayerName="gone", VersionNumber=1)

    assert client.get_function_configuration(FunctionName="keeps")["Layers"][0]["Arn"] == arn
    with pytest.raises(ClientError):
        new_function(client, "too-late", Layers=[arn])


def test_broken_layer_package_is_refused(client: Any) -> None:
    with pytest.raises(ClientError) as error:
        _publish(client, "broken", b"no zip")
    assert refusal(error.value)[0] == "InvalidParameterValueException"
    assert client.list_layer_versions(LayerName="broken")["LayerVersions"] == []


def test_two_versions_of_one_layer_are_refused(client: Any) -> None:
    one = _publish(client, "twice")["LayerVersionArn"]
    two = _publish(client, "twice")["LayerVersionArn"]
    with pytest.raises(ClientError) as error:
        new_function(client, "uses-twice", Layers=[one, two])
    assert refusal(error.value) == (
        "InvalidParameterValueException",
        "Two different versions of the same layer are not allowed to be referenced in the same function. "
        f"{one} and {two} are versions of the same layer.",
    )

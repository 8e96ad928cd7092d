"""Layers through the official client: publishing, reading, listing, deleting, and functions that use them."""

import io
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import AwsSettings, Server, archive, new_function, refusal, serving, unchecked

from torpor.contracts.lambda_ import limits

MIB = 1024 * 1024
ARN = "arn:aws:lambda:us-east-1:000000000000:layer"
FIRST = archive({"extensions/one": "1"})
SECOND = archive({"extensions/two": "2"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("code")
    with serving(folder, AwsSettings()) as running:
        yield running


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


def test_layer_of_another_region_and_the_same_layer_twice_are_refused(client: Any) -> None:
    one = _publish(client, "here")["LayerVersionArn"]
    with pytest.raises(ClientError) as error:
        new_function(client, "uses-far", Layers=[one.replace("us-east-1", "eu-west-1")])
    assert refusal(error.value)[1] == (
        "Layers are not in the same region as the function. Layers are expected to be in region us-east-1."
    )
    with pytest.raises(ClientError, match="Two different versions of the same layer"):
        new_function(client, "uses-same", Layers=[one, one])


@pytest.mark.parametrize("arn", [f"{ARN}:none:1", "arn:aws:lambda:eu-west-1:000000000000:layer:here:1"])
def test_layer_that_is_not_there_is_told_by_its_arn(client: Any, arn: str) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_layer_version_by_arn(Arn=arn)
    assert refusal(error.value)[1] == f"Layer version {arn} does not exist."


def test_layer_is_found_by_its_arn(client: Any) -> None:
    arn = _publish(client, "found", CompatibleRuntimes=["python3.12"])["LayerVersionArn"]
    by_arn = client.get_layer_version_by_arn(Arn=arn)
    by_name = client.get_layer_version(LayerName=f"{ARN}:found", VersionNumber=1)
    for reply in (by_arn, by_name):
        del reply["ResponseMetadata"], reply["Content"]["Location"]
    assert by_arn == by_name


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside", "a/../../outside"])
def test_archive_that_reaches_out_of_its_layer_is_refused(client: Any, name: str) -> None:
    with pytest.raises(ClientError) as error:
        _publish(client, "escapes", archive({name: "x"}))
    assert refusal(error.value) == (
        "InvalidParameterValueException",
        "Could not unzip uploaded file. Please check your file, then try to upload again.",
    )
    assert client.list_layer_versions(LayerName="escapes")["LayerVersions"] == []


def test_layer_that_unpacks_to_too_much_is_refused(client: Any) -> None:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package,
        package.open("large", "w") as file,
    ):
        for _ in range(limits.UNZIPPED_MAX // MIB + 1):
            file.write(bytes(MIB))
    with pytest.raises(ClientError) as error:
        _publish(client, "large", buffer.getvalue())
    assert refusal(error.value)[1] == f"Unzipped size must be smaller than {limits.UNZIPPED_MAX} bytes"


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"CompatibleRuntimes": ["python3.12"] * 16}, "length less than or equal to 15"),
        ({"CompatibleArchitectures": ["x86_64", "arm64", "x86_64"]}, "length less than or equal to 2"),
        ({"LicenseInfo": "l" * 513}, "length less than or equal to 512"),
        ({"LayerName": "l" * 141}, "layerName"),
    ],
)
def test_bad_description_of_a_layer_is_refused(server: Server, values: dict[str, Any], part: str) -> None:
    given = {"LayerName": "described", "Content": {"ZipFile": FIRST}} | values
    with pytest.raises(ClientError) as error:
        server.client(**unchecked()).publish_layer_version(**given)
    code, message = refusal(error.value)
    assert code == "ValidationException" and part in message


def test_account_counts_the_bytes_of_layers(client: Any) -> None:
    before = client.get_account_settings()["AccountUsage"]["TotalCodeSize"]
    _publish(client, "counted", FIRST)
    after = client.get_account_settings()["AccountUsage"]["TotalCodeSize"]
    client.delete_layer_version(LayerName="counted", VersionNumber=1)
    assert after - before == len(FIRST)
    assert client.get_account_settings()["AccountUsage"]["TotalCodeSize"] == before

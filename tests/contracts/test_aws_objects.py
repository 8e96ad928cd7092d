"""Code that lies in an object store: a real S3 server beside the API."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from tests.contracts.aws_support import Server, archive, new_function, refusal, serving
from tests.support.objects import PLAIN, object_store

from torpor.api.aws import AwsSettings, ObjectSource


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture(scope="module")
def bucket(endpoint: str) -> Any:
    store = boto3.client("s3", endpoint_url=endpoint, **PLAIN)
    store.create_bucket(Bucket="packages")
    store.put_bucket_versioning(Bucket="packages", VersioningConfiguration={"Status": "Enabled"})
    return store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> Iterator[Server]:
    objects = ObjectSource(endpoint=endpoint, max_bytes=100_000)
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(objects=objects)) as running:
        yield running


def test_package_in_a_bucket_becomes_the_code(server: Server, bucket: Any) -> None:
    package = archive()
    bucket.put_object(Bucket="packages", Key="a b/ü+app.zip", Body=package)
    code = {"S3Bucket": "packages", "S3Key": "a b/ü+app.zip"}
    assert new_function(server.client(), "from-bucket", Code=code)["CodeSize"] == len(package)


def test_named_version_of_an_object_is_taken(server: Server, bucket: Any) -> None:
    first, second = archive({"one.py": ""}), archive({"second.py": "12345"})
    old = bucket.put_object(Bucket="packages", Key="versioned.zip", Body=first)["VersionId"]
    bucket.put_object(Bucket="packages", Key="versioned.zip", Body=second)
    client = server.client()
    code = {"S3Bucket": "packages", "S3Key": "versioned.zip"}
    assert new_function(client, "versioned", Code={**code, "S3ObjectVersion": old})["CodeSize"] == len(first)
    assert client.update_function_code(FunctionName="versioned", **code)["CodeSize"] == len(second)


def test_missing_object_is_refused(server: Server, bucket: Any) -> None:
    client = server.client()
    with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
        new_function(client, "missing", Code={"S3Bucket": "packages", "S3Key": "no.zip"})
    assert refusal(error.value)[1] == (
        "Error occurred while GetObject. S3 Error Code: NoSuchKey. S3 Error Message: The specified key does not exist."
    )


def test_object_over_the_limit_is_refused(server: Server, bucket: Any) -> None:
    bucket.put_object(Bucket="packages", Key="large.zip", Body=b"x" * 100_001)
    client = server.client()
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="must be smaller"):
        new_function(client, "large", Code={"S3Bucket": "packages", "S3Key": "large.zip"})


def test_store_that_does_not_answer_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    objects = ObjectSource(endpoint="http://127.0.0.1:1")
    with serving(tmp_path_factory.mktemp("code"), AwsSettings(objects=objects)) as server:
        client = server.client()
        with pytest.raises(client.exceptions.InvalidParameterValueException, match="could not be fetched from"):
            new_function(client, "unreachable", Code={"S3Bucket": "packages", "S3Key": "a.zip"})

"""Other AWS services beside the server, and keys: packages from S3, functions that use S3, signatures."""

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from tests.journeys.conftest import MakeServer
from tests.support.functions import PYTHON, archive, python
from tests.support.lives import refused
from tests.support.objects import PLAIN, object_store, with_boto3
from tests.support.server import ROLE, Function, TorporServer

PUTTING = """
import os
import boto3

def handler(event, context):
    s3 = boto3.client("s3")
    s3.put_object(Bucket="results", Key=event["key"], Body=b"from inside")
    return [os.environ["AWS_ENDPOINT_URL"], s3.get_object(Bucket="results", Key=event["key"])["Body"].read().decode()]
"""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_store() as address:
        yield address


@pytest.fixture(scope="module")
def store(endpoint: str) -> Iterator[Any]:
    client = boto3.client("s3", endpoint_url=endpoint, **PLAIN)
    for bucket in ("packages", "results"):
        client.create_bucket(Bucket=bucket)
    yield client
    client.close()


def test_package_in_a_bucket_is_deployed_and_updated(make_server: MakeServer, endpoint: str, store: Any) -> None:
    server = make_server(aws_endpoint_url=endpoint)
    for number in ("one", "two"):
        source = f"def handler(event, context):\n    return {number!r}\n"
        store.put_object(Bucket="packages", Key=f"{number}.zip", Body=archive({"app.py": source}))
    code = {"S3Bucket": "packages", "S3Key": "one.zip"}
    server.client.create_function(FunctionName="bucket", Role=ROLE, Runtime=PYTHON, Handler="app.handler", Code=code)
    assert Function(server, "bucket").invoke().payload == "one"
    server.client.update_function_code(FunctionName="bucket", S3Bucket="packages", S3Key="two.zip")
    assert Function(server, "bucket").invoke().payload == "two"
    with pytest.raises(ClientError) as missing:
        server.client.update_function_code(FunctionName="bucket", S3Bucket="packages", S3Key="three.zip")
    assert missing.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert Function(server, "bucket").invoke().payload == "two"
    server.client.delete_function(FunctionName="bucket")


@pytest.mark.parametrize("isolation", ("sandbox", "process"))
def test_function_puts_an_object_into_the_endpoint_it_is_given(
    make_server: MakeServer, endpoint: str, store: Any, isolation: str
) -> None:
    if isolation == "sandbox" and os.geteuid() != 0:
        isolation = "auto"
    server = make_server(aws_endpoint_url=endpoint, pass_endpoint_url=True, isolation=isolation)
    with server.deployed(with_boto3(PUTTING, "s3"), MemorySize=1024, Timeout=60) as function:
        reply = function.invoke({"key": isolation})
    assert not reply.error, reply.payload
    url, read = reply.payload
    inside = "127.0.0.1" if server.isolation == "process" else "169.254.100.2"
    assert url == f"http://{inside}:{urlsplit(endpoint).port}"
    assert read == "from inside"
    assert store.get_object(Bucket="results", Key=isolation)["Body"].read() == b"from inside"


def test_endpoint_is_not_handed_out_unless_that_is_set(make_server: MakeServer, endpoint: str) -> None:
    server = make_server(aws_endpoint_url=endpoint)
    showing = python("def handler(event, context):\n    return os.environ.get('AWS_ENDPOINT_URL')")
    with server.deployed(showing) as function:
        assert function.invoke().payload is None


def keyed(server: TorporServer, key: str, secret: str) -> Any:
    return boto3.client(
        "lambda",
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_with_keys_only_requests_signed_with_them_pass(tmp_path: Path) -> None:
    server = TorporServer(tmp_path / "server", access_keys="KEYONE:secret-one,KEYTWO:secret-two", host="0.0.0.0")
    try:
        server.url = server.url.replace("0.0.0.0", "127.0.0.1")
        for key, secret in (("KEYONE", "secret-one"), ("KEYTWO", "secret-two")):
            assert keyed(server, key, secret).list_functions()["Functions"] == []
        for key, secret, code in (
            ("KEYONE", "secret-two", "InvalidSignatureException"),
            ("OTHER", "secret-one", "UnrecognizedClientException"),
        ):
            with pytest.raises(ClientError) as denied:
                keyed(server, key, secret).list_functions()
            assert denied.value.response["Error"]["Code"] == code
            assert denied.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        for path in ("/2015-03-31/functions/", "/_torpor/environments", "/_torpor/logs?function=x"):
            with pytest.raises(urllib.error.HTTPError) as unsigned:
                urllib.request.urlopen(server.url + path, timeout=10)
            assert unsigned.value.code == 403
            unsigned.value.close()
    finally:
        server.stop()


def test_signed_function_is_created_and_invoked(tmp_path: Path) -> None:
    server = TorporServer(tmp_path / "server", access_keys="KEYONE:secret-one")
    try:
        client = keyed(server, "KEYONE", "secret-one")
        package = python("def handler(event, context):\n    return [event, context.invoked_function_arn]")
        made = client.create_function(
            FunctionName="signed",
            Role=ROLE,
            Runtime=PYTHON,
            Handler=package.handler,
            Code={"ZipFile": package.archive},
        )
        assert made["FunctionArn"].startswith("arn:aws:lambda:eu-west-1:")
        answer = client.invoke(FunctionName="signed", Payload=b'{"a": 1}')
        assert answer["Payload"].read().decode() == f'[{{"a": 1}}, "{made["FunctionArn"]}"]'
        large = client.invoke(FunctionName="signed", Payload=b'"' + b"x" * 400_000 + b'"')
        assert len(large["Payload"].read()) > 400_000
    finally:
        server.stop()


def test_listening_beyond_loopback_without_keys_is_refused(tmp_path: Path) -> None:
    line = refused(f"--data={tmp_path / 'data'}", "--host=0.0.0.0")
    assert "set access keys" in line
    assert not (tmp_path / "data").exists()

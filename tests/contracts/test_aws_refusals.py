"""Bad requests of the control plane, refused in the service's own words."""

import io
import json
import zipfile
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import (
    ROLE,
    Server,
    archive,
    encoded,
    new_function,
    refusal,
    signed_post,
    unchecked,
)

MODEL = "ValidationException"
SERVICE = "InvalidParameterValueException"
TYPE = "SerializationException"
ABSENT = "NotImplementedException"
FAILED = "failed to satisfy constraint:"
LAYER = "arn:aws:lambda:us-east-1:000000000000:layer:none:1"


def at_least(number: int) -> str:
    return f"{FAILED} Member must have value greater than or equal to {number}"


def at_most(number: int) -> str:
    return f"{FAILED} Member must have value less than or equal to {number}"


def matches(pattern: str) -> str:
    return f"Member must satisfy regular expression pattern: {pattern}"


CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"Timeout": 0}, MODEL, f"1 validation error detected: Value '0' at 'timeout' {at_least(1)}"),
    ({"Timeout": 901}, SERVICE, f"'Timeout' value {at_most(900)}"),
    ({"MemorySize": 10241}, SERVICE, f"'MemorySize' value {at_most(10240)}"),
    ({"MemorySize": 127}, MODEL, f"Value '127' at 'memorySize' {at_least(128)}"),
    ({"EphemeralStorage": {"Size": 511}}, MODEL, f"Value '511' at 'ephemeralStorage.size' {at_least(512)}"),
    ({"EphemeralStorage": {"Size": 10241}}, MODEL, f"Value '10241' at 'ephemeralStorage.size' {at_most(10240)}"),
    ({"EphemeralStorage": {}}, MODEL, f"Value null at 'ephemeralStorage.size' {FAILED} Member must not be null"),
    (
        {"Architectures": ["mips"]},
        MODEL,
        f"Value '[mips]' at 'architectures' {FAILED} Member must satisfy constraint: "
        "[Member must satisfy enum value set: [x86_64, arm64], Member must not be null]",
    ),
    (
        {"Environment": {"Variables": {"1": "x"}}},
        MODEL,
        f"Value at 'environment.variables' {FAILED} Map keys must satisfy constraint: "
        f"[{matches('[a-zA-Z]([a-zA-Z0-9_])+')}]",
    ),
    ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, SERVICE, "Reserved keys used in this request: AWS_REGION"),
    ({"Environment": {"Variables": {"LONG": "x" * 4096}}}, SERVICE, 'exceeded the 4KB limit. String measured: {"LONG'),
    (
        {"Runtime": "python2.7"},
        SERVICE,
        "The runtime parameter of python2.7 is no longer supported for creating or updating AWS Lambda functions. "
        "We recommend you use a supported runtime while creating or updating functions.",
    ),
    (
        {"Runtime": "cobol"},
        SERVICE,
        f"Value cobol at 'runtime' {FAILED} Member must satisfy enum value set: [nodejs16.x",
    ),
    ({"Role": "nobody"}, MODEL, f"Value 'nobody' at 'role' {FAILED} {matches('arn:(aws[a-zA-Z-]*)?:iam::')}"),
    ({"Role": None}, MODEL, f"1 validation error detected: Value null at 'role' {FAILED} Member must not be null"),
    ({"Runtime": None}, SERVICE, "Runtime and Handler are mandatory parameters for functions created with"),
    ({"Timeout": "long"}, TYPE, "STRING_VALUE can not be converted to an Integer"),
    ({"Description": 3}, TYPE, "NUMBER_VALUE can not be converted to a String"),
    ({"Description": {}}, TYPE, "Start of structure or map found where not expected."),
    ({"Environment": [1]}, TYPE, "can not be converted to a structure"),
    ({"Layers": "one"}, TYPE, "Expected list or null"),
    ({"Description": "\ud800"}, TYPE, "half of a surrogate pair"),
    ({"FunctionName": "x" * 65}, SERVICE, "Member must have length less than or equal to 64"),
    ({"FunctionName": "a b"}, MODEL, f"Value 'a b' at 'functionName' {FAILED} {matches('')}"),
    ({"Tags": {f"k{number}": "v" for number in range(51)}}, SERVICE, "Number of tags exceeds resource tag limit."),
    ({"Tags": {"k": "{}"}}, MODEL, f"Value '{{k={{}}}}' at 'tags' {FAILED} Map value must satisfy constraint: ["),
    ({"Layers": [LAYER]}, SERVICE, f"Layer version {LAYER} does not exist."),
    ({"Layers": [f"{LAYER}{number}" for number in range(6)]}, SERVICE, "Cannot reference more than 5 layers."),
    ({"Code": {}}, SERVICE, "Please provide a source for function code."),
    ({"Code": {"ZipFile": ""}}, SERVICE, "Uploaded file must be a non-empty zip"),
    ({"Code": {"ZipFile": encoded(b"broken")}}, SERVICE, "Could not unzip uploaded file. Please check your file, then"),
    ({"Code": {"ZipFile": "not base64!"}}, TYPE, "Invalid base64 in a blob value"),
    ({"Code": {"S3Bucket": "bucket", "S3Key": "key"}}, SERVICE, "this server has none configured"),
    ({"PackageType": "Image", "Code": {"ImageUri": "x"}}, ABSENT, "PackageType Image is not available"),
    ({"PublishTo": "LATEST_PUBLISHED"}, SERVICE, "PublishTo is for functions on a capacity provider"),
]


@pytest.mark.parametrize(("values", "code", "text"), CASES, ids=lambda value: str(value)[:40])
def test_bad_value_is_refused_in_the_services_words(
    server: Server, values: dict[str, Any], code: str, text: str
) -> None:
    given: dict[str, Any] = {
        "FunctionName": "never",
        "Runtime": "python3.12",
        "Handler": "app.handler",
        "Role": ROLE,
        "Code": {"ZipFile": encoded(archive())},
    }
    body = {name: value for name, value in (given | values).items() if value is not None}
    status, headers, reply = signed_post(server, "/2015-03-31/functions", json.dumps(body).encode())
    assert headers["x-amzn-ErrorType"] == code
    assert status == (501 if code == "NotImplementedException" else 400)
    assert text in json.loads(reply)["Message" if status == 501 else "message"]


def test_several_bad_values_are_told_together(server: Server) -> None:
    with pytest.raises(ClientError) as error:
        new_function(server.client(**unchecked()), "never", Timeout=0, MemorySize=1)
    code, message = refusal(error.value)
    assert code == "ValidationException"
    assert message.startswith("2 validation errors detected: Value '0' at 'timeout'")
    assert "; Value '1' at 'memorySize'" in message


def test_body_that_is_no_json_is_refused(server: Server) -> None:
    status, headers, body = signed_post(server, "/2015-03-31/functions", b"{nope")
    assert (status, headers["x-amzn-ErrorType"]) == (400, "InvalidRequestContentException")
    assert json.loads(body)["message"].startswith("Could not parse request body into json")


def test_unknown_members_are_ignored(server: Server) -> None:
    body = {
        "FunctionName": "odd",
        "Runtime": "python3.12",
        "Handler": "a.b",
        "Role": "arn:aws:iam::000000000000:role/a",
    }
    code = {"ZipFile": encoded(archive()), "Extra": [1]}
    status, _, _ = signed_post(server, "/2015-03-31/functions", json.dumps({**body, "Code": code, "New": {}}).encode())
    assert status == 201


def test_package_over_the_limit_is_refused_and_just_under_accepted(server: Server) -> None:
    client = server.client()

    def package(size: int) -> bytes:
        overhead = len(archive({"f": ""}))
        return archive({"f": "x" * (size - overhead)})

    with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
        new_function(client, "heavy", Code={"ZipFile": package(52_428_801)})
    assert refusal(error.value)[1] == "Zipped size must be smaller than 52428800 bytes"
    assert new_function(client, "heavy", Code={"ZipFile": package(52_428_800)})["CodeSize"] == 52_428_800


def test_package_that_unpacks_to_too_much_is_refused(server: Server) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as package:
        package.writestr("zeros", bytes(262_144_001))
    client = server.client()
    with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
        new_function(client, "bomb", Code={"ZipFile": buffer.getvalue()})
    assert refusal(error.value)[1] == "Unzipped size must be smaller than 262144000 bytes"


def test_request_over_the_limit_is_refused(server: Server) -> None:
    status, headers, body = signed_post(server, "/2015-03-31/functions", b" " * 70_167_212)
    assert (status, headers["x-amzn-ErrorType"]) == (413, "RequestEntityTooLargeException")
    assert json.loads(body)["message"] == "Request must be smaller than 70167211 bytes for the CreateFunction operation"

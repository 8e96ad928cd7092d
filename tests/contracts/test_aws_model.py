"""The API's own model: routing, names, and what the tables say against what it says."""

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contracts.aws_support import (
    ROLE,
    FakeDispatcher,
    SystemClock,
    archive,
    encoded,
    functions,
    layers,
    resources,
)

from torpor.api.aws import AwsFace, AwsSettings, error_face
from torpor.contracts.lambda_.failures_api import KINDS, ApiFailure
from torpor.contracts.lambda_.invoking import parse_invoke
from torpor.contracts.lambda_.names import FunctionName, Place, function_name, taggable_function
from torpor.contracts.lambda_.operations import api_model
from torpor.contracts.lambda_.validation import compiled
from torpor.contracts.lambda_.wire import ApiRequest, ApiResponse

HERE = Place(account="000000000000", region="us-east-1")
ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"

FITTING = {
    "FunctionName": "f",
    "Runtime": "python3.12",
    "Handler": "a.b",
    "Role": ROLE,
    "Code": {"ZipFile": encoded(archive())},
}
PROVIDER = {
    "CapacityProviderName": "here",
    "VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": []},
    "PermissionsConfig": {"CapacityProviderOperatorRoleArn": ROLE},
}
FITTING_BODIES: dict[str, dict[str, Any]] = {
    "/2015-03-31/functions": FITTING,
    "/2015-03-31/functions/f/aliases": {"Name": "live", "FunctionVersion": "$LATEST"},
    "/2025-11-30/capacity-providers": PROVIDER,
    "/2015-03-31/functions/f/policy": {"StatementId": "s", "Action": "lambda:*", "Principal": "*"},
    "/2019-09-25/functions/f/event-invoke-config": {"MaximumRetryAttempts": 1, "DestinationConfig": {}},
    "/2020-04-22/code-signing-configs": {"AllowedPublishers": {"SigningProfileVersionArns": [ARN]}},
}
TEXTS = [
    "f",
    "a.b",
    ROLE,
    ARN,
    "python3.12",
    encoded(archive()),
    "",
    "\ud800",
    "\0",
    "$LATEST",
    "arn:aws:lambda:::layer:x:1",
]


class NoFields:
    def get(self, name: str, default: str = "", /) -> str:
        return default

    def items(self) -> list[tuple[str, str]]:
        return []


def request(method: str, path: str, query: str = "", body: bytes = b"") -> ApiRequest:
    return ApiRequest(method=method, path=path, query=query, headers=NoFields(), body=body)


@pytest.fixture
def face(tmp_path: Path) -> AwsFace:
    service = functions(tmp_path)
    return AwsFace(service, layers(service), FakeDispatcher(), AwsSettings(), SystemClock(), resources=resources())


def test_every_operation_is_found_by_its_own_route() -> None:
    model = api_model()
    for operation in model.operations.values():
        path = "/" + "/".join("x" if part.startswith("{") else part for part in operation.segments)
        query = "&".join(f"{name}={value}" for name, value in operation.literal_query)
        found = model.find(operation.method, path, query)
        assert found is not None and found.operation.name == operation.name


@pytest.mark.parametrize(
    ("method", "path", "query", "name"),
    [
        ("GET", "/2018-10-31/layers", "find=LayerVersion&Arn=a", "GetLayerVersionByArn"),
        ("GET", "/2018-10-31/layers", "", "ListLayers"),
        ("GET", "/2019-09-30/functions/f/provisioned-concurrency", "List=ALL", "ListProvisionedConcurrencyConfigs"),
        ("GET", "/2015-03-31/functions/", "", "ListFunctions"),
        ("POST", "/2014-11-13/functions/f/invoke-async/", "", "InvokeAsync"),
    ],
)
def test_query_and_trailing_slash_choose_the_operation(method: str, path: str, query: str, name: str) -> None:
    found = api_model().find(method, path, query)
    assert found is not None and found.operation.name == name


def test_path_parameters_are_decoded() -> None:
    found = api_model().find("GET", "/2017-03-31/tags/" + ARN.replace(":", "%3A"), "")
    assert found is not None and found.path_values == {"Resource": ARN}


def test_every_pattern_of_the_model_can_be_compiled() -> None:
    patterns = [shape["pattern"] for shape in api_model().shapes.values() if "pattern" in shape]
    assert len([compiled(pattern) for pattern in patterns]) > 50


def test_codes_of_the_model_have_its_status_and_message_field() -> None:
    shapes = api_model().shapes
    compared = [code for code in KINDS if code in shapes]
    assert len(compared) > 8
    for code in compared:
        assert KINDS[code].status == shapes[code]["error"]["httpStatusCode"], code
        assert KINDS[code].message_key in shapes[code]["members"], code


@pytest.mark.parametrize(
    ("text", "qualifier", "expected"),
    [
        ("f", "", FunctionName(name="f")),
        ("f", "2", FunctionName(name="f", qualifier="2")),
        ("f:live", "live", FunctionName(name="f", qualifier="live")),
        ("function:f:live", "", FunctionName(name="f", qualifier="live")),
        ("000000000000:function:f", "", FunctionName(name="f")),
        (ARN + ":$LATEST", "", FunctionName(name="f", qualifier="$LATEST")),
    ],
)
def test_name_is_read_in_every_form(text: str, qualifier: str, expected: FunctionName) -> None:
    assert function_name(text, qualifier, HERE) == expected


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: function_name("f:1", "2", HERE), "InvalidParameterValueException"),
        (lambda: function_name("x" * 65, "", HERE), "InvalidParameterValueException"),
        (lambda: function_name("111111111111:function:f", "", HERE), "ResourceNotFoundException"),
        (lambda: taggable_function(ARN + ":1", HERE), "InvalidParameterValueException"),
        (lambda: taggable_function(ARN.replace("function:f", "layer:f"), HERE), "ResourceNotFoundException"),
    ],
)
def test_name_that_cannot_be_here_is_refused(call: Callable[[], Any], code: str) -> None:
    with pytest.raises(ApiFailure) as error:
        call()
    assert error.value.code == code


@pytest.mark.parametrize(
    ("region", "start"),
    [("cn-north-1", "arn:aws-cn:"), ("us-gov-west-1", "arn:aws-us-gov:"), ("eu-central-1", "arn:aws:")],
)
def test_arn_is_of_the_regions_partition(region: str, start: str) -> None:
    assert Place(account="000000000000", region=region).function_arn("f").startswith(start)


async def test_unknown_path_and_wrong_method_are_unknown_operations(face: AwsFace) -> None:
    for method, path in (("GET", "/"), ("PATCH", "/2015-03-31/functions"), ("POST", "/2015-03-31")):
        answer = await face.handle(request(method, path))
        assert answer.status == 404
        assert dict(answer.headers)["x-amzn-ErrorType"] == "UnknownOperationException"
    wrong = await face.handle(request("PATCH", "/2015-03-31/functions"))
    assert "it answers to GET, POST" in json.loads(wrong.body)["Message"]


async def test_empty_name_is_a_bad_name(face: AwsFace) -> None:
    answer = await face.handle(request("POST", "/2015-03-31/functions//invocations"))
    assert (answer.status, dict(answer.headers)["x-amzn-ErrorType"]) == (400, "ValidationException")


async def test_head_is_answered_without_a_body(face: AwsFace) -> None:
    answer = await face.handle(request("HEAD", "/2015-03-31/functions"))
    assert (answer.status, answer.body) == (404, b"")


async def test_every_operation_answers_in_the_apis_form(face: AwsFace) -> None:
    for operation in api_model().operations.values():
        path = "/" + "/".join("x" if part.startswith("{") else part for part in operation.segments)
        query = "&".join(f"{name}={value}" for name, value in operation.literal_query)
        answer: ApiResponse = await face.handle(request(operation.method, path, query))
        assert answer.status in (200, 400, 404, 501), operation.name
        assert dict(answer.headers)["Content-Type"] == "application/json"
        assert isinstance(json.loads(answer.body), dict)


async def test_unsigned_request_belongs_to_the_default_region(face: AwsFace) -> None:
    answer = await face.handle(request("GET", "/2015-03-31/functions/none"))
    assert json.loads(answer.body)["Message"] == "Function not found: " + ARN[:-1] + "none"


async def test_bad_number_in_the_query_is_told(face: AwsFace) -> None:
    for query, code in (("MaxItems=0", "ValidationException"), ("MaxItems=x", "SerializationException")):
        answer = await face.handle(request("GET", "/2015-03-31/functions", query))
        assert (answer.status, dict(answer.headers)["x-amzn-ErrorType"]) == (400, code)


def test_refusals_of_the_server_itself_have_the_apis_form() -> None:
    headers, body = error_face(413, "The body is too large.")
    assert dict(headers)["x-amzn-ErrorType"] == "RequestTooLargeException"
    assert json.loads(body) == {"Type": "User", "message": "The body is too large."}


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(TEXTS)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


def members_of(shape: str) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the model's own member names, and values of a fitting or any other type."""
    return st.fixed_dictionaries(
        {}, optional={name: values_of(spec["shape"]) for name, spec in api_model().shapes[shape]["members"].items()}
    )


def one_member_of(shape: str) -> st.SearchStrategy[dict[str, Any]]:
    members = api_model().shapes[shape]["members"]
    return st.sampled_from(sorted(members)).flatmap(
        lambda name: values_of(members[name]["shape"]).map(lambda value: {name: value})
    )


def values_of(name: str) -> st.SearchStrategy[Any]:
    shape = api_model().shapes[name]
    match shape["type"]:
        case "structure":
            return members_of(name) | LEAVES
        case "list":
            return st.lists(values_of(shape["member"]["shape"]), max_size=3) | LEAVES
        case "map":
            return st.dictionaries(st.text(max_size=5), values_of(shape["value"]["shape"]), max_size=3) | LEAVES
        case "string" if "enum" in shape:
            return st.sampled_from(shape["enum"]) | LEAVES
        case "integer" | "long":
            return st.integers(0, 1000) | LEAVES
        case _:
            return LEAVES | ANYTHING


@pytest.mark.parametrize(
    ("method", "path", "shape"),
    [
        ("POST", "/2015-03-31/functions", "CreateFunctionRequest"),
        ("PUT", "/2015-03-31/functions/f/configuration", "UpdateFunctionConfigurationRequest"),
        ("PUT", "/2015-03-31/functions/f/code", "UpdateFunctionCodeRequest"),
        ("PUT", "/2017-10-31/functions/f/concurrency", "PutFunctionConcurrencyRequest"),
        ("POST", "/2015-03-31/functions/f/versions", "PublishVersionRequest"),
        ("POST", "/2015-03-31/functions/f/aliases", "CreateAliasRequest"),
        ("POST", "/2025-11-30/capacity-providers", "CreateCapacityProviderRequest"),
        ("PUT", "/2025-11-30/functions/f/function-scaling-config", "PutFunctionScalingConfigRequest"),
    ],
)
def test_no_body_whatever_makes_the_server_fail(
    tmp_path_factory: pytest.TempPathFactory, method: str, path: str, shape: str
) -> None:
    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(one_member_of(shape))
    def attempt(values: dict[str, Any]) -> None:
        answer = asyncio.run(send(json.dumps(FITTING_BODIES.get(path, {}) | values).encode()))
        assert answer.status in (200, 201, 202, 204, 400, 404, 409, 412, 501), answer

    async def send(body: bytes) -> ApiResponse:
        face = AwsFace(service, layers(service), FakeDispatcher(), AwsSettings(), SystemClock(), resources=resources())
        if path == "/2015-03-31/functions":
            await face.handle(request("DELETE", "/2015-03-31/functions/f"))
        else:
            await face.handle(request("POST", "/2015-03-31/functions", body=json.dumps(FITTING).encode()))
        return await face.handle(request(method, path, body=body))

    service = functions(tmp_path_factory.mktemp("code"))
    attempt()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=40), st.text(max_size=40), st.binary(max_size=40))
def test_no_path_or_query_whatever_makes_the_server_fail(path: str, query: str, body: bytes) -> None:
    place = request("POST", f"/2015-03-31/functions/{quote(path)}/invocations", quote(query, safe="=&"), body)
    with suppress(ApiFailure):
        parse_invoke(place.method, place.path, place.query, place.headers, place.body, HERE)

"""What is set beside a function's configuration: asynchronous events, runtime updates, recursion."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from tests.contracts.aws_support import Server, new_function, refusal, unchecked

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"
QUEUE = "arn:aws:sqs:us-east-1:000000000000:results"
TOPIC = "arn:aws:sns:us-east-1:000000000000:results"


@pytest.fixture(scope="module")
def name(client: Any) -> str:
    new_function(client, "set", Publish=True)
    client.create_alias(FunctionName="set", Name="live", FunctionVersion="1")
    new_function(client, "other")
    return "set"


@pytest.fixture(autouse=True)
def nothing_set(client: Any, name: str) -> Iterator[None]:
    yield
    for found in client.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"]:
        client.delete_function_event_invoke_config(FunctionName=found["FunctionArn"])


def shown(reply: dict[str, Any]) -> dict[str, Any]:
    hidden = ("ResponseMetadata", "LastModified")
    assert isinstance(reply["LastModified"], datetime)
    return {key: value for key, value in reply.items() if key not in hidden}


def test_settings_are_replaced_by_put_and_merged_by_update(client: Any, name: str) -> None:
    destinations = {"OnSuccess": {"Destination": QUEUE}, "OnFailure": {"Destination": TOPIC}}
    put = client.put_function_event_invoke_config(
        FunctionName=name, MaximumRetryAttempts=1, DestinationConfig=destinations
    )
    wanted = {"FunctionArn": f"{ARN}{name}:$LATEST", "MaximumRetryAttempts": 1, "DestinationConfig": destinations}
    assert shown(put) == wanted
    assert shown(client.get_function_event_invoke_config(FunctionName=name)) == wanted
    changed = client.update_function_event_invoke_config(
        FunctionName=name, MaximumEventAgeInSeconds=60, DestinationConfig={"OnSuccess": {"Destination": ""}}
    )
    assert shown(changed) == wanted | {
        "MaximumEventAgeInSeconds": 60,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {"Destination": TOPIC}},
    }
    again = client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=0)
    assert shown(again) == {
        "FunctionArn": f"{ARN}{name}:$LATEST",
        "MaximumRetryAttempts": 0,
        "DestinationConfig": {"OnSuccess": {}, "OnFailure": {}},
    }


def test_function_versions_and_aliases_have_settings_of_their_own(client: Any, name: str) -> None:
    for number, qualifier in enumerate(("$LATEST", "1", "live")):
        client.put_function_event_invoke_config(FunctionName=name, Qualifier=qualifier, MaximumRetryAttempts=number)
    pages = client.get_paginator("list_function_event_invoke_configs").paginate(
        FunctionName=name, PaginationConfig={"PageSize": 2}
    )
    found = {
        each["FunctionArn"]: each["MaximumRetryAttempts"]
        for page in pages
        for each in page["FunctionEventInvokeConfigs"]
    }
    assert found == {f"{ARN}{name}:$LATEST": 0, f"{ARN}{name}:1": 1, f"{ARN}{name}:live": 2}
    client.delete_function_event_invoke_config(FunctionName=name)
    assert client.get_function_event_invoke_config(FunctionName=name, Qualifier="live")["MaximumRetryAttempts"] == 2


def test_settings_that_are_not_there_are_told(client: Any, name: str) -> None:
    for call in (
        lambda **values: client.get_function_event_invoke_config(**values),
        lambda **values: client.delete_function_event_invoke_config(**values),
        lambda **values: client.update_function_event_invoke_config(**values, MaximumRetryAttempts=1),
    ):
        for qualifier in ("$LATEST", "live"):
            with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
                call(FunctionName=name, Qualifier=qualifier)
            assert refusal(error.value)[1] == f"The function {ARN}{name}:{qualifier} doesn't have an EventInvokeConfig"
    for values in ({"FunctionName": "nowhere"}, {"FunctionName": name, "Qualifier": "7"}):
        with pytest.raises(client.exceptions.ResourceNotFoundException, match="Function not found"):
            client.put_function_event_invoke_config(**values, MaximumRetryAttempts=1)


@pytest.mark.parametrize("operation", ["put_function_event_invoke_config", "update_function_event_invoke_config"])
@pytest.mark.parametrize(
    ("values", "code", "message"),
    [
        (
            {},
            "InvalidParameterValueException",
            "You must specify at least one of error handling or destination setting.",
        ),
        ({"MaximumRetryAttempts": 3}, "ValidationException", "less than or equal to 2"),
        ({"MaximumEventAgeInSeconds": 59}, "ValidationException", "greater than or equal to 60"),
        ({"MaximumEventAgeInSeconds": 21_601}, "ValidationException", "less than or equal to 21600"),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": ARN + "set"}}},
            "InvalidParameterValueException",
            "You can't specify the function as a destination for itself.",
        ),
        (
            {"DestinationConfig": {"OnFailure": {"Destination": ARN + "set:live"}}},
            "InvalidParameterValueException",
            "You can't specify the function as a destination for itself.",
        ),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": ARN + "nowhere"}}},
            "InvalidParameterValueException",
            f"The destination ARN {ARN}nowhere is invalid.",
        ),
        (
            {"DestinationConfig": {"OnSuccess": {"Destination": "arn:aws:s3:::results"}}},
            "InvalidParameterValueException",
            "The provided destination config DestinationConfig(onSuccess=OnSuccess(destination=arn:aws:s3:::results), "
            "onFailure=null) is invalid.",
        ),
        ({"DestinationConfig": {"OnSuccess": {"Destination": "results"}}}, "ValidationException", "destination"),
    ],
)
def test_bad_settings_are_refused_and_change_nothing(
    client: Any, server: Server, name: str, operation: str, values: dict[str, Any], code: str, message: str
) -> None:
    kept = client.put_function_event_invoke_config(FunctionName=name, MaximumRetryAttempts=1)
    with pytest.raises(client.exceptions.ClientError) as error:
        getattr(server.client(**unchecked()), operation)(FunctionName=name, **values)
    told = refusal(error.value)
    assert told[0] == code and message in told[1]
    assert shown(client.get_function_event_invoke_config(FunctionName=name)) == shown(kept)


def test_other_functions_and_buckets_for_failures_are_destinations(client: Any, name: str) -> None:
    for destinations in (
        {"OnSuccess": {"Destination": ARN + "other"}},
        {"OnFailure": {"Destination": "arn:aws:s3:::results"}},
        {"OnFailure": {"Destination": "arn:aws:events:us-east-1:000000000000:event-bus/default"}},
    ):
        put = client.put_function_event_invoke_config(FunctionName=name, DestinationConfig=destinations)
        assert {key: value for key, value in put["DestinationConfig"].items() if value} == destinations


def test_settings_go_with_what_they_belong_to(client: Any) -> None:
    new_function(client, "brief", Publish=True)
    client.create_alias(FunctionName="brief", Name="live", FunctionVersion="$LATEST")
    for qualifier in ("$LATEST", "1", "live"):
        client.put_function_event_invoke_config(FunctionName="brief", Qualifier=qualifier, MaximumRetryAttempts=1)
    client.delete_alias(FunctionName="brief", Name="live")
    client.delete_function(FunctionName="brief", Qualifier="1")
    left = client.list_function_event_invoke_configs(FunctionName="brief")["FunctionEventInvokeConfigs"]
    assert [each["FunctionArn"] for each in left] == [f"{ARN}brief:$LATEST"]
    client.delete_function(FunctionName="brief")
    new_function(client, "brief")
    assert client.list_function_event_invoke_configs(FunctionName="brief")["FunctionEventInvokeConfigs"] == []
    client.delete_function(FunctionName="brief")


def test_runtime_is_updated_as_is_said(client: Any, name: str) -> None:
    arn = client.get_function_configuration(FunctionName=name)["RuntimeVersionConfig"]["RuntimeVersionArn"]
    unset = client.get_runtime_management_config(FunctionName=name)
    assert (unset["UpdateRuntimeOn"], unset["FunctionArn"]) == ("Auto", f"{ARN}{name}:$LATEST")
    put = client.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="Manual", RuntimeVersionArn=arn)
    assert (put["UpdateRuntimeOn"], put["RuntimeVersionArn"]) == ("Manual", arn)
    assert client.get_runtime_management_config(FunctionName=name)["RuntimeVersionArn"] == arn
    assert client.get_runtime_management_config(FunctionName=name, Qualifier="1")["UpdateRuntimeOn"] == "Auto"
    put = client.put_runtime_management_config(FunctionName=name, UpdateRuntimeOn="FunctionUpdate")
    assert put["UpdateRuntimeOn"] == "FunctionUpdate" and "RuntimeVersionArn" not in put
    for values, part in (
        ({"UpdateRuntimeOn": "Auto", "RuntimeVersionArn": arn}, "with the mode Manual"),
        ({"UpdateRuntimeOn": "Manual"}, "with the mode Manual"),
        ({"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": arn[:-1]}, "not on this host"),
    ):
        with pytest.raises(client.exceptions.InvalidParameterValueException, match=part):
            client.put_runtime_management_config(FunctionName=name, **values)
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_runtime_management_config(FunctionName=name, Qualifier="7")


def test_recursion_is_stopped_unless_it_is_allowed(client: Any, server: Server, name: str) -> None:
    assert client.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Terminate"
    put = client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    assert put["RecursiveLoop"] == "Allow"
    assert client.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Allow"
    with pytest.raises(client.exceptions.ClientError, match="enum value set"):
        server.client(**unchecked()).put_function_recursion_config(FunctionName=name, RecursiveLoop="Never")
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.get_function_recursion_config(FunctionName="nowhere")

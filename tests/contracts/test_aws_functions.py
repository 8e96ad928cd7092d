"""The control plane through the official client."""

import base64
import hashlib
import json
import re
import urllib.error
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.contracts.aws_support import Server, archive, new_function, refusal, signed_post

ARN = "arn:aws:lambda:us-east-1:000000000000:function:"


@pytest.fixture(scope="module")
def existing(client: Any) -> str:
    new_function(client, "existing")
    return "existing"


def test_new_function_is_shown_pending_then_active(client: Any) -> None:
    package = archive()
    reply = new_function(client, "fresh", Description="d", Tags={"team": "a"}, Code={"ZipFile": package})
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (reply["State"], reply["StateReasonCode"]) == ("Pending", "Creating")
    assert reply["StateReason"] == "The function is being created."
    assert "LastUpdateStatus" not in reply
    assert reply["FunctionArn"] == ARN + "fresh"
    assert reply["CodeSha256"] == base64.b64encode(hashlib.sha256(package).digest()).decode()
    assert reply["CodeSize"] == len(package)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000", reply["LastModified"])
    assert re.fullmatch(r"[0-9a-f-]{36}", reply["RevisionId"])
    client.get_waiter("function_active_v2").wait(FunctionName="fresh")
    shown = client.get_function_configuration(FunctionName="fresh")
    assert (shown["State"], shown["LastUpdateStatus"]) == ("Active", "Successful")


def test_new_function_without_settings_gets_defaults(client: Any) -> None:
    shown = new_function(client, "defaults")
    assert (shown["MemorySize"], shown["Timeout"], shown["EphemeralStorage"]) == (128, 3, {"Size": 512})
    assert shown["LoggingConfig"] == {"LogFormat": "Text", "LogGroup": "/aws/lambda/defaults"}
    assert shown["SnapStart"] == {"ApplyOn": "None", "OptimizationStatus": "Off"}
    assert shown["TracingConfig"] == {"Mode": "PassThrough"}
    assert (shown["Architectures"], shown["PackageType"], shown["Version"]) == (["x86_64"], "Zip", "$LATEST")
    assert shown["Description"] == ""
    assert "Environment" not in shown and "VpcConfig" not in shown
    assert shown["RuntimeVersionConfig"]["RuntimeVersionArn"].startswith("arn:aws:lambda:us-east-1::runtime:")


def test_given_settings_are_read_back(client: Any) -> None:
    given = {
        "MemorySize": 512,
        "Timeout": 900,
        "EphemeralStorage": {"Size": 10240},
        "Environment": {"Variables": {"KEY": "väl"}},
        "Architectures": ["arm64"],
        "TracingConfig": {"Mode": "Active"},
        "LoggingConfig": {"LogFormat": "JSON", "ApplicationLogLevel": "WARN", "LogGroup": "mine"},
        "DeadLetterConfig": {"TargetArn": "arn:aws:sqs:us-east-1:000000000000:dead"},
        "KMSKeyArn": "arn:aws:kms:us-east-1:000000000000:key/1",
    }
    new_function(client, "given", VpcConfig={"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}, **given)
    shown = client.get_function_configuration(FunctionName="given")
    expected = given | {"LoggingConfig": {**given["LoggingConfig"], "SystemLogLevel": "INFO"}}  # type: ignore[dict-item]
    assert {name: shown[name] for name in given} == expected
    assert shown["VpcConfig"]["SubnetIds"] == ["subnet-1"]


@pytest.mark.parametrize(
    "name",
    ["existing", "000000000000:function:existing", ARN + "existing", "existing:$LATEST", ARN + "existing:$LATEST"],
)
def test_every_form_of_a_name_finds_the_function(client: Any, existing: str, name: str) -> None:
    shown = client.get_function(FunctionName=name)["Configuration"]
    assert shown["FunctionName"] == existing
    assert shown["FunctionArn"] == ARN + existing + (":$LATEST" if "$LATEST" in name else "")


def test_name_and_parameter_with_other_qualifiers_are_refused(client: Any, existing: str) -> None:
    with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
        client.get_function(FunctionName=existing + ":$LATEST", Qualifier="blue")
    text = "The derived qualifier from the function name does not match the specified qualifier."
    assert refusal(error.value) == ("InvalidParameterValueException", text)


def test_arn_of_another_region_is_not_reachable(client: Any) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_function(FunctionName="arn:aws:lambda:eu-west-1:000000000000:function:existing")
    assert refusal(error.value)[1] == "Functions from 'eu-west-1' are not reachable in this region ('us-east-1')"


@pytest.mark.parametrize(("qualifier", "arn"), [(None, "nothing"), ("3", "nothing:3"), ("blue", "nothing:blue")])
def test_unknown_function_is_not_found(client: Any, qualifier: str | None, arn: str) -> None:
    values = {"Qualifier": qualifier} if qualifier else {}
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_function(FunctionName="nothing", **values)
    assert refusal(error.value)[1] == f"Function not found: {ARN}{arn}"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
    assert error.value.response["Message"] == f"Function not found: {ARN}{arn}"


def test_version_that_was_never_published_is_not_found(client: Any, existing: str) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException) as error:
        client.get_function_configuration(FunctionName=existing, Qualifier="7")
    assert refusal(error.value)[1] == f"Function not found: {ARN}existing:7"


def test_taken_name_conflicts(client: Any, existing: str) -> None:
    with pytest.raises(client.exceptions.ResourceConflictException) as error:
        new_function(client, existing)
    assert refusal(error.value)[1] == "Function already exist: existing"


def test_pages_hold_every_function_once(client: Any) -> None:
    for number in range(5):
        new_function(client, f"page-{number}")
    pages = list(client.get_paginator("list_functions").paginate(PaginationConfig={"PageSize": 2}))
    names = [item["FunctionName"] for page in pages for item in page["Functions"]]
    assert len(pages) > 2
    assert names == sorted(set(names))
    assert {f"page-{number}" for number in range(5)} <= set(names)
    assert all("LastUpdateStatus" not in item for page in pages for item in page["Functions"])


def test_list_of_all_versions_has_qualified_names(client: Any, existing: str) -> None:
    items = client.list_functions(FunctionVersion="ALL")["Functions"]
    assert f"{ARN}{existing}:$LATEST" in {item["FunctionArn"] for item in items}


def test_made_up_marker_is_refused(client: Any) -> None:
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.list_functions(Marker="~~~")


def test_update_of_code_changes_hash_and_revision(client: Any) -> None:
    before = new_function(client, "update-code")
    package = archive({"app.py": "other = 1\n"})
    reply = client.update_function_code(FunctionName="update-code", ZipFile=package, Architectures=["arm64"])
    assert (reply["State"], reply["LastUpdateStatus"]) == ("Active", "InProgress")
    assert reply["LastUpdateStatusReasonCode"] == "Creating"
    client.get_waiter("function_updated_v2").wait(FunctionName="update-code")
    shown = client.get_function_configuration(FunctionName="update-code")
    assert shown["CodeSha256"] == base64.b64encode(hashlib.sha256(package).digest()).decode()
    assert shown["Architectures"] == ["arm64"]
    assert shown["RevisionId"] != before["RevisionId"]


def test_dry_run_of_code_update_changes_nothing(client: Any) -> None:
    before = new_function(client, "dry")
    reply = client.update_function_code(FunctionName="dry", ZipFile=archive({"a.py": ""}), DryRun=True)
    assert reply["RevisionId"] == before["RevisionId"]
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.update_function_code(FunctionName="dry", ZipFile=b"no zip", DryRun=True)
    assert client.get_function_configuration(FunctionName="dry")["CodeSha256"] == before["CodeSha256"]


def test_update_of_configuration_keeps_what_is_not_given(client: Any) -> None:
    new_function(client, "update-conf", Environment={"Variables": {"KEY1": "1", "KEY2": "2"}}, Timeout=10)
    client.update_function_configuration(FunctionName="update-conf", Environment={"Variables": {"KEY3": "3"}})
    shown = client.get_function_configuration(FunctionName="update-conf")
    assert (shown["Timeout"], shown["Environment"]) == (10, {"Variables": {"KEY3": "3"}})


def test_update_with_an_old_revision_fails(client: Any) -> None:
    old = new_function(client, "revised")["RevisionId"]
    client.update_function_configuration(FunctionName="revised", Timeout=5, RevisionId=old)
    with pytest.raises(client.exceptions.PreconditionFailedException) as error:
        client.update_function_configuration(FunctionName="revised", Timeout=6, RevisionId=old)
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.update_function_code(FunctionName="revised", ZipFile=archive(), RevisionId=old)
    assert refusal(error.value)[1] == (
        "The Revision Id provided does not match the latest Revision Id. "
        "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
    )


def test_deleted_function_is_gone(client: Any) -> None:
    new_function(client, "short-lived")
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.delete_function(FunctionName="short-lived", Qualifier="$LATEST")
    reply = client.delete_function(FunctionName="short-lived")
    assert reply["ResponseMetadata"]["HTTPStatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.delete_function(FunctionName="short-lived")


def test_tags_can_be_added_read_and_taken_away(client: Any) -> None:
    arn = new_function(client, "tagged", Tags={"a": "1"})["FunctionArn"]
    client.tag_resource(Resource=arn, Tags={"b": "2", "ü c": "3"})
    assert client.list_tags(Resource=arn)["Tags"] == {"a": "1", "b": "2", "ü c": "3"}
    assert client.get_function(FunctionName="tagged")["Tags"]["b"] == "2"
    client.untag_resource(Resource=arn, TagKeys=["a", "ü c"])
    assert client.list_tags(Resource=arn)["Tags"] == {"b": "2"}


def test_too_many_tags_and_tags_on_versions_are_refused(client: Any) -> None:
    arn = new_function(client, "overtagged")["FunctionArn"]
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="exceeds resource tag limit"):
        client.tag_resource(Resource=arn, Tags={f"k{number}": "" for number in range(51)})
    with pytest.raises(client.exceptions.InvalidParameterValueException, match="Please specify a function ARN"):
        client.list_tags(Resource=arn + ":$LATEST")


def test_reserved_concurrency_is_kept_and_bounded(client: Any) -> None:
    new_function(client, "reserved")
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="reserved")
    client.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=7)
    assert client.get_function(FunctionName="reserved")["Concurrency"] == {"ReservedConcurrentExecutions": 7}
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 993
    with pytest.raises(client.exceptions.InvalidParameterValueException) as error:
        client.put_function_concurrency(FunctionName="reserved", ReservedConcurrentExecutions=901)
    assert refusal(error.value)[1] == (
        "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
        "below its minimum value of [100]."
    )
    client.delete_function_concurrency(FunctionName="reserved")
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="reserved")


def test_account_settings_count_functions(client: Any, existing: str) -> None:
    settings = client.get_account_settings()
    assert settings["AccountLimit"]["CodeSizeZipped"] == 52_428_800
    assert settings["AccountUsage"]["FunctionCount"] >= 1


def test_package_can_be_fetched_from_the_location_only_with_its_signature(client: Any) -> None:
    package = archive({"location.py": "x = 1"})
    new_function(client, "located", Code={"ZipFile": package})
    code = client.get_function(FunctionName="located")["Code"]
    assert code["RepositoryType"] == "S3"
    with urllib.request.urlopen(code["Location"], timeout=10) as reply:
        assert reply.read() == package
    for forged in (code["Location"].replace("expires=", "expires=9"), code["Location"].split("?")[0]):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(forged, timeout=10)
        assert error.value.code == 403
        error.value.close()


def test_operation_of_the_model_that_is_not_built_names_itself(client: Any, existing: str) -> None:
    with pytest.raises(ClientError) as error:
        client.get_resource_policy(ResourceArn=ARN + existing)
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert refusal(error.value) == (
        "NotImplementedException",
        "The operation GetResourcePolicy is not available in this version of Torpor.",
    )


def test_path_of_no_operation_is_an_unknown_operation(server: Server) -> None:
    status, headers, body = signed_post(server, "/2015-03-31/nothing/here", b"")
    assert (status, headers["x-amzn-ErrorType"]) == (404, "UnknownOperationException")
    assert headers["Content-Type"] == "application/json"
    assert json.loads(body)["Type"] == "User"


def test_command_line_tool_reads_a_configuration(server: Server, existing: str) -> None:
    done = server.command("get-function-configuration", "--function-name", existing)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["FunctionArn"] == ARN + existing

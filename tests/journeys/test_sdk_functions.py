"""Every operation of functions through the official SDK and command line, knowing nothing but an endpoint URL."""

import base64
import io
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from tests.journeys.conftest import Deploy
from tests.support.functions import PYTHON, archive, python
from tests.support.server import ROLE, Function, TorporServer, eventually

AWS = Path(sys.executable).parent / "aws"


def answering(text: str) -> bytes:
    return archive({
        "app.py": "import time\ndef handler(event, context):\n"
        f"    time.sleep(event.get('hold', 0))\n    return {text!r}\n"
    })  # fmt: skip


@pytest.fixture
def name(server: TorporServer) -> Iterator[str]:
    """A name that is free, and free again after the test."""
    made = f"sdk-{uuid.uuid4().hex[:8]}"
    yield made
    with suppress(server.client.exceptions.ResourceNotFoundException):
        server.client.delete_function(FunctionName=made)


def create(server: TorporServer, name: str, code: bytes, **configuration: Any) -> Function:
    server.client.create_function(
        FunctionName=name,
        Role=ROLE,
        Runtime=PYTHON,
        Handler="app.handler",
        Code={"ZipFile": code},
        **{"Timeout": 10, **configuration},
    )
    return Function(server, name)


def test_function_from_creation_to_deletion(server: TorporServer, name: str) -> None:
    client = server.client
    made = client.create_function(
        FunctionName=name,
        Role=ROLE,
        Runtime=PYTHON,
        Handler="app.handler",
        Code={"ZipFile": answering("first")},
        Description="one",
        Environment={"Variables": {"STAGE": "blue"}},
        Tags={"team": "a"},
    )
    assert made["State"] == "Pending"
    assert made["FunctionArn"] == f"arn:aws:lambda:us-east-1:000000000000:function:{name}"
    client.get_waiter("function_active_v2").wait(FunctionName=name)
    found = client.get_function(FunctionName=made["FunctionArn"])
    assert found["Configuration"]["Environment"] == {"Variables": {"STAGE": "blue"}}
    assert found["Tags"] == {"team": "a"}
    assert name in [entry["FunctionName"] for page in pages(client) for entry in page["Functions"]]
    client.tag_resource(Resource=made["FunctionArn"], Tags={"owner": "b"})
    client.untag_resource(Resource=made["FunctionArn"], TagKeys=["team"])
    assert client.list_tags(Resource=made["FunctionArn"])["Tags"] == {"owner": "b"}
    assert json.loads(client.invoke(FunctionName=name)["Payload"].read()) == "first"
    client.delete_function(FunctionName=name)
    with pytest.raises(client.exceptions.ResourceNotFoundException) as refused:
        client.get_function(FunctionName=name)
    assert refused.value.response["Error"]["Message"] == f"Function not found: {made['FunctionArn']}"
    eventually(lambda: not server.environments(name), what="the end of its environments")


def pages(client: Any) -> Any:
    return client.get_paginator("list_functions").paginate()


def test_new_code_is_served_once_updated_while_the_old_call_ends_on_the_old_code(
    server: TorporServer, name: str
) -> None:
    function, client = create(server, name, answering("old")), server.client
    assert function.invoke().payload == "old"
    old = [entry["id"] for entry in function.environments()]
    running = function.start({"hold": 1.5})
    eventually(lambda: [entry for entry in function.environments() if entry["phase"] != "frozen"], what="running")
    client.update_function_code(FunctionName=name, ZipFile=answering("new"))
    client.get_waiter("function_updated_v2").wait(FunctionName=name)
    assert [function.invoke().payload for _ in range(3)] == ["new"] * 3
    assert running.result().payload == "old"
    eventually(lambda: not {entry["id"] for entry in function.environments()} & set(old), what="the old one's end")


def test_new_configuration_is_served_once_updated(server: TorporServer, name: str) -> None:
    showing = archive({"app.py": "import os\ndef handler(event, context):\n    return os.environ.get('STAGE')\n"})
    function, client = create(server, name, showing), server.client
    assert function.invoke().payload is None
    client.update_function_configuration(
        FunctionName=name, Environment={"Variables": {"STAGE": "green"}}, MemorySize=200, Timeout=5, Description="two"
    )
    client.get_waiter("function_updated_v2").wait(FunctionName=name)
    reply = function.invoke()
    assert reply.payload == "green"
    assert "Memory Size: 200 MB" in reply.report
    shown = function.configuration()
    assert (shown["Timeout"], shown["Description"], shown["LastUpdateStatus"]) == (5, "two", "Successful")


def test_update_against_an_older_revision_is_refused(server: TorporServer, name: str) -> None:
    create(server, name, answering("x"))
    client = server.client
    revision = client.get_function_configuration(FunctionName=name)["RevisionId"]
    client.update_function_configuration(FunctionName=name, Description="a", RevisionId=revision)
    with pytest.raises(client.exceptions.PreconditionFailedException):
        client.update_function_configuration(FunctionName=name, Description="b", RevisionId=revision)


def test_code_location_is_the_package_that_was_uploaded(server: TorporServer, name: str) -> None:
    code = answering("downloaded")
    create(server, name, code)
    location = server.client.get_function(FunctionName=name)["Code"]["Location"]
    with urllib.request.urlopen(location, timeout=10) as answer:
        assert answer.read() == code
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(location[:-4] + "0000", timeout=10)


def test_dry_run_checks_and_does_not_run(server: TorporServer, name: str) -> None:
    function = create(server, name, answering("x"))
    assert server.client.invoke(FunctionName=name, InvocationType="DryRun")["StatusCode"] == 204
    assert not function.environments()
    with pytest.raises(server.client.exceptions.ResourceNotFoundException):
        server.client.invoke(FunctionName="missing", InvocationType="DryRun")


def test_client_context_and_the_log_tail_reach_both_ends(deploy: Deploy) -> None:
    function = deploy(
        python("""
        def handler(event, context):
            print("seen")
            c = context.client_context
            return [c.client.installation_id, c.custom, c.env]
        """)
    )
    given = {"client": {"installation_id": "abc"}, "custom": {"k": "v"}, "env": {"locale": "de"}}
    context = base64.b64encode(json.dumps(given).encode()).decode()
    answer = function.server.client.invoke(FunctionName=function.name, ClientContext=context, LogType="Tail")
    assert json.loads(answer["Payload"].read()) == ["abc", {"k": "v"}, {"locale": "de"}]
    tail = base64.b64decode(answer["LogResult"]).decode()
    assert "seen\n" in tail
    assert tail.rstrip("\n").splitlines()[-1].startswith("REPORT RequestId: ")
    assert answer["ExecutedVersion"] == "$LATEST"


def test_concurrency_is_put_read_and_deleted(server: TorporServer, name: str) -> None:
    create(server, name, answering("x"))
    client = server.client
    assert client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=3)[
        "ReservedConcurrentExecutions"
    ] == 3  # fmt: skip
    assert client.get_function_concurrency(FunctionName=name)["ReservedConcurrentExecutions"] == 3
    assert client.get_function(FunctionName=name)["Concurrency"] == {"ReservedConcurrentExecutions": 3}
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] <= 997
    client.delete_function_concurrency(FunctionName=name)
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName=name)


def test_operation_that_is_not_built_is_raised_as_a_client_error_that_says_so(server: TorporServer, name: str) -> None:
    create(server, name, answering("x"))
    with pytest.raises(ClientError) as refused:
        server.client.list_durable_executions_by_function(FunctionName=name)
    assert refused.value.response["Error"]["Code"] == "NotImplementedException"
    assert "is not available in this version of Torpor" in refused.value.response["Error"]["Message"]
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501


def test_event_is_answered_with_202_before_it_has_run(server: TorporServer, name: str) -> None:
    function = create(server, name, answering("x"))
    answer = server.client.invoke(FunctionName=name, InvocationType="Event", Payload=json.dumps({"hold": 1}))
    assert (answer["StatusCode"], answer["Payload"].read()) == (202, b"")
    assert "ExecutedVersion" not in answer and "FunctionError" not in answer
    identity = answer["ResponseMetadata"]["RequestId"]
    assert not [line for line in function.lines() if line.startswith("REPORT ")]
    report = eventually(lambda: [line for line in function.lines() if line.startswith("REPORT ")], what="its run")
    assert report[0].startswith(f"REPORT RequestId: {identity}\t")


def aws(server: TorporServer, *arguments: str, folder: Path) -> Any:
    """What the command line prints, as JSON; it knows nothing but the endpoint's URL."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    done = subprocess.run(
        [AWS, "lambda", *arguments], env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout.strip() else None


def test_command_line_creates_invokes_updates_and_deletes(server: TorporServer, name: str, tmp_path: Path) -> None:
    (tmp_path / "one.zip").write_bytes(answering("one"))
    (tmp_path / "two.zip").write_bytes(answering("two"))
    created = ("--runtime", PYTHON, "--handler", "app.handler", "--role", ROLE, "--zip-file", "fileb://one.zip")
    assert aws(server, "create-function", "--function-name", name, *created, folder=tmp_path)["State"] == "Pending"
    aws(server, "wait", "function-active-v2", "--function-name", name, folder=tmp_path)
    payload = ("--payload", '{"hold": 0}', "out.json")
    answer = aws(server, "invoke", "--function-name", name, *payload, folder=tmp_path)
    assert answer == {"StatusCode": 200, "ExecutedVersion": "$LATEST"}
    assert json.loads((tmp_path / "out.json").read_text()) == "one"
    aws(server, "update-function-code", "--function-name", name, "--zip-file", "fileb://two.zip", folder=tmp_path)
    aws(server, "wait", "function-updated-v2", "--function-name", name, folder=tmp_path)
    aws(server, "invoke", "--function-name", name, *payload, folder=tmp_path)
    assert json.loads((tmp_path / "out.json").read_text()) == "two"
    aws(server, "delete-function", "--function-name", name, folder=tmp_path)


def test_many_updates_in_a_row_each_next_invocation_has_the_newest(server: TorporServer, name: str) -> None:
    function = create(server, name, answering("0"))
    for number in range(1, 6):
        server.client.update_function_code(FunctionName=name, ZipFile=answering(str(number)))
        assert function.invoke().payload == str(number)
    eventually(lambda: len(function.environments()) == 1, what="the older environments' end")


def test_package_is_kept_byte_by_byte(server: TorporServer, name: str) -> None:
    code = answering("kept")
    made = create(server, name, code).configuration()
    assert made["CodeSize"] == len(code)
    assert zipfile.is_zipfile(io.BytesIO(code))
    assert time.strptime(made["LastModified"].split(".")[0], "%Y-%m-%dT%H:%M:%S")
